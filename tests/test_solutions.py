"""Each solution runs, and prints what it shows. All share one process, as imports are most of a kernel's time here.

`pytest --nbval notebooks` runs each in a kernel of its own.
"""

import pytest
import torch

from tools import report
from utils import ROOT

SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _denormal_numbers():
    """The next test's process computes with numbers near 0 again, which lesson 06 rounds to 0."""
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_runs_and_prints_what_it_shows(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("COURSE_SMOKE", "1")
    shell = report.new_shell()
    for cell in report.read_notebook(path).cells:
        if cell.cell_type == "code":
            now = report.run_cell(shell, cell.source)
            if "nbval-ignore-output" not in cell.metadata.get("tags", []):
                assert now == (report.printed(cell.outputs), report.displayed(cell.outputs)), cell.source
