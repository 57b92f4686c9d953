"""Contributed data: no markup, no path and no file of this machine gets out, and each fault is one line."""

import html
import os
from dataclasses import replace

import mistune
import pytest
from tiny import TINY, TRIAL

from tools import verify
from utils import ROOT, printable, runs
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import records, trials
from utils.training.loops import Score

MARKUP = (
    "<svg onload=alert(1)>",
    "a | b",
    "a\r\n\r\n```{raw} html\n<script>alert(1)</script>\n```",
    "[a](javascript:alert(1))",
    "$x^2$",
    "**bold** _italic_ ~~gone~~ `code`",
    "\x1b[31mred\x07",
    "&lt;b&gt;",
)


def test_a_cell_shows_its_text_and_nothing_else():
    """By the parser that renders notebooks: the first cell of a row is this text, without element, link or formula."""
    markdown = mistune.create_markdown(renderer="ast", plugins=["table", "strikethrough", "url", "math"])
    for text in MARKUP:
        table = tables.table(["what", "n"], [[text, 1]])
        assert len(table.splitlines()) == 3 and "<!--" not in table
        (found,) = markdown(table + "\n")
        (row,) = found["children"][1]["children"]
        cell, count = (one["children"] for one in row["children"])
        assert [one["raw"] for one in count] == ["1"] and {one["type"] for one in cell} == {"text"}
        assert html.unescape("".join(one["raw"] for one in cell)) == tables.CONTROLS.sub(" ", text).strip()


@pytest.fixture
def published(scratch):
    """A repository with one published run and one trial of it."""
    runs.run(TINY, device="cpu", publish=True, echo=False)
    trials.add(replace(TRIAL, recipe=replace(TINY.recipe, valid=100), valid=Score(0.2, 90, 100)), publish=True)
    return scratch


NAMES = """logs/tiny/seed00.json logs/tiny/seed٣.json logs/tiny/seed1.csv logs/tiny/notes.txt logs/tiny/deep/seed0.json
logs/unknown/seed0.json logs/seed0.json logs/index.html logs/trials/unknown.jsonl logs/trials/tiny.json
logs/benchmarks/cpu.html saved_dict/unknown.pth saved_dict/tiny.bin.txt saved_dict/deep/tiny.pth saved_dict/base.bin
saved_dict/tiny_seed01.pth saved_dict/unknown_seed1.pth"""
NAMES = [*NAMES.split(), "logs/<svg onload=alert(1)>/seed0.json", "logs/line\nbreak/seed0.json"]
LINKS = ("logs/tiny/seed2.json", "logs/trials/base.jsonl", "logs/base", "saved_dict/base.pth")
STRAYS = dict.fromkeys(NAMES, lambda path: path.write_text("{}"))
STRAYS |= dict.fromkeys(LINKS, lambda path: path.symlink_to("/etc/passwd"))
STRAYS |= {"saved_dict/gone.json": lambda path: path.symlink_to("nowhere"), "logs/tiny/seed3.json": os.mkfifo}


def test_what_does_not_belong_is_named_in_one_line_and_never_published(published):
    before = set(verify.published(published)[0])
    for name, make in STRAYS.items():
        path = published / name
        try:
            os.fsencode(path)
        except UnicodeEncodeError:  # this locale has no such file name
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        paths, findings = verify.published(published)
        assert set(paths) == before and all(line.isprintable() for line in findings)
        assert any(printable(name) in line for line in findings), findings
        assert set(findings) <= set(verify.strays(published)) and len(records.published(TINY)) == 1  # it counts nowhere
        path.unlink()


def test_a_packed_file_that_is_missing_or_holds_another_network_is_named(scratch, monkeypatch):
    few = TINY.with_recipe(levels=5)
    monkeypatch.setitem(EXPERIMENTS, "tiny", few)
    runs.run(few, device="cpu", publish=True, echo=False)
    other = runs.run(few, 1, device="cpu", echo=False).weights.with_suffix(".bin")
    path = scratch / "saved_dict" / "tiny.bin"
    assert verify.verify(scratch)[1]
    path.write_bytes(other.read_bytes())
    assert "DISAGREES: tiny.bin holds another network" in verify.verify(scratch)[0]
    path.unlink()
    text, good = verify.verify(scratch)
    assert "tiny.pth has no tiny.bin next to it" in text and "tiny.bin is missing" in text and not good


def test_known_files_are_all_published():
    """Of the repository itself: what is there belongs there."""
    paths, findings = verify.published(ROOT)
    assert findings == [] and len(paths) > len(EXPERIMENTS)
