"""A run gives the same bits again, survives kill -9, is not done twice, and publishes only what is real."""

import csv
import json
import multiprocessing
import signal
import sys
import time
from dataclasses import replace

import pytest
import torch
from tiny import TINY, interrupted, own, train, tree

from utils import ROOT, CourseError, files, runs
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import execution, facts, pretrained, records, trials
from utils.runs.facts import Code
from utils.runs.records import read_log, read_record
from utils.training import loops
from utils.training.loops import Score, evaluate

HELD = TINY.with_recipe(valid=200)
OTHER_COMMIT = Code("c" * 40, "b" * 16)  # of the same sources
OTHER_SOURCES = Code("a" * 40, "d" * 16)


pytestmark = pytest.mark.usefixtures("scratch")  # every run of this file goes to a scratch repository


def rows_without_time(log):
    with log.open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def counted(monkeypatch):
    """How often something was trained."""
    calls, fit = [], execution.train
    monkeypatch.setattr(execution, "train", lambda *arguments: calls.append(arguments[2]) or fit(*arguments))
    return calls


def test_files_hold_what_the_rules_ask_for():
    result = train()
    header = result.log.read_text().splitlines()[0]
    assert header == "epoch,lr,train_loss,train_correct,train_total,test_loss,test_correct,test_total,seconds"
    plain = json.loads(result.log.with_suffix(".json").read_text())
    assert plain["recipe"] == files.without_defaults(TINY.recipe) and plain["seed"] == 0 and plain["epochs"] == 3
    data, environment = plain["data"], plain["environment"]
    assert (data["name"], data["kind"], data["input_shape"]) == ("digits", "images", [1, 28, 28])
    assert len(data["fingerprint"]) == 64 and plain["code"] == {"commit": "a" * 40, "sources": "b" * 16}
    assert (environment["threads"], environment["torch"]) == (torch.get_num_threads(), torch.__version__)
    model, sidecar = pretrained.load_model(result.weights)
    assert sidecar == result.facts == records.read_facts(result.log.with_suffix(".json"))
    assert evaluate(model, result.data.test, **plain["normalization"]) == result.facts.test
    assert read_record(own()).result_row == read_log(result.log)[-1] and not list(own().checkpoint.parent.iterdir())
    for name in (result.weights.stem, result.weights, str(result.weights)):
        model, preprocess = pretrained.load_pretrained(name)
        assert model(preprocess(result.data.test.images[:3])).shape == (3, 10)
    with pytest.raises(CourseError, match=f"run of your own is called 'tiny': expected {result.weights.stem}"):
        pretrained.load_pretrained("tiny")


# ---- what was begun is continued


def train_and_tell(experiment, folder, epoch, reached):
    """Train in a process of its own, with one thread, and tell when an epoch is reached."""
    torch.set_num_threads(1)
    train(experiment, folder=folder, after_epoch=lambda history: len(history) == epoch and reached.set())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_run_killed_with_kill_9_ends_as_the_uninterrupted_one_and_can_be_read_meanwhile(tmp_path):
    experiment = TINY.with_recipe(model="bn_augmentation", epochs=6, images=512)
    processes, root, threads = multiprocessing.get_context("spawn"), tmp_path / "killed", torch.get_num_threads()
    torch.set_num_threads(1)  # as the other processes: the number of threads can change the bits
    for epoch, delay in ((1, 0.0), (3, 0.03)):  # as soon as a checkpoint is written, and in mid-epoch
        reached = processes.Event()
        process = processes.Process(target=train_and_tell, args=(experiment, root, epoch, reached))
        process.start()
        assert reached.wait(120)
        time.sleep(delay)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(records.read_checkpoint(own(experiment, root=root).checkpoint)[1]["history"]) >= epoch
    killed, whole = train(experiment, folder=root), train(experiment, folder=tmp_path / "whole")
    torch.set_num_threads(threads)
    assert killed.weights.read_bytes() == whole.weights.read_bytes()
    assert rows_without_time(killed.log) == rows_without_time(whole.log)
    continued = killed.facts.continued
    assert len(continued) in (1, 2) and 1 <= continued[-1].after_epoch < 6 and continued[-1].environment
    assert whole.facts.continued == []


def test_a_run_that_is_trained_again_can_be_read_until_the_new_one_is_filed(monkeypatch):
    first = train()
    interrupted(retrain=True)
    assert records.own(TINY)[0].facts == train().facts == first.facts and own().checkpoint.exists()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "write_log", killed)
        train(retrain=True)
    again = train()  # without being asked to: what was filed in part is no finished run
    assert again.facts.continued and again.facts.sha256 == first.facts.sha256


