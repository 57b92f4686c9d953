"""The live page reads what is drawn, by mouse, finger and keyboard, and asks nobody for anything."""

import json
import re

import hands
import pytest
from hands import answer, check_sums, choose, clear_by_touch, draw, networks, press, read, settled, start, touch
from playwright.sync_api import expect
from shapes import STROKES

from conftest import SIZES, opened, received, violations
from tools.site.__main__ import SITE


def test_first_view_and_first_answer_need_300_kb_each_and_no_network_before_the_first_stroke(page, site):
    start(page, site)
    page.wait_for_load_state("networkidle")
    assert 0 < received(page.seen.sent) < 300_000
    count = len(page.seen.sent)
    assert not [address for address in page.seen.requests if address.endswith((".bin", ".onnx", ".wasm"))]
    expect(page.locator("#verdict")).to_have_text("Draw a digit.")
    draw(page, STROKES[3])
    assert read(page) == 3
    assert 0 < received(page.seen.sent[count:]) < 300_000


def test_ten_shapes_are_read_by_pointer_and_nothing_after_clearing(page, site):
    start(page, site)
    for digit, strokes in STROKES.items():
        draw(page, strokes)
        assert read(page) == digit
        press(page, "Clear")
        expect(page.locator("#verdict")).to_have_text("Draw a digit.")
        assert read(page) is None


def test_a_shape_is_read_by_touch_on_a_phone_which_shows_pad_and_verdict_together(phone, site):
    start(phone, site)
    touch(phone, STROKES[8])
    assert read(phone) == 8
    clear_by_touch(phone)
    assert read(phone) is None
    touch(phone, STROKES[3])
    assert phone.evaluate("scrollY") == 0, "a stroke must not scroll the page"
    for tab, verdict in (("draw", "#verdict"), ("turn", "#view-turn .verdict")):
        phone.locator(f"#tab-{tab}").click()
        expect(phone.locator(verdict)).to_have_text(re.compile(" 3\\.$"))
        phone.evaluate("scrollTo(0, 0)")
        for width, height in ((360, 640), (430, 932), (667, 375)):
            phone.set_viewport_size({"width": width, "height": height})
            phone.wait_for_function("size => size.join() === [innerWidth, innerHeight].join()", arg=[width, height])
            pad, said = (phone.locator(one).bounding_box() for one in ("#pad", verdict))
            assert pad["height"] <= height / 2 + 1 and phone.evaluate("scrollY") == 0, (tab, width, height)
            assert all(box["y"] + box["height"] <= height for box in (pad, said)), (tab, width, height)
            assert phone.evaluate("document.documentElement.scrollWidth") == width


def test_undo_in_a_stroke_ends_it_and_leaves_the_strokes_before(page, site):
    start(page, site)
    draw(page, STROKES[1])
    before = page.evaluate("sessionStorage.pad")
    for key, after in (("Backspace", before), ("Delete", "")):
        for number, point in enumerate(hands.place_of(page, STROKES[3])[0][:6]):
            page.mouse.move(*point)
            if number == 0:
                page.mouse.down()
            if number == 3:
                page.keyboard.press(key)
        page.mouse.up()
        settled(page)
        assert page.evaluate("sessionStorage.pad") == after and not page.seen.errors


def test_keyboard_opens_tabs_takes_test_digits_undoes_and_clears(page, site):
    start(page, site)
    page.locator("#tab-draw").focus()
    for key, tab in (("End", "train"), ("Home", "draw"), ("ArrowLeft", "train"), ("ArrowRight", "draw")):
        page.keyboard.press(key)
        expect(page.locator(f"#tab-{tab}")).to_have_attribute("aria-selected", "true")
        expect(page.locator(f"#view-{tab}")).to_be_visible()
    page.locator("#pad").focus()
    note = page.locator("#way-note")
    page.keyboard.press("8")
    expect(note).to_contain_text("its label is 8")
    settled(page)
    assert read(page, "base") == 8
    page.keyboard.press("Delete")
    settled(page)
    assert read(page) is None
    page.keyboard.press("R")  # as Caps Lock makes it
    expect(note).to_contain_text("its label is")
    random = note.inner_text()
    draw(page, STROKES[1])
    page.keyboard.press("Escape")
    settled(page)
    for undone in (1, None):  # clearing, then the stroke, which had taken the test digit's place
        page.keyboard.press("Backspace")
        settled(page)
        assert undone is None or read(page) == undone
    expect(note).to_have_text(random)


SEEN = "document.getElementById('seen').toDataURL()"


