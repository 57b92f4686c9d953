"""Studies: the trials on held-out images, as data. Each run adds a line to logs/trials/NAME.jsonl, or below runs/."""

import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import CourseError, files, models, workspace
from ..data.datasets import PUBLISHABLE
from ..experiments import Experiment, Recipe
from ..training.loops import Score
from .facts import Code, Environment
from .records import own_root


@dataclass(frozen=True)
class Trial:
    """One run with held-out images. valid: of the kept epoch; pruned: given up early, because others were better."""

    name: str
    recipe: Recipe
    seed: int
    valid: Score
    epoch: int
    pruned: bool
    seconds: float
    fingerprint: str
    code: Code
    environment: Environment
    finished: str
    retired: dict[str, object] = field(default_factory=dict)  # what the course no longer has: not in the study


@dataclass(frozen=True)
class Tried:
    """A recipe of a study: what it changes in the kept one, and the validation accuracies (%) of its seeds."""

    recipe: Recipe
    changes: dict[str, object]
    percents: list[float]

    @property
    def mean(self) -> float:
        return statistics.mean(self.percents)


def path(name: str, publish: bool, own: Path | None = None) -> Path:
    """own: a reader's folder, if it is not the usual one."""
    return (workspace.root / "logs" if publish else own or own_root()) / "trials" / f"{name}.jsonl"


def add(trial: Trial, publish: bool, own: Path | None = None) -> None:
    """Add a line to the study of the trial's experiment. Raises CourseError if it can't be written."""
    files.append_line(path(trial.name, publish, own), trial)


def read_file(path: Path) -> list[Trial]:
    """The trials of a study, NAME.jsonl. Raises CourseError for a damaged line, or another experiment's."""
    found, where = files.read_lines(path, Trial), files.display_path(path)
    for trial in found:
        if trial.name != path.stem:
            raise CourseError(f"{where}: found a trial of {trial.name!r}, expected {path.stem}. Delete its line.")
        try:
            models.parse(trial.recipe.model)
        except CourseError as error:
            raise CourseError(f"{where}: {error}. Delete its line.") from None
    return found


def read(name: str) -> list[Trial]:
    """All trials of an experiment, the published ones first, then your own. Raises CourseError like read_file."""
    return [trial for publish in (True, False) for trial in read_file(path(name, publish))]


def study(experiment: Experiment) -> list[Tried]:
    """Every recipe that was tried to its end: the kept one, then from best to worst. The last run of a seed counts.

    Trials on other data than the recipe's real ones, such as fallback digits, don't count.
    """
    found: dict[Recipe, dict[int, float]] = {}
    for trial in read(experiment.name):
        real = trial.fingerprint == PUBLISHABLE.get(trial.recipe.data, trial.fingerprint)
        if real and not (trial.pruned or trial.retired):
            found.setdefault(trial.recipe, {})[trial.seed] = trial.valid.percent
    tried = []
    for recipe, percents in found.items():
        kept = replace(experiment.recipe, valid=recipe.valid, epochs=recipe.epochs)  # of the same length
        changes = {name: value for name, (_, value) in recipe.changes(kept).items()}
        tried.append(Tried(recipe, changes, list(percents.values())))
    return sorted(tried, key=lambda one: (bool(one.changes), -one.mean))
