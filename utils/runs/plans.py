"""What a run was asked for, and every reason not to begin it: before any data is loaded, and before the first of many runs starts."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import files, models, smoke, CourseError
from . import facts, locks, records
from ..training import ddp
from ..data import datasets
from ..data.datasets import Dataset
from ..experiments import Experiment
from .records import Run


@dataclass(frozen=True)
class Plan:
    """What was asked for, once nothing speaks against it."""

    experiment: Experiment
    seed: int
    device: torch.device
    publish: bool
    closed: bool  # whether the test set stays closed, since choices are being made
    again: bool
    echo: bool
    run: Run  # where the results go
    own: Run  # where the checkpoint, and the log of a run that is not finished, wait
    lock: locks.Lock  # held by the one process that trains it and writes its files

    @property
    def title(self) -> str:
        return f"{self.experiment.name}, seed {self.seed}"


def make_plan(experiment: Experiment, seed: int, device: str, publish: bool | None, again: bool, root: Path | None, echo: bool) -> Plan:
    """The plan of a run. Raises CourseError for everything that can be refused without the data."""
    publish = refuse(experiment, seed, publish)
    closed, experiment = experiment.is_trial, as_run(experiment)
    where = ddp.together(lambda: pick_device(device))
    own = Run.of(experiment, seed, root or records.own_root())
    run = Run.of(experiment, seed) if publish and not closed else own
    lock = locks.Lock(own.checkpoint.with_suffix(".lock"), f"{experiment.name}, seed {seed},")
    return Plan(experiment, seed, where, publish, closed, again, echo, run, own, lock)


def require_writable(run: Run, own: Run) -> None:
    """Raise CourseError now, not after the training, if a run's files can't be written; it says where else they may go."""
    try:
        files.require_writable(run.log.parent, run.weights.parent, own.checkpoint.parent)
    except CourseError as error:
        raise CourseError(f"{error} Your own runs go elsewhere if COURSE_RUNS names another folder.") from error


def as_run(experiment: Experiment) -> Experiment:
    """The experiment as it is run here: in a smoke run one epoch of it."""
    recipe = experiment.recipe
    return experiment.but(epochs=1, valid=min(recipe.valid, 128), patience=min(recipe.patience, 1)) if smoke() else experiment


def refuse(experiment: Experiment, seed: int, publish: bool | None) -> bool:
    """Raise CourseError for a run that can't be meant; else whether it is to be published (publish=None: whether COURSE_PUBLISH is 1)."""
    publish = os.environ.get("COURSE_PUBLISH") == "1" if publish is None else publish
    if not 0 <= seed < 2**63:
        raise CourseError(f"seed = {seed}: expected 0 to {2**63 - 1}")
    if publish:
        refuse_unpublishable(experiment)
    if experiment.recipe.data not in datasets.NAMES:
        raise CourseError(f"no data set is called {experiment.recipe.data!r}: expected one of {', '.join(datasets.NAMES)}")
    require_fit(experiment)
    return publish


def refuse_unpublishable(experiment: Experiment) -> None:
    """Raise CourseError unless this is an unchanged recipe of the course, or a trial, in one process."""
    if smoke():
        raise CourseError("a smoke run can't be published: leave out --publish or set COURSE_SMOKE=0")
    if not (experiment.registered or experiment.is_trial):
        raise CourseError(
            f"{experiment.name} can't be published with a changed recipe: leave out the overriding flags, or edit utils/experiments.py"
        )
    if ddp.world_size() > 1:
        raise CourseError("what several processes trained can't be published: the published runs are those of one process")


def refuse_uncommitted(experiment: Experiment) -> None:
    """Raise CourseError unless what is about to be trained for publication will be run by sources that anyone can check out."""
    commit = facts.code().commit
    if commit == "unknown" or commit.endswith("+changes"):
        raise CourseError(
            f"{experiment.name} can't be published from the commit {commit!r}: expected the sources that decide the weights "
            f"(utils/{{{','.join(facts.DECIDING)}}}.py) as they are in a commit. Commit them first."
        )


def require_fit(experiment: Experiment) -> None:
    """Raise CourseError unless the network can be built and takes what the data set holds."""
    recipe = experiment.recipe
    try:
        with torch.device("meta"):
            model = models.build(recipe.model, recipe.dropout)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CourseError(f"{experiment.name}: model = {recipe.model!r} with dropout = {recipe.dropout} can't be built: {error}") from error
    takes = "images" if len(models.input_shape(model)) == 3 else "voxels"
    if takes != recipe.kind:
        raise CourseError(f"{experiment.name}: model = {recipe.model!r} takes {takes}, but data = {recipe.data!r} holds {recipe.kind}")


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" → CUDA, then MPS, then CPU; else the device of that name. Raises CourseError if it is not there.

    Where several processes train together, each gets a GPU of its machine for itself, or all of them the CPU.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if ddp.world_size() > 1:
        return ddp.pick_device(name)
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    kind, _, number = name.partition(":")
    most = {"cuda": torch.cuda.device_count()}.get(kind, 1)
    if not available.get(kind, False) or (number and not (number.isdecimal() and int(number) < most)) or name.endswith(":"):
        there = ", ".join(kind for kind, there in available.items() if there)
        raise CourseError(f"device {name!r} is not available: expected auto or one of {there}")
    return torch.device(name)


def load(experiment: Experiment) -> Dataset:
    """The data as the recipe wants them: some images held out, grids to be drawn anew, pixels as they are. Raises CourseError."""
    recipe = experiment.recipe
    data = datasets.load(recipe.data)
    few = data.name != recipe.data or not data.whole  # fallback digits, or a smoke run's
    valid = min(recipe.valid, len(data.train) // 8 * 2) if few else recipe.valid
    data = data.hold_out(valid) if valid else data
    if recipe.images > len(data.train) and not few:
        raise CourseError(f"{experiment.name}: images = {recipe.images}: expected at most the {len(data.train)} that there are to train on")
    data = data.undrawn() if recipe.fresh else data
    return data if recipe.normalise else replace(data, mean=0.0, std=1.0)


def refuse_other_data(experiment: Experiment, data: Dataset) -> None:
    """Raise CourseError unless these are the real data."""
    if datasets.PUBLISHABLE.get(data.name) != data.fingerprint:
        raise CourseError(
            f"{experiment.name} can't be published: {data.name} (fingerprint {data.fingerprint[:12]}…) is not the real "
            f"{experiment.recipe.data}"
        )