def test_a_drawing_and_another_network_survive_a_reload_and_travel_in_a_link(browser, site):
    """The network loads when it is chosen; it is one of those with megabytes, and its last layer is a softmax."""
    clipboard = ["clipboard-read", "clipboard-write"]
    with opened(browser, site, errors="ERR_FAILED", permissions=clipboard) as page:
        start(page, site)
        draw(page, STROKES[3])
        drawn, count = page.evaluate(SEEN), page.locator(".network").count()
        page.route(re.compile(r".*/small_cnn\.bin$"), lambda route: route.abort())
        choose(page, "small_cnn")
        expect(page.locator("#status")).to_have_text(re.compile("^That did not work"))
        box = page.get_by_label(re.compile(r"^ ?small_cnn \d"))
        expect(box).not_to_be_checked()
        assert read(page) == 3 and "3.1 MB" in box.locator("..").inner_text()
        page.unroute_all()
        choose(page, "small_cnn")
        expect(answer(page, "small_cnn")).to_be_visible()
        choose(page, "base")  # which answers from the beginning
        expect(answer(page, "base")).to_have_count(0)
        expect(page.locator(".network")).to_have_count(count)
        page.reload()
        expect(answer(page, "small_cnn")).to_be_visible()
        page.wait_for_function(f"{SEEN} === '{drawn}'")
        page.evaluate("location.hash = '#turn'")  # as typed by hand
        settled(page)  # or what the page says of its networks takes the place of the message
        press(page, "Copy link")
        expect(page.locator("#status")).to_have_text("The link to this drawing is copied.")
        link = page.evaluate("navigator.clipboard.readText()")
    with opened(browser, site) as page:
        page.goto(link)
        page.wait_for_function(f"{SEEN} === '{drawn}'")
        expect(page.locator("#view-turn")).to_be_visible()
        page.locator("#tab-draw").click()
        settled(page)
        expect(answer(page, "base")).to_have_count(0)
        assert read(page, "small_cnn") == read(page) == 3
        press(page, "Undo")
        page.wait_for_function(f"{SEEN} !== '{drawn}'")


RUNTIME = ("ort-wasm-simd-threaded.wasm", "ort.wasm.min.mjs", "voxel_more_digits.onnx")


@pytest.mark.parametrize(("tab", "files"), [("", ("networks.json", "base.bin")), ("#turn", RUNTIME)])
def test_failed_request_is_retried_at_the_next_stroke(browser, site, tab, files):
    """Each file fails after the one before it has been loaded."""
    with opened(browser, site, errors="ERR_FAILED") as page:
        status = page.locator("#status")
        for number, file in enumerate(files):
            page.route(re.compile(rf".*/{re.escape(file)}(\?.*)?$"), lambda route: route.abort())
            if not number:
                start(page, site, tab)
            draw(page, [[(0.3, 0.2 + 0.1 * number), (0.6, 0.2 + 0.1 * number)]])
            expect(status).to_have_text(re.compile("^That did not work"))
            page.unroute_all()
        draw(page, [[(0.4, 0.7), (0.42, 0.7)]])
        expect(status).to_have_text("")
        page.locator("#tab-draw").click()
        expect(page.locator("#verdict")).to_have_text(re.compile("read|disagree"))
        assert page.seen.errors


A = [[(0.15, 0.95), (0.5, 0.05), (0.85, 0.95)], [(0.3, 0.6), (0.7, 0.6)]]
STAR = [[(0.5, 0.05), (0.78, 0.92), (0.05, 0.38), (0.95, 0.38), (0.22, 0.92), (0.5, 0.05)]]


def test_what_looks_like_no_digit_is_doubted_with_the_reason(page, site):
    """By the rule that networks.json states, whose bound was chosen on other images."""
    bound = json.loads((SITE / "networks" / "networks.json").read_text(encoding="utf-8"))["no_digit"]
    start(page, site)
    note, doubted = page.locator("#doubt"), []
    for strokes in (STROKES[3], STROKES[0], A, STAR):
        draw(page, strokes)
        message = answer(page, bound["network"]).locator("output").inner_text()
        is_doubted = float(message.split(":")[1].strip(" %>")) < 100 * bound["least"]
        expect(note).to_be_visible(visible=is_doubted)
        if is_doubted:
            doubted.append(strokes)
            expect(note).to_contain_text(f"{bound['held_out']:,} digits")
            expect(note.get_by_role("link")).to_have_attribute("href", f"../{bound['log']}")
        press(page, "Clear")
        expect(note).to_be_hidden()
    assert doubted and all(strokes in (A, STAR) for strokes in doubted)


def test_mnists_way_reads_small_digits_in_a_corner_where_raw_does_not(page, site):
    start(page, site)
    right = {"MNIST’s way": 0, "raw": 0}
    for digit in (2, 3, 5, 8):
        draw(page, STROKES[digit], scale=0.35, left=0.03, top=0.6)
        for way in right:
            page.get_by_role("radio", name=way).check()
            settled(page)
            right[way] += read(page) == digit
        press(page, "Clear")
    assert right["MNIST’s way"] == 4 and right["raw"] <= 2


