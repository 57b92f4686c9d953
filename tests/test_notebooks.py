"""Each lesson and solution runs on a few images, and prints what it shows. Several share one process, because imports
are most of a kernel's time here. With --nbval each runs in a kernel of its own instead, as in `make test-offline`.
"""

import pytest
import torch

from tools import report
from utils import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = [*sorted(FOLDER.glob("*.ipynb")), *sorted(FOLDER.glob("solutions/*.ipynb"))]  # not Jupyter's checkpoints


@pytest.fixture(autouse=True)
def _denormal_numbers():
    """The next test's process computes with numbers near 0 again, which lesson 06 rounds to 0."""
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(FOLDER).with_suffix("").as_posix())
def test_a_notebook_runs_and_prints_what_it_shows(path, monkeypatch, tmp_path, pytestconfig):
    if pytestconfig.getoption("nbval", False):
        pytest.skip("nbval runs it in a kernel of its own")
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("COURSE_SMOKE", "1")
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    shell = report.new_shell()
    for cell in report.read_notebook(path).cells:
        if cell.cell_type == "code":
            now = report.run_cell(shell, cell.source)
            if "nbval-ignore-output" not in cell.metadata.get("tags", []):
                assert now == (report.printed(cell.outputs), report.displayed(cell.outputs)), cell.source
