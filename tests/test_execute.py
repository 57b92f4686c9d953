"""`make results` loses no notebook: it is replaced by the one with its outputs, or stays as it was."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools import report
from utils import ROOT, CourseError

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def write(path, *sources):
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources], metadata=KERNEL), path)
    return path.read_bytes()


def test_an_executed_notebook_has_its_outputs(tmp_path, monkeypatch):
    path = tmp_path / "book.ipynb"
    write(path, "print(1)\nprint(2)")
    monkeypatch.setattr(report, "stale", lambda: [path])
    assert report.main(["--execute"]) == 0
    (cell,) = nbformat.read(path, as_version=4).cells
    assert [output.text for output in cell.outputs] == ["1\n2\n"]
    assert [left.name for left in tmp_path.iterdir()] == ["book.ipynb"]


@pytest.mark.parametrize("source", ["raise ValueError('three')", "import os; os._exit(3)"])
def test_a_cell_that_fails_fails_the_command_and_changes_nothing(source, tmp_path, monkeypatch):
    path = tmp_path / "book.ipynb"
    before = write(path, "print(1)", source)
    monkeypatch.setattr(report, "stale", lambda: [path])
    with pytest.raises(CourseError, match=r"book\.ipynb stopped with an error, and its file is unchanged") as refusal:
        report.main(["--execute"])
    assert "\n" not in str(refusal.value) and path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_a_killed_execution_changes_nothing(tmp_path):
    path, run_start = tmp_path / "book.ipynb", tmp_path / "run_start"
    before = write(path, "print(1)", f"import pathlib, time; pathlib.Path({str(run_start)!r}).touch(); time.sleep(600)")
    command = f"from pathlib import Path; from tools import report; report.execute(Path({str(path)!r}))"
    running = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT)
    while not run_start.exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert path.read_bytes() == before
