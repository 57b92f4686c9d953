"""resolve(): an experiment, a seed and options → a Job, in which every check is made and every question answered,
once."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import CourseError, files, models, smoke, switch, workspace
from ..data import datasets
from ..data.datasets import Dataset
from ..experiments import EXPERIMENTS, Experiment
from ..files import display_path
from ..training import ddp
from ..training.devices import pick_device
from . import facts, records
from .lock import Lock
from .pretrained import read_state_dict
from .records import DataFacts, FinishedRun, Normalization, RunPaths, RunStart


@dataclass(frozen=True)
class Job:
    """One run: what is trained, on what data, where, and which files hold it.

    experiment: as it runs here (in a smoke run one epoch). run: the paths of the results; own: of the checkpoint, which
    differ from `run` if a run is published. trial: some images are held out for a choice, so the test set
    is not used. finished: the run's record if it need not be trained. state: the checkpoint to continue from. network:
    a reader's own, None for the recipe's.
    """

    experiment: Experiment
    seed: int
    device: torch.device
    data: Dataset | None
    publish: bool
    trial: bool
    echo: bool
    run: RunPaths
    own: RunPaths
    lock: Lock
    run_start: RunStart
    finished: FinishedRun | None = None
    state: dict | None = None
    network: nn.Module | None = None

    @property
    def title(self) -> str:
        return f"{self.experiment.name}, seed {self.seed}"

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_) -> None:
        self.lock.__exit__()


def resolve(
    experiment: Experiment,
    seed: int = 0,
    device: str = "auto",
    publish: bool | None = None,
    retrain: bool = False,
    folder: Path | None = None,
    echo: bool = True,
    network: nn.Module | None = None,
) -> Job:
    """The job of a run (see run() for the options). If it is to be trained, its lock is held until `with job:` ends.

    Raises CourseError for whatever speaks against the run, before anything is trained or written; AlreadyRunning while
    another process trains it.
    """
    experiment, network = own_experiment(experiment, network)
    publish = check(experiment, seed, publish, network)
    trial, experiment = experiment.chooses_on_held_out, smoke_version(experiment)
    where, data = pick_device(device, experiment.recipe.kind), prepare_data(experiment)
    own = RunPaths.of(experiment, seed, folder or records.own_root())
    job = Job(
        experiment=experiment,
        seed=seed,
        device=where,
        data=data,
        publish=publish,
        trial=trial,
        echo=echo,
        run=RunPaths.of(experiment, seed) if publish and not trial else own,
        own=own,
        lock=Lock(own.lock, f"{experiment.name}, seed {seed},"),
        run_start=begin(experiment, seed, where, data),
        network=network,
    )
    if publish:
        require_real_data(job)
    found = None if retrain else find(job)
    if found:
        return replace(job, finished=found)
    if publish:
        require_committed(experiment)
    require_writable(job)
    return locked(job, retrain)


def locked(job: Job, retrain: bool) -> Job:
    """The job with its lock held, to be trained or continued, or without the lock if another process has finished it
    meanwhile."""
    job.lock.__enter__()
    try:
        found = None if retrain else find(job)  # perhaps finished by the process that just released the lock
        return replace(job, finished=found) if found else continued(job)
    except BaseException:
        job.lock.__exit__()
        raise


def begin(experiment: Experiment, seed: int, device: torch.device, data: Dataset) -> RunStart:
    """What is known of a run before its first epoch."""
    return RunStart(
        name=experiment.name,
        seed=seed,
        recipe=experiment.recipe,
        data=DataFacts.of(data),
        normalization=Normalization(data.mean, data.std),
        environment=facts.environment(device, ddp.world_size(), experiment.recipe.bfloat16),
        code=facts.code(),
        started=facts.now(),
        continued=[],
    )


def find(job: Job) -> FinishedRun | None:
    """The finished run of this job's recipe, seed and data; None if there is none. Deletes the checkpoint that a kill
    left of that run."""
    root = None if job.run.root == workspace.root else job.own.root
    found = records.finished(job.experiment, job.seed, root, job.run_start.data)
    with suppress(CourseError):
        saved = records.read_checkpoint(job.own.checkpoint) if found else None
        if saved and (saved[0].started, len(saved[1]["history"])) == (found.facts.started, found.facts.epochs):
            job.own.checkpoint.unlink(missing_ok=True)
    return found


def continued(job: Job) -> Job:
    """The job with the checkpoint of an interrupted run on the same data, if there is one. Raises CourseError if that
    can't be used."""
    saved = records.read_checkpoint(job.own.checkpoint)
    if not saved or saved[0].data != job.run_start.data:
        return job
    before, state = saved
    if job.publish and any(differs(part, job.run_start) for part in (before, *before.continued)):
        raise CourseError(
            f"{job.title} can't be published: its checkpoint comes from other sources, or another machine, device, number of threads or "
            f"versions than are here now. Delete {display_path(job.own.checkpoint)} to start again, or continue where it started."
        )
    here = facts.Continued(len(state["history"]), job.run_start.code, job.run_start.environment)
    return replace(job, run_start=replace(before, continued=[*before.continued, here]), state=state)


