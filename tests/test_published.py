"""What the repository publishes is true: weights, tables and notebooks."""

import csv
import hashlib
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from PIL import Image

import hubconf
from tools import colab, export, measurements, report, stale, verify
from tools.speed import measure
from utils import ROOT, CourseError, files, models
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import facts, pretrained, records
from utils.runs.records import RunPaths
from utils.training.loops import evaluate, normalize, result_epoch

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WEIGHTS = sorted((ROOT / "saved_dict").glob("*.pth"))
SEEDS = sorted((ROOT / "logs").glob("*/seed*.json"))


PUBLISHED = {e.name: e for e in EXPERIMENTS.values() if (ROOT / "logs" / e.name).is_dir()}


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_state_dict_does_what_its_sidecar_says(path, mnist, request):
    """Its hash, its number of parameters and, evaluated now, its loss and correct answers, of parts of the test half
    too."""
    name = records.read_facts(path.with_suffix(".json")).data.name
    real = mnist if name == "mnist" else request.getfixturevalue(name)
    message, found, verdict = verify.check(path, {name: real})
    assert verdict == "agrees", f"{message} {found} {verdict}"


def test_one_tolerance_for_all_that_compares_two_evaluations():
    message = evaluate(models.build("base"), datasets.load("digits").test, 0.1, 0.3)
    assert verify.agrees(message, message)
    for change in ({"correct": message.correct - 2}, {"loss": message.loss * 1.002}):
        assert not verify.agrees(message, replace(message, **change))


@pytest.mark.parametrize("name", PUBLISHED)
def test_log_and_facts_agree(name):
    for path in sorted((ROOT / "logs" / name).glob("seed*.json")):
        require_agreement(records.read_record(RunPaths(ROOT, name, int(path.stem[4:]))), name)


def require_agreement(record, name):
    message, history, recipe = record.facts, record.history, record.facts.recipe
    part = "valid" if recipe.valid else "test"
    assert message.name == name
    assert message.epochs == recipe.epochs or message.epochs == message.kept_epoch + recipe.patience
    assert message.data.fingerprint == datasets.PUBLISHABLE[message.data.name] and message.data.whole
    train, test = {"mnist": (60_000, 10_000), "mnist3d": (10_000, 2_000), "mnist3d_all": (120_000, 2_000)}[
        message.data.name
    ]
    totals = (recipe.drawn(train - recipe.valid), recipe.valid or test)
    assert all((row["train_total"], row[f"{part}_total"]) == totals for row in history) and message.test.total == test
    if part == "test":
        assert (
            history[-1]["test_correct"] == message.test.correct
            and abs(history[-1]["test_loss"] - message.test.loss) < 1e-6
        )
    assert record.result_row == result_epoch(history, recipe)
    assert message.environment.processes == 1
    for code in (message.code, *(one.code for one in message.continued if one.code)):
        assert "+changes" not in code.commit and code.commit != "unknown"


def test_published_state_dicts_are_those_of_seed_0_and_no_others():
    for path in WEIGHTS:
        e, run = EXPERIMENTS[path.stem], RunPaths(ROOT, path.stem, 0)
        assert e.weights and path.with_suffix(".json").read_bytes() == run.facts.read_bytes()
        assert records.read_facts(run.facts).recipe == e.recipe
    assert {path.stem for path in WEIGHTS} == {name for name, e in PUBLISHED.items() if e.weights}


def require_seeds(published: list[int], most: int) -> None:
    """A study is honest if no seed was left out: from 0 on, without a gap, and no more than were promised."""
    assert published == list(range(len(published))) and len(published) <= most


@pytest.mark.parametrize("experiment", PUBLISHED.values(), ids=PUBLISHED)
def test_published_seeds_have_no_gap_and_are_of_the_present_recipe(experiment):
    seeds = [record.facts.seed for record in records.published(experiment)]
    require_seeds(seeds, experiment.seeds)
    assert len(seeds) == len(list((ROOT / "logs" / experiment.name).glob("seed*.csv"))) > 0


