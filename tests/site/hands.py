"""What the tests of the live page share: a hand that draws on it, and what it answers."""

import importlib.util
import json
import re
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from tools.site import __main__ as tool

QUIET = """() => { // for a quarter of a second nothing has been drawn or worked on
    const picture = document.getElementById("seen").toDataURL() + document.getElementById("way-note").textContent;
    const busy = document.getElementById("answers").ariaBusy === "true";
    if (busy || picture !== window.before) window.since = performance.now();
    window.before = picture;
    return performance.now() - window.since > 250;
}"""
specification = importlib.util.spec_from_file_location("shapes", Path(__file__).parent.parent / "shapes.py")
shapes = importlib.util.module_from_spec(specification)
specification.loader.exec_module(shapes)
STROKES = shapes.STROKES


@lru_cache
def networks():
    """What networks.json says of each network, by name."""
    found = json.loads((tool.SITE / "networks" / "networks.json").read_text(encoding="utf-8"))
    return {network["name"]: network for network in found["networks"]}


READY = "() => document.querySelector('#choice input') || document.getElementById('status').textContent"


def start(page, site, tab=""):
    """Open the live page, and wait until it knows the networks, or says why not."""
    page.goto(f"{site}live/{tab}")
    page.wait_for_function(READY)
    return page


def settled(page):
    """Wait until the page has answered what is on the pad."""
    page.wait_for_function(QUIET, polling=40)


def place_of(page, strokes, scale=0.9, left=0.05, top=0.05):
    """Strokes in the page's pixels, with points as close as a hand's."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    at = [
        [
            (box["x"] + box["width"] * (left + scale * x), box["y"] + box["height"] * (top + scale * y))
            for x, y in stroke
        ]
        for stroke in strokes
    ]
    return [[points[0], *(p for a, b in pairwise(points) for p in ((np.add(a, b) / 2).tolist(), b))] for points in at]


def draw(page, strokes, **where):
    for points in place_of(page, strokes, **where):
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points:
            page.mouse.move(*point)
        page.mouse.up()
    settled(page)


def touch(page, strokes):
    fingers = page.context.new_cdp_session(page)
    for points in place_of(page, strokes):
        for n, (x, y) in enumerate(points):
            fingers.send(
                "Input.dispatchTouchEvent",
                {"type": "touchMove" if n else "touchStart", "touchPoints": [{"x": x, "y": y}]},
            )
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settled(page)


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
