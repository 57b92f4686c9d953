"""What the repository publishes is true: weights, tables and notebooks."""

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import torch
from PIL import Image

import hubconf
from utils import ROOT, CourseError, artifacts, bench, colab, data, export, models, report
from utils.experiments import EXPERIMENTS
from utils.loops import evaluate, kept, normalise

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WEIGHTS = sorted((ROOT / "saved_dict").glob("*.pth"))
SEEDS = sorted((ROOT / "logs").glob("*/seed*.json"))


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_state_dict_does_what_its_sidecar_says(path, mnist, request):
    model, facts = artifacts.load_model(path)
    real = mnist if facts["data"]["name"] == "mnist" else request.getfixturevalue("mnist3d")
    assert facts["data"]["fingerprint"] == data.PUBLISHABLE[facts["data"]["name"]] and facts["parameters"] == models.count_parameters(model)
    score = evaluate(model, real.test, **facts["normalisation"])
    assert abs(score.correct - facts["test"]["correct"]) <= 1 and score.loss == pytest.approx(facts["test"]["loss"], rel=1e-3)
    for first, rows in enumerate(("upright", "rotated") if real.digits is not None else ()):
        assert abs(evaluate(model, real.test[first::2], **facts["normalisation"]).correct - facts[rows]["correct"]) <= 1


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_log_and_facts_agree(path):
    facts, history = artifacts.read_json(path), artifacts.read_log(path.with_suffix(".csv"))
    recipe, part = facts["recipe"], "valid" if facts["recipe"]["valid"] else "test"
    assert [row["epoch"] for row in history] == list(range(1, facts["epochs"] + 1))
    assert facts["epochs"] == recipe["epochs"] or facts["epochs"] == facts["kept_epoch"] + recipe["patience"]
    assert facts["data"]["fingerprint"] == data.PUBLISHABLE[facts["data"]["name"]] and facts["data"]["whole"]
    train, test = {"mnist": (60_000, 10_000), "mnist3d": (10_000, 2_000), "mnist3d_all": (120_000, 2_000)}[facts["data"]["name"]]
    totals = (train - recipe["valid"], recipe["valid"] or test)
    assert all((row["train_total"], row[f"{part}_total"]) == totals for row in history) and facts["test"]["total"] == test
    if part == "test":
        assert abs(history[-1]["test_correct"] - facts["test"]["correct"]) <= 1
    else:
        assert history[facts["kept_epoch"] - 1] == kept(history, EXPERIMENTS[facts["name"]])
    assert "+changes" not in facts["commit"] and facts["commit"] != "unknown"


def test_seed_0_of_every_experiment_has_its_weights():
    assert {path.stem for path in WEIGHTS} == {e.name for e in EXPERIMENTS.values() if e.weights}
    for path in WEIGHTS:
        assert artifacts.read_json(path.with_suffix(".json")) == artifacts.read_json(ROOT / "logs" / path.stem / "seed0.json")


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_log_counts_and_every_promised_seed_is_logged(experiment):
    logs = report.published_logs(experiment)
    assert len(logs) == experiment.seeds == len(list((ROOT / "logs" / experiment.name).glob("seed*.csv")))


def test_verify_finds_every_state_dict_true(mnist, monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    text, good = report.verify()
    assert good and text.count("agrees") == len(WEIGHTS)


class Code:
    def __reduce__(self):
        return os.system, ("true",)


def untrained(path):
    """A network that was never trained, in a file whose hash is right."""
    facts = artifacts.read_json(path.with_suffix(".json"))
    content = artifacts.to_bytes(models.build(facts["model"], facts["recipe"]["dropout"]).state_dict())
    return content, {**facts, "sha256": hashlib.sha256(content).hexdigest()}, "DISAGREES"


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content), artifacts.read_json(path.with_suffix(".json")), "REFUSED.*it is not the file that was tested"


def code(path):
    content = pickle.dumps(Code())
    facts = {**artifacts.read_json(path.with_suffix(".json")), "sha256": hashlib.sha256(content).hexdigest()}
    return content, facts, "REFUSED.*refused by the safe loader"


