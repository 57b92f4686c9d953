"""Contributed data: no markup, no path and no file of this machine gets out, and each fault is one line."""

import html
import json
import os
from dataclasses import replace
from pathlib import Path

import mistune
import pytest
from rejections import rejected
from tiny import FACTS, TINY, TRIAL, train

from tools import measurements, report, verify
from utils import files, printable
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import records, trials
from utils.training.loops import Score

MARKUP = (
    "<svg onload=alert(1)>",
    "<!-- end of machines -->",
    "a | b",
    "a\r\n\r\n```{raw} html\n<script>alert(1)</script>\n```",
    "[a](javascript:alert(1))",
    "![a](https://elsewhere.org/a.png)",
    "https://elsewhere.org www.elsewhere.org a@elsewhere.org",
    "{include}`/etc/passwd`",
    "$x^2$",
    "**bold** _italic_ ~~gone~~ `code`",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
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
    train(publish=True)
    trials.add(replace(TRIAL, recipe=replace(TINY.recipe, valid=100), valid=Score(0.2, 90, 100)), publish=True)
    return scratch


NAMES = """logs/tiny/seed00.json logs/tiny/seed٣.json logs/tiny/seed1.csv logs/tiny/notes.txt logs/tiny/deep/seed0.json
logs/unknown/seed0.json logs/seed0.json logs/index.html logs/trials/unknown.jsonl logs/trials/tiny.json
logs/benchmarks/cpu.html saved_dict/unknown.pth saved_dict/tiny.bin.txt saved_dict/deep/tiny.pth saved_dict/base.bin
saved_dict/tiny_seed01.pth saved_dict/unknown_seed1.pth"""
NAMES = [*NAMES.split(), "logs/<svg onload=alert(1)>/seed0.json", "logs/line\nbreak/seed0.json"]
STRAYS = dict.fromkeys(NAMES, Path.touch)
for name in ("logs/tiny/seed2.json", "logs/trials/base.jsonl", "logs/base", "saved_dict/base.pth"):
    STRAYS[name] = lambda path: path.symlink_to("/etc/passwd")
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
    train(few, publish=True)
    other = train(few, 1).weights.with_suffix(".bin")
    path = scratch / "saved_dict" / "tiny.bin"
    assert verify.verify(scratch)[1]
    path.write_bytes(other.read_bytes())
    assert "DISAGREES: tiny.bin holds another network" in verify.verify(scratch)[0]
    path.unlink()
    text, good = verify.verify(scratch)
    assert "tiny.bin is missing" in text and not good


def change(path: Path, *keys, to) -> None:
    facts = place = json.loads(path.read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(json.dumps(facts) + "\n")


def test_a_log_or_a_trial_of_no_known_network_or_without_a_test_is_one_line(published):
    study, log = trials.path("tiny", publish=True), published / "logs" / "tiny" / "seed0.json"
    for model in ("tiny\n```{raw} html", "__import__('os').system('true')", ""):
        for path in (study, log):
            change(path, "recipe", "model", to=model)
        assert "trials/tiny.jsonl" in rejected(lambda: tables.study(TINY))
        found = [line for line in verify.strays(published) if line.isprintable()]
        for name in ("trials/tiny.jsonl", "seed0.json"):
            assert any(name in line for line in found)
    with (published / "saved_dict" / "tiny.json").open("ab") as sidecar:
        sidecar.truncate(files.JSON + 1)  # not read, or 10 GB would be
    assert any("tiny.json is 2,097,153 bytes: expected at most" in line for line in verify.strays(published))
    change(study, "recipe", "model", to="tiny")
    change(study, "name", to="base")
    assert "found a trial of 'base', expected tiny" in rejected(lambda: trials.read("tiny"))
    change(log, "recipe", "model", to="tiny")
    change(log, "test", to=None)
    assert "found no `test`, expected one" in rejected(lambda: records.published(TINY))


@pytest.fixture
def benchmarks(published, monkeypatch):
    """The folder of measurements of that repository, with the published benchmark."""
    folder, benchmark = published / "logs" / "benchmarks", measurements.read()
    monkeypatch.setattr(measurements, "path", lambda kind="cpu": folder / f"{kind}.json")
    monkeypatch.setattr(measurements, "REPRODUCTIONS", folder / "reproductions.jsonl")
    files.write_json(folder / "cpu.json", benchmark)
    return folder


def test_a_page_keeps_its_sections_whatever_a_device_a_benchmark_or_a_reference_is_called(benchmarks, monkeypatch):
    """Names that close a section: the next report finds all markers again."""
    hostile = "CPU | a\n<!-- end of machines --><svg onload=alert(1)>"
    where = replace(FACTS.environment, device=hostile, torch=hostile)
    again = measurements.Reproduction("tiny", 0, where, FACTS.code, FACTS.test, "0" * 64, "now")
    files.append_line(measurements.REPRODUCTIONS, again)
    found = measurements.read()
    machine, row = replace(found.environment, device=hostile, time=hostile), "augmented batches, one epoch"
    rows = found.rows | {row: {"course": found.rows[row]["course"], hostile: found.rows[row]["course"]}}
    files.write_json(benchmarks / "cpu.json", replace(found, rows=rows, environment=machine, later={}))
    kinds = {hostile: measurements.Kind(1, 1, 0, 0)}
    photographs = measurements.Photographs(hostile, kinds, FACTS.code, where, hostile)
    files.write_json(benchmarks / "photographs.json", photographs)
    figure = tables.Figure(hostile, hostile, None, 98.5, hostile)
    references = tables.References({hostile: tables.Reference(hostile, None)}, {"tiny": figure}, [], [])
    monkeypatch.setattr(tables, "references", lambda: references)
    sections = ("machines", "speed", "photographs", "references")
    monkeypatch.setattr(report, "SECTIONS", {name: report.SECTIONS[name] for name in sections})
    page, empty = report.ROOT / "docs" / "page.md", "\n".join(m.format(s) for s in sections for m in report.WRITTEN)
    once = report.filled({page: empty})
    assert "<svg" not in once[page] and once[page].count("<!--") == empty.count("<!--")
    assert once[page].count("&lt;svg") >= len(sections) and report.filled(once) == once


def test_a_measurement_that_lacks_a_number_and_a_reference_without_an_address_are_one_line(benchmarks):
    found = files.without_defaults(measurements.read())
    for times in ([], [{}], [{"seconds": 0.0}]):
        rows = found["rows"] | {"time to 99 %": {"course": times}}
        files.write_json(benchmarks / "cpu.json", found | {"rows": rows})
        message = rejected(measurements.speed_section)
        assert "cpu.json: time to 99 %: expected one or more measurements of each side" in message
    (benchmarks / "c.json").write_text('{"tiny": {"flash": 1}}')
    assert "c.json: " in rejected(measurements.c_section)
    for address in ("javascript:alert(1)", "https://a.org) <svg>"):
        with pytest.raises(ValueError, match="no plain http"):
            tables.Reference("a", address)
    with pytest.raises(ValueError, match="no reference is called 'b'"):
        tables.References({}, {"tiny": tables.Figure("b", "", None, 98.5, "")}, [], [])
