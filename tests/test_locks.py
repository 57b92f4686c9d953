"""One process at a time on one run: the second says who the first is, and a dead one's lock is taken over."""

import json
import os
import platform
import subprocess
import sys
import threading
import time

import pytest
from tiny import TINY

from utils import CourseError
from utils.runs import facts, locks, records, runs
from utils.runs.locks import DEAD, Held, Lock
from utils.runs.records import Run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "unfinished" / "run.lock"


def leave(path, pid, host=None, silent=0.0) -> bytes:
    """A lock as a process of that number left it so many seconds ago; its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": pid, "host": host or platform.node(), "since": facts.now(), "token": "t"}))
    os.utime(path, (time.time() - silent,) * 2)
    return path.read_bytes()


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        pass
    return process.pid


def test_the_second_says_who_the_first_is(path):
    with Lock(path, "tiny, seed 0,") as first, Lock(path, "tiny, seed 0,") as second:
        first.acquire()
        with pytest.raises(Held, match=rf"^tiny, seed 0, is being worked on by process {os.getpid()} on \S+ since 20\S+: wait until"):
            second.acquire()
        first.require()
        first.release()
        assert list(path.parent.iterdir()) == []
        second.acquire()
        second.require()
        with pytest.raises(CourseError, match="was taken over"):
            first.require()
    assert list(path.parent.iterdir()) == []


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(path, dead):
    leave(path, dead)
    with Lock(path, "tiny") as lock:
        lock.acquire()
        assert json.loads(path.read_bytes())["pid"] == os.getpid() and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("silent", "held"), [(0, True), (DEAD / 2, True), (DEAD + 1, False)])
@pytest.mark.parametrize("content", ["another machine", "a number used again", "cut off"])
def test_elsewhere_signs_of_life_decide(content, silent, held, path, dead):
    host, pid = ("elsewhere", dead) if content == "another machine" else (None, os.getpid())
    left = leave(path, pid, host, silent)
    if content == "cut off":  # killed between making the file and writing it
        path.write_bytes(b"")
        os.utime(path, (time.time() - silent,) * 2)
    with Lock(path, "tiny") as lock:
        if held:
            with pytest.raises(Held, match="only begins" if content == "cut off" else f"process {pid} on"):
                lock.acquire()
            assert path.read_bytes() == (b"" if content == "cut off" else left)
        else:
            lock.acquire()
            lock.require()


def test_a_holder_gives_signs_of_life_until_it_releases(path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with Lock(path, "tiny") as lock:
        lock.acquire()
        os.utime(path, (0, 0))
        for _ in range(1000):
            if path.stat().st_mtime:
                break
            time.sleep(0.01)
        assert path.stat().st_mtime > 0
    assert not path.exists()


def test_of_many_that_find_a_dead_one_s_lock_one_alone_gets_it(path, dead):
    for _ in range(20):
        leave(path, dead)
        attempts, got, barrier = [Lock(path, "tiny") for _ in range(8)], [], threading.Barrier(8)

        def attempt(lock, got=got, barrier=barrier):
            barrier.wait()
            try:
                lock.acquire()
                got.append(lock)
            except Held:
                pass

        threads = [threading.Thread(target=attempt, args=(lock,)) for lock in attempts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holders = [lock for lock in got if lock._read() == lock.content]
        assert len(holders) == 1  # whoever else thought so finds out before it writes
        for lock in attempts:
            lock.release()


# ---- of runs


def train(**options):
    return runs.run(TINY, device="cpu", echo=False, **options)


def lock_of(experiment=TINY):
    return Run.of(experiment, 0, records.own_root()).checkpoint.with_suffix(".lock")


def test_a_run_that_another_process_is_at_is_not_begun_and_nothing_of_it_changes(scratch):
    left = leave(lock_of(), os.getppid())
    before = {path: path.read_bytes() for path in scratch.rglob("*") if path.is_file()}
    with pytest.raises(Held, match=f"tiny, seed 0, is being worked on by process {os.getppid()} on ") as refusal:
        train()
    assert "\n" not in str(refusal.value) and lock_of().read_bytes() == left
    assert {path: path.read_bytes() for path in scratch.rglob("*") if path.is_file()} == before
    assert runs.run(TINY, 1, device="cpu", echo=False).facts.epochs == 3  # another seed is another run
    lock_of().unlink()
    train()
    leave(lock_of(), os.getppid())
    assert train().facts.epochs == 3  # what is finished is read, whoever works on it


def test_a_run_that_was_taken_over_writes_nothing_more(scratch):
    seen = []

    def after_epoch(history):
        if len(history) == 2:
            leave(lock_of(), os.getppid())
        seen.append(records.read_checkpoint(Run.of(TINY, 0, records.own_root()).checkpoint)[1]["history"])

    with pytest.raises(CourseError, match="tiny, seed 0, was taken over by another process"):
        train(after_epoch=after_epoch)
    assert [len(history) for history in seen] == [1, 2]
    saved = records.read_checkpoint(Run.of(TINY, 0, records.own_root()).checkpoint)
    assert len(saved[1]["history"]) == 2 and lock_of().exists()  # the other's


def test_an_interrupted_run_leaves_no_lock_and_tells_its_rows(scratch):
    def after_epoch(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(runs.Interrupted, match="continues it after its last finished epoch") as stop:
        train(after_epoch=after_epoch)
    assert [row["epoch"] for row in stop.value.history] == [1, 2] and not lock_of().exists()
