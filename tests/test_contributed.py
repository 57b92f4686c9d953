"""Contributed data: no markup, no path and no file of this machine gets out, and each fault is one line."""

import html
import json
import os
from dataclasses import replace
from pathlib import Path

import mistune
import pytest
from tiny import TINY, TRIAL

from tools import measurements, report, verify
from utils import CourseError, files, printable, runs
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import facts, records, trials
from utils.training.loops import Score

MARKUP = (
    "<svg onload=alert(1)>",
    "<!-- end of machines -->",
    "a | b",
    "a\nb",
    "a\r\n\r\n```{raw} html\n<script>alert(1)</script>\n```",
    "[a](javascript:alert(1))",
    "![a](https://elsewhere.org/a.png)",
    "https://elsewhere.org www.elsewhere.org a@elsewhere.org",
    "{{ notebooks }}",
    "{include}`/etc/passwd`",
    "$x^2$",
    "**bold** _italic_ ~~gone~~ `code`",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "\\| \\<b>",
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
    from test_tables import publish, row

    publish(TINY, 0, [row(1, 900, 900), row(2, 950, 950), row(3, 990, 980)])
    files.write(scratch / "saved_dict" / "tiny.json", (scratch / "logs" / "tiny" / "seed0.json").read_bytes())
    trials.add(replace(TRIAL, recipe=replace(TINY.recipe, valid=100), valid=Score(0.2, 90, 100)), publish=True)

    return scratch


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


NAMES = """logs/tiny/seed00.json logs/tiny/seed٣.json logs/tiny/seed1.csv logs/tiny/seed1.json logs/tiny/notes.txt
logs/tiny/deep/seed0.json logs/unknown/seed0.json logs/seed0.json logs/index.html logs/trials/unknown.jsonl
logs/trials/tiny.json logs/benchmarks/cpu.html saved_dict/unknown.pth saved_dict/tiny.bin.txt saved_dict/deep/tiny.pth
saved_dict/base.bin saved_dict/tiny_seed0.pth saved_dict/tiny_seed01.pth saved_dict/tiny_seed1.json
saved_dict/unknown_seed1.pth"""
TEXTS = [*NAMES.split(), "logs/<svg onload=alert(1)>/seed0.json", "logs/line\nbreak/seed0.json"]
STRAYS = dict.fromkeys(TEXTS, lambda path: path.write_text("{}")) | {
    "logs/tiny/seed2.json": link,
    "logs/trials/base.jsonl": link,
    "logs/benchmarks/passwd.json": link,
    "logs/base": lambda path: path.symlink_to("/etc"),
    "saved_dict/base.pth": link,
    "saved_dict/gone.json": lambda path: path.symlink_to("nowhere"),
    "logs/tiny/seed3.json": lambda path: os.mkfifo(path),
}


@pytest.mark.skipif(os.name == "nt", reason="names and links that Windows does not have")
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
    assert "tiny.pth has no tiny.bin beside it" in text and "tiny.bin is missing" in text and not good


def change(path: Path, *keys, to) -> None:
    facts = place = json.loads(path.read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(json.dumps(facts) + "\n")


def test_a_log_or_a_trial_of_no_known_network_or_without_a_test_is_one_line(published):
    path, log = trials.path("tiny", publish=True), published / "logs" / "tiny" / "seed0.json"
    content = log.read_bytes()
    for model in ("tiny<svg onload=alert(1)>", "tiny\n```{raw} html", "__import__('os').system('true')", ""):
        change(path, "recipe", "model", to=model)
        with pytest.raises(CourseError, match=r"trials/tiny\.jsonl") as refusal:
            tables.study(TINY)
        assert "\n" not in str(refusal.value)
        assert [line for line in verify.strays(published) if "trials/tiny.jsonl" in line and line.isprintable()]
        change(log, "recipe", "model", to=model)
        assert any("seed0.json" in line and line.isprintable() for line in verify.strays(published))
        log.write_bytes(content)
    with (published / "saved_dict" / "tiny.json").open("ab") as sidecar:
        sidecar.truncate(files.JSON + 1)  # not read, or 10 GB would be
    assert any("tiny.json is 2,097,153 bytes: expected at most" in line for line in verify.strays(published))
    change(path, "recipe", "model", to="tiny")
    change(path, "name", to="base")
    with pytest.raises(CourseError, match="found a trial of 'base', expected tiny"):
        trials.read("tiny")
    change(log, "test", to=None)
    with pytest.raises(CourseError, match="found no `test`, expected one"):
        records.published(TINY)


def test_a_page_keeps_its_sections_whatever_a_device_is_called(published, monkeypatch):
    """A device and a benchmark whose names close the section: the next report finds all markers again."""
    hostile = "CPU | a\n<!-- end of machines --><svg onload=alert(1)>"

    facts = records.published(TINY)[0].facts
    monkeypatch.setattr(measurements, "REPRODUCTIONS", published / "logs" / "reproductions.jsonl")
    where = replace(facts.environment, device=hostile)
    files.append_line(
        measurements.REPRODUCTIONS, measurements.Reproduction("tiny", 0, where, facts.code, facts.test, "0" * 64, "now")
    )
    machine = measurements.Machine(**{**vars(where), "cores": 1, "data": "mnist", "commit": "a", "time": hostile})
    times = [{"seconds": 1.0, "loading": 1.0, "peak_mib": 1.0, "accuracy": 99.0, "seed": 0.0}]
    row = "time to 99 %"
    files.write_json(
        published / "logs" / "benchmarks" / "cpu.json",
        measurements.Benchmark({row: {"course": times, hostile: times}}, machine),
    )
    monkeypatch.setattr(
        measurements, "path", lambda kind="cpu", root=published: published / "logs" / "benchmarks" / f"{kind}.json"
    )
    empty = "\n".join(f"{marker.format(name)}" for name in ("machines", "speed") for marker in report.WRITTEN)
    monkeypatch.setattr(report, "SECTIONS", {name: report.SECTIONS[name] for name in ("machines", "speed")})
    page = report.ROOT / "docs" / "page.md"
    once = report.filled({page: empty})
    assert "<svg" not in once[page] and once[page].count("<!--") == empty.count("<!--")
    assert report.filled(once) == once


def test_a_measurement_that_lacks_a_number_is_one_line_and_no_text_of_it_is_markup(published, monkeypatch):
    where = measurements.Machine(
        **vars(records.published(TINY)[0].facts.environment), cores=1, data="mnist", commit="a", time="b"
    )
    path = published / "logs" / "benchmarks" / "cpu.json"
    monkeypatch.setattr(measurements, "path", lambda kind="cpu", root=published: path)
    for times in ([], [{}], [{"seconds": 0.0, "loading": 0.0, "peak_mib": 0.0}]):
        files.write_json(path, measurements.Benchmark({"time to 99 %": {"course": times, "usual": times}}, where))
        with pytest.raises(
            CourseError, match=r"cpu\.json: a measurement is missing or no number \(.*Measure it again\.$"
        ):
            measurements.speed_section()
    (c := path.with_name("c.json")).write_text('{"tiny": {"flash": 1}}')
    monkeypatch.setattr(measurements, "path", lambda kind: c)
    with pytest.raises(CourseError, match=r"c\.json: "):
        measurements.c_section()
    monkeypatch.setattr(measurements, "path", lambda kind: path)
    hostile = replace(records.published(TINY)[0].facts.environment, torch=MARKUP[0])
    found = measurements.Photographs(
        MARKUP[1], {MARKUP[0]: measurements.Kind(1, 1, 0, 0)}, facts.Code("a", "b"), hostile, MARKUP[2]
    )
    files.write_json(path, found)
    assert not [mark for mark in ("<svg", "<!--", " | b") if mark in measurements.photographs_section()]


def test_a_reference_s_text_is_no_markup_and_its_address_is_one(published, monkeypatch):
    figure = tables.Figure(MARKUP[0], MARKUP[1], None, 98.5, MARKUP[0])
    found = tables.References({MARKUP[0]: tables.Reference(MARKUP[1], None)}, {"tiny": figure}, [], [])
    monkeypatch.setattr(tables, "references", lambda: found)
    assert "&lt;svg" in (text := tables.against_references()) and not [
        mark for mark in ("<svg", "<!--") if mark in text
    ]
    for address in ("javascript:alert(1)", "https://a.org) <svg>"):
        with pytest.raises(ValueError, match="no plain http"):
            tables.Reference("a", address)
    with pytest.raises(ValueError, match="no reference is called 'b'"):
        tables.References({}, {"tiny": replace(figure, reference="b")}, [], [])


def test_known_files_are_all_published():
    """Of the repository itself: what is there belongs there."""
    from utils import ROOT

    paths, findings = verify.published(ROOT)
    assert findings == [] and len(paths) > len(EXPERIMENTS)
