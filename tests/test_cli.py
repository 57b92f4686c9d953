"""train.py says what is wrong in one line, and does what its flags say."""

import ast
import os
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest

import train
from utils import ROOT, models
from utils.experiments import EXPERIMENTS, Recipe
from utils.runs import execution, records
from utils.training.steps import make_optimizer


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
        (["base", "--lr", "-1"], "lr = -1.0: expected 1e-12 to"),
        (["base", "--lr", "nan"], "lr = nan: expected 1e-12 to"),
        (["base", "--warmup", "1"], "warmup = 1.0: expected 0 to 0.99"),
        (["base", "--epochs", "0"], "epochs = 0: expected 1 to"),
        (["base", "--optimizer", "adan"], "optimizer = 'adan': expected one of adam, adamw, sgd"),
        (["base", "--normalise", "False"], "argument --normalise: 'False' is neither yes nor no"),
        (["base", "--seeds", "0"], "argument --seeds: '0' names 0 seeds: expected 1 to 10,000 (one alone: --seed K)"),
        (["base", "--seeds", "3-1"], "'3-1' names -1 seeds"),
        (["base", "--seeds", "x"], "argument --seeds: 'x' names no seeds: expected N, A-B or A-"),
        (["base", "--seeds", "9-"], "--seeds 9- names no seed: the last that is published is 4"),
        (["base", "--seed", "-1"], "argument --seed: '-1' is no seed: expected a number from 0"),
        (["base", "--seed", "one"], "argument --seed: 'one' is no seed"),
        (["base", "--seed", "1", "--seeds", "2"], "argument --seeds: not allowed with argument --seed"),
        (["base", "--threads", "0"], "--threads 0: expected 1 to 1024"),
        (["base", "--device", "tpu"], "device 'tpu' is not available"),
        (["base", "--data", "mnits"], "no data set is called 'mnits': expected one of mnist"),
        (["base", "--lr", "0.02", "--publish"], "can't be published"),
        (["--model", "smal_cnn"], "no experiment is called 'smal_cnn': did you mean small_cnn"),
        (["base", "--fresh", "yes"], "data = 'mnist' with fresh: expected mnist3d"),
        (["base", "--data", "mnist3d_all"], "data = 'mnist3d_all' without fresh"),
        (["voxel_reference", "--rotate", "5"], "expected fresh, for only digits drawn anew can be deformed"),
        (["voxel_reference", "--fresh", "yes", "--shift", "1"], "shift = 1.0 with fresh"),
        (["small_cnn", "--valid", "0"], "early stopping needs held-out images"),
        (["small_cnn", "--final-state", "--publish"], "--final-state trains nothing: leave out"),
        (["base", "--data", "mnist3d"], "model = 'base' takes images, but data = 'mnist3d' holds voxels"),
        (["voxel_best", "--data", "mnist"], "data = 'mnist' with fresh: expected mnist3d"),
        (["base", "--drop-at", "0"], "drop_at = 0: expected 1 to"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_type_instead(words, said, capsys):
    assert said in refused(words, capsys)


def test_list_shows_every_experiment(capsys):
    train.main(["--list"])
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in EXPERIMENTS) and "7,786" in printed


def test_seeds():
    assert [train.seed_ranges(text) for text in ("3", "2-4", "1-")] == [(0, 2), (2, 4), (1, None)] and train.seed_range("0") == (0, 0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], [0]), (["--seed", "0"], [0]), (["--seed", "3"], [3]), (["--seeds", "3"], [0, 1, 2]), (["--seeds", "3-"], [3, 4])],
)
def test_a_seed_and_seeds_are_flags_of_their_own(words, expected):
    options = train.parse(["base", *words])
    assert [seed for _, seed in train.tasks_of(train.chosen(options), options)] == expected


def test_every_field_of_a_recipe_is_a_flag_whose_help_is_the_comment_beside_it():
    actions = {flag: action for action in train.make_parser()._actions for flag in action.option_strings}
    comments = train.comments()
    assert set(comments) == {field.name for field in fields(Recipe)} and all(comments.values())
    for field in fields(Recipe):
        if field.name != "model":  # which experiments are meant
            assert actions[f"--{field.name.replace('_', '-')}"].help.replace("%%", "%") == comments[field.name]


