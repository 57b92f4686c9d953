"""Many runs (experiments × seeds) on a Dask cluster, one task each. Imported only when `train.py --cluster` asks for it.

A task is a command line: `train.py NAME --seed K …`, which a worker runs in a process of its own. So a worker needs the course's folder,
its Python and its data, and nothing of the command that waits for it. Why Dask and not Ray: both restart a killed worker and hand its task
to the next one, which is what counts here. Dask is a few megabytes of pure Python for every system that PyTorch runs on; Ray is 80 MB,
compiled for each Python version, and starts several server processes for each local cluster.

All workers must see the course at the same path, as on a shared disk: there the results go, and there the checkpoint of a run
waits for whichever worker takes it up after the one that was killed.
"""

import argparse
import asyncio
import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from utils import ROOT, CourseError, Interrupted, files, runs
from utils.data import datasets
from utils.experiments import EXPERIMENTS, Experiment
from utils.runs import records
from utils.training import devices

try:
    import cloudpickle
    from dask.system import CPU_COUNT
    from distributed import Client, KilledWorker, Nanny, Scheduler, SpecCluster, as_completed
except ImportError as error:
    raise CourseError(f"--cluster needs Dask ({error}): python -m pip install -r requirements-extra.txt") from error

Task = tuple[Experiment, int]  # an experiment and a seed
PATIENCE = 20  # seconds for a scheduler and a first worker to answer
SETTINGS = ("COURSE_DATA", "COURSE_SMOKE", "COURSE_MEMORY_GB")


def words_of(options: argparse.Namespace) -> list[str]:
    """The flags of train.py's command line that each task gets, besides its experiment, its recipe and its seed."""
    flags = {"--publish": options.publish, "--again": options.again}
    words = [flag for flag, on in flags.items() if on]
    words += ["--device", options.device] if options.device != "auto" else []
    return words + (["--threads", str(options.threads)] if options.threads else [])


def command(experiment: Experiment, seed: int, words: list[str]) -> list[str]:
    """The words of train.py that do one task: its name, its seed, and what its recipe changes."""
    changes = experiment.recipe.changes(EXPERIMENTS[experiment.name].recipe)
    found = [experiment.name, "--seed", str(seed), *words]
    for field, (_, value) in changes.items():
        found += [f"--{field.replace('_', '-')}", ("no", "yes")[value] if isinstance(value, bool) else str(value)]
    return found


def run_all(tasks: list[Task], address: str = "", words: list[str] = (), echo: bool = True) -> tuple[list[runs.Result], list[str]]:
    """Do the tasks that are not finished yet on the Dask cluster at `address`, or on one of this machine's own.

    A task whose worker dies is given to another one, which continues it after its last epoch. words: further flags of train.py.
    echo: progress lines. Returns the results, in the order of tasks, and one line for each task that failed.

    Raises CourseError for a cluster that can't be reached or has no workers, and when interrupted.
    """
    mark = records.own_root() / "unfinished" / f"cluster-{uuid.uuid4().hex}"  # who sees it shares the disk
    settings = {name: os.environ[name] for name in SETTINGS if name in os.environ} | {"COURSE_RUNS": str(records.own_root())}
    fingerprints = {name: datasets.load(name).fingerprint for name in {experiment.recipe.data for experiment, _ in tasks}}
    device = words[words.index("--device") + 1] if "--device" in words else "auto"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # `work` knows of no module of the course: a worker may lack it
    results, failures = {}, {}
    files.write(mark, b"cluster")
    try:
        with connect(address, len(tasks), device) as client, progress(tasks, echo) as tell:
            client.subscribe_topic(mark.name, lambda event: tell(*event[1]))
            futures = {}
            for number, (experiment, seed) in enumerate(tasks):
                data = [experiment.recipe.data, fingerprints[experiment.recipe.data]]
                task = ["-m", "tools.task", *data, *command(experiment, seed, list(words))]
                key = f"{mark.name}-{number}"
                futures[client.submit(work, number, task, str(ROOT), str(mark), settings, key=key, pure=False)] = number
            for future in as_completed(futures, loop=client.loop):
                number = futures[future]
                failure = why(future.exception()) if future.exception() else future.result()
                if failure:
                    failures[number] = f"{tasks[number][0].name}, seed {tasks[number][1]}, failed: {failure}"
                else:
                    results[number] = runs.load(*tasks[number], echo=False)
                tell(number, "failed" if failure else "done", last=True)
    except KeyboardInterrupt:
        raise Interrupted("interrupted. The same command continues every run after its last finished epoch.") from None
    finally:
        mark.unlink(missing_ok=True)
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    return [results[number] for number in sorted(results)], [failures[number] for number in sorted(failures)]


def why(error: BaseException) -> str:
    """An error of Dask's in one line."""
    if isinstance(error, KilledWorker):
        return "its workers died again and again. Look whether their memory suffices; the same command continues it."
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def work(number: int, task: list[str], course: str, mark: str, settings: dict[str, str]) -> str:
    """Do one task on a worker, in a process of its own that ends when the worker does; tell of its epochs. Returns why it failed, or ""."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:
        return f"{worker.address} has {worker.state.nthreads} threads, and would do as many runs at once: expected --nthreads 1"
    if not Path(course, "train.py").is_file() or not Path(mark).is_file():
        return f"{worker.address} does not see the course at {course} with {Path(mark).parent}: expected the same shared disk there"
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *task], cwd=course, env=os.environ | threads | settings, text=True, **pipes) as process:
        for line in process.stdout:
            if line.startswith("Epoch "):
                epoch = line.split(":")[0]
            if "Test set" in line or "Valid set" in line:
                worker.log_event(Path(mark).name, (number, f"{epoch.lower()}, {line.split(', LR')[0].strip()}"))
        said = process.stderr.read().strip().splitlines()
    return (said[-1] if said else f"exit status {process.returncode}").removeprefix("train.py: ") if process.returncode else ""


@contextmanager
def connect(address: str, tasks: int, device: str) -> Iterator[Client]:
    """A client of the cluster at `address`, or of one that lasts as long as the block. Raises CourseError if none answers."""
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
    """One worker per GPU, or per core where there are none; as many as there are tasks at most, with equal shares of the cores.

    It listens on the loopback address alone.
    """
    where, gpus = devices.pick_device(device), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = gpus.split(",") if gpus else [str(number) for number in range(torch.cuda.device_count())]
    places = {"cpu": CPU_COUNT, "cuda": len(gpus) if device in ("auto", "cuda") else 1}.get(where.type, 1)
    n = min(tasks, places)
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, CPU_COUNT // n)))}
    quiet = {"silence_logs": logging.CRITICAL}
    workers = {}
    for number in range(n):
        own = {"CUDA_VISIBLE_DEVICES": gpus[number]} if where.type == "cuda" and device in ("auto", "cuda") else {}
        # no limit on memory: Dask would pause or kill workers by a measure that knows nothing of other programs
        workers[number] = {"cls": Nanny, "options": {"nthreads": 1, "memory_limit": 0, "env": share | own, "host": "127.0.0.1", **quiet}}
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
