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

import pytest
import torch

import tools
from tools import train
from utils import ROOT, CourseError
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.runs import plans, records, runs
from utils.runs.records import Run

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not there: pip install -r requirements-extra.txt")

# every random state matters: order and augmentation (generators of their own) and dropout (the global one)
TRIED = EXPERIMENTS["bn_augmentation"].but(data="digits", valid=900, epochs=6, batch_size=128, optimizer="adamw", lr=0.01, dropout=0.1)
TASKS = [(TRIED, 0), (TRIED, 1)]
NAME = TRIED.name


@pytest.fixture(scope="module", autouse=True)
def whole(tmp_path_factory):
    """No smoke runs, and a reader's folder of this file's own; returns it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_SMOKE", "0")
        patch.setenv("COURSE_RUNS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def two_workers():
    """A scheduler with two worker processes of one thread each, and a client that looks into them."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(**options, env={"OMP_NUM_THREADS": "1"}) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def run_all(client, tasks, *words):
    """What cluster.run_all returns, and the lines that it shows."""
    from tools import cluster

    with redirect_stdout(io.StringIO()) as shown:
        results, failures = cluster.run_all(tasks, client.scheduler.address, ["--device", "cpu", *words])
    return results, failures, shown.getvalue().splitlines()


def kill_the_worker_of(client, number, checkpoint, epoch, killed):
    """SIGKILL to the process that does task `number`, once `checkpoint` holds so many epochs."""
    for _ in range(6000):
        saved = records.read_checkpoint(checkpoint)
        if saved and len(saved[1]["history"]) >= epoch:
            break
        time.sleep(0.02)
    [worker] = [worker for worker, keys in client.processing().items() if any(key.endswith(f"-{number}") for key in keys)]
    pid = client.run(os.getpid)[worker]
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


@pytest.fixture(scope="module")
def after_a_kill(two_workers, whole):
    """Results, failures and shown lines of two runs, of which the first lost its worker after its second epoch."""
    killed, checkpoint = [], Run.of(TRIED, 0, whole).checkpoint
    killer = threading.Thread(target=kill_the_worker_of, args=(two_workers, 0, checkpoint, 2, killed))
    killer.start()
    outcome = run_all(two_workers, TASKS)
    killer.join()
    assert killed
    return outcome


@needs_dask
def test_a_run_whose_worker_was_killed_ends_as_the_undisturbed_one(after_a_kill, whole, tmp_path):
    results, failures, _ = after_a_kill
    assert not failures
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers
    for (experiment, seed), result in zip(TASKS, results, strict=True):
        alone = runs.run(experiment, seed, "cpu", root=tmp_path, echo=False)
        assert result.weights.read_bytes() == alone.weights.read_bytes()
        assert result.facts.environment == alone.facts.environment
    torch.set_num_threads(threads)
    assert not list((whole / "unfinished").iterdir())


@needs_dask
def test_a_kill_costs_at_most_one_epoch_and_the_other_run_nothing(after_a_kill):
    (first, second), _, shown = after_a_kill
    [continued] = first.facts.continued
    assert 2 <= continued.after_epoch < 6 and second.facts.continued == []
    undisturbed = [line for line in shown if line.startswith(f"{NAME} seed 1: epoch ")]
    assert [int(re.search(r"epoch (\d), Valid set", line)[1]) for line in undisturbed] == list(range(1, 7))
    for seed in (0, 1):
        assert [line for line in shown if line.startswith(f"{NAME} seed {seed}: ")][-1] == f"{NAME} seed {seed}: done"


@needs_dask
def test_a_finished_run_is_not_done_again_but_one_of_other_data_is(after_a_kill, two_workers, whole):
    before, _, _ = after_a_kill
    path = Run.of(TRIED, 1, whole).facts
    path.write_text(path.read_text().replace(before[1].facts.data.fingerprint, "0" * 64))
    results, failures, _ = run_all(two_workers, TASKS)
    assert not failures and results[0].facts == before[0].facts
    assert results[1].facts.started > before[1].facts.started and results[1].facts.sha256 == before[1].facts.sha256


@needs_dask
def test_a_run_that_fails_leaves_the_others_alone(two_workers):
    bad = TRIED.but(epochs=1, optimizer="sgd", schedule="constant", lr=1e6, weight_decay=1e6)
    results, failures, shown = run_all(two_workers, [(bad, 0), (TRIED.but(epochs=1), 0)])
    assert [result.experiment.recipe.lr for result in results] == [0.01] and f"{NAME} seed 0: failed" in shown
    [failure] = failures
    assert re.match(rf"{NAME}, seed 0, failed: .*the training loss became (nan|inf) in epoch 1", failure)


