"""Two processes train the network that one trains, continue exactly, fail together, and only one of them writes and prints."""

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

import train
from utils import ROOT, CourseError, artifacts, distributed

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COURSE_SMOKE": "0", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two_processes.py found and trained in two processes; `found["folder"]` is where its runs wrote."""
    folder = tmp_path_factory.mktemp("two")
    script = str(Path(two_processes.__file__))
    subprocess.run(
        [*TORCHRUN, "--standalone", "--nproc-per-node=2", script, str(folder)], cwd=ROOT, env=ENVIRONMENT, check=True, timeout=300
    )
    return json.loads((folder / "found.json").read_text()) | {"folder": folder}, torch.load(folder / "weights.pt")


def difference(one: dict, other: dict) -> float:
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max((one[key].double() - other[key].double()).abs().max().item() for key in one)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A function from a case's name to the weights that this process alone trains."""

    @lru_cache
    def alone(name: str) -> dict:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COURSE_SMOKE", "0")
            return two_processes.train(two_processes.CASES[name], tmp_path_factory.mktemp(name), name == "float64")

    return alone


# Adam divides by the root of a squared gradient that is all but 0 at first, which turns float32's rounding into steps of up to
# the learning rate; so its arithmetic is compared where rounding is nothing, and float32 under an optimizer that leaves it small.
@pytest.mark.parametrize(("name", "most"), [("float64", 1e-10), ("float32", 1e-5)])
def test_two_processes_end_with_the_weights_of_one(name, most, one, two):
    assert difference(one(name), two[1][name]) < most


def test_a_wrong_share_of_an_uneven_batch_is_noticed(one, two):
    assert difference(one("float64"), two[1]["unweighted"]) > 1e-5


def test_batch_norm_sees_its_own_share_only_and_all_end_with_the_statistics_of_one(one, two):
    assert difference(one("batch_norm"), two[1]["batch_norm"]) > 1e-3
    assert two[0]["all hold the same statistics"]


def test_continued_training_of_two_processes_is_exact(two):
    found, weights = two
    assert all("interrupted. The same command continues it after its last finished epoch" in said for said in found["continued"])
    assert artifacts.to_bytes(weights["continued"]) == artifacts.to_bytes(weights["uninterrupted"])
    assert difference(weights["forgotten"], weights["uninterrupted"]) > 1e-5  # without process 1's random state: other dropout


def test_facts_tell_how_many_processes(two):
    facts = artifacts.read_json(artifacts.log_path(two[0]["folder"] / "float32", "plain", 0).with_suffix(".json"))
    assert facts["environment"]["processes"] == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no folder", "could not be written"),
        ("full disk", "no space left"),
        ("other data", "process 1 has data = .*1436.*, process 0 has .*1437"),
    ],
)
def test_an_error_of_one_process_ends_all(name, said, two):
    assert len(two[0][name]) == 2 and all(re.search(said, words) for words in two[0][name])


def test_train_py_on_two_machines_prints_once():
    """Two torchruns, as two machines would start them, with the flags that README gives."""
    port = free_port()
    words = ["train.py", "base", "--data", "digits", "--batch-size", "100"]
    machines = [
        subprocess.Popen(
            [
                *TORCHRUN,
                "--nnodes=2",
                f"--node-rank={number}",
                "--nproc-per-node=1",
                "--master-addr=127.0.0.1",
                f"--master-port={port}",
                *words,
            ],
            cwd=ROOT,
            env={**ENVIRONMENT, "COURSE_SMOKE": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    printed = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0]
    assert printed[0].count("Epoch 1: Train set:") == 1 and "/512 (" in printed[0] and printed[0].count("| base ") == 1
    assert printed[1] == ""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_shares_cover_a_batch_once_and_average_to_its_mean(n, monkeypatch):
    values, world, seen, mean = torch.arange(1.0, n + 1), 3, [], 0.0
    monkeypatch.setattr(distributed, "world", lambda: world)
    for number in range(world):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        part, factor = distributed.share(n)
        seen += values[part].tolist() if factor else []
        mean += values[part].mean().item() * factor / world
    assert sorted(seen) == values.tolist() and mean == pytest.approx(values.mean().item())


def test_alone_a_share_is_everything():
    assert distributed.share(7) == (slice(0, 7, 1), 1.0)
    assert distributed.gather(3) == [3] and distributed.from_lead(lambda: 4) == 4 and not distributed.launched()


def test_ngpus_starts_torchrun_with_the_same_words(monkeypatch):
    started = []
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(train.os, "execv", lambda *command: started.append(command) or sys.exit(0))
    with pytest.raises(SystemExit):
        train.main(["base", "--ngpus", "4", "--seeds", "2"])
    assert started == [
        (sys.executable, [*TORCHRUN, "--standalone", "--nproc-per-node=4", train.__file__, "base", "--ngpus", "4", "--seeds", "2"])
    ]


def test_ngpus_without_enough_gpus_says_so_and_goes_on_with_the_cpu(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 1)
    train.main(["base", "--data", "digits", "--ngpus", "2", "--quiet"])
    said = capsys.readouterr()
    assert said.err == "train.py: --ngpus 2, but found 1 of them: going on with the CPU, in one process\n"
    assert "| base " in said.out


@pytest.mark.parametrize("words", [["--ngpus", "0"], ["--ngpus", "2", "--device", "cpu"]])
def test_ngpus_that_can_not_be_meant_is_refused(words):
    with pytest.raises(CourseError, match="expected 1 or more GPUs, and no other device"):
        train.main(["base", *words])