@pytest.mark.parametrize(("seeds", "most"), [([1], 5), ([0, 2], 5), ([0, 1, 2], 2)])
def test_a_gap_or_a_seed_too_many_is_noticed(seeds, most):
    with pytest.raises(AssertionError):
        require_seeds(seeds, most)


def test_every_log_belongs_to_an_experiment():
    assert verify.strays() == []


def test_verify_checks_every_state_dict(monkeypatch):
    checked = []
    monkeypatch.setattr(verify, "check", lambda path, loaded: checked.append(path) or ("", "", "agrees"))
    monkeypatch.setattr(verify, "check_ensemble", lambda loaded: ("", "", "agrees"))
    assert verify.verify()[1] and checked == WEIGHTS
    monkeypatch.setattr(verify, "check_ensemble", lambda loaded: ("", "", "DISAGREES"))
    assert not verify.verify()[1]
    monkeypatch.setattr(verify, "check_ensemble", lambda loaded: ("", "", "agrees"))
    monkeypatch.setattr(verify, "check", lambda path, loaded: ("", "", "DISAGREES" if path == WEIGHTS[3] else "agrees"))
    assert not verify.verify()[1]


# ---- trained again


AGAIN = """
import json, sys
from pathlib import Path
from utils import runs
from utils.runs import comparison
from utils.experiments import EXPERIMENTS
result = runs.run(EXPERIMENTS["sprint"], device="cpu", folder=Path(sys.argv[1]), echo=False)
facts = result.facts
print(json.dumps([facts.sha256, facts.test.percent, comparison.against_published(result.experiment, facts)]))
"""


def test_sprint_trained_again_gives_the_same_bits_or_on_another_machine_as_good_a_network(mnist, tmp_path):
    """Bit for bit on a recorded processor, threads, torch and NumPy; elsewhere within four standard deviations of the
    published seeds."""
    sprint = EXPERIMENTS["sprint"]
    published = records.published(sprint)
    if not published:
        pytest.skip("sprint is not published by its present recipe")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COURSE_SMOKE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", AGAIN, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    sha256, percent, line = json.loads(ended.stdout.splitlines()[-1])
    recorded = [
        published[0].facts,
        *(one for one in measurements.reproductions() if (one.name, one.seed) == ("sprint", 0)),
    ]
    here = replace(facts.environment(torch.device("cpu")), threads=1)
    known = {
        one.sha256 for one in recorded if replace(one.environment, python=here.python) == here
    }  # of Python no bit depends
    if known:
        assert sha256 in known
    else:
        spread = tables.test_percents(published)
        assert abs(percent - statistics.mean(spread)) <= 4 * statistics.stdev(spread) and "within the spread" in line


# ---- damaged and forged


class Code:
    def __reduce__(self):
        return os.system, ("true",)


def untrained(path):
    """A network that was never trained, in a file whose hash is right."""
    message = records.read_facts(path.with_suffix(".json"))
    content = files.to_bytes(models.build(message.recipe.model, message.recipe.dropout).state_dict())
    return content, replace(message, sha256=hashlib.sha256(content).hexdigest()), "DISAGREES"


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content), records.read_facts(path.with_suffix(".json")), "REFUSED.*it is not the file that was tested"


def code(path):
    content = pickle.dumps(Code())
    message = replace(records.read_facts(path.with_suffix(".json")), sha256=hashlib.sha256(content).hexdigest())
    return content, message, "REFUSED.*rejected by the safe loader"


def another_network(path):
    message = records.read_facts(path.with_suffix(".json"))
    content = files.to_bytes({"0.weight": torch.zeros(1)})
    return content, replace(message, sha256=hashlib.sha256(content).hexdigest()), "REFUSED.*does not fit the network"


@pytest.mark.parametrize("damage", [untrained, flipped, code, another_network])
def test_verify_refuses_what_is_not_the_trained_file(damage, tmp_path, monkeypatch, mnist):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    content, message, verdict = damage(ROOT / "saved_dict" / "bn_augmentation.pth")
    files.write(tmp_path / "saved_dict" / "bn_augmentation.pth", content)
    files.write_json(tmp_path / "saved_dict" / "bn_augmentation.json", message)
    text, good = verify.verify(tmp_path)
    assert not good and re.search(verdict, text)


