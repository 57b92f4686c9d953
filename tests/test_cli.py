"""train.py reports a mistake in one line, and does what its flags say."""

import ast
import builtins
import os
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
from rejections import rejected_command

from tools import command, report, train
from utils import ROOT, CourseError, models
from utils.experiments import EXPERIMENTS, Recipe
from utils.runs import execution, records
from utils.training.steps import make_optimizer

SMOKE = {**os.environ, "COURSE_SMOKE": "1"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("bas", "no experiment is called 'bas': expected base"),
        ("base --epoch 3", "Unrecognized options: --epoch"),
        ("base --epoch 3", "Perhaps you meant: --epochs INT"),
        ("base --lr fast", "Error parsing --lr: could not convert string to float: 'fast'"),
        ("base --lr", "--lr"),
        ("base --epochs 0", "epochs = 0: expected 1 to"),
        ("base --normalize False", "--normalize: 'False' is neither yes nor no"),
        ("base --seeds 0", "'0' names 0 seeds: expected 1 to 10,000 (one alone: --seed K)"),
        ("base --seeds x", "'x' names no seeds: expected N, A-B or A-"),
        ("base --seeds 9-", "--seeds 9- names no seed: the last that is published is 4"),
        ("base --seed -1", "'-1' is no seed: expected a number from 0"),
        ("base --seed 1 --seeds 2", "--seed K and --seeds N: expected one of them"),
        ("base --threads 0", "--threads 0: expected 1 to 1024"),
        ("base --device tpu", "device 'tpu' is not available"),
        ("base --data mnist3d", "model = 'base' takes images, but data = 'mnist3d' holds voxels"),
        ("base --lr 0.02 --publish", "can't be published"),
        ("--model smal_cnn", "no experiment is called 'smal_cnn': expected small_cnn"),
        ("small_cnn --final-state --publish", "--final-state trains nothing: leave out"),
        ("base --read", "expected the path of a picture"),
        ("base --cluster there", "'there' is no address: expected one like tcp://HOST:8786"),
        ("base --cluster --ngpus 2", "--cluster trains each network in one process: leave out --ngpus"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_type_instead(argv, message, tmp_path):
    assert message in rejected_command("train.py", train.main, argv.split(), tmp_path)


def test_list_shows_every_experiment_and_help_every_flag_with_the_comment_beside_its_field(capsys):
    train.main(["--list"])
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in EXPERIMENTS) and "7,786" in printed
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        not stop.value.code
        and all(f"{train.flag_of(field.name)} " in text for field in fields(Recipe))
        and "--l2 " in text
    )
    for comment in (
        "learning rate; the peak, for one_cycle",
        "stop after this many epochs without held-out improvement",
    ):
        assert comment in text


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], [0]),
        (["--seed", "3"], [3]),
        (["--seeds", "3"], [0, 1, 2]),
        (["--seeds", "2-4"], [2, 3, 4]),
        (["--seeds", "3-"], [3, 4]),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--final-state"], ["--read", "x.png"]], ids=["train", "final-state", "read"])
def test_a_seed_and_seeds_mean_the_same_for_every_action(argv, expected, mode, monkeypatch):
    seen = []
    for name in ("show", "print_read"):
        monkeypatch.setattr(train, name, lambda experiment, *rest: seen.append(rest[-1]))
    monkeypatch.setattr(train.runs, "run", lambda experiment, seed, *rest, **options: seen.append(seed))
    monkeypatch.setattr(train, "summarize", lambda results: None)
    train.main(["base", *argv, *mode])
    assert seen == expected


def test_flags_override_the_recipe_and_the_end_is_a_table():
    argv = [
        sys.executable,
        "train.py",
        "base",
        "dropout",
        "--data",
        "digits",
        "--batch-size",
        "256",
        "--seeds",
        "2",
        "--device",
        "cpu",
    ]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=SMOKE, check=True)
    assert (
        "Epoch 1: Train set: Average loss: " in ended.stdout
        and "/512 (" in ended.stdout
        and "LR = [0.004872]" in ended.stdout
    )
    assert "batch_id" not in ended.stdout + ended.stderr  # no progress bar where nobody watches
    table = [line for line in ended.stdout.splitlines() if line.startswith("| base ") or line.startswith("| dropout ")]
    assert len(table) == 4 and "in epoch 1" in table[0] and table[1].count("not kept") == 2
    assert "This was a smoke run (COURSE_SMOKE)" in ended.stdout and "To use it" not in ended.stdout
    assert "seed 1" in ended.stdout


