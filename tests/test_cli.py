"""train.py says what is wrong in one line, and does what its flags say."""

import os
import subprocess
import sys

import pytest

import train
from utils import ROOT
from utils.experiments import EXPERIMENTS


def refused(words, capsys) -> str:
    """The one line that train.py says on stderr before it exits with status 2."""
    with pytest.raises(SystemExit) as stop:
        try:
            train.main(words)
        except train.CourseError as error:
            train.fail(error)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bas"], "no experiment is called 'bas': did you mean base?"),
        (["xyz"], "'xyz': expected one of base, dropout"),
        (["base", "--epoch", "3"], "--epoch is not a flag: did you mean --epochs"),
        (["base", "--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["base", "--lr", "-1"], "lr = -1.0: expected a positive number"),
        (["base", "--warmup", "1"], "warmup = 1.0: expected 0 up to (not including) 1"),
        (["base", "--epochs", "0"], "epochs = 0: expected 1 to"),
        (["base", "--optimizer", "adan"], "optimizer = 'adan': expected one of adam, adamw, sgd"),
        (["base", "--seeds", "0"], "argument --seeds: '0' is no seed"),
        (["base", "--device", "tpu"], "device 'tpu' is not available"),
        (["base", "--data", "mnits"], "no data set is called 'mnits': expected one of mnist"),
        (["base", "--lr", "0.02", "--publish"], "can't be published"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_type_instead(words, said, capsys):
    assert said in refused(words, capsys)


def test_list_shows_every_experiment(capsys):
    train.main(["--list"])
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in EXPERIMENTS) and "7,786" in printed


def test_seeds():
    assert (train.seeds("3"), train.seeds("2-4"), train.seeds("1-")) == ((0, 2), (2, 4), (1, None))


def test_flags_override_the_recipe_and_the_end_is_a_table():
    words = [sys.executable, "train.py", "base", "dropout", "--data", "digits", "--batch-size", "256", "--seeds", "2", "--device", "cpu"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COURSE_SMOKE": "1"}, check=True)
    assert "Epoch 1: Train set: Average loss: " in ended.stdout and "/512 (" in ended.stdout and "LR = [0.004872]" in ended.stdout
    assert "batch_id" not in ended.stdout + ended.stderr  # no progress bar where nobody watches
    table = [line for line in ended.stdout.splitlines() if line.startswith("| base ") or line.startswith("| dropout ")]
    assert len(table) == 4 and "in epoch 1" in table[0] and "base_seed1.pth" in table[1]
