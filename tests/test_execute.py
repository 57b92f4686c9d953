"""`make results` loses no notebook: it is replaced by the one with its outputs, or stays as it was."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools import report
from utils import CourseError

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
