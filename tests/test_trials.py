"""A study tells what differs from the kept recipe and how well it did on held-out images."""

from dataclasses import replace

import pytest
from tiny import TINY, TRIAL

from utils import ROOT
from utils.data import datasets
from utils.experiments import Recipe
from utils.report import tables
from utils.runs import trials
from utils.training.loops import Score

HELD = replace(TINY.recipe, valid=1000)


pytestmark = pytest.mark.usefixtures("scratch")  # studies of this file lie in a scratch repository


def add(recipe: Recipe, seed: int, correct: int, publish: bool = True, **changes) -> None:
    found = {"valid": Score(0.1, correct, 1000), "fingerprint": datasets.PUBLISHABLE["digits"], **changes}
    trials.add(replace(TRIAL, recipe=recipe, seed=seed, epoch=recipe.epochs, **found), publish)


def test_a_study_is_a_table_of_what_differs():
    for seed, (kept, faster, smoother) in enumerate([(980, 990, 970), (982, 994, 960), (984, 992, 965)]):
        add(HELD, seed, kept)
        add(replace(HELD, lr=0.05, rotate=10.0), seed, faster)
        add(replace(HELD, label_smoothing=0.1), seed, smoother)
    add(replace(HELD, lr=0.5), 0, 100, pruned=True)
    lines = tables.study(TINY).split("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert header == ["what differs", "epochs", "held-out, mean ± sd", "seeds"]
    assert rows == [
        ["**kept**", "3", "98.20 ± 0.20", "3"],
        ["lr 0.05, rotate 10", "3", "99.20 ± 0.20", "3"],
        ["label_smoothing 0.1", "3", "96.50 ± 0.50", "3"],
    ]
    assert tables.study(TINY).endswith("Accuracy (%) on 1,000 held-out training images; 1 given up early.")
    assert "1 more, all below these; 1 given up early" in tables.study(TINY, most=2)


def test_of_a_repeated_seed_the_last_run_counts_and_trials_on_other_data_do_not():
    add(HELD, 0, 900)
    add(HELD, 0, 950)
    add(HELD, 2, 100, fingerprint="0" * 64)
    add(HELD, 1, 960, publish=False)  # one's own trials stand beside the published ones
    (tried,) = trials.study(TINY)
    assert tried.percents == [95.0, 96.0] and tried.changes == {}
    assert len(trials.read_file(trials.path("tiny", True))) == 3


def test_published_studies_can_be_read_and_are_of_real_data_and_committed_code():
    for path in (ROOT / "logs" / "trials").glob("*.jsonl"):
        for trial in trials.read_file(path):
            assert trial.name == path.stem and trial.recipe.valid == trial.valid.total > 0
            assert trial.fingerprint == datasets.PUBLISHABLE[trial.recipe.data]
            assert trial.code.commit != "unknown" and not trial.code.commit.endswith("+changes")