def test_load_pretrained_classifies_whatever_holds_the_pixels(mnist):
    model, preprocess = pretrained.load_pretrained("mnist_medium")
    assert not model.training
    images = mnist.test.images[:20]
    labels = model(preprocess(images)).argmax(1)
    assert (labels == mnist.test.labels[:20]).sum() >= 19
    for same in (images[:, 0], images[:, 0].numpy()):
        assert torch.equal(model(preprocess(same)).argmax(1), labels)
    for one in (
        images[0, 0],
        images[0, 0].numpy(),
        Image.fromarray(images[0, 0].numpy()),
        Image.fromarray(images[0, 0].numpy()).convert("RGB"),
    ):
        assert model(preprocess(one)).argmax(1).tolist() == labels[:1].tolist()
    assert torch.equal(preprocess(images), normalize(images, mnist.mean, mnist.std))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((28, 28), 255.0), r"values are 255 to 255: expected floats from 0 \(black\) to 1, or uint8"),
        (
            torch.zeros(3, 32, 32, dtype=torch.uint8),
            r"images are \(3, 32, 32\): expected \(28, 28\), .* resize them first",
        ),
        (Image.new("L", (20, 20)), r"images are \(20, 20\): expected \(28, 28\)"),
    ],
    ids=["float", "size", "picture"],
)
def test_preprocessing_refuses_what_the_network_has_never_seen(images, message):
    with pytest.raises(CourseError, match=message):
        pretrained.Preprocess(0.1, 0.3)(images)


def test_preprocessing_of_a_voxel_network_takes_grids_alone():
    preprocess = pretrained.Preprocess(0.0, 1.0, "voxels")
    grids = torch.rand(2, 16, 16, 16)
    assert torch.equal(preprocess(grids.double().numpy())[:, 0], grids) and preprocess(grids[0]).shape == (
        1,
        1,
        16,
        16,
        16,
    )
    with pytest.raises(CourseError, match=r"grids are torch.uint8: expected floats, densities from 0 to 1"):
        preprocess(torch.zeros(28, 28, dtype=torch.uint8))
    with pytest.raises(CourseError, match=r"images are \(2, 4096\): expected \(16, 16, 16\)"):
        preprocess(grids.flatten(1))


def test_an_unpublished_name_gets_the_closest():
    with pytest.raises(
        CourseError, match="no published network or run of your own is called 'mnist_mediun': expected mnist_medium"
    ):
        pretrained.load_pretrained("mnist_mediun")


HUB = """
import sys, torch
repo, *names = sys.argv[1:]
for name in names:
    model = torch.hub.load(repo, name, source="local", pretrained=True)
    raw = torch.rand(2, 16, 16, 16) if name.startswith("voxel") else torch.zeros(2, 28, 28, dtype=torch.uint8)
    print(name, model.training, tuple(model(model.preprocess(raw)).shape))
print(torch.hub.load(repo, "base", source="local").training)
"""


def test_torch_hub_loads_every_published_network_from_another_folder(tmp_path):
    names = [path.stem for path in WEIGHTS]
    command = [sys.executable, "-c", HUB, str(ROOT), *names]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [*(f"{name} False (2, 10)" for name in names), "True"]
    assert list(tmp_path.iterdir()) == []


def test_torch_hub_s_entry_points_explain_themselves():
    for name in (path.stem for path in WEIGHTS):
        entry = getattr(hubconf, name)
        assert entry.__name__ == name and "pretrained (bool): If True, returns the published network" in entry.__doc__
    assert hubconf.base.__doc__.startswith("base: a plain network")


def test_torch_hub_lists_networks_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "owner_course_main").symlink_to(ROOT)  # as if downloaded before
    listed = torch.hub.list("owner/course:main", skip_validation=True, trust_repo=True)
    assert sorted(listed) == sorted(path.stem for path in WEIGHTS)