def another_network(path):
    facts = artifacts.read_json(path.with_suffix(".json"))
    content = artifacts.to_bytes({"0.weight": torch.zeros(1)})
    return content, {**facts, "sha256": hashlib.sha256(content).hexdigest()}, "REFUSED.*does not fit the network"


@pytest.mark.parametrize("damage", [untrained, flipped, code, another_network])
def test_verify_refuses_what_is_not_the_trained_file(damage, tmp_path, monkeypatch, mnist):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    content, facts, verdict = damage(ROOT / "saved_dict" / "bn_augmentation.pth")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    artifacts.write(tmp_path / "saved_dict" / "bn_augmentation.pth", content)
    artifacts.write_json(tmp_path / "saved_dict" / "bn_augmentation.json", facts)
    text, good = report.verify()
    assert not good and re.search(verdict, text)


def test_load_pretrained_classifies_whatever_holds_the_pixels(mnist):
    model, preprocess = artifacts.load_pretrained("mnist_medium")
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
    assert torch.equal(preprocess(images), normalise(images, mnist.mean, mnist.std))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(28, 28), r"images are torch.float32: expected torch.uint8"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"images are \(3, 32, 32\): expected \(28, 28\), .* resize them first"),
        (Image.new("L", (20, 20)), r"images are \(20, 20\): expected \(28, 28\)"),
    ],
    ids=["float", "size", "picture"],
)
def test_preprocessing_refuses_what_the_network_has_never_seen(images, message):
    with pytest.raises(CourseError, match=message):
        artifacts.Preprocess(0.1, 0.3)(images)


def test_preprocessing_of_a_voxel_network_takes_grids_alone():
    preprocess = artifacts.Preprocess(0.0, 1.0, voxels=True)
    grids = torch.rand(2, 16, 16, 16)
    assert torch.equal(preprocess(grids.double().numpy())[:, 0], grids) and preprocess(grids[0]).shape == (1, 1, 16, 16, 16)
    with pytest.raises(CourseError, match=r"grids are torch.uint8: expected floats, densities from 0 to 1"):
        preprocess(torch.zeros(28, 28, dtype=torch.uint8))
    with pytest.raises(CourseError, match=r"images are \(2, 4096\): expected \(16, 16, 16\)"):
        preprocess(grids.flatten(1))


def test_an_unpublished_name_gets_the_closest():
    with pytest.raises(CourseError, match="no published network is called 'mnist_mediun': expected mnist_medium"):
        artifacts.load_pretrained("mnist_mediun")


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


def test_torch_hub_refuses_another_utils(tmp_path):
    (tmp_path / "utils.py").touch()
    script = f"import sys, torch, utils; torch.hub.load({str(ROOT)!r}, 'base', source='local')"
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "ImportError: another module is imported as `utils` already" in ended.stderr


