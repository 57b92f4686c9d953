"""An ensemble of published networks, chosen on held-out images, then tested once: python -m tools.ensemble

The choice of members needs images that no network was trained on, and must not use the test images. So each candidate
has a twin with the same recipe that never saw 10,000 of the training images (python train.py NAME --valid 10000). The
twins' predictions there decide. logs/ensemble.json records the choice and the result. `python -m tools.verify` tests it
again.
"""

from tools import command  # isort: skip

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.measurements import ENSEMBLE, Ensemble, ensemble_table, whole_mnist
from utils import CourseError, files, models
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.runs import facts, pretrained, records
from utils.runs.records import RunPaths
from utils.training.loops import Score, predict

HELD_OUT = 10_000  # images
VOTES = 20  # at most, over all members


def answer(path: Path, split: Split) -> Tensor:
    """The probabilities (N, 10) float64 of a state dict's network. Raises CourseError like load_model."""
    model, facts = pretrained.load_model(path)
    outputs = predict(model, split.images, facts.normalization.mean, facts.normalization.std)
    return models.probabilities(model, outputs.double())


def weighted_mean(answers: dict[str, Tensor], votes: dict[str, int]) -> Tensor:
    """The mean of the members' probabilities (N, 10), weighted by votes."""
    return sum(answers[name] * count for name, count in votes.items()) / sum(votes.values())


def score_probabilities(probabilities: Tensor, labels: Tensor) -> Score:
    """Mean cross-entropy and correct answers of probabilities (N, 10) float64."""
    correct = int((probabilities.argmax(1) == labels).sum())
    return Score(F.nll_loss(probabilities.log(), labels).item(), correct, len(labels))


def score(votes: dict[str, int], split: Split) -> Score:
    """The score of the published members together. Raises CourseError for a missing one."""
    answers = {name: answer(RunPaths.of(EXPERIMENTS[name], 0).weights, split) for name in votes}
    return score_probabilities(weighted_mean(answers, votes), split.labels)


def choose(answers: dict[str, Tensor], labels: Tensor) -> dict[str, int]:
    """Votes of the members. Repeatedly, one vote goes to the network that adds the most correct answers, or the lowest
    loss in a tie. The smallest best number of votes is kept (R. Caruana et al. 2004, "Ensemble selection from libraries
    of models")."""

    def worth(votes: Counter) -> tuple[int, float]:
        found = score_probabilities(weighted_mean(answers, votes), labels)
        return found.correct, -found.loss

    tried = [Counter()]
    for _ in range(VOTES):
        tried.append(max((tried[-1] + Counter([name]) for name in answers), key=worth))
    return dict(max(tried[1:], key=lambda votes: worth(votes)[0]))  # max() keeps the first of equals


def twins() -> dict[str, Path]:
    """The state dicts of the twins that were trained here, by published experiment. Raises CourseError without any."""
    found = {}
    for experiment in EXPERIMENTS.values():
        if experiment.recipe.data != "mnist" or experiment.recipe.start:  # a start network has seen held-out images
            continue
        twin = RunPaths.of(experiment.with_recipe(valid=HELD_OUT), 0, records.own_root()).weights
        if twin.exists() and experiment.weights and records.finished(experiment, 0):
            found[experiment.name] = twin
    if not found:
        todo = f"train some first, python train.py NAME --valid {HELD_OUT}"
        raise CourseError(f"no published network has a twin here: {todo}")
    return found


def make() -> Ensemble:
    """Choose among the twins, and test the published networks that they stand for. Raises CourseError."""
    mnist = whole_mnist()
    held_out = mnist.hold_out(HELD_OUT).valid
    answers = {name: answer(path, held_out) for name, path in twins().items()}
    votes = choose(answers, held_out.labels)
    alone = {name: score_probabilities(answers[name], held_out.labels) for name in answers}
    reached = score_probabilities(weighted_mean(answers, votes), held_out.labels)
    where = facts.environment(torch.device("cpu"))
    return Ensemble(votes, alone, reached, score(votes, mnist.test), where, facts.code(), facts.now())


def main(argv: list[str]) -> int:
    command.Parser(prog="python -m tools.ensemble", description=__doc__).parse_args(argv)
    ensemble = make()
    files.write_json(ENSEMBLE, ensemble)
    print(ensemble_table(ensemble))
    return 0


if __name__ == "__main__":
    command.main("ensemble", main)
