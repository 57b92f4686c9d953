"""Many runs on a Dask cluster, for `train.py --cluster`; all workers must see the course at the same path.

A task is a command line, `train.py NAME --seed K …`, which a worker runs in a process of its own. Dask repeats a task
whose worker died or that a signal killed. The run then continues after its last finished epoch.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tools.command import need
from utils import ROOT, CourseError, Interrupted, files, runs
from utils.runs import records
from utils.training import devices

PATIENCE, RETRIES = 20, 3  # seconds for a scheduler and a first worker to answer; of a task that a signal killed


def work(argv: list[str], course: str, settings: dict[str, str], gpus: list[str]) -> str:
    """Do one task on a worker; returns why it failed, or "". If a signal kills it, Dask repeats it."""
    from distributed import get_worker

    worker = get_worker()
    if not Path(course, "train.py").is_file():
        return f"{worker.address} does not see the course at {course}: expected the same shared disk there"
    own = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} | settings
    own |= {"CUDA_VISIBLE_DEVICES": gpus[int(worker.name) % len(gpus)]} if gpus else {}
    # the task ends when its standard input is closed, so it ends with its worker
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "tools.train", *argv]
    with subprocess.Popen(command, cwd=course, env=os.environ | own, **streams) as process:
        lines = process.stderr.read().strip().splitlines()
        status = process.wait()
    if status < 0:
        raise RuntimeError(f"killed by {signal.Signals(-status).name}, {RETRIES + 1} times. Run it again to continue")
    return (lines or [f"exit status {status}"])[-1].removeprefix("train.py: ") if status else ""


def run_all(tasks: dict[tuple, list[str]], address: str, device: str, quiet: bool) -> tuple[list, list[str]]:
    """Do tasks, (experiment, seed) → arguments of train.py, on the cluster at `address`, or on one of this machine.

    Returns the results in their order, and one line per failure. Raises CourseError without workers, and Interrupted.
    """
    dask, cloudpickle = need("distributed"), need("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker that was started elsewhere can't import this
    settings = {name: text for name, text in os.environ.items() if name.startswith("COURSE_")}
    results, failures = {}, {}
    try:
        with connect(address, len(tasks), device) as (client, gpus):
            settings |= {"COURSE_RUNS": str(records.own_root())}
            fixed = {"course": str(ROOT), "settings": settings, "gpus": gpus, "pure": False, "retries": RETRIES}
            futures = {client.submit(work, argv, **fixed): task for task, argv in tasks.items()}
            for future in dask.as_completed(futures, loop=client.loop):
                task, wrong = futures[future], future.exception() or future.result()
                try:
                    if wrong:
                        raise CourseError(files.one_line(wrong, 300))
                    results[task] = runs.load(*task, echo=False)
                except CourseError as why:
                    failures[task] = f"{task[0].name}, seed {task[1]}, failed: {why}"
                if not quiet:
                    print(f"{task[0].name} seed {task[1]}: {'failed' if task in failures else 'done'}", flush=True)
    except KeyboardInterrupt:
        raise Interrupted("interrupted. The same command continues every run after its last finished epoch.") from None
    return [[found[task] for task in tasks if task in found] for found in (results, failures)]


@contextmanager
def connect(address: str, tasks: int, device: str) -> Iterator[tuple[object, list[str]]]:
    """A client of the cluster at `address`, or of one of this machine, and its GPUs. Raises CourseError."""
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster, TimeoutError

    if address:
        try:
            client = Client(address, timeout=PATIENCE, set_as_default=False)
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError, TypeError, TimeoutError) as error:
            why = f"no Dask scheduler with a worker answers at {address} ({type(error).__name__})"
            todo = "start `python -m dask scheduler` and, in the course's folder, `… worker`"
            raise CourseError(f"{why}: {todo}") from error
        with client:
            yield client, []
        return
    kind, every = devices.pick_device(device).type, ",".join(map(str, range(torch.cuda.device_count())))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",")
    gpus = visible if kind == "cuda" and ":" not in device else []
    workers = min(tasks, len(gpus) or (CPU_COUNT if kind == "cpu" else 1))
    env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, CPU_COUNT // workers)))}
    # no limit on memory, because it would ignore other programs; TLS, so that no other user can give it work
    how = {"memory_limit": 0, "security": True, "threads_per_worker": 1, "silence_logs": 50, "env": env}
    how |= {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(workers, **how) as cluster, Client(cluster, set_as_default=False) as client:
        yield client, gpus
