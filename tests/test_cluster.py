"""Runs on a cluster: a killed worker's run ends with the same bits, nothing is done twice, and no failure takes others along."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

import train
import utils
from utils import ROOT, CourseError, artifacts, runs
from utils.experiments import EXPERIMENTS

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not there: pip install -r requirements-extra.txt")

# every random state matters: order and augmentation (generators of their own) and dropout (the global one)
TINY = replace(
    EXPERIMENTS["bn_augmentation"],
    name="tiny",
    data="digits",
    valid=900,
    epochs=6,
    batch_size=128,
    optimizer="adamw",
    lr=0.01,
    dropout=0.1,
)
TASKS = [(TINY, 0), (TINY, 1)]


@pytest.fixture(scope="module", autouse=True)
def whole():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_SMOKE", "0")
        yield


@pytest.fixture(scope="module")
def two_workers():
    """A scheduler with two worker processes of one thread each, and a client that looks into them."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(**options, env={"OMP_NUM_THREADS": "1"}) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def run_all(client, tasks, root):
    """What cluster.run_all returns, and the lines that it shows."""
    from utils import cluster

    with redirect_stdout(io.StringIO()) as shown:
        results, failures = cluster.run_all(tasks, client.scheduler.address, "cpu", root=root)
    return results, failures, shown.getvalue().splitlines()


def kill_the_worker_of(client, number, checkpoint, epoch, killed):
    """SIGKILL to the process that does task `number`, once `checkpoint` holds so many epochs."""
    for _ in range(3000):
        saved = artifacts.read_checkpoint(checkpoint)
        if saved and len(saved["training"]["history"]) >= epoch:
            break
        time.sleep(0.02)
    [worker] = [worker for worker, keys in client.processing().items() if any(key.endswith(f"-{number}") for key in keys)]
    pid = client.run(os.getpid)[worker]
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


@pytest.fixture(scope="module")
def after_a_kill(two_workers, tmp_path_factory):
    """The folder, results, failures and shown lines of two runs, of which the first lost its worker after its second epoch."""
    root, killed = tmp_path_factory.mktemp("runs"), []
    checkpoint = artifacts.checkpoint_path(root, TINY.recipe(), 0)
    killer = threading.Thread(target=kill_the_worker_of, args=(two_workers, 0, checkpoint, 2, killed))
    killer.start()
    outcome = run_all(two_workers, TASKS, root)
    killer.join()
    assert killed
    return root, *outcome


@needs_dask
def test_a_run_whose_worker_was_killed_ends_as_the_undisturbed_one(after_a_kill, tmp_path):
    root, results, failures, _ = after_a_kill
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers
    for (experiment, seed), result in zip(TASKS, results, strict=True):
        alone = runs.run(experiment, seed, "cpu", root=tmp_path, echo=False)
        assert result.weights.read_bytes() == alone.weights.read_bytes()
        assert result.facts["environment"] == alone.facts["environment"]
    torch.set_num_threads(threads)
    assert not failures and not list((root / "unfinished").iterdir())


@needs_dask
def test_a_kill_costs_at_most_one_epoch_and_the_other_run_nothing(after_a_kill):
    _, (first, second), _, shown = after_a_kill
    [epoch] = first.facts["continued_after_epochs"]
    assert 2 <= epoch < 6 and second.facts["continued_after_epochs"] == []
    for seed in (0, 1):  # each epoch that ended is shown once, whoever did it
        lines = [line for line in shown if line.startswith(f"tiny seed {seed}: epoch ")]
        assert [int(re.search(r"epoch (\d)/6, valid \d", line)[1]) for line in lines] == list(range(1, 7))
    assert any(line.startswith(f"tiny seed 0: done, continued after epoch {epoch}, valid ") for line in shown)


@needs_dask
def test_a_finished_run_is_not_done_again_but_one_of_other_data_is(after_a_kill, two_workers):
    root, before, _, _ = after_a_kill
    facts = artifacts.log_path(root, "tiny", 1).with_suffix(".json")
    artifacts.write_json(facts, {**before[1].facts, "data": {**before[1].facts["data"], "fingerprint": "other"}})
    results, _, shown = run_all(two_workers, TASKS, root)
    assert results[0].facts == before[0].facts
    assert [line for line in shown if "seed 0" in line] == [
        f"tiny seed 0: was finished already, valid {results[0].history[-1]['valid_correct'] / 9:.2f} %"
    ]
    assert results[1].facts["started"] > before[1].facts["started"] and results[1].facts["sha256"] == before[1].facts["sha256"]


