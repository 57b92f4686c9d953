"""What the web pages promise, in a real browser. The server lies below a sub-path, as a project page does."""

import json
import re
import statistics
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect
from tiny import TINY, TRIAL

from conftest import PATIENCE, SIZES, opened, received, serving, until, violations
from tools.site import __main__ as tool
from tools.site import check, results
from utils import ROOT
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import records, trials
from utils.training.loops import Score

FIRST_VIEW = 300_000  # bytes
PAGES = (
    "index.html",
    "results.html",
    "notebooks/index.html",
    "notebooks/01_base.html",
    "docs/index.html",
    "docs/results.html",
    "api/index.html",
    "logs/index.html",
    "logs/base/index.html",
    "logs/trials/index.html",
    "logs/trials/sprint.html",
    "search.html",
)
CHARTS = ("parameters", "seconds", "all-curves", "benchmark", "study")
DRAWN = "body[data-charts=drawn] figure.chart svg"


def show(page, address: str, until: str = "load"):
    """Open a page and wait until its charts, if it has any, are drawn."""
    page.goto(address, wait_until=until)
    if page.query_selector("figure.chart"):
        page.wait_for_selector(DRAWN)
    return page


@pytest.fixture(scope="session")
def found() -> dict:
    """What the charts draw."""
    return json.loads((tool.SITE / "results.json").read_text(encoding="utf-8"))


def marks(page, chart: str) -> int:
    """Marks of all charts of a kind that link to a log."""
    return page.locator(f"figure.chart[data-chart={chart}] svg a").count()


def test_results_are_what_readme_says(found):
    """README's tables read the logs by other means."""
    for one in found["experiments"]:
        percents = tables.test_percents(records.published(EXPERIMENTS[one["name"]]))
        assert len(percents) == one["test"]["n"] and one["test"]["mean"] == pytest.approx(
            statistics.mean(percents), abs=1e-3
        ), one["name"]
    assert sum(len(one["runs"]) for one in found["experiments"]) > len(found["experiments"]) > 0


# a page for each question; of the studies the one with the most trials
RESULTS = ("results.html", "logs/index.html", "logs/trials/sprint.html", "logs/benchmarks/index.html")


def test_charts_hold_as_many_marks_as_logs(page, site, found):
    experiments = found["experiments"]
    reported = [one for one in experiments if one.get("reported", {}).get("test")]
    runs = sum(len(one["runs"]) for one in experiments)
    counts = {}
    for name in RESULTS:
        show(page, site + name)
        counts |= {chart: counts.get(chart, 0) + marks(page, chart) for chart in CHARTS}
    assert counts["parameters"] == len(experiments) + len(reported) + len(found["field"])
    assert counts["seconds"] == len([one for one in experiments if one["kind"] == "image"])
    assert counts["all-curves"] == runs
    assert counts["benchmark"] == len(found["benchmark"]["rows"])
    trials_of = {one["name"]: sum(len(row["values"]) for row in one["rows"]) for one in found["studies"]}
    assert counts["study"] == trials_of["sprint"] == max(trials_of.values())


STOPS = "all => all.filter((one) => one.tabIndex >= 0 && one.checkVisibility()).length"


@pytest.mark.parametrize("name", [*RESULTS, "logs/trials/index.html"])
def test_marks_lead_to_logs_by_few_tab_stops_and_are_printed_on_few_pages(page, site, figure, name):
    show(page, site + name)
    links = page.eval_on_selector_all("figure.chart svg a", "all => all.map(a => a.href.baseVal)")
    inside = {link.removeprefix(site) for link in links if link.startswith(site)}
    assert bool(inside) == (name in RESULTS)
    assert [link for link in inside if not (tool.SITE / link).exists()] == []
    assert page.locator("a, button, input, select, summary, [tabindex]").evaluate_all(STOPS) <= 150
    page.emulate_media(media="print")
    expect(page.locator(".skip-to-content")).to_be_hidden()
    count = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))
    figure(f"printed pages of {name}", count)
    assert count <= 6


