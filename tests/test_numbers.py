"""No measured number is typed by hand: accuracies and times in texts come from logs."""

import re

import nbformat
import pytest

from utils import ROOT

MEASURED = {
    "an accuracy": re.compile(r"(?<![\d.,])9\d\.\d\d?(?![\d.])(?!°)"),
    "a time": re.compile(r"(?<![\d.,])\d+(\.\d+)? ?(s|seconds?|min|minutes?|h|hours?)\b(?! each (may|at most))"),
}
TARGETS = re.compile(
    r"(9\d(\.\d)?(, | and ))*9\d(\.\d)? ?%"
)  # what is aimed at, not what was measured: 99 %, 99.4 %, 99.5 %


def typed(text: str) -> list[str]:
    """Accuracies and times that stand in a text; what a link is called, such as a paper's title, is its source's
    own."""
    aimed = TARGETS.sub("", re.sub(r"\[[^\]]*\]\(http[^)]*\)", "", text))
    return [found[0] for pattern in MEASURED.values() for found in pattern.finditer(aimed)]


NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9a-z]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_accuracy_and_no_time_is_typed_in_a_notebook(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    comments = [
        line.split("#", 1)[1]
        for cell in cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if "# " in line
    ]
    assert typed("\n".join(prose + comments)) == []


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_no_accuracy_and_no_time_is_typed_in_a_page(path):
    """Outside the sections that are written from the logs, and outside code and what it prints, which a test runs."""
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"<!-- ([\w ]+): written by .*?<!-- end of \1 -->|```.*?```", "", text, flags=re.DOTALL)
    assert typed(prose) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("it reached 98.74", ["98.74"]),
        ("98.54 ± 0.27 %", ["98.54"]),
        ("that gave 99.5 in the end", ["99.5"]),
        ("needs 8 minutes", ["8 minutes"]),
        ("99, 99.4 and 99.5 %", []),
        ("took 3.2 s", ["3.2 s"]),
        ("99.4 % in the least time, 99 % first, then 99.5 %", []),
        ("torch 2.6, numpy 1.26, lr 0.04104, 95 of 100, ±90.0°", []),
        ("[94 % in 3.29 seconds](https://example.org)", []),
        ("7,634 parameters, version 99.1.2", []),
    ],
)
def test_a_typed_number_is_noticed_and_a_target_is_not(text, found):
    assert typed(text) == found
