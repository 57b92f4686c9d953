"""Runs on a cluster: a killed worker's run ends with the same bits, and no failure takes other runs along."""

import os
import re
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from tools import cluster, train
from utils import ROOT, CourseError, runs
from utils.experiments import EXPERIMENTS
from utils.runs import records
from utils.runs.records import RunPaths

needs_dask = pytest.mark.skipif(
    find_spec("distributed") is None, reason="Dask is not there: pip install -r requirements-extra.txt"
)

# every random state matters: order and augmentation (generators of their own) and dropout (the global one)
CHANGES = {"data": "digits", "valid": 900, "epochs": 9, "batch_size": 128, "optimizer": "adamw", "lr": 0.01}
CHANGES |= {"dropout": 0.1, "images": 0}
TRIED = EXPERIMENTS["sprint_994"].with_recipe(**CHANGES)
DIVERGES = TRIED.with_recipe(epochs=1, optimizer="sgd", schedule="constant", lr=1e6, weight_decay=1e6)


@pytest.fixture(scope="module", autouse=True)
def whole(tmp_path_factory):
    """No smoke runs, and a reader's folder of this file's own; returns it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_SMOKE", "0")
        patch.setenv("COURSE_RUNS", str(folder))
        yield folder


def kill_at(client, epoch: int, killed: list, whose: str) -> None:
    """SIGKILL to the task that does seed 0, or to its worker, once its checkpoint holds so many epochs."""
    import psutil  # Dask needs it, too

    checkpoint, seen = RunPaths.of(TRIED, 0, records.own_root()).checkpoint, 0
    for _ in range(60_000):  # a busy machine takes minutes to import torch
        written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if written != seen and len(records.read_checkpoint(checkpoint)[1]["history"]) >= epoch:
            break
        seen = written
        time.sleep(0.02)
    for worker in map(psutil.Process, client.run(os.getpid).values()):
        for task in worker.children():
            if "--seed 0 " in " ".join(task.cmdline()):
                killed.append(whose)
                (worker if whose == "worker" else task).kill()


@needs_dask
def test_a_killed_run_is_repeated_and_ends_as_the_undisturbed_one_and_a_failed_one_leaves_others_alone(whole, tmp_path):
    """The first run loses its own process after its second epoch, and its worker after its fourth."""
    from distributed import Client, LocalCluster

    killed = []

    def kill() -> None:
        kill_at(client, 2, killed, "task")
        kill_at(client, 4, killed, "worker")

    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0"}
    options |= {"silence_logs": 50, "env": {"OMP_NUM_THREADS": "1"}}
    tasks = [(TRIED, 0), (DIVERGES, 2), (TRIED, 1)]
    argv = {task: train.argv_of(*task, train.Options(device="cpu", quiet=True)) for task in tasks}
    with LocalCluster(**options) as place, Client(place, set_as_default=False) as client:
        killer = threading.Thread(target=kill)
        killer.start()
        results, [failure] = cluster.run_all(argv, client.scheduler.address, "cpu", True)
        killer.join()
    assert killed == ["task", "worker"] and [result.seed for result in results] == [0, 1]
    assert re.match(rf"{TRIED.name}, seed 2, failed: .*the (training|validation) loss became (nan|inf)", failure)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers
    for result in results:
        alone = runs.run(TRIED, result.seed, "cpu", folder=tmp_path, echo=False)
        assert result.weights.read_bytes() == alone.weights.read_bytes()
        assert result.facts.environment == alone.facts.environment
    torch.set_num_threads(threads)
    first, second = (one.after_epoch for one in results[0].facts.continued)
    assert 2 <= first < second < 9 and results[1].facts.continued == []
    assert not list((whole / "unfinished").iterdir())  # neither a checkpoint nor a mark


@needs_dask
def test_a_task_that_fails_says_why_in_one_line(monkeypatch):
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(address="here", name="0"))

    def do(code: str, real=subprocess.Popen) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", code], **options))
            return cluster.work([], str(ROOT), {}, [])

    assert do("import sys; print('x' * 10**6, file=sys.stderr); sys.exit('train.py: no space left')") == "no space left"
    with pytest.raises(RuntimeError, match=r"killed by SIGKILL, 4 times. Run it again to continue"):
        do("import os; os.kill(os.getpid(), 9)")
    assert "does not see the course at /elsewhere" in cluster.work([], "/elsewhere", {}, [])


@needs_dask
@pytest.mark.parametrize(("gpus", "tasks", "workers", "threads"), [(0, 9, 6, "1"), (0, 2, 2, "3"), (2, 9, 2, "3")])
def test_this_machine_s_workers_share_its_cores_or_gpus(gpus, tasks, workers, threads, monkeypatch):
    for variable in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("dask.system.CPU_COUNT", 6)
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(cluster.devices, "pick_device", lambda name: torch.device("cuda" if gpus else "cpu"))
    local = MagicMock()
    monkeypatch.setattr("distributed.LocalCluster", local)
    monkeypatch.setattr("distributed.Client", MagicMock())
    with cluster.connect("", tasks, "auto") as (_client, found):
        assert found == [str(number) for number in range(gpus)]
    options = local.call_args.kwargs
    assert local.call_args.args == (workers,) and options["env"] == {"OMP_NUM_THREADS": threads}
    assert options["security"] is True and options["host"] == "127.0.0.1"  # no other user can give it work


@needs_dask
def test_train_py_starts_a_cluster_of_its_own_and_ends_with_a_table(capfd):
    train.main(["base", "--data", "digits", "--device", "cpu", "--epochs", "1", "--cluster"])
    printed, errors = capfd.readouterr()  # the workers' too
    assert printed.startswith("base seed 0: done\n") and printed.count("| base ") == 1 and errors == ""


def test_what_a_cluster_lacks_is_one_line(monkeypatch):
    if find_spec("distributed"):
        monkeypatch.setattr(cluster, "PATIENCE", 1)
        with pytest.raises(CourseError, match=r"no Dask scheduler with a worker answers at tcp://127.0.0.1:9 .*`pyth"):
            cluster.run_all({(TRIED, 0): []}, "tcp://127.0.0.1:9", "cpu", True)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CourseError, match="distributed is not installed: python -m pip install -r requirements-extra"):
        train.main(["base", "--cluster"])
