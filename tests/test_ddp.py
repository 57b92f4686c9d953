"""Two processes train the network that one trains, continue exactly, and fail together; only one writes and prints."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import two_processes

from tools import train
from utils import ROOT, files
from utils.runs import records
from utils.runs.records import RunPaths
from utils.training import ddp

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


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A function from a case's name to the weights that this process alone trains, and its log."""

    @lru_cache
    def alone(name: str) -> tuple[dict, list]:
        root = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COURSE_SMOKE", "0")
            return two_processes.train(two_processes.CASES[name], root, name.endswith("float64")), log(name, root)

    return alone


def log(name: str, root: Path) -> list:
    return records.read_log(RunPaths.of(two_processes.CASES[name], 0, root).log)


# Adam divides by the root of a squared gradient that is all but 0 at first, which turns float32's rounding into steps
# of up to the learning rate; so its arithmetic is compared where rounding is nothing, and float32 under an optimizer
# that leaves it small.
@pytest.mark.parametrize(("name", "most"), [("float64", 1e-10), ("float32", 1e-5)])
def test_two_processes_end_with_the_weights_of_one_and_log_the_same(name, most, one, two):
    assert difference(one(name)[0], two[1][name]) < most
    if name != "float32":
        for alone, together in zip(one(name)[1], log(name, two[0]["folder"] / name), strict=True):
            for key in alone.keys() - {"seconds"}:  # of sums that are kept in float32, six decimals are logged
                assert together[key] == pytest.approx(alone[key], rel=1e-5, abs=2e-6), key


def test_a_wrong_weight_of_an_uneven_batch_is_noticed(one, two):
    assert difference(one("float64")[0], two[1]["unweighted"]) > 1e-5


def test_batch_norm_sees_its_own_shard_only_and_all_end_with_the_statistics_of_one(one, two):
    assert difference(one("batch_norm")[0], two[1]["batch_norm"]) > 1e-3
    assert two[0]["all hold the same statistics"]
    facts = records.read_facts(RunPaths.of(two_processes.CASES["float32"], 0, two[0]["folder"] / "float32").facts)
    assert facts.environment.processes == 2


def test_continued_training_of_two_processes_is_exact(two):
    found, weights = two
    assert all("interrupted. The same command continues it" in told for told in found["continued"])
    assert files.to_bytes(weights["continued"]) == files.to_bytes(weights["uninterrupted"])
    # the control: without process 1's random state it draws other dropout
    assert difference(weights["forgotten"], weights["uninterrupted"]) > 1e-5


def test_an_error_of_one_process_ends_all(two):
    for name, message in (
        ("no folder", "could not be written"),
        ("full disk", "no space left"),
        ("other data", "process 1 has data = .*1436.*, process 0 has .*1437"),
    ):
        assert len(two[0][name]) == 2 and all(re.search(message, told) for told in two[0][name])


def test_train_py_prints_once(two):
    first, second = two[0]["printed"]
    assert first.count("Epoch 1: Train set:") == first.count("| base ") == 1 and second == ""


def test_shards_cover_a_batch_once_and_average_to_its_mean(monkeypatch):
    assert ddp.shard(7) == (slice(0, 7, 1), 1.0) and not ddp.launched()  # alone a shard is everything
    assert ddp.gather(3) == [3] and ddp.on_rank0(lambda: 4) == 4
    monkeypatch.setattr(ddp, "world_size", lambda: 3)
    for n in (1, 2, 3, 8):
        values, seen, mean = torch.arange(1.0, n + 1), [], 0.0
        for number in range(3):
            monkeypatch.setattr(ddp, "rank", lambda number=number: number)
            part, factor = ddp.shard(n)
            seen += values[part].tolist() if factor else []
            mean += values[part].mean().item() * factor / 3
        assert sorted(seen) == values.tolist() and mean == pytest.approx(values.mean().item())


def test_ngpus_starts_torchrun_with_the_same_words_or_goes_on_with_the_cpu(monkeypatch, capsys):
    started, words = [], ["base", "--data", "digits", "--quiet", "--ngpus", "4"]
    monkeypatch.setenv("COURSE_SMOKE", "1")
    monkeypatch.setattr(train.command, "interactive", lambda: False)
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(train.os, "execv", lambda *command: started.append(command) or sys.exit(0))
    with pytest.raises(SystemExit):
        train.main(words)
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=4", str(ROOT / "train.py"), *words]
    assert started == [(sys.executable, command)]
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 1)
    train.main(words)
    printed = capsys.readouterr()
    assert printed.err == "train.py: --ngpus 4, but found 1 of them: going on with the CPU, in one process\n"
    assert "| base " in printed.out
