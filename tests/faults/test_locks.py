"""One process at a time on one run: the second is told who the first is, and a dead process keeps nothing locked."""

import json
import multiprocessing
import os
import platform
import signal
import sys
import time

import pytest
from tiny import TINY

from utils import CourseError, runs
from utils.runs import facts, lock, records
from utils.runs.lock import SILENT, AlreadyRunning, Lock
from utils.runs.records import RunPaths


@pytest.fixture
def path(tmp_path):
    return tmp_path / "unfinished" / "run.lock"


def leave_holder(path, host, silent=0.0) -> bytes:
    """What a holder on another machine, whose lock the system does not show here, left so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder")
    holder.write_text(json.dumps({"pid": 1, "host": host, "since": facts.now(), "token": "t"}))
    os.utime(holder, (time.time() - silent,) * 2)
    return holder.read_bytes()


def hold(path, held):
    with Lock(path, "tiny, seed 0,"):
        held.set()
        time.sleep(600)


def test_the_second_is_told_who_the_first_is_and_gets_the_lock_once_that_is_dead_but_not_if_suspended(path):
    processes = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")  # a fork has imported torch
    held = processes.Event()
    other = processes.Process(target=hold, args=(path, held))
    other.start()
    try:
        assert held.wait(60)
        message = rf"^tiny, seed 0, is already running: process {other.pid} on \S+ since 20\S+ holds"
        with pytest.raises(AlreadyRunning, match=message):
            Lock(path, "tiny, seed 0,").__enter__()
        os.kill(other.pid, signal.SIGSTOP)
        os.utime(path.with_suffix(".holder"), (0, 0))  # no sign of life for years
        with pytest.raises(AlreadyRunning):
            Lock(path, "tiny").__enter__()
    finally:
        other.kill()
        other.join()
    with Lock(path, "tiny"):
        assert json.loads(path.with_suffix(".holder").read_bytes())["pid"] == os.getpid()


@pytest.mark.parametrize(("silent", "held"), [(0, True), (SILENT / 2, True), (SILENT + 1, False)])
def test_on_a_shared_disk_signs_of_life_decide(path, silent, held):
    left = leave_holder(path, "elsewhere", silent)
    if held:
        with pytest.raises(AlreadyRunning, match="process 1 on elsewhere"):
            Lock(path, "tiny").__enter__()
        assert path.with_suffix(".holder").read_bytes() == left
    else:
        with Lock(path, "tiny") as mine:
            mine.require()


def test_a_holder_gives_signs_of_life(path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with Lock(path, "tiny"):
        holder = path.with_suffix(".holder")
        os.utime(holder, (0, 0))
        for _ in range(1000):
            if holder.stat().st_mtime:
                break
            time.sleep(0.01)
        assert holder.stat().st_mtime > 0
    assert not holder.exists()


# ---- of runs


def train(**options):
    return runs.run(TINY, device="cpu", echo=False, **options)


def lock_of():
    return RunPaths.of(TINY, 0, records.own_root()).lock


def test_a_run_that_another_process_trains_is_not_started_and_nothing_of_it_changes(scratch):
    with Lock(lock_of(), "tiny, seed 0,"):
        before = {path: path.read_bytes() for path in scratch.rglob("*") if path.is_file()}
        with pytest.raises(AlreadyRunning, match=f"tiny, seed 0, is already running: process {os.getpid()} on "):
            train()
        assert {path: path.read_bytes() for path in scratch.rglob("*") if path.is_file()} == before
        assert runs.run(TINY, 1, device="cpu", echo=False).facts.epochs == 3  # another seed is another run


def test_a_run_that_was_taken_over_writes_nothing_more(scratch):
    def epochs_saved():
        return len(records.read_checkpoint(RunPaths.of(TINY, 0, records.own_root()).checkpoint)[1]["history"])

    seen = []

    def after_epoch(history):
        if len(history) == 2:
            leave_holder(lock_of(), platform.node())
        seen.append(epochs_saved())

    with pytest.raises(CourseError, match="tiny, seed 0, was taken over by another process"):
        train(after_epoch=after_epoch)
    assert seen == [1, 2] and epochs_saved() == 2 and lock_of().with_suffix(".holder").exists()  # the other's
