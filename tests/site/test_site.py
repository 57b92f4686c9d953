"""What the web pages promise, in a real browser. The server lies below a sub-path, as a project page does."""

import json
import re

import nbformat
import pytest
from hands import STEP, choose, draw, read, settled, start
from playwright.sync_api import expect
from shapes import STROKES

from conftest import PATIENCE, SIZES, opened, received, serving, until, violations
from tools.site.__main__ import SITE
from utils import ROOT

FIRST_VIEW = 300_000  # bytes
PAGES = (
    "index.html",
    "results.html",
    "notebooks/index.html",
    "notebooks/01_base.html",
    "docs/results.html",
    "api/index.html",
    "logs/index.html",
    "logs/base/index.html",
    "logs/trials/index.html",
    "logs/trials/sprint.html",
)
# a page for each question; of the studies the one with the most trials
RESULTS = ("results.html", "logs/index.html", "logs/trials/sprint.html", "logs/benchmarks/index.html")
DRAWN = "body[data-charts=drawn] figure.chart svg"
STOPS = "all => all.filter((one) => one.tabIndex >= 0 && one.checkVisibility()).length"


def show(page, address: str, until: str = "load"):
    """Open a page and wait until its charts, if it has any, are drawn."""
    page.goto(address, wait_until=until)
    if page.query_selector("figure.chart"):
        page.wait_for_selector(DRAWN)
    return page


def test_charts_hold_as_many_marks_as_logs_which_few_tab_stops_reach_and_few_pages_print(page, site):
    found, counts = json.loads((SITE / "results.json").read_text(encoding="utf-8")), {}
    for name in RESULTS:
        page.emulate_media(media="screen")
        show(page, site + name)
        for chart in ("parameters", "seconds", "all-curves", "benchmark", "study"):
            links = page.locator(f"figure.chart[data-chart={chart}] svg a")
            counts[chart] = counts.get(chart, 0) + links.count()
            for link in links.evaluate_all("all => all.map(a => a.href.baseVal)"):
                assert not link.startswith(site) or (SITE / link.removeprefix(site)).exists(), link
        assert page.locator("a, button, input, select, summary, [tabindex]").evaluate_all(STOPS) <= 150
        page.emulate_media(media="print")
        expect(page.locator(".skip-to-content")).to_be_hidden()
        assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) <= 6
    experiments = found["experiments"]
    reported = [one for one in experiments if "reported" in one]
    [study] = [one for one in found["studies"] if one["name"] == "sprint"]
    assert counts == {
        "parameters": len(experiments) + len(reported) + len(found["field"]),
        "seconds": len([one for one in experiments if one["kind"] == "image"]),
        "all-curves": sum(len(one["runs"]) for one in experiments),
        "benchmark": len(found["benchmark"]["rows"]),
        "study": sum(row["n"] for row in study["rows"][:40]),
    }


STACKED = """all => {  // the middle of the first mark that lies under another one
    for (const link of all) {
        const { left, top, width, height } = link.getBoundingClientRect();
        const place = [left + width / 2, top + height / 2];
        const above = document.elementsFromPoint(...place).map((one) => one.closest("svg a")).filter(Boolean);
        if (new Set(above).size > 1 && above[0] !== link) return [...place, link.getAttribute("aria-label")];
    }
}"""


def test_pointing_and_keys_give_the_numbers_also_of_marks_under_others(page, site):
    page.set_viewport_size({"width": 390, "height": 5000})
    show(page, f"{site}results.html")
    figure = page.locator("figure.chart[data-chart=parameters][data-kind=image]")
    message = figure.locator("svg a").last.get_attribute("aria-label")
    figure.locator("svg a").first.focus()
    page.keyboard.press("ArrowLeft")
    expect(figure.locator(".readout")).to_have_text(message)
    found = json.loads((SITE / "results.json").read_text(encoding="utf-8"))["experiments"]
    one = next(one for one in found if message.startswith(one["name"] + ":"))
    assert f"{one['test']['mean']:.2f}" in message and f"{one['parameters']:,}" in message
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