def test_a_continuation_records_epoch_code_and_environment(monkeypatch, capsys, tmp_path):
    whole = train(folder=tmp_path / "whole")
    interrupted(epoch=2)
    monkeypatch.setattr(facts, "code", lambda: OTHER_SOURCES)
    result = runs.run(TINY, device="cpu")
    printed = capsys.readouterr().out
    assert "tiny, seed 0: continuing after epoch 2 of 3" in printed
    assert "the result will not be bit for bit the same" in printed
    (continued,) = result.facts.continued
    assert (continued.after_epoch, continued.code, result.facts.code) == (2, OTHER_SOURCES, Code("a" * 40, "b" * 16))
    assert continued.environment == result.facts.environment
    monkeypatch.setattr(facts, "code", lambda: Code("a" * 40, "b" * 16))
    interrupted(retrain=True)
    monkeypatch.setattr(facts, "code", lambda: OTHER_COMMIT)
    again = runs.run(TINY, device="cpu", publish=True)  # a commit to README or to a plot spoils no long run
    assert "bit for bit" not in capsys.readouterr().out and again.facts.sha256 == whole.facts.sha256
    assert [one.after_epoch for one in again.facts.continued] == [1]


# ---- what is finished is not done again


def test_a_finished_run_is_not_trained_again_unless_asked_and_then_gives_the_same_bits(counted, capsys):
    left = []
    first = train(after_epoch=lambda history: left.append(own().checkpoint.read_bytes()))
    own().checkpoint.write_bytes(left[-1])  # as a kill leaves it after the facts are written
    again = runs.run(TINY, device="cpu")
    assert "not trained again (retrain=True, or --retrain, does)" in capsys.readouterr().out
    assert len(counted) == 1 and again.facts == first.facts and not own().checkpoint.exists()
    assert files.to_bytes(again.model.state_dict()) == first.weights.read_bytes()
    assert again.history == read_log(first.log)
    assert train(retrain=True).facts.sha256 == first.facts.sha256 and len(counted) == 2
    assert train(seed=1).facts.sha256 != first.facts.sha256  # the control
    first.log.with_suffix(".json").unlink()  # written last: a kill before it leaves the rest
    train()
    assert len(counted) == 4


# ---- published or not


def test_a_finished_trial_is_published_when_that_is_wanted_later(scratch):
    held = TINY.with_recipe(valid=100)
    train(held)
    assert not (scratch / "logs").exists()
    for _ in range(2):
        train(held, publish=True)
    assert len(trials.read_file(trials.path("tiny", publish=True))) == 1


def test_a_published_run_lies_in_the_repository_and_is_read_without_training(scratch, counted, monkeypatch):
    result = train(publish=True)
    found = set(tree(scratch))
    assert found == {"logs/tiny/seed0.csv", "logs/tiny/seed0.json", "saved_dict/tiny.pth", "saved_dict/tiny.json"}
    second = train(seed=1, publish=True)
    monkeypatch.setattr(execution, "LARGE", len(second.weights.read_bytes()))  # too large for more than seed 0
    assert not train(seed=2, publish=True).weights.is_file() and (scratch / "logs" / "tiny" / "seed2.json").is_file()
    read = runs.load(TINY, published=True, echo=False)
    assert len(counted) == 3 and read.facts == result.facts and read.model is not None
    model = runs.load(TINY, 1, published=True, echo=False).model
    assert files.to_bytes(model.state_dict()) == second.weights.read_bytes()
    assert runs.load(TINY, 2, published=True, echo=False).model is None
    assert [record.facts.seed for record in records.published(TINY)] == [0, 1, 2] and records.own(TINY) == []
    train(publish=True)
    assert len(counted) == 3
    train()  # one's own run of a published recipe is not the published one
    assert len(counted) == 4 and len(records.own(TINY)) == 1
    for experiment, seed, message in (
        (TINY.with_recipe(lr=0.5), 0, "tiny: its recipe was changed, so there is no published run to read"),
        (TINY, 7, "tiny: seed 7 is not published by its present recipe"),
    ):
        with pytest.raises(CourseError, match=message):
            runs.load(experiment, seed, published=True)