def differs(part: RunStart | facts.Continued, now: RunStart) -> bool:
    """Whether a part of a run was computed elsewhere than now, or by sources that are in no commit or differ from the
    present ones."""
    in_commit = part.code is not None and part.code.commit != "unknown" and not part.code.commit.endswith("+changes")
    return not in_commit or (part.code.sources, part.environment) != (now.code.sources, now.environment)


def own_experiment(experiment: Experiment, network: nn.Module | None) -> tuple[Experiment, nn.Module | None]:
    """The experiment that trains the network of a notebook's cell, and that network. If it is the recipe's, the
    experiment itself and None; a changed one makes a reader's own experiment, whose name and recipe belong to this
    structure alone. Raises CourseError if it can't be trained on digits."""
    if network is None:
        return experiment, None
    try:
        if not models.difference(network, models.build(experiment.recipe.model, experiment.recipe.dropout)):
            return experiment, None
        models.require_an_answer(models.with_random_weights(network))
        name = f"{experiment.name}{records.OWN}"
        return replace(experiment, name=name).with_recipe(model=f"{name}-{models.digest(network)}"), network
    except (RuntimeError, ValueError, TypeError) as error:
        raise CourseError(
            f"your network can't be trained as {experiment.name}: {files.shorten(str(error))}. Expected layers that turn (N, 1, 28, 28) "
            "images, or (N, 1, 16, 16, 16) grids, into (N, 10) logits."
        ) from error


def smoke_version(experiment: Experiment) -> Experiment:
    """The experiment as it runs here: in a smoke run one epoch of it."""
    recipe = experiment.recipe
    return (
        experiment.with_recipe(epochs=1, valid=min(recipe.valid, 128), patience=min(recipe.patience, 1))
        if smoke()
        else experiment
    )


