"""A search adds every recipe that it tried to the study, goes on where it was, and gives up what falls behind."""

import importlib
import re
from dataclasses import replace

import pytest
from tiny import TINY

from utils import CourseError, runs
from utils.experiments import Range
from utils.report import tables
from utils.runs import trials
from utils.runs.records import own_root

optuna = pytest.importorskip("optuna", reason="Optuna is not there: pip install -r requirements-extra.txt")
search = importlib.import_module("tools.search")  # which needs it

SPACE = {"lr": Range(0.001, 0.1), "rotate": (0.0, 5.0), "batch_size": (128, 256)}


@pytest.fixture
def searched(scratch):
    """The tiny experiment with a search space and images held out, in an empty repository."""
    return replace(TINY.with_recipe(valid=300, epochs=2), search=SPACE)


def test_every_recipe_tried_is_drawn_from_the_space_and_a_line_of_the_study_with_which_a_search_goes_on(searched):
    assert search.run(searched, 1, "cpu", echo=False).count("\n| ") >= 1
    search.run(searched, 2, "cpu", echo=False)
    found = trials.read("tiny")
    assert len(search.open_study(searched).trials) == 3 == len(found)
    for trial in found:
        assert trial.valid.total == 300 and trial.seed == 0 and 0.001 <= trial.recipe.lr <= 0.1
        assert trial.recipe.rotate in SPACE["rotate"] and trial.recipe.batch_size in SPACE["batch_size"]
        assert trial.recipe.changes(searched.recipe).keys() <= set(SPACE)
    journal = own_root() / "trials" / "tiny.journal"
    journal.write_bytes(journal.read_bytes()[:-20] + b"\n{}\n")
    with pytest.raises(CourseError, match=r"tiny\.journal is damaged .* Delete it to begin a new search"):
        search.run(searched, 1, "cpu", echo=False)


def test_a_trial_that_falls_behind_is_given_up_and_leaves_no_checkpoint(searched, scratch, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    search.run(searched, 2, "cpu", echo=False)
    kept, pruned = trials.read("tiny")
    assert (kept.pruned, pruned.pruned) == (False, True) and (kept.epoch, pruned.epoch) == (2, 1)
    assert [trial.state.name for trial in search.open_study(searched).trials] == ["COMPLETE", "PRUNED"]
    assert not list((scratch / "runs" / "unfinished").glob("*.pt")) and "1 given up early" in tables.study(searched)


def test_a_recipe_that_diverges_is_a_failed_trial_and_the_search_goes_on(searched, scratch, monkeypatch, capsys):
    drawn = lambda experiment, trial: {"lr": 0.01 if trial.number else 1e6, "optimizer": "sgd"}  # noqa: E731
    monkeypatch.setattr(search, "space", drawn)
    search.run(searched, 2, "cpu")
    assert [trial.state.name for trial in search.open_study(searched).trials] == ["FAIL", "COMPLETE"]
    printed, errors = capsys.readouterr()
    assert re.search(r"tiny, trial 0, failed: tiny, seed 0: the (training|validation) loss became (nan|inf)", printed)
    assert errors == "" and len(trials.read("tiny")) == 1
    assert not list((scratch / "runs" / "unfinished").glob("*.pt"))


def test_a_run_that_fails_or_a_search_that_can_not_be_meant_is_one_line(searched, monkeypatch):
    def full(*_, **__):
        raise CourseError("no space left")

    monkeypatch.setattr(runs, "run", full)
    with pytest.raises(CourseError, match="no space left"):
        search.run(searched, 1, "cpu", echo=False)
    for experiment, n in ((TINY, 3), (replace(TINY, search=SPACE), 0)):
        with pytest.raises(CourseError, match="tiny: expected a search space next to its recipe"):
            search.run(experiment, n)
