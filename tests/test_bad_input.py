"""Command lines and arguments that can't be meant are refused in one line, train nothing, and change no file."""

from pathlib import Path

import pytest
import torch
from rejections import rejected, rejected_command
from tiny import TINY

from tools import colab, export, report, verify
from tools.speed import measure
from utils import CourseError, models, runs
from utils.data import voxels
from utils.runs import pretrained, records
from utils.training import devices, loops


@pytest.fixture(scope="module", autouse=True)
def root(scratch_of_module):
    """A repository with a published run of tiny and one's own; nothing else is ever trained."""
    for publish in (True, False):
        runs.run(TINY, device="cpu", publish=publish, echo=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.runs.execution.train", lambda *_: pytest.fail("something was trained"))
        yield scratch_of_module


COMMANDS = [(report, "missing"), (verify, "x"), (export, "mnist_mediun"), (measure, "--only nothing")]
COMMANDS += [(measure, "--once x course"), (colab, 'a"b')]


@pytest.mark.parametrize(("tool", "words"), COMMANDS)
def test_words_that_a_tool_can_not_take_are_refused(tool, words, root, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("something was measured"))
    rejected_command("tool", tool.main, words.split(), root)


ARGUMENTS = {  # what a notebook may call with arguments that can't be meant
    "a seed below 0": lambda: runs.run(TINY, -1),
    "a file as root": lambda: runs.run(TINY, folder=Path("/dev/null")),
    "a root that is too long": lambda: runs.run(TINY, folder=Path("/tmp/" + "a" * 300)),
    "a changed recipe that was never trained": lambda: runs.load(TINY.with_recipe(lr=0.5), 0),
    "no network that takes a digit": lambda: models.build("unpadded(depth=20)"),
    "a network too large": lambda: models.build("unpadded(width=128,step=64,depth=12,kernel=3)"),
    "a device that is not there": lambda: devices.pick_device("cpu:9"),
    "a folder as a network": lambda: pretrained.load_pretrained("saved_dict"),
    "a number as a network": lambda: pretrained.load_pretrained(7),
    "a name that is too long": lambda: pretrained.load_pretrained("a" * 100_000),
    "no ink to draw a body of": lambda: voxels.cloud(torch.zeros(28, 28).numpy()),
    "a report on nothing": lambda: report.own_report(Path("/nowhere")),
    "an export to a folder": lambda: export.export("base", Path("/"), "pt2"),
}
OTHERS = {  # and those of which another exception is documented
    "a field that no recipe has": (lambda: TINY.with_recipe(blur=1.0), TypeError),
    "more than can be counted": (lambda: loops.Score(0.1, 0, 10**400), ValueError),
    "a normalization by nothing": (lambda: records.Normalization(0.1, 0.0), ValueError),
}


@pytest.mark.parametrize("case", [*ARGUMENTS, *OTHERS])
def test_arguments_that_can_not_be_meant_are_refused(case, root):
    action, kind = OTHERS.get(case) or (ARGUMENTS[case], CourseError)
    rejected(action, root, kind=kind)
