"""Signals, full disks, poor terminals: a command ends in one line, and nothing that was done is lost."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from tiny import POOR, TINY, few_digits, train

from tools import command
from utils import ROOT, CourseError, Interrupted
from utils.data import datasets, voxels
from utils.experiments import EXPERIMENTS
from utils.runs import records

REAL = {"COURSE_SMOKE": "0", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
BASE = ["train.py", "base", "--data", "digits", "--device", "cpu", "--threads", "1"]


def start(root: Path, argv: list[str], stdout=subprocess.PIPE) -> subprocess.Popen:
    environment = os.environ | REAL | {"COURSE_RUNS": str(root)}
    pipes = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *argv], cwd=ROOT, env=environment, **pipes)


def test_ctrl_c_ends_several_runs_in_one_line_with_the_state_saved(tmp_path):
    with start(tmp_path, [*BASE, "--seeds", "2", "--epochs", "2000"]) as process:
        assert any(line.startswith("Epoch 3:") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        printed, message = process.communicate()
    assert process.returncode == 130 and "seed 1:" not in printed
    told = "train.py: base, seed 0: interrupted. The same command continues it after its last finished epoch.\n"
    assert message == told
    [checkpoint] = tmp_path.glob("unfinished/*")  # and no lock
    assert len(records.read_checkpoint(checkpoint)[1]["history"]) >= 3  # what is printed is kept


def test_how_a_command_ends(capsys):
    def action(error):
        raise error

    for error, status, told in (
        (CourseError("no space"), 2, "tool: no space\n"),
        (Interrupted("stopped"), 130, "tool: stopped\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted\n"),
    ):
        assert command.run("tool", action, error) == status and capsys.readouterr().err == told
        assert command.run("tool", action, error, speaks=lambda: False) == status and capsys.readouterr().err == ""
    assert command.run("tool", len, ["a"]) == 1 and command.run("tool", lambda argv: None, []) == 0
    with pytest.raises(ZeroDivisionError):  # a mistake of the course's own is shown whole
        command.run("tool", lambda argv: 1 // 0, [])


def test_a_reader_that_has_seen_enough_is_no_error():
    with start(ROOT, ["train.py", "--list"]) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == command.BROKEN_PIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a disk without any space")
def test_a_full_output_is_one_line(tmp_path):
    with open("/dev/full", "w") as full, start(tmp_path, [*BASE, "--epochs", "2"], full) as process:  # noqa: PTH123
        message = process.stderr.read()
    assert process.returncode == 2 and "No space left" in message and message.count("\n") == 1, message


# ---- disks


def no_space():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("publish", [False, True])
def test_a_disk_that_is_full_at_any_write_loses_nothing(publish, scratch, monkeypatch):
    experiment = TINY.with_recipe(epochs=2, images=128, valid=0 if publish else 200)
    monkeypatch.setitem(EXPERIMENTS, "tiny", experiment)
    run = partial(train, experiment, publish=publish)
    expected = run().weights.read_bytes()
    for written in count():
        for folder in ("runs", "logs", "saved_dict"):
            shutil.rmtree(scratch / folder, ignore_errors=True)
        with monkeypatch.context() as patch:
            room = iter([True] * written)
            patch.setattr(os, "fsync", lambda _, room=room: next(room, False) or no_space())
            try:
                run()
                break
            except CourseError as error:
                assert "No space left on device" in str(error) and "\n" not in str(error)
        assert run().weights.read_bytes() == expected and not list(scratch.rglob(".*.pth.*"))
    assert written > 6  # checkpoint and log of two epochs, weights, sidecar, facts


def test_voxels_that_can_not_be_kept_are_used_all_the_same(scratch, monkeypatch, capsys):
    few_digits(scratch / "given", 60, 20)
    monkeypatch.setenv("COURSE_DATA", str(scratch / "given"))
    monkeypatch.setattr(datasets, "ROOT", scratch)
    monkeypatch.setattr(voxels, "TRAIN", 60)
    monkeypatch.setattr(voxels, "TEST", 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # no file may grow further: as a full disk, but real
        cubes = datasets.load("mnist3d")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    [told] = [line for line in capsys.readouterr().err.splitlines() if "Going on" in line]
    assert len(cubes.train) == 120 and told.endswith("Going on without it.") and "File too large" in told
    assert not list(scratch.rglob("*.h5*"))
    assert datasets.load("mnist3d").fingerprint == cubes.fingerprint and list(scratch.rglob("*.h5"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="/proc is what even root can't write to")
def test_a_repository_that_can_not_be_written_says_where_else_results_may_go(scratch, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", "/proc/runs")
    with pytest.raises(CourseError, match=r"/proc/runs/.* could not be written .*COURSE_RUNS names another") as error:
        train()
    assert "\n" not in str(error.value)
    monkeypatch.setenv("COURSE_RUNS", str(scratch / "elsewhere"))
    assert train().weights.is_file()


# ---- terminals and names


def test_a_poor_terminal_no_home_and_another_folder_change_nothing(tmp_path):
    """In a folder whose name has blanks and umlauts, and that is no git repository."""
    course = tmp_path / "Übung mit Leerzeichen" / "Kürs 1"
    for name in ("utils", "tools"):
        shutil.copytree(ROOT / name, course / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "references.json"):
        shutil.copy(ROOT / name, course)
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "SYSTEMROOT", "OMP_NUM_THREADS")}
    environment = {**kept, **POOR, "PYTHONPATH": str(course), "COURSE_RUNS": str(tmp_path / "Läufe")}

    def call(*argv):
        return subprocess.run([sys.executable, *argv], cwd=tmp_path, env=environment, capture_output=True, text=True)

    trained = call(str(course / "train.py"), *BASE[1:], "--epochs", "1", "--quiet")
    assert trained.returncode == 0 and trained.stderr == "", trained.stderr
    assert "L\\" in trained.stdout and len(list((tmp_path / "Läufe" / "saved_dict").glob("*.pth"))) == 1
    drawn = call("-m", "tools.report", str(tmp_path / "Läufe"))
    assert drawn.returncode == 0 and "Traceback" not in drawn.stderr, drawn.stderr
    assert list((tmp_path / "Läufe" / "pngs").glob("*.png"))
    rejected = call(str(course / "train.py"), "bäse")
    assert rejected.returncode == 2 and rejected.stderr.count("\n") == 1 and "b\\" in rejected.stderr
