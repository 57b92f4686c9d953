"""resolve(): an experiment, a seed and options → a Job. Every check is made here, once."""

import copy
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import CourseError, files, models, smoke, switch
from ..data import datasets
from ..data.datasets import Dataset
from ..experiments import EXPERIMENTS, Experiment
from ..files import display_path
from ..training import ddp
from ..training.devices import pick_device
from ..training.quantize import NORMS
from . import facts, records, trials
from .lock import locked
from .pretrained import read_state_dict
from .records import DataFacts, FinishedRun, Normalization, RunPaths, RunStart


@dataclass(frozen=True)
class Job:
    """One run: what is trained, on what data, where, and which files hold it.

    experiment: as it runs here (in a smoke run one epoch). trial: some images are held out for a choice, so the test
    set is not used. run, own: paths of the results, and of the reader's own files with the checkpoint; they differ if a
    run is published. lock: held until it is closed. finished: the run's record if it need not be trained. state: the
    checkpoint to continue from. network: a reader's own, None for the recipe's.
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
    lock: ExitStack
    run_start: RunStart
    network: nn.Module | None = None
    finished: FinishedRun | None = None
    state: dict | None = None

    @property
    def title(self) -> str:
        return f"{self.experiment.name}, seed {self.seed}"

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_) -> None:
        self.lock.close()


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
    """The job of a run. If it is to be trained, its lock is held until `with job:` ends.

    device: auto, cuda, mps or cpu. publish: write logs/ and saved_dict/ of the repository (default: if COURSE_PUBLISH
    is 1). retrain: train again what is finished. folder: for the files, instead of runs/ (see utils.runs.records).
    echo: print progress. network: a network defined in a notebook, trained in place of the recipe's from random
    weights; it stays as it is. If it differs from the recipe's, the run is your own, named NAME-mine, and never
    published; load_pretrained(name, network) loads it.

    Raises CourseError if the run is impossible, before anything is trained or written; AlreadyRunning while another
    process trains it.
    """
    experiment, network = own_experiment(experiment, network)
    publish = check(experiment, seed, publish, network)
    trial, experiment = experiment.chooses_on_held_out, smoke_version(experiment)
    where, data = pick_device(device, experiment.recipe.kind), prepare_data(experiment)
    own = RunPaths.of(experiment, seed, folder or records.own_root())
    run = RunPaths.of(experiment, seed) if publish and not trial else own
    begun = begin(experiment, seed, where, data)
    job = Job(experiment, seed, where, data, publish, trial, echo, run, own, ExitStack(), begun, network)
    found = None if retrain else find(job)
    if found:
        return replace(job, finished=found)
    if publish:
        require_publishable(experiment, data)
    with ExitStack() as lock:
        lock.enter_context(locked(own.lock, job.title))
        found = None if retrain else find(job)  # another process may have just finished it
        return replace(continued(replace(job, finished=found)), lock=lock.pop_all())


def begin(experiment: Experiment, seed: int, device: torch.device, data: Dataset) -> RunStart:
    """What is known of a run before its first epoch."""
    recipe, pixels = experiment.recipe, Normalization(data.mean, data.std)
    here = facts.environment(device, ddp.world_size(), recipe.bfloat16), facts.code(), facts.now()
    return RunStart(experiment.name, seed, recipe, DataFacts.of(data), pixels, *here, continued=[])


def find(job: Job) -> FinishedRun | None:
    """The finished run of this job's recipe, seed and data, or None, also for one that is still to be published.
    Deletes the checkpoint that a kill left of it."""
    root = job.own.root if job.run == job.own else None
    found = records.finished(job.experiment, job.seed, root, job.run_start.data)
    with suppress(CourseError):
        saved = records.read_checkpoint(job.own.checkpoint) if found else None
        if saved and (saved[0].started, len(saved[1]["history"])) == (found.facts.started, found.facts.epochs):
            job.own.checkpoint.unlink(missing_ok=True)
    if found and job.publish and job.trial:
        study = trials.read_file(trials.path(job.experiment.name, publish=True))
        if (job.experiment.recipe, job.seed) not in ((one.recipe, one.seed) for one in study if not one.pruned):
            return None
    return found


def continued(job: Job) -> Job:
    """The job with the checkpoint of its interrupted run on the same data, if any. Raises CourseError."""
    saved = None if job.finished else records.read_checkpoint(job.own.checkpoint)
    if not saved or any(getattr(saved[0], name) != getattr(job.run_start, name) for name in ("seed", "recipe", "data")):
        return job
    before, state = saved
    if job.publish and any(differs(part, job.run_start) for part in (before, *before.continued)):
        raise CourseError(
            f"{job.title} can't be published: its checkpoint comes from other sources, or another machine, device, "
            f"number of threads or versions than are here now. Delete {display_path(job.own.checkpoint)} to start "
            "again, or continue where it started."
        )
    here = facts.Continued(len(state["history"]), job.run_start.code, job.run_start.environment)
    return replace(job, run_start=replace(before, continued=[*before.continued, here]), state=state)


def differs(part: RunStart | facts.Continued, now: RunStart) -> bool:
    """Whether a part of a run was computed elsewhere, or by sources that are in no commit or differ from these."""
    in_commit = part.code is not None and part.code.committed
    return not in_commit or (part.code.sources, part.environment) != (now.code.sources, now.environment)


def own_experiment(experiment: Experiment, network: nn.Module | None) -> tuple[Experiment, nn.Module | None]:
    """The experiment that trains a notebook's network, and that network.

    The recipe's own network gives the experiment itself and None. Any other gives an experiment whose name and recipe
    belong to this structure alone. Raises CourseError if the network can't be trained on digits.
    """
    if network is None:
        return experiment, None
    try:
        published = models.build(experiment.recipe.model, experiment.recipe.dropout)
        models.require_an_answer(copy.deepcopy(network).to("cpu"), models.input_shape(published))
        if not models.difference(network, published):
            return experiment, None
        if not models.count_parameters(network):
            raise ValueError("it has no parameters")
        norms = [layer for layer in network.modules() if isinstance(layer, NORMS)]
        if experiment.recipe.levels and any(norm.weight is None or norm.running_var is None for norm in norms):
            raise ValueError("its recipe rounds a batch norm's weight and running statistics, which a layer lacks")
        name = f"{experiment.name}{records.OWN}"
        return replace(experiment, name=name).with_recipe(model=f"{name}-{models.digest(network)}"), network
    except (RuntimeError, ValueError, TypeError) as error:
        raise CourseError(
            f"your network can't be trained as {experiment.name}: {files.shorten(str(error))}. Expected layers that "
            "turn (N, 1, 28, 28) images, or (N, 1, 16, 16, 16) grids, into (N, 10) logits."
        ) from error


def smoke_version(experiment: Experiment) -> Experiment:
    """The experiment as it runs here: in a smoke run, for one epoch."""
    if not smoke():
        return experiment
    recipe = experiment.recipe
    return experiment.with_recipe(epochs=1, valid=min(recipe.valid, 128), patience=min(recipe.patience, 1))


def prepare_data(experiment: Experiment) -> Dataset:
    """The recipe's data: with held-out images, undrawn grids or raw pixels if it says so. Raises CourseError."""
    recipe = experiment.recipe
    data = datasets.load(recipe.data)
    few = data.name != recipe.data or not data.whole  # fallback digits, or a smoke run's
    valid = min(recipe.valid, len(data.train) // 8 * 2) if few else recipe.valid
    data = data.hold_out(valid) if valid else data
    if recipe.images > len(data.train) and not few:
        expected = f"expected at most {len(data.train)}, the number of training images"
        raise CourseError(f"{experiment.name}: images = {recipe.images}: {expected}")
    data = data.undrawn() if recipe.fresh else data
    return data if recipe.normalize else replace(data, mean=0.0, std=1.0)


def check(experiment: Experiment, seed: int, publish: bool | None, network: nn.Module | None = None) -> bool:
    """Whether a run is published (publish=None: if COURSE_PUBLISH is 1). Raises CourseError for an impossible run."""
    publish, name = switch("COURSE_PUBLISH") if publish is None else publish, experiment.name
    if not 0 <= seed < 2**63:
        raise CourseError(f"seed = {seed}: expected 0 to {2**63 - 1}")
    if publish and network is not None:
        raise CourseError(f"{name} can't be published: it trains a network of your own. Set publish=False.")
    if publish and smoke():
        raise CourseError("a smoke run can't be published: leave out --publish or set COURSE_SMOKE=0")
    if publish and switch("COURSE_COMPILE"):
        raise CourseError(f"{name} can't be published from a compiled network, whose bits differ: unset COURSE_COMPILE")
    if publish and not (experiment.registered or experiment.chooses_on_held_out):
        todo = "leave out the overriding flags, or edit utils/experiments.py"
        raise CourseError(f"{name} can't be published with a changed recipe: {todo}")
    if publish and ddp.world_size() > 1:
        raise CourseError("several processes can't publish a run: the published runs are those of one process")
    require_fit(experiment, network)
    start_of(experiment)
    return publish


def start_of(experiment: Experiment) -> dict[str, Tensor] | None:
    """The weights with which a training starts; None for random ones. Raises CourseError if the start network is not
    published, was trained again, has another architecture, or saw other data."""
    wanted, recipe = experiment.recipe.start, experiment.recipe
    if not wanted:
        return None
    name, _, digits = wanted.rpartition("-")
    where = f"{experiment.name}: start = {wanted!r}: expected"
    if name not in EXPERIMENTS or len(digits) != 8:
        raise CourseError(f"{where} NAME-HASH of a published network")
    weights, found = read_state_dict(RunPaths.of(EXPERIMENTS[name], 0).weights)
    if not found.sha256.startswith(digits):
        raise CourseError(f"{where} {name}-{found.sha256[:8]}, as it is published now")
    if (found.recipe.model, found.recipe.data, found.recipe.normalize) != (recipe.model, recipe.data, recipe.normalize):
        raise CourseError(f"{where} a network {recipe.model} that saw the same data")
    return weights


def require_publishable(experiment: Experiment, data: Dataset) -> None:
    """Raise CourseError unless the data are real and the sources that determine the weights are in a commit."""
    if datasets.PUBLISHABLE.get(data.name) != data.fingerprint:
        found = f"{data.name} (fingerprint {data.fingerprint[:12]}…)"
        raise CourseError(f"{experiment.name} can't be published: {found} is not the real {experiment.recipe.data}")
    code = facts.code()
    if not code.committed:
        raise CourseError(
            f"{experiment.name} can't be published from the commit {code.commit!r}: expected the sources that decide "
            f"the weights (utils/{{{','.join(facts.DECIDING)}}}.py) as they are in a commit. Commit them first."
        )


def require_fit(experiment: Experiment, network: nn.Module | None = None) -> None:
    """Raise CourseError unless the network can be built and takes what the data set holds."""
    recipe = experiment.recipe
    where = f"{experiment.name}: model = {recipe.model!r}"
    try:
        with torch.device("meta"):
            model = models.build(recipe.model, recipe.dropout) if network is None else network
    except (ValueError, TypeError, RuntimeError) as error:
        raise CourseError(f"{where} with dropout = {recipe.dropout} can't be built: {error}") from error
    if network is None and models.takes(model) != recipe.kind:
        raise CourseError(f"{where} takes {models.takes(model)}, but data = {recipe.data!r} holds {recipe.kind}")
