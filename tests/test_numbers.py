"""No measured number is typed by hand: accuracies and times in texts come from logs."""

import re

import nbformat

from utils import ROOT

MEASURED = {
    "an accuracy": re.compile(r"(?<![\d.,])9\d\.\d\d?(?![\d.])(?!°)"),
    "a time": re.compile(r"(?<![\d.,])\d+(\.\d+)? ?(s|seconds?|min|minutes?|h|hours?)\b(?! each (may|at most))"),
}
TARGETS = re.compile(r"(9\d(\.\d)?(, | and ))*9\d(\.\d)? ?%")  # aimed at, not measured: 99 %, 99.4 %, 99.5 %
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").rglob("[0-9a-z]*.ipynb")]


def typed(text: str) -> list[str]:
    """Accuracies and times that stand in a text, outside of links, which may be a paper's title."""
    aimed = TARGETS.sub("", re.sub(r"\[[^\]]*\]\(http[^)]*\)", "", text))
    return [found[0] for pattern in MEASURED.values() for found in pattern.finditer(aimed)]


def test_no_accuracy_and_no_time_is_typed_by_hand():
    """Outside the sections that are written from the logs, and outside code and what it prints, which a test runs."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = nbformat.reads(text, as_version=4).cells
            code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
            prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
            text = "\n".join([*prose, *re.findall(r"#(.* .*)", code)])
        else:
            text = re.sub(r"<!-- ([\w ]+): written by .*?<!-- end of \1 -->|```.*?```", "", text, flags=re.DOTALL)
        assert typed(text) == [], path


def test_a_typed_number_is_noticed_and_a_target_is_not():
    text = "98.54 ± 0.27 %, 99.5 in the end, 8 minutes, then 3.2 s; [94 % in 3.29 seconds](https://example.org)"
    assert typed(text) == ["98.54", "99.5", "8 minutes", "3.2 s"]
    assert typed("99.4 % in the least time, 99 % first; 99, 99.4 and 99.5 %; torch 2.6, 95 of 100, ±90.0°") == []
