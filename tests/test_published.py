"""What the repository publishes is true: weights, tables and notebooks."""

import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tiny import train

import hubconf
from tools import colab, export, measurements, report, verify
from utils import ROOT, CourseError, files, models
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import pretrained, records
from utils.runs.records import RunPaths
from utils.training.loops import Score, result_epoch

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WEIGHTS = sorted((ROOT / "saved_dict").glob("*.pth"))
NETWORKS = [path.stem for path in WEIGHTS if path.stem in EXPERIMENTS]  # of seed 0
PUBLISHED = {e.name: e for e in EXPERIMENTS.values() if (ROOT / "logs" / e.name).is_dir()}


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_state_dict_does_what_its_sidecar_says(path, mnist, request):
    facts = records.read_facts(path.with_suffix(".json"))
    real = mnist if facts.data.name == "mnist" else request.getfixturevalue(facts.data.name)
    recorded, found, verdict = verify.check(path, {facts.data.name: real})
    assert verdict == "agrees", f"{recorded} {found} {verdict}"


def test_two_evaluations_agree_within_one_tolerance():
    found = Score(0.1, 9_900, 10_000)
    assert verify.agrees(found, found) and not verify.agrees(found, replace(found, correct=found.correct - 2))
    assert not verify.agrees(found, replace(found, loss=found.loss * 1.002))


@pytest.mark.parametrize("experiment", PUBLISHED.values(), ids=PUBLISHED)
def test_logs_and_facts_agree_and_seeds_have_no_gap_and_are_of_the_present_recipe(experiment):
    """A study is honest if no seed was left out: from 0 on, without a gap, and no more than were promised."""
    found = records.published(experiment)  # of the present recipe, on the real data
    logs, facts = (sorted((ROOT / "logs" / experiment.name).glob(f"seed*.{suffix}")) for suffix in ("csv", "json"))
    assert 0 < len(found) == len(logs) == len(facts) <= experiment.seeds
    assert [record.facts.seed for record in found] == list(range(len(found)))
    sizes = {"mnist": (60_000, 10_000), "mnist3d": (10_000, 2_000), "mnist3d_all": (120_000, 2_000)}
    for told, history, row in ((record.facts, record.history, record.result_row) for record in found):
        (train, test), recipe, part = sizes[told.data.name], told.recipe, "valid" if told.recipe.valid else "test"
        assert told.name == experiment.name and told.data.whole and told.environment.processes == 1
        assert told.epochs == recipe.epochs or told.epochs == told.kept_epoch + recipe.patience
        totals = (recipe.drawn(train - recipe.valid), recipe.valid or test)
        assert all((row["train_total"], row[f"{part}_total"]) == totals for row in history) and told.test.total == test
        assert row == result_epoch(history, recipe)
        if part == "test":
            assert row["test_correct"] == told.test.correct and abs(row["test_loss"] - told.test.loss) < 1e-6
        for code in (told.code, *(one.code for one in told.continued if one.code)):
            assert "+changes" not in code.commit and code.commit != "unknown"


def test_published_state_dicts_are_those_of_published_runs_and_of_every_seed_0():
    for path in WEIGHTS:
        found = records.read_facts(path.with_suffix(".json"))
        e, run = EXPERIMENTS[found.name], RunPaths(ROOT, found.name, found.seed)
        assert e.weights and run.weights == path and path.with_suffix(".json").read_bytes() == run.facts.read_bytes()
        classes = datasets.SOURCES["mnist"].classes
        assert found.recipe == e.recipe
        assert found.use == records.Use(classes, *records.INPUTS[found.data.kind], records.LICENSE), path.name
    assert set(NETWORKS) == {name for name, e in PUBLISHED.items() if e.weights}
    assert f'license = "{records.LICENSE}"' in (ROOT / "pyproject.toml").read_text()
    assert f"license: {records.LICENSE}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_log_belongs_to_an_experiment():
    assert verify.strays() == []


# ---- trained again


def test_sprint_trained_again_gives_the_same_bits_or_on_another_machine_as_good_a_network(mnist, tmp_path, monkeypatch):
    """Elsewhere: on another processor, number of threads, torch or NumPy."""
    published, threads = records.published(EXPERIMENTS["sprint"]), torch.get_num_threads()
    monkeypatch.setenv("COURSE_SMOKE", "0")
    torch.set_num_threads(1)
    trained = train(EXPERIMENTS["sprint"], folder=tmp_path).facts
    torch.set_num_threads(threads)
    again = [one for one in measurements.reproductions() if (one.name, one.seed) == ("sprint", 0)]
    here = trained.environment  # no bit depends on Python's version
    known = {one.sha256 for one in (published[0].facts, *again) if replace(one.environment, python=here.python) == here}
    if known:
        assert trained.sha256 in known
    else:
        spread = tables.test_percents(published)
        assert abs(trained.test.percent - statistics.mean(spread)) <= 4 * statistics.stdev(spread)
        assert "within the spread" in records.against_published(EXPERIMENTS["sprint"], trained)


