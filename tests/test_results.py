"""`make results` rebuilds everything from nothing, in a scratch copy with a few recipes of smoke-run size."""

import os
import shutil
import subprocess
import sys

import pytest
from tiny import few_digits

from tools import verify
from utils import ROOT
from utils.data import datasets, voxels
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
# the commands of `make results`, in one process; what the last one trains is published already
REBUILD = """
from tools import report, train, verify

assert verify.main([]) == 1
flags = ["--threads", "1", "--publish", "--device", "cpu"]
train.main(["all", "--seeds", "0-", "--quiet", *flags])
assert report.main([]) == report.main(["--check"]) == verify.main([]) == 0
print("again")
train.main(["base", *flags])
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A copy of the repository, committed, of which nothing is published; and a function that runs Python there."""
    root = tmp_path_factory.mktemp("scratch")
    for name in ("utils", "tools", "docs", "logs/benchmarks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "README.md", "references.json", ".gitignore"):
        shutil.copy(ROOT / name, root)
    few_digits(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "ROOT", root)
        patch.setattr(voxels, "TRAIN", 96)
        patch.setattr(voxels, "TEST", 32)
        patch.setenv("COURSE_SMOKE", "0")
        patch.delenv("COURSE_DATA", raising=False)
        real = {name: datasets.load(name).fingerprint for name in datasets.PUBLISHABLE}
    for module, text in (
        ("experiments", STAND_INS),
        ("data/datasets", f"\nPUBLISHABLE.update({real})\nvoxels.TRAIN, voxels.TEST = 96, 32\n"),
    ):
        with (root / "utils" / f"{module}.py").open("a") as file:
            file.write(text)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for argv in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "scratch"]):
        subprocess.run([*git, *argv], cwd=root, check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COURSE_")}
    how = {"cwd": root, "env": environment | {"COURSE_SMOKE": "0"}, "capture_output": True, "text": True}
    return root, lambda *argv: subprocess.run([sys.executable, *argv], **how)


def test_results_are_rebuilt_from_nothing_and_what_is_published_is_not_trained_again(scratch):
    root, call = scratch
    assert not (root / "saved_dict").exists()
    ended = call("-c", REBUILD)
    assert ended.returncode == 0, ended.stderr
    names = {path.name for path in (root / "logs").iterdir()} & EXPERIMENTS.keys()
    assert len(names) == 10
    kept = {name for name in names if EXPERIMENTS[name].weights}
    assert {path.stem for path in (root / "saved_dict").glob("*.pth")} == kept
    readme, results = ((root / page).read_text(encoding="utf-8") for page in ("README.md", "docs/results.md"))
    assert all(f"[{name}](" in results for name in names) and all(f"[{name}](" in readme for name in kept)
    assert (root / "pngs" / "frontier.png").is_file()
    rebuilt, _, again = ended.stdout.partition("again\n")
    assert rebuilt.count("agrees") == len(kept) and "not trained again" in again and "| base " in again


def test_verify_names_what_is_wrong(scratch, tmp_path):
    root = shutil.copytree(scratch[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    assert verify.strays(root) == []
    (root / "saved_dict" / "base.pth").unlink()
    for name, old, new in (("dropout/seed0.json", '"correct": ', '"correct": 1'), ("sprint/seed0.csv", "\n1,", "\n2,")):
        path = root / "logs" / name
        path.write_text(path.read_text().replace(old, new, 1))
    found = "\n".join(verify.strays(root))
    for finding in ("base.pth is missing", "is not what logs/dropout/seed0.json says", "sprint/seed0.csv, line 2"):
        assert finding in found
