"""Many runs (experiments × seeds) on a Dask cluster, one task each. Imported only when `train.py --cluster` asks for it.

Why Dask and not Ray: both restart a killed worker and hand its task to the next one, which is what counts here. Dask is a few
megabytes of pure Python for every system that PyTorch runs on; Ray is 80 MB, compiled for each Python version, and starts several
server processes for each local cluster. What Ray would add (shared memory, fractions of a GPU) these runs don't use: a
worker is one process with its share of the cores, or one GPU, and does one run at a time.

All workers must see the course at the same path, as on a shared disk: there the results go, and there the checkpoint of a run
waits for whichever worker takes it up after the one that was killed.
"""

import asyncio
import logging
import os
import pickle
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from utils import ROOT, CourseError, artifacts, runs, smoke
from utils import data as datasets
from utils.experiments import Experiment

try:
    from dask.system import CPU_COUNT
    from distributed import Client, KilledWorker, Nanny, Scheduler, SpecCluster, as_completed, get_worker
except ImportError as error:
    raise CourseError(f"--cluster needs Dask ({error}): python -m pip install -r requirements-extra.txt") from error

Task = tuple[Experiment, int]  # a recipe and a seed
PATIENCE = 20  # seconds for a scheduler and a first worker to answer
SETTINGS = ("COURSE_DATA", "COURSE_SMOKE", "COURSE_PUBLISH")


@dataclass(frozen=True)
class Job:
    """What every worker has to know of the command that it works for."""

    device: str
    publish: bool | None
    course: Path  # the repository
    root: Path  # where runs go
    mark: Path  # a file below root; who sees it shares the disk
    settings: dict[str, str]  # of the environment
    fingerprints: dict[str, str]  # of the data sets


def run_all(
    tasks: list[Task],
    address: str = "",
    device: str = "auto",
    publish: bool | None = None,
    root: Path | None = None,
    echo: bool = True,
) -> tuple[list[runs.Result], list[str]]:
    """Do the tasks that are not finished yet on the Dask cluster at `address`, or on one of this machine's own.

    A task whose worker dies is given to another one, which continues it after its last epoch. device, publish, root: as of
    runs.run, on the worker. echo: one progress line a run.
    Returns the results, in the order of tasks and without model and data, and one line for each task that failed.

    Raises CourseError for a cluster that can't be reached or has no workers, and when interrupted.
    """
    tasks, root = list(dict.fromkeys(tasks)), root or artifacts.own_root()  # a task named twice would be done by two workers at once
    mark = root / "unfinished" / f"cluster-{uuid.uuid4().hex}"
    settings = {name: os.environ.get(name, "") for name in SETTINGS}
    fingerprints = {name: datasets.load(name).fingerprint for name in {experiment.data for experiment, _ in tasks}}
    job = Job(device, publish, ROOT, root, mark, settings, fingerprints)
    artifacts.write(mark, b"")
    results, failures = {}, {}
    try:
        with connect(address, len(tasks), device) as client, progress(tasks, echo) as tell:
            client.subscribe_topic(mark.name, lambda event: tell(*event[1]))
            # pickled twice: a worker that can't import the course fails in the task and says so, where Dask's own unpickling would end it
            futures = {
                client.submit(
                    lambda task: pickle.loads(task)(),
                    pickle.dumps(partial(work, number, *task, job)),
                    key=f"{mark.name}-{number}",
                    pure=False,
                ): number
                for number, task in enumerate(tasks)
            }
            for future in as_completed(futures, loop=client.loop):
                number, outcome = futures[future], future.exception() or future.result()
                if isinstance(outcome, Exception):
                    experiment, seed = tasks[number]
                    failures[number] = f"{experiment.name}, seed {seed}, failed: {why(outcome)}"
                    tell(number, "failed", last=True)
                else:
                    results[number], done = outcome
                    tell(number, done, last=True)
    except KeyboardInterrupt:
        raise CourseError("interrupted. The same command continues every run after its last finished epoch.") from None
    finally:
        mark.unlink(missing_ok=True)
    return [results[number] for number in sorted(results)], [failures[number] for number in sorted(failures)]


