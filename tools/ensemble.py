"""Published networks that answer together, members and weights chosen on held-out images, then tested once: python -m tools.ensemble

What the published networks were trained on can't tell who helps whom, and what they are tested on must not. So every candidate has a twin
of the same recipe that never saw 10,000 of the training images (python train.py NAME --valid 10000), and the twins' answers there decide.
logs/ensemble.json says what was chosen and reached; `python -m tools.verify` tests it again.
"""

from tools import command  # isort: skip

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from utils import ROOT, CourseError, files
from utils.data import datasets
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import facts, pretrained, records
from utils.runs.records import Run
from utils.training.loops import Score, predict

PATH = ROOT / "logs" / "ensemble.json"
HELD_OUT = 10_000  # images
VOTES = 20  # at most, over all members


@dataclass(frozen=True)
class Ensemble:
    """votes: of each member, by its experiment's name; twins: what each candidate's twin reached alone on the held-out images;
    held_out: what the members' twins reach there together; test: what the members do on the test images."""

    votes: dict[str, int]
    twins: dict[str, Score]
    held_out: Score
    test: Score
    environment: facts.Environment
    code: facts.Code
    finished: str


def read() -> Ensemble | None:
    """What is published; None where nothing is. Raises CourseError if it can't be read."""
    return files.read_json(PATH, Ensemble, "Make it anew: python -m tools.ensemble.") if PATH.exists() else None


def answer(path: Path, split: Split) -> Tensor:
    """The (N, 10) float64 probabilities that a state dict's network gives. Raises CourseError like pretrained.load_model."""
    model, said = pretrained.load_model(path)
    return predict(model, split.images, said.normalisation.mean, said.normalisation.std).double().softmax(1)


def together(answers: dict[str, Tensor], votes: dict[str, int]) -> Tensor:
    """The mean of the members' probabilities (N, 10), each as often as it has votes."""
    return sum(answers[name] * count for name, count in votes.items()) / sum(votes.values())


def score(probabilities: Tensor, labels: Tensor) -> Score:
    """Mean cross-entropy and correct answers of probabilities (N, 10) float64."""
    return Score(F.nll_loss(probabilities.log(), labels).item(), int((probabilities.argmax(1) == labels).sum()), len(labels))


def choose(answers: dict[str, Tensor], labels: Tensor) -> dict[str, int]:
    """Votes of the members: again and again who adds most correct answers, of equal ones the lowest loss, gets one more; the smallest
    number of votes that was best stays (R. Caruana et al. 2004, "Ensemble selection from libraries of models")."""

    def worth(votes: Counter) -> tuple[int, float]:
        found = score(together(answers, votes), labels)
        return found.correct, -found.loss

    tried = [Counter()]
    for _ in range(VOTES):
        tried.append(max((tried[-1] + Counter([name]) for name in answers), key=worth))
    return dict(max(tried[1:], key=lambda votes: worth(votes)[0]))  # max() keeps the first of equals


def twins() -> dict[str, Path]:
    """The state dict of each twin that was trained here, by the name of its published experiment. Raises CourseError where none was."""
    found = {}
    for experiment in EXPERIMENTS.values():
        twin = Run.of(experiment.but(valid=HELD_OUT), 0, records.own_root()) if experiment.recipe.data == "mnist" else None
        if twin and twin.weights.exists() and experiment.weights and records.finished(experiment, 0):
            found[experiment.name] = twin.weights
    if not found:
        raise CourseError(f"no published network has a twin here: train some first, python train.py NAME --valid {HELD_OUT}")
    return found


def tested(votes: dict[str, int], split: Split) -> Score:
    """What the published members reach together. Raises CourseError for one that is not there."""
    unknown = ", ".join(name for name in votes if name not in EXPERIMENTS)
    if unknown:
        raise CourseError(f"no experiment is called {unknown}. Make it anew: python -m tools.ensemble.")
    return score(together({name: answer(Run.of(EXPERIMENTS[name], 0).weights, split) for name in votes}, votes), split.labels)


def make() -> Ensemble:
    """Choose among the twins that are here, and test the published networks that they stand for. Raises CourseError."""
    mnist = datasets.load("mnist")
    if not (mnist.name == "mnist" and mnist.whole):
        raise CourseError("an ensemble is chosen and tested on the whole of MNIST, which is not at hand")
    held_out = mnist.hold_out(HELD_OUT).valid
    answers = {name: answer(path, held_out) for name, path in twins().items()}
    votes = choose(answers, held_out.labels)
    alone = {name: score(answers[name], held_out.labels) for name in answers}
    reached = score(together(answers, votes), held_out.labels)
    where = facts.environment(torch.device("cpu"))
    return Ensemble(votes, alone, reached, tested(votes, mnist.test), where, facts.code(), facts.now())


def section(ensemble: Ensemble) -> str:
    """A table of the candidates: their votes, and what each reaches alone and all together."""
    rows = []
    for name, twin in sorted(ensemble.twins.items(), key=lambda item: (-ensemble.votes.get(item[0], 0), -item[1].correct)):
        published = records.finished(EXPERIMENTS[name], 0) if name in EXPERIMENTS else None  # its recipe may be another by now
        test = f"{published.facts.test.percent:.2f}" if published else "–"
        rows.append([name, ensemble.votes.get(name, 0), f"{twin.percent:.2f}", test])
    reached = [tables.Markup(f"**{one.percent:.2f}**") for one in (ensemble.held_out, ensemble.test)]
    rows.append(["together", sum(ensemble.votes.values()), *reached])
    return tables.table(["network", "votes", "its twin, held out %", "test %"], rows, right="votes")


def main(words: list[str]) -> int:
    command.Parser(prog="python -m tools.ensemble", description=__doc__).parse_args(words)
    ensemble = make()
    files.write_json(PATH, ensemble)
    print(section(ensemble))
    return 0


if __name__ == "__main__":
    command.main("ensemble", main)
