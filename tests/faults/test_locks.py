"""One process at a time on one run: the second is told who the first is, and a dead process keeps nothing locked."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from rejections import rejected
from tiny import own, train

from utils.runs.lock import AlreadyRunning, locked


def hold(path, held):
    with locked(path, "tiny, seed 0"):
        held.set()
        time.sleep(600)


def test_the_second_is_told_who_the_first_is_and_gets_the_lock_once_that_is_dead_but_not_if_suspended(tmp_path):
    path = tmp_path / "unfinished" / "run.lock"
    processes = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")  # a fork has imported torch
    held = processes.Event()
    other = processes.Process(target=hold, args=(path, held))
    other.start()
    try:
        assert held.wait(60)
        os.kill(other.pid, signal.SIGSTOP)
        message = rf"^tiny, seed 0, is already running: process {other.pid} on \S+ since 20\S+ holds"
        with pytest.raises(AlreadyRunning, match=message):
            locked(path, "tiny, seed 0").__enter__()
    finally:
        other.kill()
        other.join()
    with locked(path, "tiny"):
        assert f"process {os.getpid()} on" in path.with_suffix(".holder").read_text()
    assert not list(path.parent.iterdir())


def test_of_many_at_once_one_alone_gets_it(tmp_path):
    barrier = threading.Barrier(8)

    def gets_it(_):
        mine = locked(tmp_path / "run.lock", "tiny")
        barrier.wait()
        with suppress(AlreadyRunning):
            mine.__enter__()
            return mine

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(gets_it, range(8))).count(None) == 7


def test_a_run_that_another_process_trains_is_not_started_and_nothing_of_it_changes(scratch):
    with locked(own().lock, "tiny, seed 0"):
        assert f"tiny, seed 0, is already running: process {os.getpid()} on " in rejected(train, scratch)
        assert train(seed=1).facts.epochs == 3  # another seed is another run
    train()
    with locked(own().lock, "tiny, seed 0"):
        assert train().facts.epochs == 3  # what is finished is read, even while another process trains it again