@pytest.mark.parametrize("before", ["import utils; ", ""], ids=["imported before", "imported after"])
def test_torch_hub_leaves_a_reader_s_own_utils_alone(before, tmp_path):
    (tmp_path / "utils.py").write_text("mine = 1")
    script = f"import torch; {before}torch.hub.load({str(ROOT)!r}, 'base', source='local', pretrained=True)"
    after = "; import sys, utils; print(utils.mine, any(name.startswith('utils.') for name in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", script + after], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout == "1 False\n", ended.stderr


NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ("safetensors",)}
NAMES_AND_FORMATS = [
    ("mnist_ultrasmall", "onnx"),
    ("mnist_ultrasmall", "pt2"),
    ("frontier_99", "safetensors"),
]  # the last shares weights


def require(to):
    if to == "pt2" and torch.__version__.startswith("2.6."):
        pytest.skip("torch 2.6 does not export what is scaled in place")
    for package in NEEDED[to]:
        pytest.importorskip(package, reason="the packages of requirements-extra.txt are not installed")


@pytest.mark.parametrize(("name", "to"), NAMES_AND_FORMATS)
def test_an_exported_file_gives_the_same_labels(name, to, tmp_path, mnist, monkeypatch, capsys):
    require(to)
    monkeypatch.setenv("COURSE_SMOKE", "0")
    assert export.main([name, str(tmp_path / "file"), "--to", to]) == 0
    assert "it gives 10000 of 10000 test images the same label as PyTorch" in capsys.readouterr().out


def test_onnx_of_other_weights_is_noticed(tmp_path, mnist):
    require("onnx")
    export.export("base", tmp_path / "base.onnx")
    same, total = export.compare("mnist_small", tmp_path / "base.onnx")
    assert same < total


def read_metadata(path, to):
    if to == "onnx":
        return {entry.key: entry.value for entry in pytest.importorskip("onnx").load(path).metadata_props}
    if to == "safetensors":
        with pytest.importorskip("safetensors").safe_open(path, "pt") as file:
            return file.metadata()
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["metadata.json"])


@pytest.mark.parametrize("to", export.FORMATS)
def test_an_exported_file_states_how_to_use_it_and_no_local_path(to, tmp_path):
    require(to)
    export.export("base", tmp_path / "file", to)
    found = read_metadata(tmp_path / "file", to)
    facts = records.read_facts(ROOT / "saved_dict" / "base.json")
    assert json.loads(found["classes"]) == list("0123456789") and found["license"] == "MIT"
    assert found["input"] == "(N, 1, 28, 28) uint8, 0 (black) to 255 (white), white on black"
    assert (float(found["mean"]), float(found["std"])) == (facts.normalization.mean, facts.normalization.std)
    assert found["preprocess"] == ("(x / 255 - mean) / std" if to == "safetensors" else "included in this file's graph")
    for folder in (ROOT, tmp_path, sys.prefix):
        assert str(folder).encode() not in (tmp_path / "file").read_bytes()