def test_inside_follows_the_pointer_slides_the_window_and_every_value_is_the_sum_written_out(page, site):
    start(page, site, "#inside")
    expect(page.locator(".hint")).to_be_visible()
    draw(page, STROKES[2])
    expect(page.locator(".hint")).to_be_hidden()
    large, sums = page.locator("#map"), page.locator(".sums")
    side = large.bounding_box()["width"] / 28
    large.hover(position={"x": 20.5 * side, "y": 15.5 * side})
    expect(large).to_have_attribute("aria-label", re.compile("row 15, column 20$"))
    expect(sums.locator("li canvas")).to_have_count(3)  # window, kernel, products
    slide = page.get_by_role("button", name="Slide the window")
    slide.click()
    expect(large).not_to_have_attribute("aria-label", re.compile(r"row 15, column \d+$"))
    slide.click()
    expect(slide).to_have_attribute("aria-pressed", "false")
    faint = "document.querySelector('.maps button:last-child canvas').toDataURL()"
    before = page.evaluate(faint)
    page.get_by_label("Scale the brightness of each map").check()
    page.wait_for_function(f"{faint} !== '{before}'")
    for name, network in networks().items():
        if network["first"]:
            page.get_by_label("Network", exact=True).select_option(name)
            check_sums(page, network)


def test_a_body_turns_and_a_six_on_its_head_is_a_nine(page, site):
    start(page, site, "#turn")
    draw(page, STROKES[6])
    verdict = page.locator("#view-turn .verdict")
    for position, digit in (("upright", 6), ("upside down", 9), ("upright", 6)):
        page.get_by_role("button", name=position).click()
        expect(verdict).to_have_text(f"Read as a {digit}.")
        if digit == 9:
            expect(page.locator("#view-turn .why")).to_contain_text("a 6 is a 9")
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#angle-turn")).to_have_value("10")
    press(page, "upright")
    for angle, (x, y) in (("turn", (-60, 0)), ("tilt", (0, -60))):  # a pixel is half a degree
        box = page.locator("#stage").bounding_box()
        page.mouse.move(box["x"] + 150, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 150 + x, box["y"] + 150 + y, steps=6)
        page.mouse.up()
        expect(page.locator(f"#angle-{angle}")).to_have_value("-30")
    settled(page)
    expect(page.locator(".slices canvas")).to_have_count(4)
    expect(verdict).to_have_text(re.compile("^Read as a"))


def test_without_webgl_a_body_is_read_and_its_slices_are_shown(browser, site):
    with opened(browser, site, errors="WebGL") as page:  # three.js's own
        page.add_init_script("""const real = HTMLCanvasElement.prototype.getContext;
            HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
                return /webgl/.test(kind) ? null : real.call(this, kind, ...more);
            };""")
        start(page, site, "#turn")
        draw(page, STROKES[6])
        expect(page.locator("#view-turn .verdict")).to_have_text("Read as a 6.")
        expect(page.get_by_text("This browser has no WebGL")).to_be_visible()
        expect(page.locator(".slices canvas")).to_have_count(4)


COLORS = "names => names.map((name) => getComputedStyle(document.querySelector(name)).backgroundColor)"


def test_what_colors_say_shows_in_forced_colors_and_in_print(browser, site):
    with opened(browser, site, forced_colors="active") as page:
        start(page, site)
        draw(page, STROKES[4])
        names = ["body", ".bars i", ".bars .first i", *(f"[role=tab][aria-selected={it}]" for it in ("false", "true"))]
        paper, bar, first, tab, chosen = page.evaluate(COLORS, names)
        assert len({paper, bar, first}) == 3 and tab != chosen
        page.emulate_media(media="print")
        expect(page.locator(".bars i").first).to_have_css("print-color-adjust", "exact")


def test_pages_say_that_they_need_scripts(browser, site):
    with opened(browser, site, java_script_enabled=False) as page:
        for name, said in (("live/", "This page needs JavaScript"), ("results.html", "The charts need JavaScript")):
            page.goto(site + name)
            note = page.locator("noscript").first
            assert note.is_visible() and note.text_content().startswith(said)


ANSWERED = {"draw": "#verdict:has-text('read')", "inside": ".sums:has-text('Value')", "train": "#go"}
ANSWERED["turn"] = "#view-turn .verdict:has-text('Read as')"


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_moderate(browser, site, size):
    with opened(browser, site, size) as page:
        start(page, site)
        press(page, "Test digit 4")
        for name in ("choice", "files"):
            page.locator(f"details.{name} summary").click()
        for tab, answered in ANSWERED.items():
            page.locator(f"#tab-{tab}").click()
            settled(page)
            expect(page.locator(answered)).to_be_visible()
            assert not violations(page), tab