# ---- damaged and forged


def test_verify_refuses_what_is_not_the_trained_file(tmp_path, monkeypatch, mnist):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    path, there = (root / "saved_dict" / "mnist_ultrasmall.pth" for root in (ROOT, tmp_path))
    told, content = records.read_facts(path.with_suffix(".json")), path.read_bytes()
    flipped = content[:999] + bytes([content[999] ^ 1]) + content[1000:]
    untrained = files.to_bytes(models.build("mnist_ultrasmall").state_dict())
    for forged, sha256, verdict in (
        (untrained, hashlib.sha256(untrained).hexdigest(), "DISAGREES"),
        (flipped, told.sha256, "REFUSED.*it is not the file that was tested"),
    ):
        files.write(there, forged)
        files.write_json(there.with_suffix(".json"), replace(told, sha256=sha256))
        text, good = verify.verify(tmp_path)
        assert not good and re.search(verdict, text)


def test_what_no_network_takes_is_one_line():
    for kind, given, message in (
        ("images", Image.new("L", (20, 20)), r"images are \(20, 20\): expected \(28, 28\), .* resize them first"),
        ("voxels", torch.zeros(28, 28, dtype=torch.uint8), "are torch.uint8: expected floats, densities from 0 to 1"),
        ("voxels", torch.rand(2, 4096), r"images are \(2, 4096\): expected \(16, 16, 16\)"),
    ):
        with pytest.raises(CourseError, match=message):
            pretrained.Preprocess(0.1, 0.3, kind)(given)
    with pytest.raises(CourseError, match="'mnist_mediun': expected mnist_medium"):
        pretrained.load_pretrained("mnist_mediun")


HUB = """
import sys, torch
repo, *names = sys.argv[1:]
for name in names:
    model = torch.hub.load(repo, name, source="local", pretrained=True)
    raw = torch.rand(2, 16, 16, 16) if name.startswith("voxel") else torch.zeros(2, 28, 28, dtype=torch.uint8)
    print(name, model.training, tuple(model(model.preprocess(raw)).shape))
import utils  # the reader's own, imported after the course, and then before it
print(utils.mine, torch.hub.load(repo, "base", source="local").training, utils is sys.modules["utils"])
print([name for name in sys.modules if name.startswith("utils.")])
"""


def test_torch_hub_loads_every_published_network_and_leaves_a_reader_s_own_utils_alone(tmp_path):
    (tmp_path / "utils.py").write_text("mine = 1")
    command = [sys.executable, "-B", "-c", HUB, str(ROOT), *NETWORKS]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    expected = [*(f"{name} False (2, 10)" for name in NETWORKS), "1 True True", "[]"]
    assert ended.stdout.splitlines() == expected, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["utils.py"]


def test_torch_hub_lists_networks_alone_and_each_explains_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "owner_course_main").symlink_to(ROOT)  # as if downloaded before
    listed = torch.hub.list("owner/course:main", skip_validation=True, trust_repo=True)
    assert sorted(listed) == NETWORKS
    for name in listed:
        entry = getattr(hubconf, name)
        assert entry.__name__ == name and "pretrained (bool): If True, checks the file" in entry.__doc__


def read_metadata(path, to):
    if to == "onnx":
        return {entry.key: entry.value for entry in pytest.importorskip("onnx").load(path).metadata_props}
    if to == "safetensors":
        with safe_open(path, "pt") as file:
            return file.metadata()
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["metadata.json"])


