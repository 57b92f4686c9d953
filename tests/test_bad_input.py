"""Command lines and arguments that can't be meant are refused in one line, train nothing, and change no file."""

import importlib

import pytest
import torch
from rejections import ids, rejected, rejected_command
from tiny import TINY

from tools import colab, export, measurements, report, stress, verify
from tools.speed import measure
from utils import CourseError, models, runs
from utils.data import datasets, photo, voxels
from utils.experiments import Experiment
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


TOOLS = [(report, ["missing"]), (verify, ["x"]), (export, ["mnist_mediun"]), (measure, ["--repetitions", "0"])]
TOOLS += [(measure, ["--once", "x", "course"]), (colab, ['a"b']), (stress, ["--kills", "0"]), (stress, ["now"])]


@pytest.mark.parametrize(("tool", "argv"), TOOLS, ids=ids([(tool.__name__, argv) for tool, argv in TOOLS]))
def test_words_that_a_tool_can_not_take_are_refused(tool, argv, root, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("something was measured"))
    rejected_command("tool", tool.main, argv, root)


ARGUMENTS = {  # what a notebook may call with arguments that can't be meant, and the exception that is documented
    "seed below 0": (lambda: runs.run(TINY, -1), CourseError),
    "a seed that is not published": (lambda: runs.load(TINY, 9, published=True), CourseError),
    "a changed recipe published": (lambda: runs.run(TINY.with_recipe(lr=0.5), publish=True), CourseError),
    "a stranger published": (lambda: runs.run(Experiment("mine", TINY.recipe, ""), publish=True), CourseError),
    "neither own nor published": (lambda: runs.load(TINY.with_recipe(lr=0.5), 0), CourseError),
    "a file as root": (lambda: runs.run(TINY, folder=photo.Path("/dev/null")), CourseError),
    "a root that is too long": (lambda: runs.run(TINY, folder=photo.Path("/tmp/" + "a" * 300)), CourseError),
    "a field": (lambda: TINY.with_recipe(blur=1.0), TypeError),
    "images undrawn": (lambda: datasets.load("digits").undrawn(), CourseError),
    "no network that takes a digit": (lambda: models.build("unpadded(depth=20)"), CourseError),
    "a network too large": (lambda: models.build("unpadded(width=128,step=64,depth=12,kernel=3)"), CourseError),
    "pick_device": (lambda: devices.pick_device("cpu:9"), CourseError),
    "load_pretrained of a folder": (lambda: pretrained.load_pretrained("saved_dict"), CourseError),
    "load_pretrained of a number": (lambda: pretrained.load_pretrained(7), CourseError),
    "load_pretrained of what is too long": (lambda: pretrained.load_pretrained("a" * 100_000), CourseError),
    "a picture that is none": (lambda: photo.read(7), CourseError),
    "no ink to draw a body of": (lambda: voxels.cloud(torch.zeros(28, 28).numpy()), CourseError),
    "more than can be counted": (lambda: loops.Score(0.1, 0, 10**400), ValueError),
    "a normalization by nothing": (lambda: records.Normalization(0.1, 0.0), ValueError),
    "a benchmark of a device that has none": (lambda: measurements.read("tpu"), CourseError),
    "a report on nothing": (lambda: report.own_report(photo.Path("/nowhere")), CourseError),
    "an export to a folder": (lambda: export.export("base", photo.Path("/"), "pt2"), CourseError),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_can_not_be_meant_are_refused(case, root):
    action, kind = ARGUMENTS[case]
    rejected(action, root, kind=kind)
