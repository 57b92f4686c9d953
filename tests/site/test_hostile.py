"""Contributed data on the pages, in a browser: whatever text it holds is shown as text."""

import json
import shutil
from dataclasses import replace

import pytest
from tiny import TINY, TRIAL

from conftest import opened, serving
from tools import measurements, verify
from tools.site import __main__ as tool
from tools.site import pages
from utils import files
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
MARKUP = """() => [...document.querySelectorAll("article *")].filter(one =>
    /^(script|img|math|b|iframe|object|embed)$/i.test(one.localName) ||
    [...one.attributes].some(({name, value}) => /^on/.test(name) || /^\\s*javascript:/i.test(value))
    ).map(one => one.outerHTML.slice(0, 200))"""


@pytest.fixture
def repository(scratch, monkeypatch):
    """A published run, for which the pages look here."""
    from test_tables import publish, row

    monkeypatch.setattr(pages, "ROOT", scratch)
    monkeypatch.setattr(tool, "WORK", scratch)
    monkeypatch.setattr(tables, "references", lambda: tables.References({}, {}, [], []))
    publish(TINY, 0, [row(1, 900, 900), row(2, 990, 980)])
    return scratch


def contribute(root, payloads) -> None:
    """Text in every field that takes any."""
    facts, log = records.published(TINY)[0].facts, records.read_log(records.RunPaths.of(TINY, 0).log)
    for seed, payload in enumerate(payloads, 1):
        where = replace(
            facts.environment, device=payload, platform=payload, python=payload, torch=payload, numpy=payload
        )
        code = replace(facts.code, commit=payload, sources=payload)
        told = {"environment": where, "code": code, "finished": payload}
        run, own = records.RunPaths.of(TINY, seed), replace(facts, seed=seed, sha256=payload, started=payload, **told)
        records.write_log(run.log, log)
        files.write_json(run.facts, own)
        files.write_json(root / "saved_dict" / "tiny.json", own)
        recipe = replace(TINY.recipe, valid=100, data=payload)  # any text is a name of data here
        trials.add(replace(TRIAL, recipe=recipe, valid=Score(0.2, 90, 100), **told), publish=True)
    machine = vars(facts.environment) | {"device": payloads[0], "data": payloads[-1], "cores": 1}
    machine = measurements.Machine(**machine, commit="a", time="b")
    times = [{"seconds": 1.0, "loading": 1.0, "peak_mib": 1.0, "seed": 0.0}]
    rows = {payload: {"course": times, payload: times} for payload in payloads}
    files.write_json(root / "logs" / "benchmarks" / "cpu.json", measurements.Benchmark(rows, machine))


def build(root):
    """The pages that stand around results.json, by Sphinx with the site's own settings."""
    source, built, found = root / "source", root / "built", pages.results()
    shutil.copytree(pages.PAGES, source, ignore=shutil.ignore_patterns("docs.md", "api.md", "notebooks.md"))
    names = ["results", "logs/index", "logs/trials/index", "logs/benchmarks/index"]
    pages.write(source / "index.md", "# Pages\n\n" + pages.toctree(names))
    pages.write(source / "facts.json", "{}")
    for name, text in pages.result_pages(found):
        pages.write(source / name, text)
    assert tool.sphinx(source, built).wait() == 0
    for path in verify.published(root)[0]:
        (built / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, built / path.relative_to(root))
    pages.write(built / "results.json", json.dumps(found))
    shutil.copytree(tool.SITE / "vendor", built / "vendor")
    shutil.move(built / "_static" / "sw.js", built / "sw.js")
    return built


def test_no_markup_no_file_and_no_script_gets_out(repository, browser):
    secret = repository / "secret.txt"
    secret.write_text("canary-7f3a")
    payloads = [payload.replace("SECRET", str(secret)) for payload in PAYLOADS]
    contribute(repository, payloads)
    built = build(repository)
    every = "".join(path.read_text(encoding="utf-8") for path in built.rglob("*.html"))
    assert "canary-7f3a" not in every and str(7919 * 7919) not in every
    with serving(built) as site, opened(browser, site) as page:
        for name in PAGES:
            page.goto(site + name, wait_until="networkidle")
            page.wait_for_selector("body[data-charts=drawn] figure.chart svg")
            assert page.evaluate("window.hacked") is None and page.evaluate(MARKUP) == [], name
        page.goto(f"{site}logs/trials/tiny.html")
        text = " ".join(page.locator("article").inner_text().translate(TYPOGRAPHY).split())
        for payload in payloads:
            assert " ".join(tables.CONTROLS.sub(" ", payload).translate(TYPOGRAPHY).split()) in text, payload


def test_hostile_text_would_be_found(repository, browser, monkeypatch):
    """The same without escaping: markup does get out, and the test above would see it."""
    monkeypatch.setattr(tables, "escape", tables.Markup)
    monkeypatch.setattr(pages, "escape", tables.Markup)
    contribute(repository, PAYLOADS[:1])
    with serving(build(repository)) as site, opened(browser, site) as page:
        page.goto(f"{site}logs/trials/tiny.html")
        page.wait_for_function("window.hacked === 1")
