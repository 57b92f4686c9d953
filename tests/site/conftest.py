"""A server over _site/ below a sub-path, the system's Chromium, and pages that remember what they asked for and what
went wrong."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from tools.site.__main__ import CHROMIUM, SITE, Handler, installed, server
from utils import ROOT

SIZES = {"desk": (1280, 800), "phone": (390, 844)}
AXE = ROOT / "site" / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE = 240  # seconds, however busy the machine is: of the tests and of their server
expect.set_options(timeout=1000 * PATIENCE)
Handler.timeout = PATIENCE


@contextmanager
def serving(folder: Path = SITE) -> Iterator[str]:
    """The address of a built site as long as the block lasts: below a sub-path, as a project page is."""
    with server(folder=folder.parent) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/{folder.name}/"
        running.shutdown()


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    if not (SITE / "index.html").is_file():
        pytest.fail("_site/ is not built: make site")
    with serving() as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = installed(CHROMIUM)
    if not chromium:
        pytest.fail("no Chromium was found: apt-get install chromium, or install Chrome")
    with sync_playwright() as playwright:
        # no sandbox where the tests run as root
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def opened(browser: Browser, site: str, size: str = "desk", errors: str = "(?!)", **options) -> Iterator[Page]:
    """A fresh page; when the block ends, it must have asked nobody but the site for anything, and its console must be
    quiet but for what matches `errors`: a message may come later than what it is about."""
    width, height = SIZES[size]
    options |= {"viewport": {"width": width, "height": height}, "has_touch": size == "phone"}
    # a service worker would make requests that page.route() does not see, from half a second on
    context = browser.new_context(is_mobile=size == "phone", service_workers="block", **options)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.seen = SimpleNamespace(sent=[], requests=[], errors=[])
    context.on("request", lambda request: page.seen.sent.append(request) or page.seen.requests.append(request.url))
    page.on("console", lambda message: page.seen.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.seen.errors.append(str(error)))
    try:
        yield page
        elsewhere = [address for address in page.seen.requests if not address.startswith((site, "data:", "blob:"))]
        assert not elsewhere, f"asked somebody else: {elsewhere}"
        assert [error for error in page.seen.errors if not re.search(errors, error)] == []
    finally:
        context.close()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    with opened(browser, site) as page:
        yield page


@pytest.fixture
def phone(browser: Browser, site: str) -> Iterator[Page]:
    with opened(browser, site, "phone") as page:
        yield page


def until(page: Page, asked: str, argument: object = None) -> None:
    """Wait until an asynchronous function of the page returns true. (wait_for_function takes its promise for true.)"""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(asked, argument):
        assert time.monotonic() < end, f"never became true: {asked}"
        page.wait_for_timeout(100)


def received(requests: list[Request]) -> int:
    """The bytes that the requests brought, packed as they came; it waits for those under way."""
    return sum(request.sizes()["responseBodySize"] for request in requests)


def violations(page: Page) -> list:
    """What axe-core finds from moderate on: all of its rules, and in the dark theme those that colors matter to."""
    page.emulate_media(reduced_motion="reduce")  # or it may see a color on its way to another
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    page.emulate_media(color_scheme="dark")
    colors = "{ runOnly: ['color-contrast', 'link-in-text-block'] }"
    found += page.evaluate(f"axe.run({colors}).then(({{ violations }}) => violations)")
    page.emulate_media(color_scheme="light")
    return [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found if one["impact"] != "minor"]