@needs_dask
def test_a_worker_that_has_other_data_is_refused(two_workers, monkeypatch):
    digits = datasets.load("digits")
    monkeypatch.setattr(datasets, "load", lambda name: replace(digits, fingerprint="0" * 64))
    _, [failure], _ = run_all(two_workers, [(TRIED.but(epochs=1, lr=0.02), 0)])
    assert "this worker has other data for digits (it found digits): expected the same files as the command's" in failure


@needs_dask
def test_a_worker_that_does_not_see_the_course_or_has_many_threads_is_refused(two_workers):
    from distributed import Client, LocalCluster

    from tools import cluster

    def told(client, course, mark):
        return client.submit(cluster.work, 0, [], str(course), str(mark), {}, pure=False).result()

    assert "expected the same shared disk there" in told(two_workers, "/elsewhere", ROOT / "README.md")
    assert "expected the same shared disk there" in told(two_workers, ROOT, ROOT / "is not there")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(**options) as many, Client(many, set_as_default=False) as client:
        assert "has 2 threads, and would do as many runs at once: expected --nthreads 1" in told(client, ROOT, ROOT / "README.md")


@needs_dask
def test_a_task_is_a_command_line_that_asks_for_the_same_recipe():
    from tools import cluster

    for experiment in (TRIED, EXPERIMENTS["base"], EXPERIMENTS["voxel_best"].but(fresh=False, scale=0.0, shear=0.0, decay_vectors=False)):
        options = train.parse(cluster.command(experiment, 3, ["--device", "cpu", "--again"]))
        assert train.chosen(options) == [experiment] and options.seeds == (3, 3) and options.again and options.device == "cpu"


@needs_dask
def test_the_command_s_flags_reach_the_tasks():
    from tools import cluster

    words = ["base", "--publish", "--again", "--device", "cpu", "--threads", "1", "--lr", "0.5", "--cluster"]
    assert cluster.words_of(train.parse(words)) == ["--publish", "--again", "--device", "cpu", "--threads", "1"]
    assert cluster.words_of(train.parse(["base", "--cluster"])) == []


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
def test_each_worker_gets_its_share_of_six_cores_or_a_gpu_and_listens_on_this_machine_alone(gpus, tasks, expected, monkeypatch):
    from tools import cluster

    for variable in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cluster, "CPU_COUNT", 6)
    monkeypatch.setattr(cluster, "SpecCluster", lambda workers, scheduler, **options: [*workers.values(), scheduler])
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(plans, "pick_device", lambda name: torch.device("cuda" if gpus else "cpu"))
    *workers, scheduler = cluster.local_cluster(tasks, "auto")
    assert [worker["options"]["env"] for worker in workers] == expected
    assert all(worker["options"]["nthreads"] == 1 for worker in workers)
    assert {part["options"]["host"] for part in (*workers, scheduler)} == {"127.0.0.1"}


@needs_dask
def test_without_a_scheduler_the_error_says_what_to_start(monkeypatch):
    from tools import cluster

    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(
        CourseError, match=r"no Dask scheduler with a worker answers at tcp://127.0.0.1:9 .*start `python -m dask scheduler`"
    ):
        cluster.run_all(TASKS, "tcp://127.0.0.1:9")


@needs_dask
def test_train_py_starts_a_cluster_of_its_own_and_ends_with_a_table():
    words = [sys.executable, "train.py", "base", "--data", "digits", "--device", "cpu", "--epochs", "1", "--cluster"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ), check=True)
    assert re.match(r"base seed 0: epoch 1, Test set.*\nbase seed 0: done\n", ended.stdout) and ended.stdout.count("| base ") == 1
    assert ended.stderr == ""


@needs_dask
def test_a_failed_run_ends_train_py_with_an_error(monkeypatch, capsys):
    from tools import cluster

    monkeypatch.setattr(cluster, "run_all", lambda *arguments, echo: ([], ["base, seed 1, failed: no space left"]))
    with pytest.raises(CourseError, match="1 of 2 runs failed; the same command does only what is missing"):
        train.main(["base", "--seeds", "2", "--cluster"])
    assert capsys.readouterr().err == "base, seed 1, failed: no space left\n"


def test_without_dask_one_line_tells_how_to_get_it(monkeypatch):
    monkeypatch.delattr(tools, "cluster", raising=False)
    monkeypatch.delitem(sys.modules, "tools.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "dask.system", None)
    with pytest.raises(CourseError, match=r"--cluster needs Dask .*: python -m pip install -r requirements-extra.txt"):
        train.main(["base", "--cluster"])


@pytest.mark.parametrize("words", [["--cluster", "base"], ["base", "--cluster", "there"]])
def test_what_is_no_address_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        train.main(words)
    assert "is no address: expected one like tcp://HOST:8786" in capsys.readouterr().err


def test_one_kind_of_many_processes_at_a_time():
    with pytest.raises(CourseError, match="leave out --ngpus"):
        train.main(["base", "--cluster", "--ngpus", "2"])