def test_pointing_and_keys_give_the_numbers(page, site, found):
    show(page, f"{site}results.html")
    figure = page.locator("figure.chart[data-chart=parameters][data-kind=image]")
    mark = figure.locator("svg a").last
    message = mark.get_attribute("aria-label")
    one = next(one for one in found["experiments"] if message.startswith(one["name"] + ":"))
    assert f"{one['test']['mean']:.2f}" in message and f"{one['parameters']:,}" in message
    figure.locator("svg a").first.focus()
    page.keyboard.press("ArrowLeft")
    readout = figure.locator(".readout")
    expect(readout).to_have_text(message)
    other = figure.locator("svg a").nth(-2)
    other.hover(force=True)
    expect(readout).to_contain_text(other.get_attribute("aria-label"))
    expect(readout).not_to_have_text(message)


STACKED = """all => {  // the middle of the first mark that lies under another one
    for (const link of all) {
        const { left, top, width, height } = link.getBoundingClientRect();
        const place = [left + width / 2, top + height / 2];
        const above = document.elementsFromPoint(...place).map((one) => one.closest("svg a")).filter(Boolean);
        if (new Set(above).size > 1 && above[0] !== link) return [...place, link.getAttribute("aria-label")];
    }
}"""


def test_marks_under_others_are_listed(page, site):
    page.set_viewport_size({"width": 390, "height": 5000})
    show(page, f"{site}results.html")
    figure = page.locator("figure.chart[data-chart=parameters][data-kind=image]")
    x, y, message = figure.locator("svg a").evaluate_all(STACKED)
    page.mouse.move(x, y)
    expect(figure.locator(".readout")).to_contain_text(message)
    page.mouse.click(x, y)
    link = figure.locator(".readout a", has_text=message)
    expect(link).to_be_visible()
    assert page.url == f"{site}results.html"
    page.mouse.move(x, y - 20)
    address = link.get_attribute("href")
    link.click()
    page.wait_for_url(address if address.startswith("http") else f"**{address}*")


@contextmanager
def small_first_view(browser, site, name, figure, size="desk"):
    """A page that has been opened, for which little came over the wire, packed as the host of the project page packs
    it."""
    with opened(browser, site, size) as page:
        show(page, site + name, "networkidle")
        sent = received(page.seen.sent)
        figure(f"first view of {name}, KB", f"{sum(sent) / 1000:.0f} in {len(sent)} files")
        assert 0 < sum(sent) < FIRST_VIEW
        assert (tool.SITE / name).stat().st_size > sent[0], "texts are sent packed"
        yield page


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_small_and_shown_with_all_its_outputs(browser, site, figure, path):
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
    pictures = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
    with small_first_view(browser, site, f"notebooks/{path.stem}.html", figure) as page:
        texts = page.eval_on_selector_all(".cell_output img", "all => all.map(image => image.alt)")
        assert texts == pictures
        assert page.request.get(page.locator("a[download]").evaluate("link => link.href")).body() == path.read_bytes()
        assert page.locator("meta[name=description]").get_attribute("content")
        expect(page.get_by_role("link", name="Draw a digit")).to_have_count(2)
        assert page.evaluate("[...document.images].every(image => image.loading === 'lazy' || image.naturalWidth > 0)")


@pytest.mark.parametrize(("word", "address"), [("dropout", "notebooks/"), ("sprint tried", "logs/trials/sprint.html")])
def test_search_finds_a_page(page, site, word, address):
    page.goto(f"{site}search.html?q={word}")
    page.wait_for_selector(f"#search-results li a[href*='{address}']")