@pytest.mark.parametrize(("name", "to"), [("base", "onnx"), ("base", "pt2"), ("frontier_99", "safetensors")])
def test_an_exported_file_gives_the_same_labels_and_states_its_use(name, to, tmp_path, mnist, monkeypatch, capsys):
    """frontier_99 shares weights."""
    if to == "pt2" and torch.__version__.startswith("2.6."):
        pytest.skip("torch 2.6 does not export what is scaled in place")
    for package in ("onnx", "onnxscript", "onnxruntime") if to == "onnx" else ():
        pytest.importorskip(package, reason="the packages of requirements-extra.txt are not installed")
    monkeypatch.setenv("COURSE_SMOKE", "0")
    path = tmp_path / "file"
    assert export.main([name, "--to", to, str(path)]) == 0
    assert "it gives 10000 of 10000 test images the same label as PyTorch" in capsys.readouterr().out
    if to == "onnx":  # the control: other weights
        same, total = export.compare("mnist_small", path)
        assert same < total
    found, facts = read_metadata(path, to), records.read_facts(ROOT / "saved_dict" / f"{name}.json")
    assert json.loads(found["classes"]) == list("0123456789") and found["license"] == "MIT"
    assert found["input"] == "(N, 1, 28, 28) uint8, 0 (black) to 255 (white), white on black"
    assert (float(found["mean"]), float(found["std"])) == (facts.normalization.mean, facts.normalization.std)
    assert found["preprocess"] == ("(x / 255 - mean) / std" if to == "safetensors" else "included in this file's graph")
    for folder in (ROOT, tmp_path, sys.prefix):  # no path of this machine
        assert str(folder).encode() not in path.read_bytes()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the pages, the notebooks and logs/runs.csv, as the tools see them."""
    for tool in (report, colab):
        monkeypatch.setattr(tool, "ROOT", tmp_path)
    for name in ("docs", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns(".*"))
    for name in ("README.md", "logs/runs.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_pages_are_what_the_logs_say_and_check_notices_a_changed_number_or_title(copied, capsys):
    assert report.main(["--check"]) == 0, capsys.readouterr().out
    changes = dict.fromkeys(("docs/voxels.md", "logs/runs.csv"), (r"(\*\*|,)9(\d)\.", r"\g<1>8\2."))
    changes["README.md"] = r"\]\(notebooks/01_base.ipynb\) \|", "!](notebooks/01_base.ipynb) |"
    for name, change in changes.items():
        text = (copied / name).read_text(encoding="utf-8")
        (copied / name).write_text(re.sub(*change, text, count=1), encoding="utf-8")
    assert report.main(["--check"]) == 1
    diffs = capsys.readouterr().out.split("\n--- ")
    for name in changes:
        [diff] = [one for one in diffs if name in one.partition("\n")[0]]
        assert diff.count("\n-") == 1, diff


def test_links_of_pages_lead_to_files():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        assert [link for link in links if link and not (path.parent / link).exists()] == []


def test_readme_s_example_prints_what_it_says(mnist, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code, printed = re.search(r"```python\n(.*?load_pretrained.*?)  # (\[.*?\])\n```", text, re.DOTALL).groups()
    exec(code, {})
    assert capsys.readouterr().out == f"{printed}\n"


# a cell with one of these has the tag `published`, or a comment states why not
SHOWS = ("tables.", "trials.", "records.", "measurements.", "runs.load(", "published=True")
SHOWS += tuple(f"notebook.{name}(" for name in ("card", "curves", "compare", "frontier", "changes", "study"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_complete_and_shows_what_is_published(path, mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))  # what a reader trained must not show
    assert report.differences(path) == [], "`make results` executes it again"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, second, third = notebook.cells[:3]
    assert second.source == colab.bootstrap(colab.stamped(second.source)), "`make colab` writes the bootstrap cell"
    assert first.cell_type == "markdown" and re.search(r"^RETRAIN = (True|False)", third.source)
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.accelerator == "GPU"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    free = [cell.source for cell in cells[2:] if report.TAG not in cell.metadata.get("tags", [])]
    assert not any(word in source for source in free for word in SHOWS if "# not recomputed" not in source)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "execute it from top to bottom"
    assert any(cell.outputs for cell in cells)
    for secret in (f"{ROOT}/", "/home/", "/root/", "/tmp/", "digits stand", "Traceback"):
        assert secret not in path.read_text(), f"{secret} in the outputs"


@pytest.mark.parametrize("address", ["git@github.com:some/course.git", "https://me:secret@github.com/some/course"])
def test_stamping_an_address_and_removing_it_changes_nothing_else(address, copied):
    """That of the git remote, of which no secret is stamped."""
    subprocess.run(["git", "init", "--quiet", copied], check=True)
    subprocess.run(["git", "-C", copied, "remote", "add", "origin", address], check=True)
    written = [copied / "README.md", *copied.glob("notebooks/**/*.*")]
    before = [path.read_bytes() for path in written]
    colab.main([])
    names = ("notebooks/01_base.ipynb", "notebooks/solutions/01_base.ipynb", "README.md")
    stamped, solution, readme = ((copied / name).read_text(encoding="utf-8") for name in names)
    assert "colab-badge.svg" in stamped and 'REPO = \\"some/course\\"  # @param' in stamped
    assert "blob/main/notebooks/solutions/01_base.ipynb" in solution
    in_colab = "https://colab.research.google.com/github/some/course/blob/main/notebooks/01_base.ipynb"
    assert "git clone https://github.com/some/course\n" in readme and f"[open]({in_colab})" in readme
    assert "secret" not in stamped + solution + readme
    colab.main([""])
    assert [path.read_bytes() for path in written] == before