def test_two_clones_export_equal_onnx_files(tmp_path):
    require("onnx")
    clone = tmp_path / "another clone"
    for folder in ("utils", "tools", "saved_dict"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    script = "import sys; from pathlib import Path; from tools import export; export.export('base', Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "there.onnx")], cwd=clone, check=True)
    export.export("base", tmp_path / "here.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()


@pytest.mark.parametrize("folder", [".", "/", ROOT])
def test_export_to_a_folder_is_one_line(folder):
    with pytest.raises(CourseError, match=r"^\S+ is a folder: expected a file, such as \S*base\.pt2$"):
        export.export("base", Path(folder), "pt2")


def test_every_state_dict_says_how_to_use_it():
    for path in WEIGHTS:
        facts = records.read_facts(path.with_suffix(".json"))
        classes = datasets.SOURCES["mnist"].classes
        assert facts.use == records.Use(classes, *records.INPUTS[facts.data.kind], records.LICENSE), path.name
    assert f'license = "{records.LICENSE}"' in (ROOT / "pyproject.toml").read_text()
    assert f"license: {records.LICENSE}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_is_what_the_logs_say(capsys):
    assert report.main(["--check"]) == 0, capsys.readouterr().out


def test_runs_csv_holds_every_published_run_as_its_log_has_it():
    with (ROOT / "logs" / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == sorted(
        path.with_suffix(".csv").relative_to(ROOT).as_posix() for path in SEEDS
    )
    for row in rows:
        facts = json.loads((ROOT / row["file"]).with_suffix(".json").read_text())
        with (ROOT / row["file"]).open(newline="") as file:
            kept_row = list(csv.DictReader(file))[int(row["epoch"]) - 1]
        assert [row["experiment"], int(row["seed"]), int(row["parameters"])] == [
            facts["name"],
            facts["seed"],
            facts["parameters"],
        ]
        assert [int(row["correct"]), int(row["total"])] == [facts["test"]["correct"], facts["test"]["total"]]
        assert kept_row.get("test_correct", row["correct"]) == row["correct"], row["file"]
        assert float(row["percent"]) == pytest.approx(100 * int(row["correct"]) / int(row["total"]), abs=0.005)
        assert [row["device"], row["torch"]] == [facts["environment"]["device"], facts["environment"]["torch"]]
        assert row["commit"] == facts["code"]["commit"] and float(row["seconds"]) == facts["seconds"]


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A copy of the pages and of logs/runs.csv, as tools.report sees them."""
    monkeypatch.setattr(report, "ROOT", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "logs").mkdir()
    shutil.copy(ROOT / "logs" / "runs.csv", tmp_path / "logs")
    return tmp_path


@pytest.mark.parametrize("name", ["README.md", "docs/results.md", "docs/voxels.md", "logs/runs.csv"])
def test_check_notices_a_changed_number(name, pages, capsys):
    assert report.main(["--check"]) == 0
    text = (pages / name).read_text(encoding="utf-8")
    (pages / name).write_text(re.sub(r"(\*\*|,)9(\d)\.", r"\g<1>8\2.", text, count=1), encoding="utf-8")
    assert report.main(["--check"]) == 1
    assert name in (shown := capsys.readouterr().out) and "\n-" in shown


def test_check_notices_a_changed_title_of_a_lesson(pages, capsys):
    readme = pages / "README.md"
    readme.write_text(
        readme.read_text(encoding="utf-8").replace("](notebooks/01_base.ipynb) |", "!](notebooks/01_base.ipynb) |")
    )
    assert report.main(["--check"]) == 1 and "01_base.ipynb) |" in capsys.readouterr().out


@pytest.mark.parametrize(("copies", "found"), [(0, "none"), (2, "README.md, .*voxels.md")])
def test_a_section_is_on_one_page(copies, found, pages):
    start = report.WRITTEN[0].format("voxels")
    page = pages / "docs" / "voxels.md"
    page.write_text(page.read_text(encoding="utf-8").replace(start, start * (copies > 0)), encoding="utf-8")
    if copies > 1:
        with (pages / "README.md").open("a", encoding="utf-8") as readme:
            readme.write(f"{start}\n")
    with pytest.raises(CourseError, match=f"voxels.*found in .*{found}, expected in one of README.md and docs"):
        report.main(["--check"])


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.stem
)
def test_links_of_a_page_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#[^)]*)?\)", text)
    assert [link for link in links if link and not (path.parent / link).exists()] == []


def test_readme_s_example_prints_what_it_says(mnist):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code, printed = re.search(r"```python\n(.*?load_pretrained.*?)```\n\n```\n(.*?)```", text, re.DOTALL).groups()
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == printed


def test_a_reader_s_benchmark_leaves_the_published_one_alone(monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    before = measurements.path().read_bytes()
    for part in ("measure", "sizes"):
        monkeypatch.setattr(measure, part, lambda *_: {})
    for part in ("floor", "profile"):
        monkeypatch.setattr(measure, part, lambda *_: {})
    monkeypatch.setattr(measure, "speed_table", str)
    measure.main([])
    assert measurements.path().read_bytes() == before
    assert measurements.path(root=records.own_root()).is_file()  # a temporary folder in a smoke run
    with pytest.raises(CourseError, match="only a benchmark on the whole real MNIST can be published"):
        measure.main(["--publish"])
    assert measurements.path().read_bytes() == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_shows_what_is_published(path, mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))  # what a reader trained must not show
    assert stale.untagged(path) == [] and stale.differences(path) == [], "`make results` executes it again"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_complete(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, second, third = notebook.cells[:3]
    address = colab.stamped(second.source)
    assert second.source == colab.bootstrap(address), (
        "the bootstrap cell is tools.colab.BOOTSTRAP; `make colab` writes it"
    )
    assert first.cell_type == "markdown" and re.search(r"^RETRAIN = (True|False)", third.source)
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.accelerator == "GPU"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "execute it from top to bottom"
    assert any(cell.outputs for cell in cells)
    text = path.read_text()
    for secret in (f"{ROOT}/", "/home/", "/root/", "/tmp/", "digits stand", "Traceback"):
        assert secret not in text, f"{secret} in the outputs"


@pytest.fixture
def unstamped(tmp_path, monkeypatch):
    """A git checkout that holds README and notebooks, as the tool sees them."""
    monkeypatch.setattr(colab, "ROOT", tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "logs").mkdir()
    shutil.copy(ROOT / "logs" / "runs.csv", tmp_path / "logs")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def test_stamping_an_address_and_removing_it_changes_nothing_else(unstamped):
    written = [unstamped / "README.md", *unstamped.glob("notebooks/**/*.*")]
    before = [path.read_bytes() for path in written]
    colab.main(["someone/course"])
    stamped = (unstamped / "notebooks" / "01_base.ipynb").read_text()
    assert "colab-badge.svg" in stamped and 'REPO = \\"someone/course\\"  # @param' in stamped
    solution = (unstamped / "notebooks" / "solutions" / "01_base.ipynb").read_text()
    assert (
        "blob/main/notebooks/solutions/01_base.ipynb" in solution
        and 'REPO = \\"someone/course\\"  # @param' in solution
    )
    readme = (unstamped / "README.md").read_text()
    for message in (
        "git clone https://github.com/someone/course",
        "https://github.com/someone/course/actions/workflows/tests.yml/badge.svg",
        "https://github.com/someone/course/actions/workflows/pages.yml/badge.svg",
        "(https://someone.github.io/course/)",
        "[open](https://colab.research.google.com/github/someone/course/blob/main/notebooks/01_base.ipynb)",
    ):
        assert message in readme
    colab.main([""])
    assert [path.read_bytes() for path in written] == before


def test_minutes_of_a_lesson_are_the_median_of_its_logged_runs():
    runs = "experiment,seconds\nsprint,60\nsprint_994,600\nsprint,120\nbase,7\nof_an_older_version,9\n"
    assert [colab.minutes(notebook, runs) for notebook in ("12_sprint", "01_base", "15_trust")] == ["2.0", "0.1", "–"]


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/Someone/course.git",
        "git@github.com:Someone/course.git",
        "https://me:secret@github.com/Someone/course",
    ],
)
def test_an_address_that_is_not_given_is_that_of_the_remote(unstamped, address):
    subprocess.run(["git", "-C", unstamped, "remote", "add", "origin", address], check=True)
    colab.main([])
    readme = (unstamped / "README.md").read_text()
    assert "git clone https://github.com/Someone/course\n" in readme and "https://someone.github.io/course/" in readme
    assert "secret" not in readme


@pytest.mark.parametrize("address", [None, "/home/someone/course", "https://elsewhere.org/someone/course.git"])
def test_a_remote_that_is_not_on_github_is_no_address(unstamped, address):
    if address:
        subprocess.run(["git", "-C", unstamped, "remote", "add", "origin", address], check=True)
    before = (unstamped / "README.md").read_bytes()
    with pytest.raises(CourseError, match="REPO=owner/name"):
        colab.main([])
    assert (unstamped / "README.md").read_bytes() == before
