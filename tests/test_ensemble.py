"""Networks that answer together: who is in is decided on held-out images, by twins that never saw them."""

import math
import re
from dataclasses import replace

import pytest
import torch
from tiny import CODE, RAN, dataset

from tools import ensemble, measurements, verify
from utils import CourseError, files, models
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.runs import records
from utils.runs.records import RunPaths
from utils.training.loops import Score

LABELS = torch.zeros(6, dtype=torch.int64)


def answers(*right: float) -> torch.Tensor:
    """Probabilities (N, 10) of a network that gives the label 0 these, and the label 1 the rest."""
    one = torch.zeros(len(right), 10, dtype=torch.float64)
    one[:, 0], one[:, 1] = torch.tensor(right).double(), 1 - torch.tensor(right).double()
    return one


def test_who_helps_is_chosen_with_as_many_votes_as_it_takes_and_who_does_not_is_left_out():
    found = {
        "good": answers(0.9, 0.9, 0.9, 0.9, 0.45, 0.45),
        "better": answers(0.9, 0.9, 0.9, 0.9, 0.9, 0.1),
        "helper": answers(0.6, 0.6, 0.6, 0.2, 0.4, 0.95),
    }
    assert ensemble.choose(found, LABELS) == {"better": 1, "helper": 1}
    found = {"sure": answers(*[0.8] * 5, 0.3), "doubtful": answers(*[0.1] * 5, 0.95)}
    assert ensemble.choose(found, LABELS) == {"sure": 2, "doubtful": 1}
    assert ensemble.choose({"perfect": answers(*[0.9] * 6), "other": answers(*[0.8] * 6)}, LABELS) == {"perfect": 1}
    mean = ensemble.weighted_mean({"a": answers(0.875), "b": answers(0.125)}, {"a": 2, "b": 1})
    found = ensemble.score_probabilities(mean, LABELS[:1])
    assert (found.correct, found.total) == (1, 1) and found.loss == pytest.approx(-math.log(0.625), rel=1e-12)


def test_a_twin_is_the_published_recipe_without_the_held_out_images(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "own_root", lambda: tmp_path)
    experiment = EXPERIMENTS["frontier_99"]
    held_out = experiment.with_recipe(valid=10_000)
    for other in (experiment, held_out.with_recipe(epochs=3), EXPERIMENTS["voxel_best"].with_recipe(valid=10_000)):
        files.write(RunPaths.of(other, 0, tmp_path).weights, b"of other images, or another recipe, or of voxels")
    with pytest.raises(CourseError, match="no published network has a twin here: train some first, python train"):
        ensemble.twins()
    twin = RunPaths.of(held_out, 0, tmp_path).weights
    files.write(twin, b"weights")
    assert ensemble.twins() == {"frontier_99": twin}


def test_an_ensemble_is_chosen_and_tested_on_mnist_only(monkeypatch):
    digits = replace(dataset(), name="digits")
    monkeypatch.setattr(datasets, "load", lambda name: digits)
    with pytest.raises(CourseError, match="expected all of MNIST"):
        ensemble.make()
    assert verify.check_ensemble({"mnist": digits})[2] == "NOT EVALUATED: mnist was not found"


def test_verify_tests_the_recorded_ensemble_again_and_a_table_shows_it(tmp_path, monkeypatch, mnist):
    for module in (measurements, verify):
        monkeypatch.setattr(module, "ENSEMBLE", tmp_path / "ensemble.json")
    real = replace(mnist, test=mnist.test[:1000])
    truly = ensemble.score({"base": 1, "mnist_ultrasmall": 2}, real.test)
    made = {"twins": {"base": truly}, "held_out": truly, "environment": RAN, "code": CODE, "finished": "now"}
    for votes, correct, verdict in (
        ({"base": 1, "mnist_ultrasmall": 2}, truly.correct, "^agrees$"),
        ({"base": 1, "mnist_ultrasmall": 2}, truly.correct - 5, "^DISAGREES$"),
        ({"frontier_98": 1}, truly.correct, "no experiment is called frontier_98"),
    ):
        written = made | {"votes": votes, "test": replace(truly, correct=correct)}
        files.write_json(tmp_path / "ensemble.json", written)
        assert re.search(verdict, verify.check_ensemble({"mnist": real})[2])
    shown = measurements.Ensemble(**made, votes={"base": 3}, test=Score(0.1, 990, 1000))
    lines = measurements.ensemble_table(shown).splitlines()
    assert re.search(r"base +\| +3 ", lines[2]) and "**99.00**" in lines[3]


def test_probabilities_are_taken_as_they_are():
    """medium_cnn ends in a softmax: a second one would make all its answers alike."""
    outputs = torch.tensor([[3.0, *[0.0] * 9]])
    base = models.probabilities(models.build("base"), outputs)
    torch.testing.assert_close(base, models.probabilities(models.build("medium_cnn"), outputs.softmax(1)))
    torch.testing.assert_close(base.sum(1), torch.ones(1))
    found = ensemble.answer(RunPaths.of(EXPERIMENTS["medium_cnn"], 0).weights, dataset().test)
    torch.testing.assert_close(found.sum(1), torch.ones(40, dtype=torch.float64), atol=1e-6, rtol=0)
    assert found.max() > 0.5  # of a softmax of probabilities, no number is above e / (e + 9)