def prepare_data(experiment: Experiment) -> Dataset:
    """The data as the recipe describes them: some images held out, grids still to be drawn, pixels not normalized.
    Raises CourseError."""
    recipe = experiment.recipe
    data = datasets.load(recipe.data)
    few = data.name != recipe.data or not data.whole  # fallback digits, or a smoke run's
    valid = min(recipe.valid, len(data.train) // 8 * 2) if few else recipe.valid
    data = data.hold_out(valid) if valid else data
    if recipe.images > len(data.train) and not few:
        raise CourseError(
            f"{experiment.name}: images = {recipe.images}: expected at most {len(data.train)}, the number of training images"
        )
    data = data.undrawn() if recipe.fresh else data
    return data if recipe.normalize else replace(data, mean=0.0, std=1.0)


# ---- checks


def check(experiment: Experiment, seed: int, publish: bool | None, network: nn.Module | None = None) -> bool:
    """Raise CourseError for a run that can't be meant; else whether it is published (publish=None: whether
    COURSE_PUBLISH is 1)."""
    publish = switch("COURSE_PUBLISH") if publish is None else publish
    if not 0 <= seed < 2**63:
        raise CourseError(f"seed = {seed}: expected 0 to {2**63 - 1}")
    if publish and network is not None:
        raise CourseError(f"{experiment.name} can't be published: it trains a network of your own. Set publish=False.")
    if publish:
        require_publishable(experiment)
    if experiment.recipe.data not in datasets.NAMES:
        raise CourseError(
            f"no data set is called {experiment.recipe.data!r}: expected one of {', '.join(datasets.NAMES)}"
        )
    require_fit(experiment, network)
    start_of(experiment)
    return publish


def start_of(experiment: Experiment) -> dict[str, Tensor] | None:
    """The weights with which a training starts; None for random ones. Raises CourseError for a network that is not
    published, was trained again, is another one, or saw other data."""
    wanted, recipe = experiment.recipe.start, experiment.recipe
    if not wanted:
        return None
    name, _, digits = wanted.rpartition("-")
    if name not in EXPERIMENTS or len(digits) != 8:
        raise CourseError(f"{experiment.name}: start = {wanted!r}: expected NAME-HASH of a published network")
    weights, found = read_state_dict(RunPaths.of(EXPERIMENTS[name], 0).weights)
    if not found.sha256.startswith(digits):
        raise CourseError(
            f"{experiment.name}: start = {wanted!r}: expected {name}-{found.sha256[:8]}, as it is published now"
        )
    if (found.recipe.model, found.recipe.data, found.recipe.normalize) != (recipe.model, recipe.data, recipe.normalize):
        raise CourseError(
            f"{experiment.name}: start = {wanted!r}: expected a network {recipe.model} that saw the same data"
        )
    return weights


def require_publishable(experiment: Experiment) -> None:
    """Raise CourseError unless this is an unchanged recipe of the course, or a trial, in one process."""
    if smoke():
        raise CourseError("a smoke run can't be published: leave out --publish or set COURSE_SMOKE=0")
    if not (experiment.registered or experiment.chooses_on_held_out):
        raise CourseError(
            f"{experiment.name} can't be published with a changed recipe: leave out the overriding flags, or edit utils/experiments.py"
        )
    if ddp.world_size() > 1:
        raise CourseError("several processes can't publish a run: the published runs are those of one process")


def require_committed(experiment: Experiment) -> None:
    """Raise CourseError unless the sources that determine the weights are those of a commit, which anyone can check
    out."""
    commit = facts.code().commit
    if commit == "unknown" or commit.endswith("+changes"):
        raise CourseError(
            f"{experiment.name} can't be published from the commit {commit!r}: expected the sources that determine the weights "
            f"(utils/{{{','.join(facts.DECIDING)}}}.py) as they are in a commit. Commit them first."
        )


def require_fit(experiment: Experiment, network: nn.Module | None = None) -> None:
    """Raise CourseError unless the network can be built and takes what the data set holds."""
    recipe = experiment.recipe
    try:
        with torch.device("meta"):
            model = models.build(recipe.model, recipe.dropout) if network is None else network
    except (ValueError, TypeError, RuntimeError) as error:
        raise CourseError(
            f"{experiment.name}: model = {recipe.model!r} with dropout = {recipe.dropout} can't be built: {error}"
        ) from error
    takes = "images" if len(models.input_shape(model)) == 3 else "voxels"
    if takes != recipe.kind:
        raise CourseError(
            f"{experiment.name}: model = {recipe.model!r} takes {takes}, but data = {recipe.data!r} holds {recipe.kind}"
        )


def require_real_data(job: Job) -> None:
    """Raise CourseError unless these are the real data."""
    data = job.run_start.data
    if datasets.PUBLISHABLE.get(data.name) != data.fingerprint:
        raise CourseError(
            f"{job.experiment.name} can't be published: {data.name} (fingerprint {data.fingerprint[:12]}…) is not the real "
            f"{job.experiment.recipe.data}"
        )


def require_writable(job: Job) -> None:
    """Raise CourseError now, not after the training, if the job's files can't be written; it states where else they may
    go."""
    try:
        files.require_writable(job.run.log.parent, job.run.weights.parent, job.own.checkpoint.parent)
    except CourseError as error:
        raise CourseError(f"{error} Your own runs go elsewhere if COURSE_RUNS names another folder.") from error
