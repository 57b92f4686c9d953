"""run(): resolve a job, fit its network, save the results. load(): read them."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from .. import CourseError, Interrupted, files, models, smoke, workspace
from ..data.datasets import Dataset, Split
from ..experiments import Experiment
from ..files import display_path
from ..training import ddp, devices
from ..training.loops import CheckpointMismatch, Row, Score, Training, describe, evaluate, result_epoch
from ..training.loops import fit as train
from . import facts, packed, records, trials
from .job import Job, check, prepare_data, resolve, smoke_version, start_of
from .pretrained import load_model
from .records import DataFacts, FinishedRun, RunMetadata, RunPaths, RunStart, Use, against_published

AfterEpoch = Callable[[list[Row]], None]
LARGE = 6_000_000  # bytes: of a larger state dict, or one of voxels, only seed 0 is published


@dataclass(frozen=True)
class Result:
    """A finished run. model: trained, in eval mode, on the CPU; None if it was read and its weights are not kept."""

    experiment: Experiment
    seed: int
    model: nn.Module | None
    data: Dataset
    history: list[Row]
    facts: RunMetadata
    weights: Path
    log: Path


def run(
    experiment: Experiment,
    seed: int = 0,
    device: str = "auto",
    after_epoch: AfterEpoch = lambda history: None,
    **options: object,
) -> Result:
    """Train one experiment with one seed and save the results. A finished run is read, an interrupted one continued.

    options: of resolve(): publish, retrain, folder, echo and network. after_epoch: called with the rows so far, once
    they are safe on disk. If several processes train together, all call this, and process 0 reads and writes the files.

    Raises CourseError if the run is impossible, and for a loss that is not finite; AlreadyRunning while another process
    trains it; Interrupted at Ctrl-C.
    """
    with resolve_together(lambda: resolve(experiment, seed, device, **options), device) as job:
        if job.finished:
            return _read(job.experiment, job.run, job.finished, job.data, job.echo, job.network)
        return save(job, *fit(job, after_epoch))


def resolve_together(resolved: Callable[[], Job], device: str) -> Job:
    """This process's job: process 0 resolves it, and the others load the data and take a device of their own."""
    if ddp.world_size() == 1:
        return resolved()
    mine = ddp.raise_together(lambda: resolved() if ddp.rank() == 0 else None)  # with the lock, and the data
    job = ddp.on_rank0(lambda: replace(mine, data=None, lock=ExitStack()))
    data = ddp.raise_together(lambda: mine.data if mine else prepare_data(job.experiment))
    where = ddp.raise_together(lambda: devices.pick_device(device, job.experiment.recipe.kind))
    ddp.require_same({"data": DataFacts.of(data), "sources": facts.code().sources, "device": where.type})
    return replace(mine or job, data=data, device=where)


def fit(job: Job, after_epoch: AfterEpoch = lambda history: None) -> tuple[nn.Module, list[Row]]:
    """Train a job's network, from its checkpoint if it has one. Returns the network, on the CPU and in eval mode, and
    its rows. Raises Interrupted at Ctrl-C; the checkpoint stays."""
    recipe, safe = job.experiment.recipe, bool(job.state)
    if job.state and job.echo:
        print_continued(job)
    if job.device.type == "cpu":
        devices.keep_memory()
    torch.backends.cudnn.deterministic = True  # same seed, same bits on CUDA too
    torch.manual_seed(job.seed)
    model = devices.prepare(initial(job.experiment, job.network), job.device)
    if ddp.rank():
        torch.manual_seed(job.seed + ddp.rank())  # equal initial weights, but different dropout masks

    def save_epoch(training: Training) -> None:
        nonlocal safe
        state = training.state_dict()  # of all processes, not only of the one that writes
        ddp.on_rank0(lambda: records.write_checkpoint(job.own.checkpoint, job.run_start, state))
        safe = True
        after_epoch(training.history)

    try:
        history = train(model, job.data.to(job.device), recipe, job.seed, job.state, save_epoch, job.echo)
    except KeyboardInterrupt:
        done = "after its last finished epoch" if safe else "from the start (no epoch was finished)"
        raise Interrupted(f"{job.title}: interrupted. The same command continues it {done}.") from None
    except CheckpointMismatch as error:
        path = display_path(job.own.checkpoint)
        raise CourseError(f"{path} does not fit this run ({error}). Delete it to start again.") from error
    plain = untrained(job.experiment, job.network)
    plain.load_state_dict(model.to("cpu", memory_format=torch.contiguous_format).state_dict())
    return plain.eval(), history


def untrained(experiment: Experiment, network: nn.Module | None) -> nn.Module:
    """The recipe's network, or a copy of a reader's own, with random weights from the global generator."""
    recipe = experiment.recipe
    return models.build(recipe.model, recipe.dropout) if network is None else models.with_random_weights(network)


def initial(experiment: Experiment, network: nn.Module | None = None) -> nn.Module:
    """The network at the start of a training: with random weights, or those of a published network."""
    model = untrained(experiment, network)
    weights = start_of(experiment)
    if weights:
        model.load_state_dict(weights)
    return model


def print_continued(job: Job) -> None:
    """The rows so far, and a warning if the bits will differ from an uninterrupted run's."""
    now = job.run_start.continued[-1]
    print(f"{job.title}: continuing after epoch {now.after_epoch} of {job.experiment.recipe.epochs}")
    print(*map(describe, job.state["history"]), sep="\n")
    here, parts = (now.code.sources, now.environment), (job.run_start, *job.run_start.continued)
    if any((part.code and part.code.sources, part.environment) != here for part in parts):
        what = "A part of it ran with other sources, or on another machine, device or number of threads or processes"
        print(f"{what}: the result will not be bit for bit the same.")