@needs_dask
def test_a_run_that_fails_leaves_the_others_alone(two_workers, tmp_path):
    tasks = [(replace(TINY, name="bad", epochs=1, optimizer="sgd", lr=1e30), 0), (replace(TINY, epochs=1), 0)]
    results, failures, shown = run_all(two_workers, tasks, tmp_path)
    assert [result.experiment.name for result in results] == ["tiny"] and "bad seed 0: failed" in shown
    [failure] = failures
    assert re.match(r"bad, seed 0, failed: .*the training loss became (nan|inf) in epoch 1", failure)


@needs_dask
@pytest.mark.parametrize(
    ("threads", "changes", "said"),
    [
        (2, {}, "2 threads, which would share one random state: expected --nthreads 1"),
        (1, {"course": "/elsewhere"}, "expected the same disk at /elsewhere"),
        (1, {"mark": ROOT / "is not there"}, "expected the same disk"),
        (1, {"fingerprints": {"digits": "other"}}, r"other data than this machine for digits \(it found digits\)"),
    ],
)
def test_a_worker_that_does_not_fit_is_refused(threads, changes, said):
    from utils import cluster

    job = cluster.Job("cpu", None, ROOT, ROOT / "runs", ROOT / "README.md", {}, {})
    with pytest.raises(CourseError, match=said):
        cluster.require_fit(
            SimpleNamespace(address="tcp://there:1", state=SimpleNamespace(nthreads=threads)), replace(job, **changes), "digits"
        )


@needs_dask
@pytest.mark.parametrize(
    ("gpus", "tasks", "expected"),
    [
        (0, 9, [{"OMP_NUM_THREADS": "1"}] * 6),
        (0, 2, [{"OMP_NUM_THREADS": "3"}] * 2),
        (2, 9, [{"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": gpu} for gpu in "01"]),
        (2, 1, [{"OMP_NUM_THREADS": "6", "CUDA_VISIBLE_DEVICES": "0"}]),
    ],
)
def test_each_worker_gets_its_share_of_six_cores_or_a_gpu(gpus, tasks, expected, monkeypatch):
    from utils import cluster

    for variable in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cluster, "CPU_COUNT", 6)
    monkeypatch.setattr(cluster, "SpecCluster", lambda workers, **options: workers)
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(runs, "pick_device", lambda name: torch.device("cuda" if gpus else "cpu"))
    workers = cluster.local_cluster(tasks, "auto")
    assert [worker["options"]["env"] for worker in workers.values()] == expected
    assert all(worker["options"]["nthreads"] == 1 for worker in workers.values())


@needs_dask
def test_without_a_scheduler_the_error_says_what_to_start(monkeypatch, tmp_path):
    from utils import cluster

    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(
        CourseError, match=r"no Dask scheduler with a worker answers at tcp://127.0.0.1:9 .*start `python -m dask scheduler`"
    ):
        cluster.run_all(TASKS, "tcp://127.0.0.1:9", root=tmp_path)


@needs_dask
def test_train_py_starts_a_cluster_of_its_own_and_ends_with_a_table():
    words = [sys.executable, "train.py", "base", "--data", "digits", "--device", "cpu", "--cluster"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COURSE_SMOKE": "1"}, check=True)
    assert re.match(r"base seed 0: epoch 1/1, test .*\nbase seed 0: done, test ", ended.stdout) and ended.stdout.count("| base ") == 1
    assert ended.stderr == ""


@needs_dask
def test_a_failed_run_ends_train_py_with_an_error(monkeypatch, capsys):
    from utils import cluster

    monkeypatch.setattr(cluster, "run_all", lambda *arguments: ([], ["base, seed 1, failed: no space left"]))
    with pytest.raises(CourseError, match="1 of 2 runs failed; the same command does only what is missing"):
        train.main(["base", "--seeds", "2", "--cluster"])
    assert capsys.readouterr().err == "base, seed 1, failed: no space left\n"


def test_without_dask_one_line_tells_how_to_get_it(monkeypatch):
    monkeypatch.delattr(utils, "cluster", raising=False)
    monkeypatch.delitem(sys.modules, "utils.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "dask.system", None)
    with pytest.raises(CourseError, match=r"--cluster needs Dask .*: python -m pip install -r requirements-extra.txt"):
        train.main(["base", "--cluster"])


def test_dask_is_imported_only_when_asked_for():
    subprocess.run([sys.executable, "-c", "import sys, train; assert not {'dask', 'distributed'} & set(sys.modules)"], cwd=ROOT, check=True)


@pytest.mark.parametrize("words", [["--cluster", "base"], ["base", "--cluster", "there"]])
def test_what_is_no_address_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        train.main(words)
    assert "is no address: expected one like tcp://HOST:8786" in capsys.readouterr().err


def test_one_kind_of_many_processes_at_a_time():
    with pytest.raises(CourseError, match="leave out --ngpus"):
        train.main(["base", "--cluster", "--ngpus", "2"])
