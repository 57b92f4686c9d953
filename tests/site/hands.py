"""What the tests of the live page share: a hand that draws on it, and what it answers."""

import json
import math
import re
import time
from functools import lru_cache

import pytest

from conftest import PATIENCE
from tools.site.__main__ import SITE

FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
STEP = "Number(document.querySelector('.loss svg')?.ariaLabel.match(/at step (\\d+)/)?.[1] ?? 0)"  # of a training


@lru_cache
def networks():
    """What networks.json says of each network, by name."""
    found = json.loads((SITE / "networks" / "networks.json").read_text(encoding="utf-8"))
    return {network["name"]: network for network in found["networks"]}


def start(page, site, tab=""):
    """Open the live page, and wait until the tab is built."""
    page.goto(f"{site}live/{tab}")
    settled(page)
    return page


def settled(page):
    """Wait until the page has done all that it was asked for: see data-working in main.mjs."""
    page.evaluate(FRAMES)  # a movement of the pointer reaches the page with the next frame
    page.wait_for_function("document.body.dataset.working === '0'")


def press(page, name):
    """Click a button, and wait until the page has answered."""
    page.get_by_role("button", name=name, exact=True).click()
    settled(page)


def place_of(page, strokes, scale=0.9, left=0.05, top=0.05):
    """Strokes in the page's pixels."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()

    def place(x: float, y: float) -> tuple[float, float]:
        return box["x"] + box["width"] * (left + scale * x), box["y"] + box["height"] * (top + scale * y)

    return [[place(x, y) for x, y in stroke] for stroke in strokes]


def thinned(strokes):
    """No more points than it takes to keep the shape: the browser draws a frame for each movement."""
    few = []
    for first, *others in strokes:
        few.append([first])
        for point in others:
            if math.dist(point, few[-1][-1]) > 0.1 or point == others[-1]:
                few[-1].append(point)
    return few


def draw(page, strokes, **where):
    for points in place_of(page, thinned(strokes), **where):
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()
    settled(page)


def touch(page, strokes):
    fingers = page.context.new_cdp_session(page)
    for points in place_of(page, thinned(strokes)):
        for n, (x, y) in enumerate(points):
            moved = {"type": "touchMove" if n else "touchStart", "touchPoints": [{"x": x, "y": y}]}
            fingers.send("Input.dispatchTouchEvent", moved)
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settled(page)


def clear_by_touch(page):
    """A browser without time takes a tap for a long press, or for a part of the gesture before it: then again."""
    end = time.monotonic() + PATIENCE
    while page.locator("#verdict").inner_text() != "Draw a digit.":
        assert time.monotonic() < end, "no tap had an effect"
        page.get_by_role("button", name="Clear").tap()
        settled(page)
        page.wait_for_timeout(200)


def answer(page, name):
    """The answer of a network."""
    return page.locator(".network", has=page.get_by_role("heading", name=name, exact=True))


def read(page, name="bn_augmentation"):
    """The digit that a network reads; None for no answer."""
    message = answer(page, name).locator("output").inner_text()
    return int(message[0]) if message[0].isdigit() else None


def choose(page, name):
    """Let a published network answer that does not, or no longer."""
    if not page.locator("#choice").is_visible():
        page.locator(".choice summary").click()
    page.get_by_label(re.compile(rf"^ ?{name} \d")).click()
    settled(page)


SUMS = """all => all.map((button) => {  // of each block: how many maps it has, and what is written out of a value
    button.click();
    return [document.querySelectorAll("#view-inside .maps button").length, document.querySelector(".sums").innerText];
})"""


def check_sums(page, network):
    """On the tab "Inside", a value of each layer with weights is the sum that the page writes out."""
    settled(page)
    found = page.locator(".blocks button").evaluate_all(SUMS)
    for block, (maps, text) in zip(network["blocks"], found, strict=True):
        assert maps == block["shape"][0], (network["name"], block["output"])
        if block["kind"] in ("conv", "linear"):
            numbers = re.search(r"(\S+); the network says (\S+)\.", text).groups()
            ours, theirs = (float(number.replace("−", "-")) for number in numbers)
            assert ours == pytest.approx(theirs, rel=0.02, abs=1e-3), (network["name"], block["output"])