def save(job: Job, model: nn.Module, history: list[Row]) -> Result:
    """Evaluate a trained network, and write its log, state dict, facts and trial. Raises CourseError."""

    def write() -> RunMetadata:
        content = files.to_bytes(model.state_dict())
        recipe, data = job.experiment.recipe, job.data
        packs = recipe.levels and job.network is None  # a packed network is built again by its name
        small = packed.write(model, recipe.model, recipe.levels, data.mean, data.std) if packs else b""
        done = replace(measured(job, model, history, content), packed=len(small))
        job.run.facts.unlink(missing_ok=True)  # of an earlier run, whose other files are now replaced
        records.write_log(job.run.log, history)
        if job.run == job.own or keeps_weights(job.experiment, job.seed, len(content)):
            files.write(job.run.weights, content)
            if small:
                files.write(job.run.weights.with_suffix(".bin"), small)
            files.write_json(job.run.weights.with_suffix(".json"), done)
        if recipe.valid:
            trials.add(trial(done, history), job.publish, job.own.root)
        files.write_json(job.run.facts, done)  # last: it states that the other files are complete
        job.own.checkpoint.unlink(missing_ok=True)
        return done

    done = ddp.on_rank0(write)
    if job.echo and job.run == job.own and not smoke():
        print(against_published(job.experiment, done))
        if job.network is not None:
            how = f'load_pretrained("{job.run.weights.stem}", network) loads it.'
            print(f"The network is your own, and so is this run: {how}")
    return Result(job.experiment, job.seed, model, job.data, history, done, job.run.weights, job.run.log)


def keeps_weights(experiment: Experiment, seed: int, size: int) -> bool:
    """Whether a published run keeps its state dict: seed 0 does, and each seed of an image network of few bytes."""
    return experiment.weights and (seed == 0 or (experiment.recipe.kind == "images" and size < LARGE))


def measured(job: Job, model: nn.Module, history: list[Row], content: bytes) -> RunMetadata:
    """The facts of a finished run. The test set is evaluated here, once, unless the run is a trial."""

    def score(split: Split) -> Score:
        return evaluate(model, split, job.data.mean, job.data.std)

    best, test = result_epoch(history, job.experiment.recipe), None if job.trial else score(job.data.test)
    if test and "test_correct" in best:  # the score of the CPU counts, as in tools.verify, wherever it was trained
        best |= {f"test_{key}": value for key, value in asdict(test).items()}
    return RunMetadata(
        **vars(job.run_start),
        parameters=models.count_parameters(model),
        epochs=len(history),
        kept_epoch=best["epoch"],
        test=test,
        parts={} if job.trial else {name: score(split) for name, split in job.data.parts.items()},
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        seconds=round(sum(row["seconds"] for row in history), 1),
        finished=facts.now(),
        use=Use.of(job.data),
    )


def trial(done: RunStart, history: list[Row], pruned: bool = False) -> trials.Trial:
    """A run with held-out images as a line of its experiment's study."""
    best = history[-1] if pruned else result_epoch(history, done.recipe)
    valid = Score(best["valid_loss"], int(best["valid_correct"]), int(best["valid_total"]))
    seconds, data = round(sum(row["seconds"] for row in history), 1), done.data.fingerprint
    where = (data, done.code, done.environment, facts.now())
    return trials.Trial(done.name, done.recipe, done.seed, valid, int(best["epoch"]), pruned, seconds, *where)


def give_up(experiment: Experiment, seed: int, history: list[Row], publish: bool | None = None) -> None:
    """End a run with held-out images that is not worth continuing: record it in the study, delete its checkpoint."""
    own = RunPaths.of(smoke_version(experiment), seed, records.own_root())
    saved = records.read_checkpoint(own.checkpoint)
    if saved:
        trials.add(trial(saved[0], history, pruned=True), check(experiment, seed, publish))
    own.checkpoint.unlink(missing_ok=True)


def load(experiment: Experiment, seed: int = 0, published: bool = False, echo: bool = True) -> Result:
    """Your finished run of this recipe, seed and data, or else the published one; with published=True, the latter.

    Raises CourseError for a changed recipe or an unpublished seed.
    """
    mine = smoke_version(experiment), records.own_root()
    for one, root in ((experiment, None),) if published else (mine, (experiment, None)):
        found = records.finished(one, seed, root)
        data = prepare_data(one) if found else None
        if found and (root is None or found.facts.data.fingerprint == data.fingerprint):
            return _read(one, RunPaths.of(one, seed, root), found, data, echo, None)
    why = f"seed {seed} is not published by its present recipe" if experiment.registered else "its recipe was changed"
    todo = "so there is no published run to read. Train it with run() or train.py."
    raise CourseError(f"{experiment.name}: {why}, {todo}")


def _read(
    experiment: Experiment, run: RunPaths, record: FinishedRun, data: Dataset, echo: bool, network: nn.Module | None
) -> Result:
    """A finished run; prints its first, best and last epoch. Not every published run keeps its weights."""
    if echo:
        where = f"trained {record.facts.started[:10]}, {record.facts.environment.device}"
        print(f"Read from {display_path(record.log)} ({where}), not trained again (retrain=True, or --retrain, does):")
        part = "test" if "test_correct" in record.history[0] else "valid"
        best = max(record.history, key=lambda row: row[f"{part}_correct"])
        rows = {row["epoch"]: row for row in (record.history[0], best, record.history[-1])}
        print(*(describe(rows[epoch]) for epoch in sorted(rows)), sep="\n")
    has_weights = run.root != workspace.root or (run.seed == 0 and experiment.weights)
    has_weights = has_weights or run.weights.with_suffix(".json").is_file()
    model = load_model(run.weights, network)[0] if has_weights else None
    return Result(experiment, run.seed, model, data, record.history, record.facts, run.weights, record.log)
