"""Two processes train the network that one trains, continue exactly, and fail together; only one writes and prints."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes

from tools import train
from utils import ROOT, files
from utils.runs import records
from utils.runs.records import RunPaths

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COURSE_SMOKE": "0", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two_processes.py found and trained, started as two machines would, with the flags that docs/machines.md
    gives; `found` also has the folder where its runs wrote, and what each process printed."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    script = [str(Path(two_processes.__file__)), str(folder)]
    how = {"cwd": ROOT, "env": ENVIRONMENT | {"COURSE_RUNS": str(folder / "runs")}}
    commands = [[*TORCHRUN, *where, f"--node-rank={number}", *script] for number in (0, 1)]
    machines = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how) for command in commands]
    printed = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0]
    found = json.loads((folder / "found.json").read_text())
    return found | {"folder": folder, "printed": printed}, torch.load(folder / "weights.pt")


def difference(one: dict, other: dict) -> float:
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max((one[key].double() - other[key].double()).abs().max().item() for key in one)


def test_two_processes_end_with_the_weights_of_one_and_log_the_same(two, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    found, weights = two
    alone = two_processes.train_in_float64(tmp_path)
    assert difference(alone, weights["float64"]) < 1e-10
    assert difference(alone, weights["unweighted"]) > 1e-5  # a wrong weight of an uneven batch
    paths = [RunPaths.of(two_processes.ONE_EPOCH, 0, root) for root in (tmp_path, found["folder"] / "float64")]
    for one, both in zip(*(records.read_log(run.log) for run in paths), strict=True):
        for key in one.keys() - {"seconds"}:  # of sums that are kept in float32, six decimals are logged
            assert both[key] == pytest.approx(one[key], rel=1e-5, abs=2e-6), key
    assert records.read_facts(paths[1].facts).environment.processes == 2
    assert found["all hold the same statistics"]  # of batch norm


def test_continued_training_of_two_processes_is_exact(two):
    found, weights = two
    assert all("interrupted. The same command continues it" in told for told in found["continued"])
    assert files.to_bytes(weights["continued"]) == files.to_bytes(weights["uninterrupted"])
    # the control: without process 1's random state it draws other dropout
    assert difference(weights["forgotten"], weights["uninterrupted"]) > 1e-5


def test_an_error_of_one_process_ends_all(two):
    for name, message in (
        ("full disk", "no space left"),
        ("other data", "process 1 has data = .*1436.*, process 0 has .*1437"),
    ):
        assert len(two[0][name]) == 2 and all(re.search(message, told) for told in two[0][name])


def test_train_py_prints_once(two):
    first, second = two[0]["printed"]
    assert first.count("Epoch 1: Train set:") == first.count("| base ") == 1 and second == ""


def test_ngpus_starts_torchrun_with_the_same_words(monkeypatch):
    started, words = [], ["base", "--data", "digits", "--quiet", "--ngpus", "4"]
    monkeypatch.setattr(train.command, "interactive", lambda: False)
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(train.os, "execv", lambda *command: started.append(command) or sys.exit(0))
    with pytest.raises(SystemExit):
        train.main(words)
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=4", str(ROOT / "train.py"), *words]
    assert started == [(sys.executable, command)]
