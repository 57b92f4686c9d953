"""A study tells what differs from the kept recipe, how well it did on held-out images, and whether it is better."""

from dataclasses import replace

import pytest
from tiny import TINY, TRIAL

from utils import ROOT, files
from utils.data import datasets
from utils.experiments import Recipe
from utils.report import tables
from utils.runs import trials
from utils.runs.trials import Trial, Tried
from utils.training.loops import Score

KEPT = TINY.recipe
HELD = replace(KEPT, valid=1000)


@pytest.fixture(autouse=True)
def own(scratch):
    """Studies of this file lie in a scratch repository."""


def add(recipe: Recipe, seed: int, correct: int, publish: bool = True, **changes) -> None:
    trial = replace(TRIAL, recipe=recipe, seed=seed, valid=Score(0.1, correct, 1000), epoch=recipe.epochs)
    trial = replace(trial, fingerprint=datasets.PUBLISHABLE["digits"])
    trials.add(replace(trial, **changes), publish)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_study_is_a_table_of_what_differs():
    for seed, (kept, faster, smoother) in enumerate([(980, 990, 970), (982, 994, 960), (984, 992, 965)]):
        add(HELD, seed, kept)
        add(replace(HELD, lr=0.05, rotate=10.0), seed, faster)
        add(replace(HELD, label_smoothing=0.1), seed, smoother)
    add(replace(HELD, lr=0.5), 0, 100, pruned=True)
    header, _, *rows = tables.study(TINY).split("\n\n")[0].splitlines()
    assert cells(header) == ["what differs", "epochs", "held-out, mean ± sd", "seeds"]
    assert [cells(row) for row in rows] == [
        ["**kept**", "3", "98.20 ± 0.20", "3"],
        ["lr 0.05, rotate 10", "3", "99.20 ± 0.20", "3"],
        ["label_smoothing 0.1", "3", "96.50 ± 0.50", "3"],
    ]
    assert tables.study(TINY).endswith("Accuracy (%) on 1,000 held-out training images; 1 given up early.")
    assert "1 more, all below these; 1 given up early" in tables.study(TINY, most=2)


def test_without_a_study_it_says_how_to_begin_one():
    add(replace(HELD, lr=0.05), 0, 999)  # of a kept recipe that was never tried nothing is better
    assert trials.better(TINY) == []
    trials.path("tiny", True).unlink()
    assert trials.study(TINY) == [] and tables.study(TINY).startswith(
        "No study of tiny yet: `python train.py tiny --val"
    )


def test_of_a_repeated_seed_the_last_run_counts_and_trials_on_other_data_do_not(tmp_path):
    add(HELD, 0, 900)
    add(HELD, 0, 950)
    add(HELD, 2, 100, fingerprint="0" * 64)
    add(HELD, 1, 960, publish=False)  # one's own trials stand beside the published ones
    (tried,) = trials.study(TINY)
    assert tried.percents == [95.0, 96.0] and tried.changes == {}
    assert len(files.read_lines(trials.path("tiny", True), Trial)) == 3
    trials.add(trials.read("tiny")[0], False, tmp_path / "elsewhere")  # of a run with a folder of its own
    assert len(files.read_lines(tmp_path / "elsewhere" / "trials" / "tiny.jsonl", Trial)) == 1


def test_better_is_what_lies_outside_one_standard_error():
    for seed, noise in enumerate((-2, 0, 2)):  # standard errors of 0.115 %
        add(HELD, seed, 980 + noise)
        add(replace(HELD, lr=0.05), seed, 981 + noise)
        add(replace(HELD, lr=0.06), seed, 985 + noise)
        add(replace(HELD, lr=0.07), seed, 975 + noise)
    assert [one.changes for one in trials.better(TINY)] == [{"lr": 0.06}]


def test_a_single_seed_is_judged_by_the_number_of_held_out_images():
    assert Tried(HELD, {}, [98.0]).standard_error == pytest.approx(0.4427, abs=1e-4)  # √(98 · 2 / 1000)
    assert Tried(HELD, {}, [98.0, 98.2]).standard_error == pytest.approx(0.1)  # spread 0.1414, by √2
    add(HELD, 0, 980)
    add(replace(HELD, lr=0.05), 0, 985)  # 0.5 more; standard error of the difference 0.59
    assert trials.better(TINY) == []
    add(replace(HELD, lr=0.06), 0, 987)  # 0.7 more; 0.57
    assert [one.changes for one in trials.better(TINY)] == [{"lr": 0.06}]


def test_short_runs_are_compared_with_short_runs():
    short = replace(HELD, epochs=1)
    add(HELD, 0, 990)
    add(short, 0, 900)
    add(replace(short, lr=0.05), 0, 950)
    assert [one.recipe for one in trials.better(TINY)] == [replace(short, lr=0.05)]
    add(replace(HELD, lr=0.05), 0, 991)
    assert len(trials.better(TINY)) == 1  # what helps in one epoch need not in three
    assert [one.changes for one in trials.study(TINY)][:2] == [{}, {}]


def test_published_studies_can_be_read_and_are_of_real_data_and_committed_code():
    for path in (ROOT / "logs" / "trials").glob("*.jsonl"):
        for trial in files.read_lines(path, Trial):
            assert trial.name == path.stem and trial.recipe.valid == trial.valid.total > 0
            assert trial.fingerprint == datasets.PUBLISHABLE[trial.recipe.data]
            assert trial.code.commit != "unknown" and not trial.code.commit.endswith("+changes")
