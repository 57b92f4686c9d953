"""Command lines and arguments that can't be meant: each is refused in one line, before anything is trained, and changes no file."""

import importlib
from dataclasses import fields

import pytest
import torch
from refusals import ids, refused, refused_command
from tiny import TINY

from tools import colab, export, measurements, report, stress, train, verify
from tools.speed import measure
from utils import CourseError, models, runs
from utils.data import datasets, photo, voxels
from utils.experiments import EXPERIMENTS, RANGES, Experiment, Recipe
from utils.report import tables
from utils.runs import pretrained, records
from utils.training import devices, loops

pytest.importorskip("optuna", reason="Optuna is not there: pip install -r requirements-extra.txt")
search = importlib.import_module("tools.search")  # which needs it


@pytest.fixture(scope="module", autouse=True)
def root(scratch_of_module):
    """A repository with a published run of tiny and one's own; nothing else is ever trained."""
    for publish in (True, False):
        runs.run(TINY, device="cpu", publish=publish, echo=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.runs.execution.train", lambda *_: pytest.fail("something was trained"))
        patch.setattr(search, "HELD_OUT", 200)
        yield scratch_of_module


KINDS = {field.name: field.type for field in fields(Recipe)}
BOOLS = [name for name, kind in KINDS.items() if kind is bool]


def out_of_range(name: str) -> list[str]:
    """Values of a recipe's number that no run could use, and what is no number of its kind."""
    low, high = RANGES[name]
    beyond = [str(-1 if low == 0 else 0), str(int(high) + 1), "-1e9" if KINDS[name] is float else "-1000000000"]
    return [*beyond, *(["nan", "inf", "-inf"] if KINDS[name] is float else ["1.5", "nan", "1e3"]), "x", "", "1,5", "0x10"]


RECIPES = [
    *([train.flag_of(name), value] for name in RANGES for value in out_of_range(name)),
    *([train.flag_of(name), value] for name in BOOLS for value in ("True", "1", "", "YES", "maybe")),
    *([train.flag_of(name), value] for name in ("optimizer", "schedule", "keep") for value in ("", "x", "SGD", "sgd ", "None", "adam\n")),
    *(["--data", value] for value in ("", "MNIST", "mnits", "mnist ", "../mnist", "mnist\n", "/etc/passwd")),
    *(
        ["--network", value]
        for value in (
            "",
            "x",
            "Tiny",
            "tiny(",
            "tiny)",
            "tiny(3)",
            "tiny(width=3)",
            "tiny\0",
            "separable(width=-1)",
            "separable(width='a')",
            "separable(width=None)",
            "separable(width=24, width=24)",
            "separable(width=open('x'))",
            "separable(**{})",
            "separable(nope=1)",
            "__import__('os').system('true')",
            "tiny; import os",
            "lambda: 0",
            "models.tiny",
            "tiny()()",
            "[tiny]",
            "tiny_voxels",
            "(" * 300,
        )
    ),
    ["--patience", "2"],
    ["--schedule", "plateau"],
    ["--fresh", "yes"],
    ["--valid", "1437"],
    ["--valid", "5000"],
    ["--data", "mnist3d_all"],
    ["--data", "mnist3d"],
    ["--data", "mnist3d_published"],
    ["--data", "mnist3d", "--network", "tiny_voxels"],
    ["--data", "mnist3d", "--network", "tiny_voxels", "--rotate", "0", "--elastic", "1"],
    ["--data", "mnist3d", "--network", "tiny_voxels", "--rotate", "0", "--valid", "3"],
    ["--data", "mnist3d", "--network", "tiny_voxels", "--fresh", "yes", "--shift", "1"],
    ["--data", "mnist3d_published", "--network", "tiny_voxels", "--fresh", "yes"],
    ["--network", "tiny_voxels", "--data", "digits"],
]
WORDS = [
    *(["tiny", "--seed", value] for value in ("-1", "x", "", "1.5", "1e3", "²", "1-2", " ", str(2**63), "9" * 5000)),
    *(
        ["tiny", "--seeds", value]
        for value in ("", "0", "-1", "3-1", "a-b", "1-2-3", "1.5", "9-", "2-", "10001", "0-10000", "0-999999999999", "9" * 30, "²", "1 2")
    ),
    *(["tiny", "--device", value] for value in ("", "tpu", "CPU", "cpu:", "cpu:1", "cpu:x", "cpu:-1", "cuda:99", "cuda:x", "cpu cuda")),
    *(["tiny", "--threads", value] for value in ("0", "-1", "1025", "1.5", "x", "", "9" * 30)),
    *(["tiny", "--search", value] for value in ("0", "-1", "x", "", "1.5", "3")),
    *(["tiny", "--ngpus", value] for value in ("0", "-1", "x", "", "1.5")),
    *(
        ["tiny", "--cluster", value]
        for value in ("there", "http://h:1", "tcp://", "tcp://h", "tcp://h:x", "tcp://h:1/x", "h:8786", "tcp:/h:1", " ")
    ),
    *(["tiny", "--read", value] for value in ("missing.png", ".", "/dev/null", "\0", "a" * 300)),
    *([name] for name in ("", "x", "Tiny", "tiny ", "tin", "../tiny", "tiny\n", "tiny,base", "*", "alle")),
    *(["tiny", word] for word in ("--sed", "--epoch=3", "-x", "-1", "--lr", "--network", "--publish=yes", "--unknown", "---", "--Seeds")),
    ["tiny", "--seed", "1", "--seeds", "2"],
    ["tiny", "--model", "x"],
    ["tiny", "--model"],
    ["all", "tiny"],
    ["tiny", "--lr", "0.5", "--publish"],
    ["tiny", "--seed", "7", "--final-state"],
    ["tiny", "--lr", "0.5", "--final-state"],
    ["tiny", "--final-state", "--publish"],
    ["tiny", "--final-state", "--search", "1"],
    ["tiny", "--final-state", "--cluster"],
    ["tiny", "--read", "x.png", "--publish"],
    ["tiny", "--read", "x.png", "--final-state"],
    ["tiny", "--read", "x.png", "--search", "2"],
    ["tiny", "--read"],
    ["tiny", "--ngpus", "2", "--device", "cpu"],
    ["tiny", "--ngpus", "2", "--cluster"],
    ["tiny", "--seed", "3", "--read", "x.png"],
]


@pytest.mark.parametrize("words", RECIPES, ids=ids(RECIPES))
def test_a_recipe_that_no_run_could_use_is_refused(words, root):
    refused_command("train.py", train.main, ["tiny", *words, "--device", "cpu"], root)


@pytest.mark.parametrize("words", WORDS, ids=ids(WORDS))
def test_words_that_train_py_can_not_take_are_refused(words, root):
    refused_command("train.py", train.main, words, root)


TOOLS = [
    *(
        (report, words)
        for words in (["--chek"], ["--check", "--stale"], ["a", "b"], ["missing"], ["/dev/null"], [""], ["--check=1"], ["--"] * 2)
    ),
    *((verify, words) for words in (["x"], ["--fix"], ["-v"])),
    *((export, words) for words in ([], ["x"], ["mnist_mediun"], ["x.pth"], ["/dev/null"], ["a", "b", "c"], ["../tiny"], ["."], [""])),
    *(
        (measure, words)
        for words in (["--only", "zzz"], ["--only"], ["--repetitions", "0"], ["--repetitions", "-1"], ["--repetitions", "x"])
    ),
    *((measure, words) for words in (["--once", "x"], ["--once", "x", "course"], ["x"], ["--once"])),
    *(
        (measure, words)
        for words in (["--once", "3D-MNIST rows of 60 digits", "nobody"], ["--once", "3D-MNIST rows of 60 digits", "course", "x"])
    ),
    *((colab, words) for words in (["a/b", "c"], ['a"b'], ["a b"], ["a\nb"], ["a'b"], ["a\\b"], ["--repo"])),
    *((stress, words) for words in (["--kills", "0"], ["--kills", "-1"], ["--kills", "x"], ["now"], ["--seed", "x"])),
]


@pytest.mark.parametrize(("tool", "words"), TOOLS, ids=ids([(tool.__name__, words) for tool, words in TOOLS]))
def test_words_that_a_tool_can_not_take_are_refused(tool, words, root, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("something was measured"))
    refused_command("tool", tool.main, words, root)


NETWORK = torch.nn.Linear(1, 1)
ARGUMENTS = {  # what a notebook may call with arguments that can't be meant, and the exception that is documented
    "seed below 0": (lambda: runs.run(TINY, -1), CourseError),
    "seed too large": (lambda: runs.run(TINY, 2**63), CourseError),
    "device": (lambda: runs.run(TINY, device="tpu"), CourseError),
    "a seed that is not published": (lambda: runs.load(TINY, 9, published=True), CourseError),
    "a changed recipe read": (lambda: runs.load(TINY.but(lr=0.5), published=True), CourseError),
    "a changed recipe published": (lambda: runs.run(TINY.but(lr=0.5), publish=True), CourseError),
    "a stranger published": (lambda: runs.run(Experiment("mine", TINY.recipe, ""), publish=True), CourseError),
    "neither own nor published": (lambda: runs.load(TINY.but(lr=0.5), 0), CourseError),
    "a file as root": (lambda: runs.run(TINY, folder=photo.Path("/dev/null")), CourseError),
    "a value": (lambda: TINY.but(lr=-1.0), ValueError),
    "a type": (lambda: TINY.but(epochs="3"), ValueError),
    "a bool as a number": (lambda: TINY.but(epochs=True), ValueError),
    "a number as a bool": (lambda: TINY.but(fresh=1), ValueError),
    "not a number": (lambda: TINY.but(lr=float("nan")), ValueError),
    "a field": (lambda: TINY.but(blur=1.0), TypeError),
    "no model": (lambda: Recipe(None), ValueError),
    "data.load": (lambda: datasets.load("mnits"), CourseError),
    "data.load(None)": (lambda: datasets.load(None), CourseError),
    "data.load(3)": (lambda: datasets.load(3), CourseError),
    "hold out none": (lambda: datasets.load("digits").hold_out(0), CourseError),
    "hold out too many": (lambda: datasets.load("digits").hold_out(1437), CourseError),
    "hold out fewer than none": (lambda: datasets.load("digits").hold_out(-5), CourseError),
    "images undrawn": (lambda: datasets.load("digits").undrawn(), CourseError),
    "models.build": (lambda: models.build("x"), CourseError),
    "models.parse": (lambda: models.parse("tiny(1)"), CourseError),
    "pick_device": (lambda: devices.pick_device("cpu:9"), CourseError),
    "load_pretrained": (lambda: pretrained.load_pretrained("x"), CourseError),
    "load_pretrained of a folder": (lambda: pretrained.load_pretrained("saved_dict"), CourseError),
    "load_pretrained of nothing": (lambda: pretrained.load_pretrained(""), CourseError),
    "load_pretrained of a sidecar": (lambda: pretrained.load_pretrained("tiny.json"), CourseError),
    "load_pretrained of what is too long": (lambda: pretrained.load_pretrained("a" * 300), CourseError),
    "load_model of what is not there": (lambda: pretrained.load_model(photo.Path("missing.pth")), CourseError),
    "read_facts of what is not there": (lambda: records.read_facts(photo.Path("missing.json")), CourseError),
    "read_log of what is not there": (lambda: records.read_log(photo.Path("missing.csv")), CourseError),
    "a picture that is none": (lambda: photo.read(7), CourseError),
    "a picture that is not there": (lambda: photo.read("missing.png"), CourseError),
    "no ink to draw a body of": (lambda: voxels.cloud(torch.zeros(28, 28).numpy()), CourseError),
    "no ink among many": (lambda: voxels.pairs(torch.zeros(2, 28, 28).numpy(), (0,)), CourseError),
    "a score of nothing": (lambda: loops.Score(0.1, 0, 0), ValueError),
    "more right than there are": (lambda: loops.Score(0.1, 11, 10), ValueError),
    "a normalisation by nothing": (lambda: records.Normalisation(0.1, 0.0), ValueError),
    "a benchmark of a device that has none": (lambda: measurements.read("tpu"), CourseError),
    "floats": (lambda: pretrained.Preprocess(0.1, 0.3)(torch.zeros(28, 28)), CourseError),
    "other size": (lambda: pretrained.Preprocess(0.1, 0.3)(torch.zeros(27, 28, dtype=torch.uint8)), CourseError),
    "no axis": (lambda: pretrained.Preprocess(0.1, 0.3)(torch.tensor(3, dtype=torch.uint8)), CourseError),
    "bytes as voxels": (lambda: pretrained.Preprocess(0.0, 1.0, "voxels")(torch.zeros(16, 16, 16, dtype=torch.uint8)), CourseError),
    "rows as voxels": (lambda: pretrained.Preprocess(0.0, 1.0, "voxels")(torch.zeros(2, 4096)), CourseError),
    "a search without a space": (lambda: search.run(TINY, 3), CourseError),
    "a report on nothing": (lambda: report.own_report(photo.Path("/nowhere")), CourseError),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_can_not_be_meant_are_refused(case, root):
    action, kind = ARGUMENTS[case]
    refused(action, root, kind=kind)


def test_what_is_meant_is_not_refused(root):
    """The control: the table would notice a harness that calls everything refused."""
    assert runs.run(TINY, device="cpu", echo=False).facts.epochs == 3 and EXPERIMENTS["tiny"] is TINY
    with pytest.raises(AssertionError):
        refused_command("train.py", train.main, ["tiny", "--list"], root)
    with pytest.raises(AssertionError):
        refused_command("train.py", lambda words: (root / "new").write_text("x") and train.parse(["-x"]), [], root)
    assert "tiny" in tables.list_experiments()
