"""Contributed data on the pages, in a browser: whatever text it holds is shown as text, and every file that can't be
read is one line."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from tiny import TINY, TRIAL

from conftest import opened, serving
from tools import measurements, verify
from tools.site import pages, results
from tools.site.server import SITE
from utils import ROOT, CourseError, files
from utils.report import tables
from utils.runs import records, trials
from utils.training.loops import Score

PAYLOADS = (
    "<svg onload='window.hacked=1'>",
    "<script>window.hacked=1</script>",
    '<img src="x" onerror="window.hacked=1">',
    "--> <!-- end of machines --> <b>",
    "a | b | c",
    "x\n\n```{raw} html\n<script>window.hacked=1</script>\n```\n",
    "x\n\n```{include} SECRET\n```\n",
    "x\n\n```{eval-rst}\n.. raw:: html\n   :file: SECRET\n```\n",
    "{{ 7919 * 7919 }}",
    "{download}`SECRET`",
    "[x](javascript:window.hacked=1) ![x](https://elsewhere.org/x.png) https://elsewhere.org",
    "$\\frac{1}{2}$ **bold** `code`",
    "\x1b[31m \u202e",
)
# Sphinx's quotation marks and dashes
TYPOGRAPHY = str.maketrans({"–": "--", **dict.fromkeys('“”"', "'"), "‘": "'", "’": "'"})
PAGES = ("results.html", "logs/trials/tiny.html", "logs/benchmarks/index.html", "logs/tiny/index.html")


@pytest.fixture
def repository(scratch, monkeypatch):
    """A published run, for which results and the tables look here."""
    monkeypatch.setattr(results, "ROOT", scratch)
    monkeypatch.setattr(tables, "references", lambda: tables.References({}, {}, [], []))
    files.write_json(scratch / "references.json", {"references": {}, "figures": {}, "field": []})
    from test_tables import publish, row

    publish(TINY, 0, [row(1, 900, 900), row(2, 990, 980)])
    shutil.copyfile(scratch / "logs" / "tiny" / "seed0.json", scratch / "saved_dict" / "tiny.json")
    trials.add(replace(TRIAL, recipe=replace(TINY.recipe, valid=100), valid=Score(0.2, 90, 100)), publish=True)
    return scratch


def contribute(root, payload: str, number: int) -> None:
    """Text in every field that takes any."""
    facts = records.published(TINY)[0].facts
    where = replace(facts.environment, device=payload, platform=payload, python=payload, torch=payload, numpy=payload)
    code = replace(facts.code, commit=payload, sources=payload)
    message = replace(
        facts, environment=where, code=code, seed=number + 1, sha256=payload, started=payload, finished=payload
    )
    run = records.RunPaths.of(TINY, number + 1)
    records.write_log(run.log, records.read_log(records.RunPaths.of(TINY, 0).log))
    files.write_json(run.facts, message)
    if not number:
        files.write_json(root / "saved_dict" / "tiny.json", message)
    recipe = replace(TINY.recipe, valid=100, data=payload)  # any text is a name of data here
    trials.add(
        replace(TRIAL, recipe=recipe, environment=where, code=code, finished=payload, valid=Score(0.2, 90, 100)),
        publish=True,
    )


def benchmark(root, payloads) -> None:
    facts = records.published(TINY)[0].facts
    machine = measurements.Machine(
        **{
            **vars(facts.environment),
            "device": payloads[0],
            "cores": 1,
            "data": payloads[1],
            "commit": "a",
            "time": "b",
        }
    )
    times = [{"seconds": 1.0, "loading": 1.0, "peak_mib": 1.0, "seed": 0.0}]
    rows = {payload: {"course": times, payload: times} for payload in payloads}
    files.write_json(root / "logs" / "benchmarks" / "cpu.json", measurements.Benchmark(rows, machine))


def build(root, found: dict):
    """The pages that stand around results.json, by Sphinx with the site's own settings."""
    source, built = root / "source", root / "built"
    shutil.copytree(pages.PAGES, source)
    (source / "docs.md").unlink()  # its pages are not staged here
    for name in ("api.md", "notebooks.md", "index.md"):
        (source / name).unlink()
    names = [
        "results",
        "logs/trials/index",
        "logs/benchmarks/index",
        *(f"{one['page']}index" for one in found["experiments"]),
    ]
    (source / "index.md").write_text("# Pages\n\n" + pages.toctree(names))
    (source / "facts.json").write_text("{}")
    for name, text in results.pages(found):
        pages.write(source / name, text)
    argv = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-E", "-W", "--keep-going", str(source), str(built)]
    ended = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for path in verify.published(root)[0]:
        (built / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, built / path.relative_to(root))
    (built / "results.json").write_text(json.dumps(found))
    shutil.copytree(SITE / "vendor", built / "vendor")
    shutil.move(built / "_static" / "sw.js", built / "sw.js")
    return built


