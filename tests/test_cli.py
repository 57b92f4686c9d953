"""train.py reports a mistake in one line, and does what its flags say."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from rejections import rejected_command

from tools import report, train
from utils import ROOT, CourseError, models
from utils.experiments import EXPERIMENTS, Recipe
from utils.runs import execution, records
from utils.training.loops import make_optimizer

SMOKE = {**os.environ, "COURSE_SMOKE": "1"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("bas", "no experiment is called 'bas': expected base"),
        ("base --epoch 3", "Perhaps you meant: --epochs INT"),
        ("base --lr fast", "Error parsing --lr: could not convert string to float: 'fast'"),
        ("base --normalize False", "--normalize: 'False' is neither yes nor no"),
        ("base --seeds 0", "'0' names 0 seeds: expected 1 to 10,000 (one alone: --seed K)"),
        ("base --seeds 9-", "--seeds 9- names no seed: the last that is published is 4"),
        ("base --seed -1", "seed = -1: expected 0 to"),
        ("base --device tpu", "device 'tpu' is not available"),
        ("small_cnn --final-state --publish", "--final-state trains nothing: leave out"),
        ("base --read", "expected the path of a picture"),
        ("base --cluster there", "'there' is no address: expected one like tcp://HOST:8786"),
        ("base --ngpus 0", "--ngpus 0: expected 1 or more"),
        ("small_cnn --read five.png --retrain", "--read trains nothing: leave out --retrain"),
        ("sprint --search 3 --seeds 5", "--search trains seed 0 in this process: leave out"),
        ("sprint --search 3 --retrain", "--search trains seed 0 in this process: leave out"),
        ("sprint --search 3 --lr 0.3", "--search draws lr of sprint: leave its flag out"),
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
    assert not stop.value.code and "--l2 " in text and "learning rate; the peak, for one_cycle" in text
    assert all(f"{train.flag_of(field.name)} " in text for field in fields(Recipe))


def test_a_seed_and_seeds_name_the_runs(monkeypatch):
    seen = []
    monkeypatch.setattr(train.runs, "run", lambda experiment, seed, *rest, **options: seen.append(seed))
    monkeypatch.setattr(train, "summarize", lambda results: None)
    for argv in ([], ["--seed", "3"], ["--seeds", "2"], ["--seeds", "3-"]):
        train.main(["base", *argv])
    assert seen == [0, 3, 0, 1, 3, 4]


def test_flags_override_the_recipe_and_the_end_is_a_table(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # which pytest's plugins may import
    train.main(
        ["base", "dropout", "--data", "digits", "--batch-size", "256", "--seeds", "2", "--device", "cpu", "--retrain"]
    )
    printed, errors = capsys.readouterr()
    assert "Epoch 1: Train set: Average loss: " in printed and "/512 (" in printed and "LR = [0.004872]" in printed
    assert "batch_id" not in printed + errors  # no progress bar where nobody watches
    table = [line for line in printed.splitlines() if line.startswith(("| base ", "| dropout "))]
    assert len(table) == 4 and "in epoch 1" in table[0] and table[1].count("not kept") == 2 and "seed 1" in printed
    assert "This was a smoke run (COURSE_SMOKE)" in printed and "To use it" not in printed


R4 = ["--model", "small_cnn", "--epochs", "50", "--ngpus", "1", "--lr", "0.5", "--l2", "1", "--patience", "30"]


def test_the_reference_s_flags_do_what_they_say_and_threads_and_retrain_reach_the_run(monkeypatch, capsys):
    asked, threads = [], train.torch.get_num_threads()
    told = lambda experiment, *_, retrain, **rest: asked.append((experiment, train.torch.get_num_threads(), retrain))  # noqa: E731
    monkeypatch.setattr(train.runs, "run", told)
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(train, "summarize", lambda results: None)
    train.main([*R4, "--threads", "3", "--retrain"])
    train.torch.set_num_threads(threads)
    told = "train.py: --ngpus 1, but found 0 of them: going on with the CPU, in one process\n"
    assert capsys.readouterr().err == told and asked[0][1:] == (3, True)
    recipe = asked[0][0].recipe
    assert (recipe.model, recipe.epochs, recipe.lr, recipe.weight_decay) == ("small_cnn", 50, 0.5, 1.0)
    model = models.build(recipe.model)
    settings = make_optimizer(model, recipe).param_groups[0]
    assert (settings["weight_decay"], settings["lr"], settings["momentum"]) == (1.0, 0.5, 0.0)
    assert recipe.patience == 30 and len(settings["params"]) == len(list(model.parameters()))


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


def test_python_i_leaves_model_history_and_data_and_imports_nothing_slow_and_a_smoke_run_goes_with_its_process():
    command = [sys.executable, "-i", "train.py", *R4, "--data", "digits"]
    check = (
        "import sys; print('slow imports', {'dask', 'distributed', 'optuna'} & sys.modules.keys())\n"
        "from utils.runs import records; print('folder', records.own_root(), records.own_root().is_dir())\n"
    )
    ended = subprocess.run(command, cwd=ROOT, input=LEFT + check, capture_output=True, text=True, env=SMOKE, check=True)
    assert "left 1 Sequential digits (1, 28, 28)" in ended.stdout and "small_cnn, seed 0" in ended.stdout
    assert "slow imports set()" in ended.stdout
    [(folder, there)] = re.findall("folder (.*) (.*)", ended.stdout)
    assert there == "True" and not Path(folder).exists()


def test_outside_the_environment_one_line_says_how_to_install():
    """-S: Python without its site-packages, and so without torch."""
    for argv in (["train.py", "base"], ["-m", "tools.verify"]):
        ended = subprocess.run([sys.executable, "-S", *argv], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "is not installed for" in ended.stderr
        assert "Run the same command with" in ended.stderr or "requirements.txt" in ended.stderr
