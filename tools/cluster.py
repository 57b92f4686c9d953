"""Many runs on a Dask cluster, for `train.py --cluster`; all workers must see the course at the same path.

A task is a command line, `train.py NAME --seed K …`. A worker runs it in its own process, as python -m tools.train.
Dask places the tasks, and repeats those whose worker died or that a signal killed. A repeated run continues after its
last finished epoch.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from utils import ROOT, CourseError, Interrupted, runs
from utils.data import datasets
from utils.experiments import Experiment
from utils.runs import records
from utils.training import devices

Task = tuple[Experiment, int]  # an experiment and a seed
PATIENCE, RETRIES = 20, 3  # seconds for a scheduler and a first worker to answer; of a task that a signal killed


def work(argv: list[str], course: str, settings: dict[str, str], gpus: list[str]) -> str:
    """Do one task on a worker; returns why it failed, or "". If a signal kills it, Dask repeats it."""
    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:
        return f"{worker.address} would do {worker.state.nthreads} runs at once: expected --nthreads 1"
    if not Path(course, "train.py").is_file():
        return f"{worker.address} does not see the course at {course}: expected the same shared disk there"
    own = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} | settings
    own |= {"CUDA_VISIBLE_DEVICES": gpus[int(worker.name) % len(gpus)]} if gpus else {}
    with tempfile.TemporaryFile("w+") as message:  # a file takes any number of bytes; a pipe would have to be read
        task, streams = [sys.executable, "-m", "tools.train", *argv], {"stdout": subprocess.DEVNULL, "stderr": message}
        with subprocess.Popen(task, cwd=course, env=os.environ | own, stdin=subprocess.PIPE, **streams) as process:
            status = process.wait()
        message.seek(0)
        lines = message.read().strip().splitlines() or [f"exit status {status}"]
    if status < 0:
        killer = signal.Signals(-status).name
        raise RuntimeError(f"killed by {killer}, {RETRIES + 1} times. The same command continues it")
    return lines[-1].removeprefix("train.py: ") if status else ""


def run_all(
    tasks: dict[Task, list[str]], address: str, device: str, quiet: bool
) -> tuple[list[runs.Result], list[str]]:
    """Do tasks, each with its arguments of train.py, on the cluster at `address`, or on one of this machine.

    Returns the results in the order of tasks, and one line per failure. Raises CourseError without workers, and
    Interrupted.
    """
    try:
        import cloudpickle
        from distributed import as_completed
    except ImportError as error:
        raise CourseError(f"--cluster needs Dask ({error}): python -m pip install -r requirements-extra.txt") from error
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker that was started elsewhere can't import this
    settings = {name: text for name, text in os.environ.items() if name.startswith("COURSE_")}
    fixed = {"course": str(ROOT), "settings": settings | {"COURSE_RUNS": str(records.own_root())}, "retries": RETRIES}
    done: dict[Task, runs.Result | str] = {}
    try:
        with connect(address, len(tasks), device) as (client, gpus):
            futures = {client.submit(work, argv, gpus=gpus, pure=False, **fixed): task for task, argv in tasks.items()}
            for future in as_completed(futures, loop=client.loop):
                task, error = futures[future], future.exception()
                done[task] = " ".join(str(error).split())[:300] if error else future.result() or collect(*task)
                if not quiet:
                    how = "failed" if isinstance(done[task], str) else "done"
                    print(f"{task[0].name} seed {task[1]}: {how}", flush=True)
    except KeyboardInterrupt:
        raise Interrupted("interrupted. The same command continues every run after its last finished epoch.") from None
    failed = [task for task in tasks if isinstance(done[task], str)]
    failures = [f"{task[0].name}, seed {task[1]}, failed: {done[task]}" for task in failed]
    return [done[task] for task in tasks if task not in failed], failures


def collect(experiment: Experiment, seed: int) -> runs.Result | str:
    """What a task left on the shared disk, or why it is not the requested run."""
    try:
        result = runs.load(experiment, seed, echo=False)
    except CourseError as error:
        return f"the worker finished it, but {error}"
    same = result.facts.data.fingerprint == datasets.load(experiment.recipe.data).fingerprint
    return result if same else f"the worker has other data for {experiment.recipe.data}: expected this machine's files"


@contextmanager
def connect(address: str, tasks: int, device: str) -> Iterator[tuple[object, list[str]]]:
    """A client of the cluster at `address`, or of one of this machine, and its GPUs. Raises CourseError."""
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    if address:
        try:
            client = Client(address, timeout=PATIENCE, set_as_default=False)
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            kind = type(error).__name__
            why = f"no Dask scheduler with a worker answers at {address} ({kind})"
            todo = "start `python -m dask scheduler` and, in the course's folder, `… worker`"
            raise CourseError(f"{why}: {todo}") from error
        with client:
            yield client, []
        return
    kind, visible = devices.pick_device(device).type, os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    gpus = gpus if kind == "cuda" and ":" not in device else []
    workers = min(tasks, len(gpus) or (CPU_COUNT if kind == "cpu" else 1))
    env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, CPU_COUNT // workers)))}
    # no limit on memory, because it would ignore other programs; TLS, so that no other user can give it work
    how = {"threads_per_worker": 1, "memory_limit": 0, "silence_logs": 50, "security": True, "env": env}
    here = LocalCluster(n_workers=workers, host="127.0.0.1", dashboard_address="127.0.0.1:0", **how)
    with here as cluster, Client(cluster, set_as_default=False) as client:
        yield client, gpus
