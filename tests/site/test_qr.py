"""A network from a picture of a QR code: it is the published one, and joins those that answer."""

import io

import numpy as np
import pytest
import torch
from hands import STROKES, answer, draw, networks, press, read, start
from PIL import Image
from playwright.sync_api import expect

from tools.site import __main__ as tool
from tools.site import networks as exported
from utils import ROOT, models
from utils.experiments import EXPERIMENTS
from utils.runs import packed
from utils.training import quantize

NAME = "bytes_99_5"
PICTURE, FILE = ROOT / "pngs" / f"{NAME}_qr.png", ROOT / "saved_dict" / f"{NAME}.bin"
OWN = "network from a picture"
UNPACK = """async (content) => {  // as what every network of the page that takes these bytes reads them
    const load = (name) => import(new URL(name, location.href).href);
    const { unpack } = await load("packed.mjs");
    const { networks } = await (await load("networks.mjs")).catalogue();
    return networks.flatMap((network) => {
        const found = unpack(Uint8Array.from(content), network);
        return found ? [{ name: network.name, ...found.normalization, values: [...found.values] }] : [];
    });
}"""


def said(page, text):
    expect(page.locator("#status")).to_contain_text(text)


def test_the_committed_picture_answers_as_the_published_network(page, site):
    start(page, site)
    draw(page, STROKES[3])
    assert not [address for address in page.seen.requests if "zxing" in address]
    page.get_by_label("Load a network from a picture").set_input_files(PICTURE)
    said(page, f"The picture holds a network built as {NAME}.")
    outputs = {name: answer(page, name).locator("output").inner_text() for name in (NAME, OWN)}
    assert outputs[NAME] == outputs[OWN] and read(page, OWN) == 3
    press(page, "Test digit 8")
    assert read(page, OWN) == read(page, NAME)


def test_every_published_file_of_few_bytes_is_read_to_the_same_numbers_and_a_damaged_one_rejected(page, site):
    start(page, site)
    published = [path for path in sorted((ROOT / "saved_dict").glob("*.bin")) if path.stem in EXPERIMENTS]  # of seed 0
    assert FILE in published
    for path in published:
        [found] = page.evaluate(UNPACK, list(path.read_bytes()))
        network = networks()[path.stem]
        assert network["model"] == networks()[found["name"]]["model"], path
        expected = np.fromfile(tool.SITE / "networks" / network["weights"]["file"], "<f4")
        np.testing.assert_allclose(np.array(found["values"], np.float32), expected, 1e-5, 1e-6, err_msg=path.name)
        assert (found["mean"], found["std"]) == packed.read(path.read_bytes(), network["model"])[1:], path
    good = FILE.read_bytes()
    damaged = {"end": good[:-1], "all": b""}
    for what, place in {"version": 0, "levels": 1, "checksum": 2, "body": 100}.items():
        damaged[what] = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    for what, content in damaged.items():
        assert page.evaluate(UNPACK, list(content)) == [], what


@pytest.mark.parametrize(("name", "levels"), [(NAME, 7), ("frontier_99", 31)])
def test_another_network_of_the_same_layers_is_read(page, site, name, levels):
    """As a reader has one that was trained from another seed. One of the networks uses a layer repeatedly."""
    network = networks()[name]
    torch.manual_seed(1)
    model = models.build(network["model"])
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -1, 1)
    quantize.end(model.eval(), levels)
    content = packed.write(model, network["model"], levels, 0.2, 0.4)
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    like = network | {"packed": exported.packed(models.build(network["model"]), content, network["blocks"])}
    assert network["packed"] in (None, like["packed"])
    start(page, site)
    script = """async ([content, like, pixels]) => {
        const load = (name) => import(new URL(name, location.href).href);
        const { unpack } = await load("packed.mjs");
        const { outputs } = await load("networks.mjs");
        const network = { ...like, ...unpack(Uint8Array.from(content), like) };
        return Promise.all(pixels.map(async (image) => [...(await outputs(network, image)).logits.data]));
    }"""
    found = page.evaluate(script, [list(content), like, images.flatten(1).tolist()])
    with torch.inference_mode():
        expected = packed.read(content, network["model"])[0]((images / 255 - 0.2) / 0.4)
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-4)


def picture(image: Image.Image) -> dict:
    content = io.BytesIO()
    image.save(content, "png")
    return {"name": "picture.png", "mimeType": "image/png", "buffer": content.getvalue()}


def test_a_photograph_of_the_code_is_read(page, site):
    """Larger, turned, gray and unevenly lit, as a camera has it."""
    code = Image.open(PICTURE).convert("L").resize((1500, 1500))
    photo = Image.new("L", (2000, 1900), 255)
    photo.paste(code, (250, 200))
    photo = photo.rotate(4, fillcolor=255, resample=Image.Resampling.BICUBIC)
    light = np.linspace(0.6, 1, 2000)[None, :]
    dim = Image.fromarray((40 + 0.7 * np.asarray(photo) * light).clip(0, 255).astype(np.uint8))
    start(page, site)
    page.locator("#scan").set_input_files(picture(dim))
    said(page, f"The picture holds a network built as {NAME}.")


def test_what_is_no_network_is_one_sentence(page, site):
    segno = pytest.importorskip("segno")
    start(page, site)
    other = io.BytesIO()
    segno.make_qr(b"hello", error="L", mode="byte").save(other, kind="png", scale=4)
    for file, text in (
        (picture(Image.new("L", (300, 300), 255)), "no QR code can be read in this picture"),
        (
            {"name": "a.png", "mimeType": "image/png", "buffer": b"text"},
            "a.png is no picture that the browser can read",
        ),
        (
            picture(Image.open(other)),
            f"the 5 bytes of this code are no network that the page knows: expected one built as {NAME}",
        ),
    ):
        page.locator("#scan").set_input_files(file)
        said(page, text)
    expect(page.locator(".network", has_text=OWN)).to_have_count(0)