def test_landing_page_loads_no_charts_switches_its_theme_and_keeps_still_for_reduced_motion(page, site):
    show(page, f"{site}index.html", "networkidle")
    assert not any(part in address for address in page.seen.requests for part in ("vendor/", "networks/"))
    smooth = (
        "[...document.querySelectorAll('*')].filter((one) => getComputedStyle(one).scrollBehavior === 'smooth').length"
    )
    assert page.evaluate(smooth)
    page.emulate_media(reduced_motion="reduce")
    assert not page.evaluate(smooth)
    color = "getComputedStyle(document.body).backgroundColor"
    before, seen = page.evaluate(color), set()
    for _ in range(3):
        theme = page.locator("body").get_attribute("data-theme")
        page.locator("button.theme-toggle:visible").first.click()
        expect(page.locator("body")).not_to_have_attribute("data-theme", theme)
        seen.add(page.evaluate(color))
    assert before in seen and len(seen) == 2


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small_fits_a_phone_and_has_no_moderate_violation(browser, site, figure, name):
    """axe-core's rules on a phone, where everything is tightest."""
    with small_first_view(browser, site, name, figure, "phone") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
        assert not violations(page)


KEPT = """async () => {  // the page, and all that it has loaded
    const seen = [location.href, ...performance.getEntriesByType("resource").map(({ name }) => name)];
    return (await Promise.all(seen.map((address) => caches.match(address)))).every(Boolean);
}"""


@pytest.mark.parametrize("name", ["results.html", "notebooks/01_base.html"])
def test_what_was_loaded_once_needs_no_network(browser, name):
    with serving() as address:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        show(page, address + name)
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        until(page, KEPT)
    errors = []  # the server is gone now
    page.on("pageerror", lambda error: errors.append(str(error)))
    show(page, address + name)
    expect(page.locator("h1")).to_have_text(re.compile("."))
    assert not errors
    context.close()


def test_types_are_pinned(page, site):
    for name, wanted in (
        ("_static/results.mjs", "text/javascript"),
        ("vendor/ort/ort-wasm-simd-threaded.wasm", "application/wasm"),
    ):
        assert page.request.head(site + name).headers["content-type"] == wanted


def test_study_counts_each_recipe_once(scratch, monkeypatch):
    """Pruned trials are left out, and of a repeated seed the last run counts; what the experiment keeps is named."""
    monkeypatch.setattr(results, "ROOT", scratch)

    def trial(lr: float, seed: int, correct: int, pruned: bool = False) -> None:
        recipe = replace(TINY.recipe, lr=lr, valid=100)
        trials.add(
            replace(TRIAL, recipe=recipe, seed=seed, valid=Score(0.2, correct, 100), pruned=pruned), publish=True
        )

    for one in ((0.01, 0, 50), (0.01, 0, 90), (0.01, 1, 92), (0.2, 0, 95), (0.3, 0, 10, True)):
        trial(*one)
    path = trials.path("tiny", publish=True)
    rows = results.study(path)["rows"]
    assert [(row["what"], row["kept"], row["values"]) for row in rows] == [
        ("lr 0.2", False, [95.0]),
        ("kept: lr 0.01", True, [90.0, 92.0]),
    ]
    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(TINY, recipe=replace(TINY.recipe, lr=0.7)))
    assert [row["what"] for row in results.study(path)["rows"]] == ["best: lr 0.2", "lr 0.01"]


def whole(folder: Path) -> Path:
    """The smallest site that has everything."""
    for name in check.PAGES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('<a href="index.html"></a>' if name == "index.html" else "")
    (folder / "networks").mkdir()
    network = {
        key: {"file": "n", "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
        for key in ("onnx", "weights", "state_dict")
    }
    (folder / "networks" / "networks.json").write_text(json.dumps({"networks": [network]}))
    (folder / "saved_dict").mkdir()
    for place in ("networks", "saved_dict"):
        (folder / place / "n").touch()
    return folder


def test_what_is_missing_is_found(tmp_path):
    site = whole(tmp_path)
    assert check.problems(site) == []
    (site / "index.html").write_text(
        '<a href="gone.html"></a><a href="results.html#gone"></a><script src="https://elsewhere.org/x.js"></script>'
    )
    (site / "networks" / "n").write_text("another network")
    (site / "search.html").unlink()
    assert len(check.problems(site)) == 6
