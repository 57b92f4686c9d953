"""train.py says what is wrong in one line, and does what its flags say."""

import os
import subprocess
import sys

import pytest

import train
from utils import ROOT, artifacts, models
from utils.experiments import EXPERIMENTS
from utils.loops import make_optimizer


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
        (["base", "--normalise", "False"], "argument --normalise: 'False' is neither yes nor no"),
        (["base", "--seeds", "0"], "argument --seeds: '0' is no seed"),
        (["base", "--device", "tpu"], "device 'tpu' is not available"),
        (["base", "--data", "mnits"], "no data set is called 'mnits': expected one of mnist"),
        (["base", "--lr", "0.02", "--publish"], "can't be published"),
        (["--model", "smal_cnn"], "no experiment is called 'smal_cnn': did you mean small_cnn"),
        (["base", "--fresh", "yes"], "data = 'mnist' with fresh: expected mnist3d"),
        (["base", "--data", "mnist3d_all"], "data = 'mnist3d_all' without fresh"),
        (["voxel_reference", "--rotate", "5"], "expected fresh, for only digits that are drawn anew can be deformed"),
        (["voxel_reference", "--fresh", "yes", "--shift", "1"], "shift = 1.0 with fresh"),
        (["small_cnn", "--valid", "0"], "early stopping needs held-out images"),
        (["small_cnn", "--final-state", "--seeds", "2"], "--final-state trains nothing: leave out"),
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


R4 = ["--model", "small_cnn", "--epochs", "50", "--ngpus", "1", "--lr", "0.5", "--l2", "1", "--patience", "30"]


def test_the_reference_s_flags_do_what_they_say(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(train.runs, "run", lambda experiment, *rest, **options: asked.append(experiment) or train.sys.exit(0))
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit):
        train.main(R4)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--ngpus 1, but found 0 of them: going on with the CPU" in said
    (found,) = asked
    assert (found.model, found.epochs, found.lr, found.weight_decay, found.patience) == ("small_cnn", 50, 0.5, 1.0, 30)
    model = models.build(found.model)
    settings = make_optimizer(model, found).param_groups[0]
    assert (settings["weight_decay"], settings["lr"], settings["momentum"]) == (1.0, 0.5, 0.0)
    assert len(settings["params"]) == len(list(model.parameters()))


def at_the_prompt(words: list[str], typed: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-i", "train.py", *words]
    return subprocess.run(
        command, cwd=ROOT, input=typed, capture_output=True, text=True, env={**os.environ, "COURSE_SMOKE": "1"}, check=True
    )


def test_python_i_leaves_model_history_and_data():
    typed = "print('left', len(history), type(model).__name__, data.name, tuple(data.test.images.shape[1:]))\n"
    ended = at_the_prompt([*R4, "--data", "digits"], typed)
    assert "left 1 Sequential digits (1, 28, 28)" in ended.stdout and "small_cnn, seed 0" in ended.stdout


def test_final_state_trains_nothing_evaluates_and_draws():
    typed = "print('left', len(history), model.training)\n"
    ended = at_the_prompt(["--model", "small_cnn", "--lr", "0.5", "--l2", "1", "--final-state"], typed)
    assert "the recipe's flags are ignored" in ended.stderr and "not trained again" in ended.stdout
    facts = artifacts.read_json(ROOT / "saved_dict" / "small_cnn.json")
    assert f"the sidecar says {facts['test']['correct']} of 10000" in ended.stdout
    assert "small_cnn_{curves,examples,mistakes,confusion,kernels,features}.png" in ended.stdout
    assert f"left {facts['epochs']} False" in ended.stdout
