"""Command lines and arguments that can't be meant are refused in one line, train nothing, and change no file."""

from pathlib import Path

import pytest
import torch
from rejections import rejected, rejected_command
from tiny import TINY, train

from tools import colab, export, report, verify
from tools.speed import measure
from utils import models, runs
from utils.data import voxels
from utils.runs import pretrained
from utils.training import devices


@pytest.fixture(scope="module", autouse=True)
def root(scratch_of_module):
    """A repository with a published run of tiny and one's own; nothing else is ever trained."""
    for publish in (True, False):
        train(publish=publish)
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
    "a changed recipe that was never trained": lambda: runs.load(TINY.with_recipe(lr=0.5), 0),
    "no network that takes a digit": lambda: models.build("unpadded(depth=20)"),
    "a device that is not there": lambda: devices.pick_device("cpu:9"),
    "a folder as a network": lambda: pretrained.load_pretrained("saved_dict"),
    "no ink to draw a body of": lambda: voxels.cloud(torch.zeros(28, 28).numpy()),
    "a report on nothing": lambda: report.own_report(Path("/nowhere")),
    "an export to a folder": lambda: export.export("base", Path("/"), "pt2"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_can_not_be_meant_are_rejected(case, root):
    rejected(ARGUMENTS[case], root)