R4 = ["--model", "small_cnn", "--epochs", "50", "--ngpus", "1", "--lr", "0.5", "--l2", "1", "--patience", "30"]


def test_the_reference_s_flags_do_what_they_say(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(train.runs, "run", lambda experiment, *rest, **options: asked.append(experiment))
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(train, "summarize", lambda results: None)
    train.main(R4)
    assert (
        capsys.readouterr().err == "train.py: --ngpus 1, but found 0 of them: going on with the CPU, in one process\n"
    )
    recipe = asked[0].recipe
    assert (recipe.model, recipe.epochs, recipe.lr, recipe.weight_decay, recipe.patience) == (
        "small_cnn",
        50,
        0.5,
        1.0,
        30,
    )
    model = models.build(recipe.model)
    settings = make_optimizer(model, recipe).param_groups[0]
    assert (settings["weight_decay"], settings["lr"], settings["momentum"]) == (1.0, 0.5, 0.0)
    assert len(settings["params"]) == len(list(model.parameters()))


def test_threads_and_retrain_reach_the_run(monkeypatch):
    asked, threads = [], train.torch.get_num_threads()
    monkeypatch.setattr(train, "summarize", lambda results: None)
    monkeypatch.setattr(
        train.runs, "run", lambda *rest, **options: asked.append((train.torch.get_num_threads(), options["retrain"]))
    )
    for argv in (["--threads", "3", "--retrain"], []):
        train.main(["base", *argv])
    train.torch.set_num_threads(threads)
    assert asked == [(3, True), (3, False)]


def test_a_run_that_fails_leaves_the_others_and_the_same_command_does_what_is_missing(scratch, monkeypatch, capsys):
    trained, real = [], train.runs.run

    def run(experiment, seed, *rest, **options):
        if seed == 1 and len(trained) < 2:
            trained.append("failed")
            raise CourseError("no space left")
        return real(experiment, seed, *rest, **options)

    fit = execution.train
    monkeypatch.setattr(execution, "train", lambda *arguments: trained.append(arguments[3]) or fit(*arguments))
    monkeypatch.setattr(train.runs, "run", run)
    argv = ["tiny", "--seeds", "3", "--quiet", "--device", "cpu"]
    with pytest.raises(CourseError, match="1 of 3 runs failed; the same command does only what is missing"):
        train.main(argv)
    assert trained == [0, "failed", 2] and "tiny, seed 1, failed: no space left" in capsys.readouterr().err
    train.main(argv)
    assert trained == [0, "failed", 2, 1] and capsys.readouterr().out.count("| tiny ") == 3


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
    assert found["accuracy/test"] == [
        (row["epoch"], pytest.approx(row["test_correct"] / row["test_total"])) for row in history
    ]


def test_final_state_trains_nothing_evaluates_and_draws(scratch, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(report, "portrait", lambda result: drawn.append(result) or "drawn")
    with pytest.raises(CourseError, match="tiny: seed 0 is not published by its present recipe"):
        train.main(["tiny", "--final-state"])
    train.main(["tiny", "--quiet", "--device", "cpu"])
    monkeypatch.setattr(train.runs, "fit", lambda *arguments: pytest.fail("trained"))
    capsys.readouterr()
    left = train.main(["tiny", "--final-state"])
    assert "not trained again" in capsys.readouterr().out and drawn[0].facts.recipe == EXPERIMENTS["tiny"].recipe
    assert drawn[0].log.is_relative_to(records.own_root()) and left["model"] is drawn[0].model
    with pytest.raises(CourseError, match="its recipe was changed"):
        train.main(["tiny", "--lr", "0.5", "--final-state"])


LEFT = "print('left', len(history), type(model).__name__, data.name, tuple(data.test.images.shape[1:]))\n"


def test_python_i_leaves_model_history_and_data():
    command = [sys.executable, "-i", "train.py", *R4, "--data", "digits"]
    ended = subprocess.run(command, cwd=ROOT, input=LEFT, capture_output=True, text=True, env=SMOKE, check=True)
    assert "left 1 Sequential digits (1, 28, 28)" in ended.stdout and "small_cnn, seed 0" in ended.stdout


def test_under_run_a_command_leaves_the_same_and_the_notebook_s_signals_and_a_mistake_is_one_line():
    code = (
        "import signal, sys; from IPython.core.interactiveshell import InteractiveShell\n"
        "shell, before = InteractiveShell.instance(), (signal.getsignal(signal.SIGTERM), sys.excepthook)\n"
        "shell.run_line_magic('run', 'train.py base --data digits --quiet --device cpu')\n"
        f"shell.run_cell({LEFT!r})\n"
        "shell.run_line_magic('run', 'train.py bas')\n"
        "shell.run_line_magic('run', '-m tools.report -- --chek')\n"
        "assert (signal.getsignal(signal.SIGTERM), sys.excepthook) == before"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=SMOKE, check=True
    )
    assert "left 1 Sequential digits (1, 28, 28)" in ended.stdout and "SystemExit" not in ended.stdout + ended.stderr
    assert [line.split(": ")[0] for line in ended.stderr.splitlines()] == ["train.py", "report"]


def test_idle_s_streams_need_nothing(monkeypatch):
    monkeypatch.delattr(builtins, "__IPYTHON__", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not command.interactive()
    monkeypatch.setitem(sys.modules, "idlelib.run", object())
    assert command.interactive() and command.finish(2) is None


@pytest.mark.skipif(os.name == "nt", reason="a shell that closes a stream")
def test_a_closed_standard_output_is_no_error(tmp_path):
    argv = "train.py base --data digits --device cpu"
    environment = {**os.environ, "COURSE_SMOKE": "0", "COURSE_RUNS": str(tmp_path)}
    ended = subprocess.run(
        f"exec {sys.executable} {argv} --epochs 1 >&-", shell=True, cwd=ROOT, env=environment, capture_output=True
    )
    assert (ended.returncode, ended.stderr) == (0, b"") and list(tmp_path.glob("logs/*/seed0.json"))


def test_a_training_imports_neither_a_cluster_nor_a_search_and_a_network_no_algebra():
    """Each would take a second or more of every start."""
    code = (
        "import sys; from utils import models; models.build('voxel_best(width=8)'); assert 'sympy' not in sys.modules; "
        "from tools import train; train.main(['base', '--data', 'digits', '--epochs', '1', '--quiet', '--device', 'cpu']); "
        "assert not {'dask', 'distributed', 'optuna'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=SMOKE, check=True, stdout=subprocess.DEVNULL)


OLD = "import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0); sys.argv = sys.argv[1:]; "


@pytest.mark.parametrize("path", ["train.py", "tools/__init__.py"])
def test_what_is_read_before_the_version_is_checked_parses_on_older_versions(path):
    ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("code", ["runpy.run_path('train.py')", "runpy.run_module('tools.verify')"])
def test_an_old_python_is_one_line(code):
    ended = subprocess.run([sys.executable, "-c", OLD + code, "train.py"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        1,
        "This is Python 3.9, expected 3.10 or newer (README, Installation).\n",
    )


@pytest.mark.skipif(os.name != "posix" or not shutil.which("make"), reason="needs make and a shell")
def test_make_checks_the_version_before_it_installs(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    old = tmp_path / "python3.9"
    old.write_text(
        f'#!/bin/sh\ntest $1 = -c && exec {sys.executable} -c "{OLD}exec(sys.argv[0])" "$2"\necho $@ > called\n'
    )
    old.chmod(0o755)
    ended = subprocess.run(["make", "install", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and "This is Python 3.9, expected 3.10 or newer" in ended.stderr
    assert not (tmp_path / "called").exists() and not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("argv", [["train.py", "base"], ["-m", "tools.verify"]])
def test_outside_the_environment_one_line_says_how_to_install(argv):
    """-S: Python without its site-packages, and so without torch."""
    ended = subprocess.run([sys.executable, "-S", *argv], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "is not installed for" in ended.stderr and (
        "Run the same command with" in ended.stderr or "requirements.txt" in ended.stderr
    )


def test_a_setting_that_is_neither_on_nor_off_is_one_line():
    environment = os.environ | {"COURSE_SMOKE": "2"}
    ended = subprocess.run(
        [sys.executable, "train.py", "--list"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "train.py: COURSE_SMOKE = '2': expected 1, true, yes or on, or else 0, false, no or off\n"