UNPUBLISHABLE = {
    "another recipe": (TINY.with_recipe(epochs=2), lambda patch: None, "can't be published with a changed recipe"),
    "changes": (TINY, lambda patch: patch.setattr(facts, "code", lambda: Code("a+changes", "b")), "Commit them first"),
    "smoke": (TINY, lambda patch: patch.setenv("COURSE_SMOKE", "1"), "a smoke run can't be published"),
    "other data": (TINY, lambda patch: patch.setitem(datasets.PUBLISHABLE, "digits", "0"), "is not the real digits"),
}


@pytest.mark.parametrize("case", UNPUBLISHABLE)
def test_what_is_not_real_is_rejected_before_training(case, scratch, counted, monkeypatch):
    experiment, change, message = UNPUBLISHABLE[case]
    change(monkeypatch)
    with pytest.raises(CourseError, match=message):
        train(experiment, 99, publish=True)
    assert not counted and not tree(scratch)


@pytest.mark.parametrize("part", ["run_start", "continued"])
def test_a_run_of_which_any_part_ran_elsewhere_is_not_published(part, monkeypatch, counted):
    environment = facts.environment
    with monkeypatch.context() as elsewhere:
        if part == "continued":
            interrupted()
            elsewhere.setattr(facts, "environment", lambda *how: replace(environment(*how), threads=64))
        else:
            elsewhere.setattr(facts, "code", lambda: OTHER_SOURCES)
        interrupted(epoch=2)
    with pytest.raises(CourseError, match=r"tiny, seed 0 can't be published: its checkpoint comes from other sources"):
        train(publish=True)
    trainings = len(counted)
    assert train().facts.continued[-1].after_epoch == 2  # as a run of one's own it goes on
    assert len(counted) == trainings + 1


# ---- held-out images


def test_a_run_with_held_out_images_shows_no_test_figure_anywhere(capsys, monkeypatch):
    looked, real = [], loops.evaluate
    for module in (loops, execution):
        spy = lambda model, split, *how: looked.append(len(split)) or real(model, split, *how)  # noqa: E731
        monkeypatch.setattr(module, "evaluate", spy)
    result = runs.run(HELD, device="cpu")
    printed = capsys.readouterr().out
    assert result.facts.test is None and result.facts.parts == {} and set(looked) == {200}
    assert "Valid set:" in printed and "Test set" not in printed and "test" not in result.log.read_text()
    assert result.history[0]["valid_total"] == 200 and result.history[0]["train_total"] == 1237
    assert "| closed |" in tables.summary([result])
    open_ = train()  # the control: without held-out images all of these show one
    assert open_.facts.test and "closed" not in tables.summary([open_]) and "test_correct" in open_.log.read_text()
    monkeypatch.setitem(EXPERIMENTS, "tiny", HELD)  # a registered recipe that holds out images is tested once
    tested = train(HELD, retrain=True)
    assert tested.facts.test.total == 360 and "test_correct" not in tested.history[0]


def test_every_run_with_held_out_images_adds_one_line_to_its_study_and_publishes_nothing_else(scratch):
    train()
    assert trials.read("tiny") == []
    first = train(HELD)
    (trial,) = trials.read("tiny")
    kept = first.history[-1]
    assert (trial.recipe, trial.seed, trial.epoch, trial.pruned) == (HELD.recipe, 0, 3, False)
    assert trial.valid == Score(kept["valid_loss"], kept["valid_correct"], 200)
    assert (trial.code, trial.environment) == (facts.code(), first.facts.environment)
    train(HELD)  # finished: nothing is added
    train(HELD.with_recipe(lr=0.02), 1)
    assert [(one.recipe.lr, one.seed) for one in trials.read("tiny")] == [(0.01, 0), (0.02, 1)]
    train(HELD, retrain=True)
    assert len(trials.read("tiny")) == 3
    assert [str(path.relative_to(scratch)) for path in scratch.rglob("*.jsonl")] == ["runs/trials/tiny.jsonl"]
    result = train(HELD, 2, publish=True)
    assert {name for name in tree(scratch) if not name.startswith("runs/")} == {"logs/trials/tiny.jsonl"}
    assert result.weights.is_relative_to(scratch / "runs") and result.facts.test is None


def test_a_smoke_run_is_short_and_leaves_the_repository_alone(monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    monkeypatch.delenv("COURSE_RUNS")
    result = train()
    assert (len(result.history), result.history[0]["train_total"]) == (1, 512)
    assert ROOT not in result.weights.parents and ROOT not in result.log.parents and result.weights.is_file()
