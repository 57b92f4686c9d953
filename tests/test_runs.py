"""A run gives the same bits again, survives kill -9, publishes only what is real, and fails whole."""

import copy
import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from utils import ROOT, CourseError, artifacts, data, models, runs
from utils.experiments import EXPERIMENTS
from utils.loops import evaluate, fit

# Small, and every random state matters: order, augmentation (own generators) and dropout (the global one).
TINY = replace(
    EXPERIMENTS["bn_augmentation"],
    name="tiny",
    data="digits",
    epochs=3,
    batch_size=256,
    optimizer="adamw",
    lr=0.01,
    schedule="one_cycle",
    dropout=0.1,
    rotate=5.0,
)


# At this rate some epochs are worse than the one before.
NOISY = replace(TINY, name="noisy", valid=300, epochs=12, optimizer="adamw", lr=0.05, schedule="constant")


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    monkeypatch.delenv("COURSE_PUBLISH", raising=False)


def train(root, **changes):
    return runs.run(replace(TINY, **changes), device="cpu", root=root, echo=False)


def rows_without_time(log):
    with log.open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    first, again = train(tmp_path / "a"), train(tmp_path / "b")
    assert first.weights.read_bytes() == again.weights.read_bytes()
    assert rows_without_time(first.log) == rows_without_time(again.log)
    other = runs.run(TINY, seed=1, device="cpu", root=tmp_path / "c", echo=False)
    assert other.weights.read_bytes() != first.weights.read_bytes()


def test_files_hold_what_the_rules_ask_for(tmp_path):
    result = train(tmp_path)
    header = result.log.read_text().splitlines()[0]
    assert header == "epoch,lr,train_loss,train_correct,train_total,test_loss,test_correct,test_total,seconds"
    facts = json.loads(result.log.with_suffix(".json").read_text())
    assert facts["recipe"] == TINY.recipe() and facts["seed"] == 0 and facts["epochs"] == 3
    assert facts["data"]["name"] == "digits" and len(facts["data"]["fingerprint"]) == 64
    assert facts["environment"]["threads"] == torch.get_num_threads() and facts["environment"]["torch"] == torch.__version__
    assert {"commit", "started", "finished", "sha256", "parameters", "normalisation", "test"} <= set(facts)
    model, sidecar = artifacts.load_model(result.weights)
    assert sidecar == facts == result.facts
    score = evaluate(model, result.data.test, **facts["normalisation"])
    assert score._asdict() == facts["test"]
    assert abs(score.correct - result.history[-1]["test_correct"]) <= 1
    assert not list((tmp_path / "unfinished").glob("*"))


SCRIPT = """
import json, sys
from pathlib import Path
from utils import CourseError, runs
from utils.experiments import Experiment
try:
    runs.run(Experiment(teaches="", **json.loads(sys.argv[1])), device="cpu", root=Path(sys.argv[2]))
except CourseError as error:
    print(error)
"""