def test_notebooks_are_shown_with_all_their_pictures_and_can_be_downloaded():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = (SITE / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
        pictures = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
        shown = re.findall(r'<img alt="([^"]*)"', text)
        assert [alt for alt in shown if alt in pictures] == pictures, path.name
        assert f'<a href="{path.name}" download' in text and 'name="description"' in text
        assert (SITE / "notebooks" / path.name).read_bytes() == path.read_bytes()
        assert not re.search(r"\$[^$<]*\\[^$<]*\$", re.sub(r"<(pre|code|script)\b.*?</\1>", "", text, flags=re.DOTALL))


@pytest.mark.parametrize(("word", "address"), [("dropout", "notebooks/"), ("sprint tried", "logs/trials/sprint.html")])
def test_search_finds_a_page(page, site, word, address):
    page.goto(f"{site}search.html?q={word}")
    page.wait_for_selector(f"#search-results li a[href*='{address}']")


SMOOTH = "[...document.querySelectorAll('*')].some((one) => getComputedStyle(one).scrollBehavior === 'smooth')"


def test_landing_page_loads_no_charts_switches_its_theme_and_keeps_still_for_reduced_motion(page, site):
    show(page, f"{site}index.html", "networkidle")
    assert not any(part in address for address in page.seen.requests for part in ("vendor/", "networks/"))
    assert page.evaluate(SMOOTH)
    page.emulate_media(reduced_motion="reduce")
    assert not page.evaluate(SMOOTH)
    color = "getComputedStyle(document.body).backgroundColor"
    before, seen = page.evaluate(color), set()
    for _ in range(3):
        theme = page.locator("body").get_attribute("data-theme")
        page.locator("button.theme-toggle:visible").first.click()
        expect(page.locator("body")).not_to_have_attribute("data-theme", theme)
        seen.add(page.evaluate(color))
    assert before in seen and len(seen) == 2


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small_fits_a_phone_and_has_no_moderate_violation(browser, site, name):
    """axe-core's rules on a phone, where everything is tightest; bytes as the host of the project page packs them."""
    with opened(browser, site, "phone") as page:
        show(page, site + name, "networkidle")
        assert 0 < received(page.seen.sent) < FIRST_VIEW
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
        assert not violations(page)


KEPT = """async (more) => {  // the page, and all that it has loaded
    const seen = [location.href, ...more, ...performance.getEntriesByType("resource").map(({ name }) => name)];
    return (await Promise.all(seen.map((address) => caches.match(new URL(address, location.href))))).every(Boolean);
}"""
# what the live page needs to answer and to train
NEEDED = ["../networks/sprint_994.bin", "../networks/dropout.bin", "workings.mjs", "train_worker.mjs", "sprint.mjs"]


def test_what_was_loaded_once_reads_answers_and_trains_without_a_network(browser):
    facts = json.loads((SITE / "train" / "train.json").read_text(encoding="utf-8"))
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    with serving() as site:
        for name in ("results.html", "notebooks/01_base.html"):
            show(page, site + name)
            page.wait_for_function("navigator.serviceWorker.controller !== null")
            until(page, KEPT, [])
        start(page, site)
        draw(page, STROKES[3])
        choose(page, "dropout")
        if "train" in facts:
            page.locator("#tab-train").click()
            page.locator("#go").click()
            page.wait_for_function(f"{STEP} > 1")
        until(page, KEPT, NEEDED + ["../train/test.packed"] * ("train" in facts))
    # the server is gone now
    for name in ("results.html", "notebooks/01_base.html"):
        show(page, site + name)
        expect(page.locator("h1")).to_have_text(re.compile("."))
    page.goto(f"{site}live/#draw")
    settled(page)
    assert read(page) == read(page, "dropout") == 3
    page.get_by_role("tab", name="Inside").click()
    expect(page.locator(".sums")).to_contain_text("the network says")
    if "train" in facts:
        page.locator("#tab-train").click()
        page.locator("#go").click()
        page.wait_for_function(f"{STEP} > 1")
    context.close()