def test_no_markup_no_file_and_no_script_gets_out(repository, browser):
    secret = repository / "secret.txt"
    secret.write_text("canary-7f3a")
    payloads = [payload.replace("SECRET", str(secret)) for payload in PAYLOADS]
    for number, payload in enumerate(payloads):
        contribute(repository, payload, number)
    benchmark(repository, payloads)
    built = build(repository, results.results("a" * 40))
    pages = "".join(path.read_text(encoding="utf-8") for path in built.rglob("*.html"))
    assert "canary-7f3a" not in pages and str(7919 * 7919) not in pages
    with serving(folder=built) as site, opened(browser, site) as page:
        for name in PAGES:
            page.goto(site + name, wait_until="networkidle")
            page.wait_for_selector("body[data-charts=drawn] figure.chart svg")
            assert page.evaluate("window.hacked") is None, name
            found = page.evaluate(
                """() => [...document.querySelectorAll("article *")].filter(one =>
                    /^(script|img|math|b|iframe|object|embed)$/i.test(one.localName) ||
                    [...one.attributes].some(({name, value}) => /^on/.test(name) || /^\\s*javascript:/i.test(value))
                    ).map(one => one.outerHTML.slice(0, 200))"""
            )
            assert found == [], name
        page.goto(f"{site}logs/trials/tiny.html")
        text = " ".join(page.locator("article").inner_text().translate(TYPOGRAPHY).split())
        for payload in payloads:
            assert " ".join(tables.CONTROLS.sub(" ", payload).translate(TYPOGRAPHY).split()) in text, payload


def test_hostile_text_would_be_found(repository, browser, monkeypatch):
    """The same without escaping: markup does get out, and the test above would see it."""
    monkeypatch.setattr(tables, "escape", tables.Markup)
    monkeypatch.setattr(results, "escape", tables.Markup)
    contribute(repository, PAYLOADS[0], 0)
    benchmark(repository, PAYLOADS[:2])
    built = build(repository, results.results("a" * 40))
    with serving(folder=built) as site, opened(browser, site) as page:
        page.goto(f"{site}logs/trials/tiny.html")
        page.wait_for_function("window.hacked === 1")


FACTS, LOG, TRIALS = "logs/tiny/seed0.json", "logs/tiny/seed0.csv", "logs/trials/tiny.jsonl"
SPEED, WEIGHTS = "logs/benchmarks/cpu.json", "saved_dict/tiny.json"
WHOLE = (
    *(b"", b"\n", b"\0", b"\xff\xfe", b"null\n", b"[]\n", b"{}\n", b"1e999\n", b"version https://git-lfs\n"),
    b'{"a":' * 100_000,
    b"-" * 10_000,
)
VALUES = (None, True, -1, 0, 1e308, 2**62, "text", "", [], {}, [None], {"a": 1})
FIELDS = {
    FACTS: "seed recipe recipe.model recipe.lr test test.correct test.total epochs kept_epoch parameters seconds",
    TRIALS: "name seed recipe recipe.model recipe.epochs valid valid.correct valid.total epoch pruned",
    WEIGHTS: "sha256 bytes data environment.device",
    SPEED: "rows environment environment.device later",
}


def ends_in_a_line_or_well() -> bool:
    """Whether the contribution was refused, in one line; nothing else may be raised."""
    try:
        found = results.results("a" * 40)
    except CourseError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
        return True
    json.dumps(found, allow_nan=False)
    list(results.pages(found))
    return False


@pytest.mark.parametrize("name", [FACTS, LOG, TRIALS, SPEED, WEIGHTS])
def test_every_malformed_file_is_one_line(repository, name, figure):
    benchmark(repository, ["a", "b"])
    path = repository / name
    good = path.read_bytes()
    assert not ends_in_a_line_or_well()
    inputs = [
        *WHOLE,
        good[: len(good) // 2],
        good[len(good) // 2 :] + b"\n",
        good.replace(b"9", b"-9"),
        good.replace(b",", b";"),
    ]
    for field in FIELDS.get(name, "").split():
        for value in VALUES:
            facts = place = json.loads(good)
            *way, last = field.split(".")
            for key in way:
                place = place[key]
            place[last] = value
            inputs.append(json.dumps(facts).encode() + b"\n")
    rejected = 0
    for content in inputs:
        path.write_bytes(content)
        rejected += ends_in_a_line_or_well()
    figure(
        f"malformed inputs of {name}: refused in one line, without effect",
        f"{rejected}, {len(inputs) - rejected} of {len(inputs)}",
    )
    assert rejected > len(inputs) // 4
