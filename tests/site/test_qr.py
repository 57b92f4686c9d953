"""A network from a picture of a QR code: it is the published one, and joins those that answer."""

import io

import numpy as np
import pytest
from hands import answer, draw, networks, press, read, start
from PIL import Image
from playwright.sync_api import expect
from shapes import STROKES, photograph

from tools.site.__main__ import SITE
from utils import ROOT
from utils.experiments import EXPERIMENTS
from utils.runs import packed

NAME, OWN = "bytes_99_5", "network from a picture"
PICTURE = ROOT / "pngs" / f"{NAME}_qr.png"
UNPACK = """async (content) => {  // as what every network of the page that takes these bytes reads them
    const load = (name) => import(new URL(name, location.href).href);
    const { unpack } = await load("packed.mjs");
    const { networks } = await (await load("networks.mjs")).catalogue();
    return networks.flatMap((network) => {
        const found = unpack(Uint8Array.from(content), network);
        return found ? [{ name: network.name, ...found.normalization, values: [...found.values] }] : [];
    });
}"""


def png(image: Image.Image) -> dict:
    content = io.BytesIO()
    image.save(content, "png")
    return {"name": "picture.png", "mimeType": "image/png", "buffer": content.getvalue()}


def test_the_code_and_a_photograph_of_it_answer_as_the_published_network(page, site):
    start(page, site)
    draw(page, STROKES[3])
    assert not [address for address in page.seen.requests if "zxing" in address]
    for picture in (PICTURE, png(photograph(Image.open(PICTURE)))):
        page.get_by_label("Load a network from a picture").set_input_files(picture)
        expect(page.locator("#status")).to_contain_text(f"The picture holds a network built as {NAME}.")
        outputs = {name: answer(page, name).locator("output").inner_text() for name in (NAME, OWN)}
        assert outputs[NAME] == outputs[OWN] and read(page, OWN) == 3
    press(page, "Test digit 8")
    assert read(page, OWN) == read(page, NAME)


def test_every_published_file_of_few_bytes_is_read_to_the_same_numbers_and_a_damaged_one_rejected(page, site):
    start(page, site)
    published = [path for path in sorted((ROOT / "saved_dict").glob("*.bin")) if path.stem in EXPERIMENTS]  # of seed 0
    assert len(published) >= 3
    for path in published:
        good, network = path.read_bytes(), networks()[path.stem]
        [found] = page.evaluate(UNPACK, list(good))
        assert network["model"] == networks()[found["name"]]["model"], path
        expected = np.fromfile(SITE / "networks" / network["weights"]["file"], "<f4")
        np.testing.assert_allclose(np.array(found["values"], np.float32), expected, 1e-5, 1e-6, err_msg=path.name)
        assert (found["mean"], found["std"]) == packed.read(good, network["model"])[1:], path
    changed = [good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :] for place in (0, 1, 2, 100)]
    for content in (*changed, good[:-1], b""):  # version, levels, checksum, body
        assert page.evaluate(UNPACK, list(content)) == []


def test_what_is_no_network_is_one_sentence(page, site):
    segno, other = pytest.importorskip("segno"), io.BytesIO()
    segno.make_qr(b"hello", error="L", mode="byte").save(other, kind="png", scale=4)
    start(page, site)
    for file, text in (
        (png(Image.new("L", (300, 300), 255)), "no QR code can be read in this picture"),
        (png(Image.new("L", (9, 9))) | {"buffer": b"text"}, "picture.png is no picture that the browser can read"),
        (png(Image.open(other)), "the 5 bytes of this code are no network that the page knows: expected one built as"),
    ):
        page.locator("#scan").set_input_files(file)
        expect(page.locator("#status")).to_contain_text(text)
    expect(page.locator(".network", has_text=OWN)).to_have_count(0)