def start(root, experiment):
    command = [sys.executable, "-c", SCRIPT, json.dumps(experiment.recipe()), str(root)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_epoch(process, number):
    for line in process.stdout:
        if line.startswith(f"Epoch {number}:"):
            return
    raise AssertionError(f"the run ended before epoch {number}")


def test_run_killed_with_kill_9_ends_as_the_uninterrupted_one(tmp_path):
    experiment = replace(TINY, epochs=5)
    assert start(tmp_path / "whole", experiment).wait() == 0
    for epoch, delay in ((1, 0.0), (3, 0.15)):  # while a checkpoint is written, and in mid-epoch
        process = start(tmp_path / "killed", experiment)
        wait_for_epoch(process, epoch)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    process = start(tmp_path / "killed", experiment)
    output = process.communicate()[0]
    assert process.returncode == 0 and "continuing after epoch" in output
    weights, logs = (
        [where(tmp_path / run) for run in ("whole", "killed")]
        for where in (lambda root: artifacts.weights_path(root, "tiny"), lambda root: artifacts.log_path(root, "tiny", 0))
    )
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert rows_without_time(logs[0]) == rows_without_time(logs[1])


def test_early_stopping_survives_a_kill(tmp_path):
    experiment = replace(NOISY, patience=2)
    assert start(tmp_path / "whole", experiment).wait() == 0
    epochs = json.loads(artifacts.log_path(tmp_path / "whole", "noisy", 0).with_suffix(".json").read_text())["epochs"]
    process = start(tmp_path / "killed", experiment)
    wait_for_epoch(process, epochs - 1)  # after the best epoch: its weights must be in the checkpoint
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(tmp_path / "killed", experiment).wait() == 0
    whole, killed = (artifacts.weights_path(tmp_path / run, "noisy").read_bytes() for run in ("whole", "killed"))
    assert whole == killed


def test_ctrl_c_says_where_it_will_continue(tmp_path):
    experiment = replace(TINY, epochs=500)
    process = start(tmp_path, experiment)
    wait_for_epoch(process, 2)
    process.send_signal(signal.SIGINT)
    assert "The same command continues it after its last finished epoch" in process.communicate()[0]
    assert artifacts.checkpoint_path(tmp_path, experiment.recipe(), 0).is_file()


def weights_after(replaced: dict | None = None) -> tuple[dict, dict]:
    """State dicts after three epochs: uninterrupted, and continued after the first with some random states replaced."""
    digits, states = data.load("digits"), []

    def begin():
        torch.manual_seed(0)
        return models.build(TINY.model, TINY.dropout)

    whole = begin()
    fit(whole, digits, TINY, after_epoch=lambda training: states.append(copy.deepcopy(training.state_dict())), echo=False)
    again = begin()
    fit(again, digits, TINY, state={**states[0], **(replaced or {})}, echo=False)
    return whole.state_dict(), again.state_dict()


def equal(one: dict, other: dict) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "change",
    [
        {"data": "digits", "valid": 300},
        {"normalise": False},
        {"epochs": 2},
        {"batch_size": 300},
        {"optimizer": "sgd"},
        {"optimizer": "heavy_ball"},
        {"lr": 0.02},
        {"weight_decay": 0.1},
        {"schedule": "constant"},
        {"warmup": 0.5},
        {"dropout": 0.2},
        {"label_smoothing": 0.1},
        {"rotate": 9.0},
        {"shift": 1.0},
        {"scale": 0.3},
        {"shear": 9.0},
        {"schedule": "step", "drop_at": 1},
        {"model": "base"},
    ],
    ids=str,
)
def test_every_field_of_a_recipe_reaches_the_weights(change, tmp_path):
    short = replace(TINY, epochs=1, batch_size=200)
    before, after = (runs.run(e, device="cpu", root=tmp_path, echo=False) for e in (short, replace(short, **change)))
    one, other = before.model.state_dict(), after.model.state_dict()
    assert one.keys() != other.keys() or not equal(one, other)


def test_continued_training_is_exact():
    assert equal(*weights_after())


@pytest.mark.parametrize("state", ["order", "augment", "torch"])
def test_continuing_without_one_random_state_is_noticed(state):
    fresh = torch.Generator().manual_seed(0).get_state()
    assert not equal(*weights_after({state: fresh}))


def test_evaluation_draws_no_random_number_and_keeps_the_mode():
    digits = data.load("digits")
    model = models.build("bn_augmentation", 0.5).train()
    before, weights = torch.get_rng_state(), artifacts.to_bytes(model.state_dict())
    score = evaluate(model, digits.test, digits.mean, digits.std)
    assert torch.equal(before, torch.get_rng_state()) and model.training
    assert artifacts.to_bytes(model.state_dict()) == weights
    assert score.total == 360 and score.correct == round(score.percent * 3.6)


def test_accuracy_is_over_the_whole_set_not_a_mean_of_batches():
    class Constant(torch.nn.Module):
        def forward(self, images):
            return torch.eye(10)[torch.zeros(len(images), dtype=torch.int64)]

    split = data.Split(torch.zeros(1001, 1, 28, 28, dtype=torch.uint8), torch.tensor([0] * 1000 + [1]))
    assert evaluate(Constant(), split, 0.0, 1.0)[1:] == (1000, 1001)  # a mean of the batches of 1,000 would say 50 %