def test_flags_override_the_recipe_and_the_end_is_a_table():
    words = [sys.executable, "train.py", "base", "dropout", "--data", "digits", "--batch-size", "256", "--seeds", "2", "--device", "cpu"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COURSE_SMOKE": "1"}, check=True)
    assert "Epoch 1: Train set: Average loss: " in ended.stdout and "/512 (" in ended.stdout and "LR = [0.004872]" in ended.stdout
    assert "batch_id" not in ended.stdout + ended.stderr  # no progress bar where nobody watches
    table = [line for line in ended.stdout.splitlines() if line.startswith("| base ") or line.startswith("| dropout ")]
    assert len(table) == 4 and "in epoch 1" in table[0] and table[1].count("not kept") == 2
    assert "This was a smoke run (COURSE_SMOKE)" in ended.stdout and "To use it" not in ended.stdout
    assert "seed 1" in ended.stdout


R4 = ["--model", "small_cnn", "--epochs", "50", "--ngpus", "1", "--lr", "0.5", "--l2", "1", "--patience", "30"]


def test_the_reference_s_flags_do_what_they_say(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(train.runs, "run", lambda experiment, *rest, **options: asked.append(experiment) or train.sys.exit(0))
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit):
        train.main(R4)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--ngpus 1, but found 0 of them: going on with the CPU" in said
    recipe = asked[0].recipe
    assert (recipe.model, recipe.epochs, recipe.lr, recipe.weight_decay, recipe.patience) == ("small_cnn", 50, 0.5, 1.0, 30)
    model = models.build(recipe.model)
    settings = make_optimizer(model, recipe).param_groups[0]
    assert (settings["weight_decay"], settings["lr"], settings["momentum"]) == (1.0, 0.5, 0.0)
    assert len(settings["params"]) == len(list(model.parameters()))


def test_threads_and_again_reach_the_run(monkeypatch):
    asked, threads = [], train.torch.get_num_threads()

    def run(*rest, **options):
        asked.append((train.torch.get_num_threads(), options["again"]))
        sys.exit(0)

    monkeypatch.setattr(train.runs, "run", run)
    for words in (["--threads", "3", "--again"], []):
        with pytest.raises(SystemExit):
            train.main(["base", *words])
    train.torch.set_num_threads(threads)
    assert asked == [(3, True), (3, False)]


def test_a_run_that_fails_leaves_the_others_and_the_same_command_does_what_is_missing(scratch, monkeypatch, capsys):
    trained, real = [], train.runs.run

    def run(experiment, seed, **options):
        if seed == 1 and len(trained) < 2:
            trained.append("failed")
            raise train.CourseError("no space left")
        return real(experiment, seed, **options)

    fit = execution.train
    monkeypatch.setattr(execution, "train", lambda *arguments: trained.append(arguments[3]) or fit(*arguments))
    monkeypatch.setattr(train.runs, "run", run)
    words = ["tiny", "--seeds", "3", "--quiet", "--device", "cpu"]
    with pytest.raises(train.CourseError, match="1 of 3 runs failed; the same command does only what is missing"):
        train.main(words)
    assert trained == [0, "failed", 2] and "tiny, seed 1, failed: no space left" in capsys.readouterr().err
    train.main(words)
    assert trained == [0, "failed", 2, 1] and capsys.readouterr().out.count("| tiny ") == 3


def at_the_prompt(words: list[str], typed: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-i", "train.py", *words]
    return subprocess.run(
        command, cwd=ROOT, input=typed, capture_output=True, text=True, env={**os.environ, "COURSE_SMOKE": "1"}, check=True
    )


def test_tensorboard_shows_each_epoch_once_also_of_a_finished_run(scratch):
    pytest.importorskip("tensorboard", reason="the packages of requirements-extra.txt are not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        train.main(["tiny", "--quiet", "--device", "cpu", "--tensorboard"])
    events = EventAccumulator(str(next((records.own_root() / "tensorboard").iterdir()))).Reload()
    history = records.read_log(next((records.own_root() / "logs").glob("*/seed0.csv")))
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert sorted(found) == ["accuracy/test", "accuracy/train", "learning rate", "loss/test", "loss/train"]
    assert found["loss/test"] == [(row["epoch"], pytest.approx(row["test_loss"], abs=1e-5)) for row in history]
    assert found["accuracy/test"] == [(row["epoch"], pytest.approx(row["test_correct"] / row["test_total"])) for row in history]


def test_python_i_leaves_model_history_and_data():
    typed = "print('left', len(history), type(model).__name__, data.name, tuple(data.test.images.shape[1:]))\n"
    ended = at_the_prompt([*R4, "--data", "digits"], typed)
    assert "left 1 Sequential digits (1, 28, 28)" in ended.stdout and "small_cnn, seed 0" in ended.stdout


def test_final_state_trains_nothing_evaluates_and_draws(scratch, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr("tools.report.portrait", lambda result: drawn.append(result) or "drawn")
    with pytest.raises(train.CourseError, match="tiny: seed 0 is not published by its present recipe"):
        train.main(["tiny", "--final-state"])
    train.main(["tiny", "--quiet", "--device", "cpu"])
    monkeypatch.setattr(train.runs, "fit", lambda *arguments: pytest.fail("trained"))
    capsys.readouterr()
    train.main(["tiny", "--final-state"])
    assert "not trained again" in capsys.readouterr().out and drawn[0].facts.recipe == EXPERIMENTS["tiny"].recipe
    assert drawn[0].log.is_relative_to(records.own_root())
    with pytest.raises(train.CourseError, match="its recipe was changed"):
        train.main(["tiny", "--lr", "0.5", "--final-state"])


def test_a_training_imports_neither_a_cluster_nor_a_compiler():
    """Each would take a second or more of every start."""
    code = (
        "import sys, train; train.main(['base', '--data', 'digits', '--epochs', '1', '--quiet', '--device', 'cpu']); "
        "assert not {'dask', 'distributed', 'optuna', 'torch._dynamo', 'torch._inductor'} & sys.modules.keys()"
    )
    environment = os.environ | {"COURSE_SMOKE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


OLD = "import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0); sys.argv = sys.argv[1:]; "


@pytest.mark.parametrize("path", ["train.py", "tools/__init__.py"])
def test_what_is_read_before_the_version_is_checked_parses_on_older_versions(path):
    ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("code", ["runpy.run_path('train.py')", "runpy.run_module('tools.verify')"])
def test_an_old_python_is_one_line(code):
    ended = subprocess.run([sys.executable, "-c", OLD + code, "train.py"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "This is Python 3.9, expected 3.10 or newer (README, Installation).\n")


@pytest.mark.skipif(os.name != "posix" or not shutil.which("make"), reason="needs make and a shell")
def test_make_checks_the_version_before_it_installs(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    old = tmp_path / "python3.9"
    old.write_text(f'#!/bin/sh\ntest $1 = -c && exec {sys.executable} -c "{OLD}exec(sys.argv[0])" "$2"\necho $@ > called\n')
    old.chmod(0o755)
    ended = subprocess.run(["make", "install", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and "This is Python 3.9, expected 3.10 or newer" in ended.stderr
    assert not (tmp_path / "called").exists() and not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("words", [["train.py", "base"], ["-m", "tools.verify"]])
def test_outside_the_environment_one_line_says_how_to_install(words):
    """-S: Python without its site-packages, and so without torch."""
    ended = subprocess.run([sys.executable, "-S", *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "is not installed for" in ended.stderr and ("Run the same command with" in ended.stderr or "requirements.txt" in ended.stderr)


def test_a_setting_that_is_neither_on_nor_off_is_one_line():
    environment = os.environ | {"COURSE_SMOKE": "2"}
    ended = subprocess.run([sys.executable, "train.py", "--list"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "train.py: COURSE_SMOKE = '2': expected 1, true, yes or on, or else 0, false, no or off\n"
