"""`make results` rebuilds everything from nothing, in a scratch copy with a few recipes of smoke-run size."""

import os
import shutil
import subprocess
import sys

import pytest
from tiny import few_digits

from tools import verify
from utils import ROOT
from utils.experiments import EXPERIMENTS

STAND_INS = """

# stand-ins for a test: a recipe of each kind in one epoch, one seed each
FEW = "base dropout logits_alone mnist_medium mnist_small mnist_ultrasmall sprint bytes_99 voxel_best voxel_more_digits"
EXPERIMENTS = {
    name: replace(EXPERIMENTS[name].with_recipe(epochs=1, start="", **smaller), seeds=1)
    for name in FEW.split()
    for r in [EXPERIMENTS[name].recipe]
    for smaller in [{"patience": min(1, r.patience), "valid": min(64, r.valid), "images": min(64, r.images)}]
}
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A copy of the repository, committed, of which nothing is published, and its environment."""
    root = tmp_path_factory.mktemp("scratch")
    for name in ("utils", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "logs" / "benchmarks", root / "logs" / "benchmarks")
    shutil.copytree(ROOT / "docs", root / "docs")
    for name in ("train.py", "README.md", "references.json", ".gitignore"):
        shutil.copy(ROOT / name, root)
    few_digits(root / "data")
    with (root / "utils" / "experiments.py").open("a") as module:
        module.write(STAND_INS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COURSE_")}
    environment["COURSE_SMOKE"] = "0"
    command = (
        "from utils.data import datasets, voxels; voxels.TRAIN, voxels.TEST = 96, 32; "
        "print({name: datasets.load(name).fingerprint for name in datasets.PUBLISHABLE})"
    )
    printed = subprocess.check_output([sys.executable, "-c", command], cwd=root, env=environment, text=True)
    with (root / "utils" / "data" / "datasets.py").open("a") as module:
        module.write(f"\nPUBLISHABLE.update({printed.strip()})\nvoxels.TRAIN, voxels.TEST = 96, 32\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for argv in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "scratch"]):
        subprocess.run([*git, *argv], cwd=root, check=True)
    return root, environment


def call(scratch, *argv):
    root, environment = scratch
    return subprocess.run([sys.executable, *argv], cwd=root, env=environment, capture_output=True, text=True)


def test_results_are_rebuilt_from_nothing(scratch):
    root = scratch[0]
    assert not (root / "saved_dict").exists() and call(scratch, "-m", "tools.verify").returncode == 1
    argv = ["all", "--seeds", "0-", "--threads", "1", "--publish", "--quiet", "--device", "cpu"]
    trained = call(scratch, "train.py", *argv)
    assert trained.returncode == 0, trained.stderr
    drawn = call(scratch, "-m", "tools.report")
    assert drawn.returncode == 0, drawn.stderr
    names = {path.name for path in (root / "logs").iterdir()} & EXPERIMENTS.keys()
    assert len(names) == 10
    kept = {name for name in names if EXPERIMENTS[name].weights}
    assert {path.stem for path in (root / "saved_dict").glob("*.pth")} == kept
    readme, results = ((root / page).read_text(encoding="utf-8") for page in ("README.md", "docs/results.md"))
    assert all(f"[{name}](" in results for name in names) and all(f"[{name}](" in readme for name in kept)
    assert (root / "pngs" / "frontier.png").is_file()
    verified = call(scratch, "-m", "tools.verify")
    assert verified.returncode == 0 and verified.stdout.count("agrees") == len(kept), verified.stdout
    assert call(scratch, "-m", "tools.report", "--check").returncode == 0


def test_what_is_published_is_not_trained_again_and_a_changed_source_is_refused(scratch):
    root = scratch[0]
    again = call(scratch, "train.py", "base", "--publish", "--quiet", "--device", "cpu", "--threads", "1")
    assert again.returncode == 0 and "| base " in again.stdout
    with (root / "utils" / "training" / "loops.py").open("a") as module:
        module.write("\n# a change that is in no commit\n")
    rejected = call(scratch, "train.py", "base", "--publish", "--quiet", "--retrain", "--device", "cpu")
    assert rejected.returncode == 2 and "+changes" in rejected.stderr
    assert "can't be published from the commit" in rejected.stderr


FORGED = {
    "saved_dict/base.pth is missing": lambda root: (root / "saved_dict" / "base.pth").unlink(),
    "is not what logs/dropout/seed0.json says": lambda root: swap(
        root / "logs/dropout/seed0.json", '"correct": ', '"correct": 1'
    ),
    "logs/sprint/seed0.csv, line 2": lambda root: swap(root / "logs/sprint/seed0.csv", "\n1,", "\n2,"),
}


def test_verify_names_what_is_wrong(scratch, tmp_path):
    root = shutil.copytree(scratch[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    assert verify.strays(root) == []
    for finding, forge in FORGED.items():
        forge(root)
        found = verify.strays(root)
        assert any(finding in line for line in found), found


def swap(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))
