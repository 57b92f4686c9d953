"""Studies: what was tried on held-out images, as data. Every such run adds one line to logs/trials/NAME.jsonl, or below
runs/."""

import math
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
    """One run with held-out images. valid: of the kept epoch; pruned: given up early, since others did better by
    then."""

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
    retired: dict[str, object] = field(
        default_factory=dict
    )  # of its recipe, what the course no longer has: no part of the study

    def __post_init__(self):
        if self.epoch < 1 or min(self.seed, self.seconds) < 0:
            raise ValueError("an epoch, a seed or a time is negative")


@dataclass(frozen=True)
class Tried:
    """A recipe of a study: what it changes against the kept one, and the validation accuracies (%) of its seeds."""

    recipe: Recipe
    changes: dict[str, object]
    percents: list[float]

    @property
    def mean(self) -> float:
        return statistics.mean(self.percents)

    @property
    def standard_error(self) -> float:
        """Of the mean: from the held-out images' count if there are no two seeds to tell."""
        chance = 100 * math.sqrt(self.mean / 100 * (1 - self.mean / 100) / max(self.recipe.valid, 1))
        spread = statistics.stdev(self.percents) if len(self.percents) > 1 else chance
        return spread / math.sqrt(len(self.percents))


def path(name: str, publish: bool, own: Path | None = None) -> Path:
    """own: a reader's folder, if it is not the usual one."""
    return (workspace.root / "logs" if publish else own or own_root()) / "trials" / f"{name}.jsonl"


def add(trial: Trial, publish: bool, own: Path | None = None) -> None:
    """Add one line to the study of the trial's experiment. Raises CourseError where it can't be written."""
    files.append_line(path(trial.name, publish, own), trial)


def read_file(path: Path) -> list[Trial]:
    """The trials of a study, NAME.jsonl. Raises CourseError for a line that is damaged or names another experiment or
    network."""
    found = files.read_lines(path, Trial)
    for trial in found:
        if trial.name != path.stem:
            raise CourseError(
                f"{files.display_path(path)}: found a trial of {trial.name!r}, expected {path.stem}. Delete its line."
            )
        try:
            models.parse(trial.recipe.model)
        except CourseError as error:
            raise CourseError(f"{files.display_path(path)}: {error}. Delete its line.") from None
    return found


def read(name: str) -> list[Trial]:
    """All trials of an experiment, the published ones first, then one's own. Raises CourseError like read_file."""
    return [trial for publish in (True, False) for trial in read_file(path(name, publish))]


def study(experiment: Experiment) -> list[Tried]:
    """Every recipe that was tried to its end, the kept one, then from best to worst; of a repeated seed the last run
    counts.

    What was tried on other data than the recipe's real ones, such as fallback digits, does not count.
    """
    found: dict[Recipe, dict[int, float]] = {}
    for trial in read(experiment.name):
        if not (trial.pruned or trial.retired) and trial.fingerprint == PUBLISHABLE.get(
            trial.recipe.data, trial.fingerprint
        ):
            found.setdefault(trial.recipe, {})[trial.seed] = trial.valid.percent
    tried = []
    for recipe, percents in found.items():
        kept = replace(
            experiment.recipe, valid=recipe.valid, epochs=recipe.epochs
        )  # short runs compare with short runs
        changes = {name: value for name, (_, value) in recipe.changes(kept).items()}
        tried.append(Tried(recipe, changes, list(percents.values())))
    return sorted(tried, key=lambda one: (bool(one.changes), -one.mean))


def better(experiment: Experiment) -> list[Tried]:
    """Recipes whose mean lies above that of the kept one, in as many epochs, by more than one standard error of the
    difference."""
    tried = study(experiment)
    kept = {(one.recipe.epochs, one.recipe.valid): one for one in tried if not one.changes}
    pairs = [(one, kept.get((one.recipe.epochs, one.recipe.valid))) for one in tried if one.changes]
    return [
        one for one, own in pairs if own and one.mean - own.mean > math.hypot(one.standard_error, own.standard_error)
    ]