def test_onnx_gives_the_same_labels(tmp_path, mnist, monkeypatch, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the packages of requirements-extra.txt are not installed")
    monkeypatch.setenv("COURSE_SMOKE", "0")
    assert export.main(["mnist_ultrasmall", str(tmp_path / "small.onnx")]) == 0
    assert "onnxruntime gives 10000 of 10000 test images the same label" in capsys.readouterr().out


def test_onnx_of_other_weights_is_noticed(tmp_path, mnist, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the packages of requirements-extra.txt are not installed")
    export.export("base", tmp_path / "base.onnx")
    same, total = export.compare("mnist_small", tmp_path / "base.onnx")
    assert same < total


def test_family_table_is_computed():
    text = report.family_table()
    for name, count, field in (("mnist_medium", "7,632", "36"), ("mnist_small", "5,616", "20"), ("mnist_ultrasmall", "4,464", "35")):
        (row,) = [line for line in text.splitlines() if f"| {name} " in line]
        cells = [cell.strip() for cell in row.split("|")]
        size = round((ROOT / "saved_dict" / f"{name}.pth").stat().st_size / 1024)
        assert (cells[2], cells[3], cells[5]) == (count, f"{size} KB", field) and f"(saved_dict/{name}.pth)" in row
        assert cells[4] == ("3" if name == "mnist_medium" else "2")


def test_readme_is_what_the_logs_say(capsys):
    assert report.main(["--check"]) == 0, capsys.readouterr().out


def test_readme_s_example_prints_what_it_says(mnist):
    text = report.README.read_text()
    code, printed = re.search(r"```python\n(.*?load_pretrained.*?)```\n\n```\n(.*?)```", text, re.DOTALL).groups()
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == printed


def test_a_reader_s_benchmark_leaves_the_published_one_alone(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    published, before = report.read_benchmark(), report.BENCHMARK.read_bytes()
    for part in ("rows", "sizes", "floor", "profile"):
        monkeypatch.setattr(bench, {"rows": "measure"}.get(part, part), lambda *_, found=published[part]: found)
    bench.main([])
    assert report.BENCHMARK.read_bytes() == before
    assert (artifacts.own_root() / "logs" / "benchmarks" / "cpu.json").is_file()  # own_root: a temporary folder in a smoke run
    with pytest.raises(CourseError, match="only a whole benchmark on the real MNIST can be published"):
        bench.main(["--publish"])
    assert report.BENCHMARK.read_bytes() == before


def test_check_shows_a_number_typed_by_hand(tmp_path, monkeypatch, capsys):
    forged = tmp_path / "README.md"
    forged.write_text(report.README.read_text().replace("**99.", "**99.9", 1))
    monkeypatch.setattr(report, "README", forged)
    assert report.main(["--check"]) == 1
    assert "-| " in capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_complete(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, second, third = notebook.cells[:3]
    address = colab.stamped(second.source)
    assert second.source == colab.bootstrap(address), "the bootstrap cell is utils.colab.BOOTSTRAP; `make colab` writes it"
    assert first.cell_type == "markdown" and "RETRAIN = True" in third.source
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.accelerator == "GPU"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "execute it from top to bottom"
    assert any(cell.outputs for cell in cells)
    text = path.read_text()
    for secret in (f"{ROOT}/", "/home/", "/root/", "/tmp/", "digits stand", "Traceback"):
        assert secret not in text, f"{secret} in the outputs"
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert re.findall(r"^## (\w+)", prose, re.MULTILINE) == ["Target", "Data", "Model", "Train", "Results", "Analysis", "Next"]


def test_stamping_an_address_and_removing_it_changes_nothing_else(tmp_path, monkeypatch):
    for folder in (colab, artifacts):
        monkeypatch.setattr(folder, "ROOT", tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "README.md", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}
    colab.main("someone/course")
    stamped = (tmp_path / "notebooks" / "01_base.ipynb").read_text()
    assert "colab-badge.svg" in stamped and "https://github.com/someone/course" in stamped
    assert "git clone https://github.com/someone/course" in (tmp_path / "README.md").read_text()
    colab.main("")
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_notebook_01_runs_in_colab(tmp_path):
    """Colab: a folder with the notebook alone, google.colab importable, the course cloned from its stamped address."""
    if not (ROOT / ".git").exists():
        pytest.skip("this copy is no git repository, so it can't be cloned")
    (tmp_path / "stub" / "google" / "colab").mkdir(parents=True)
    (tmp_path / "stub" / "google" / "colab" / "__init__.py").touch()
    content = tmp_path / "content"
    artifacts.write(content / "01_base.ipynb", colab.stamp(ROOT / "notebooks" / "01_base.ipynb", str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "stub"), "COURSE_SMOKE": "1"}
    if os.environ.get("COURSE_DATA"):
        environment["COURSE_DATA"] = str((ROOT / os.environ["COURSE_DATA"]).resolve())
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--output", "ran", "01_base.ipynb"]
    subprocess.run(command, cwd=content, env=environment, check=True, capture_output=True, text=True)
    assert (content / "course" / "utils" / "experiments.py").is_file()
    ran = json.loads((content / "ran.ipynb").read_text())
    assert any("Epoch 1: Train set" in "".join(output.get("text", "")) for cell in ran["cells"] for output in cell.get("outputs", []))