def why(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, KilledWorker):
        return "its workers died again and again. Look whether their memory suffices; the same command continues it."
    if isinstance(error, ModuleNotFoundError):
        return f"a worker can't import the course ({error}): start it with `python -m dask worker` in the course's folder (see README)."
    return str(error) if isinstance(error, CourseError) else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def work(number: int, experiment: Experiment, seed: int, job: Job) -> tuple[runs.Result, str] | CourseError:
    """One task, on a worker: the run's result, or the CourseError that it ended with (returned, for a raised one is logged as a crash)."""
    worker, epochs = get_worker(), []

    def after_epoch(history: list[runs.Row]) -> None:
        epochs.append(history[-1]["epoch"])
        worker.log_event(mark, (number, f"epoch {epochs[-1]}/{1 if smoke() else experiment.epochs}, {score(history[-1])}"))

    mark = job.mark.name
    os.environ.update(job.settings)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # by itself torch heeds only what was set before it was loaded
    try:
        require_fit(worker, job, experiment.data)
        result = runs.run(experiment, seed, job.device, job.publish, root=job.root, echo=False, again=False, after_epoch=after_epoch)
    except CourseError as error:
        return error
    begun = result.facts["continued_after_epochs"]
    how = "was finished already" if not epochs else f"done{f', continued after epoch {begun[-1]}' if begun else ''}"
    return replace(result, model=None, data=None), f"{how}, {score(result.history[-1])}"


def score(row: runs.Row) -> str:
    part = "test" if "test_loss" in row else "valid"
    return f"{part} {100 * row[f'{part}_correct'] / row[f'{part}_total']:.2f} %"


def require_fit(worker, job: Job, data: str) -> None:
    """Raise CourseError if this worker would not do what the command's own process does."""
    if worker.state.nthreads != 1:
        raise CourseError(
            f"{worker.address} has {worker.state.nthreads} threads, which would share one random state: expected --nthreads 1"
        )
    if job.course != ROOT or not job.mark.is_file():
        raise CourseError(f"{worker.address} has the course in {ROOT}: expected the same disk at {job.course}, to share {job.root}")
    found = datasets.load(data)
    if found.fingerprint != job.fingerprints[data]:
        raise CourseError(f"{worker.address} has other data than this machine for {data} (it found {found.name}): expected the same files")


@contextmanager
def connect(address: str, tasks: int, device: str) -> Iterator[Client]:
    """A client of the cluster at `address`, or of one that lasts as long as the block."""
    if not address:
        with local_cluster(tasks, device) as cluster, Client(cluster, set_as_default=False) as client:
            yield client
        return
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
        client.wait_for_workers(1, timeout=PATIENCE)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        raise CourseError(
            f"no Dask scheduler with a worker answers at {address} ({type(error).__name__}): start `python -m dask scheduler`, "
            "and `python -m dask worker` in the course's folder (see README)"
        ) from error
    with client:
        yield client


def local_cluster(tasks: int, device: str) -> SpecCluster:
    """One worker a GPU, or one a core where there are none; as many as there are tasks at most, with equal shares of the cores."""
    where, gpus = runs.pick_device(device), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = gpus.split(",") if gpus else [str(number) for number in range(torch.cuda.device_count())]
    places = {"cpu": CPU_COUNT, "cuda": len(gpus) if device in ("auto", "cuda") else 1}.get(where.type, 1)
    n = min(tasks, places)
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, CPU_COUNT // n)))}
    quiet = {"silence_logs": logging.CRITICAL}
    workers = {}
    for number in range(n):
        own = {"CUDA_VISIBLE_DEVICES": gpus[number]} if where.type == "cuda" and device in ("auto", "cuda") else {}
        # no limit on memory: Dask would pause or kill workers by a measure that knows nothing of other programs
        workers[number] = {"cls": Nanny, "options": {"nthreads": 1, "memory_limit": 0, "env": share | own, **quiet}}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster(workers=workers, scheduler=scheduler, **quiet)


@contextmanager
def progress(tasks: list[Task], echo: bool):
    """A function tell(number, text, last=False) that shows how far a task is: on its own line of a terminal, elsewhere line after line."""
    names = [f"{experiment.name} seed {seed}" for experiment, seed in tasks]
    if not echo:
        yield lambda number, text, last=False: None
        return
    watched = sys.stdout.isatty()
    bars = [
        tqdm(desc=f"{name}: waiting", bar_format="{desc}", position=i, file=sys.stdout) for i, name in enumerate(names if watched else [])
    ]
    ended = set()

    def tell(number: int, text: str, last: bool = False) -> None:
        if number in ended:  # told late, by a message that took another way than the result
            return
        if last:
            ended.add(number)
        if watched:
            bars[number].set_description_str(f"{names[number]}: {text}")
        else:
            print(f"{names[number]}: {text}", flush=True)

    try:
        yield tell
    finally:
        for bar in bars:
            bar.close()