def test_held_out_images_take_the_test_set_s_place_in_the_log(tmp_path):
    result = train(tmp_path, valid=200, epochs=1)
    assert {"valid_loss", "valid_correct", "valid_total"} < set(result.history[0]) and "test_loss" not in result.history[0]
    assert result.history[0]["valid_total"] == 200 and result.history[0]["train_total"] == 1237
    assert artifacts.read_log(result.log)[0]["valid_correct"] == result.history[0]["valid_correct"]


def test_momentum_and_its_kind_reach_the_weights(tmp_path):
    short = replace(TINY, epochs=1, optimizer="sgd")
    kinds = ({}, {"momentum": 0.5}, {"optimizer": "heavy_ball"}, {"momentum": 0.0})
    found = [runs.run(replace(short, **kind), device="cpu", root=tmp_path, echo=False).weights.read_bytes() for kind in kinds]
    assert len(set(found)) == 4


def test_early_stopping_restores_the_best_validation_epoch(tmp_path):
    stopped = runs.run(replace(NOISY, patience=2), device="cpu", root=tmp_path, echo=False)
    rows = stopped.history
    best = max(rows, key=lambda row: row["valid_correct"])
    assert stopped.facts["kept_epoch"] == best["epoch"] < len(rows) == stopped.facts["epochs"] == best["epoch"] + 2 < 12
    score = evaluate(stopped.model, stopped.data.valid, stopped.data.mean, stopped.data.std)
    assert abs(score.correct - best["valid_correct"]) <= 1 and score.loss == pytest.approx(best["valid_loss"], rel=1e-3)
    assert score.loss != pytest.approx(rows[-1]["valid_loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"epochs": 2}, "changed recipe"), ({"data": "digits"}, "changed recipe"), ({}, "smoke run can't be published")],
)
def test_only_full_unchanged_real_runs_are_published(changes, message, monkeypatch):
    if not changes:
        monkeypatch.setenv("COURSE_SMOKE", "1")
    before = sorted(ROOT.glob("logs/**/*"))
    with pytest.raises(CourseError, match=message):
        runs.run(replace(EXPERIMENTS["base"], name="base", lr=0.123, **changes) if changes else EXPERIMENTS["base"], seed=99, publish=True)
    assert sorted(ROOT.glob("logs/**/*")) == before


def test_digits_standing_in_for_mnist_are_not_published(monkeypatch):
    digits = data.load("digits")
    monkeypatch.setattr(runs.datasets, "load", lambda name: digits)
    with pytest.raises(CourseError, match=r"digits .* is not the real mnist"):
        runs.run(EXPERIMENTS["base"], seed=99, publish=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_nothing_of_it(tmp_path):
    with pytest.raises(CourseError, match=r"tiny, seed 0: the training loss became (nan|inf) in epoch 1.*--lr"):
        train(tmp_path, optimizer="sgd", schedule="constant", lr=1e30)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(runs, "fit", lambda *arguments: pytest.fail("trained"))
    with pytest.raises(CourseError, match=r"could not be written \(Not a directory\).*run again"):
        train(tmp_path / "file")


def test_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "weights.pth"
    artifacts.write(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CourseError, match=r"weights.pth could not be written \(No space left on device\); what was there.*Free some space"):
        artifacts.write(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_smoke_run_is_short_and_leaves_the_repository_alone(monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    result = runs.run(replace(EXPERIMENTS["base"], data="digits"), device="cpu", echo=False)
    assert (len(result.history), result.history[0]["train_total"]) == (1, 512)
    assert ROOT not in result.weights.parents and ROOT not in result.log.parents and result.weights.is_file()


def test_unknown_device_lists_those_that_are_there():
    with pytest.raises(CourseError, match=r"device 'gpu' is not available: expected auto or one of .*cpu"):
        runs.pick_device("gpu")
