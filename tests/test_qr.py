"""A printed network reads digits: pixels of a QR code → bytes → network → score, also from a photograph of it."""

import io
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from tiny import TINY

from tools import export
from utils import ROOT, CourseError, runs
from utils.experiments import EXPERIMENTS
from utils.runs import packed, records
from utils.training import quantize

pytest.importorskip("segno", reason="QR codes need segno (requirements-extra.txt)")
zxingcpp = pytest.importorskip("zxingcpp", reason="QR codes need zxing-cpp (requirements-extra.txt)")
PRINTED = sorted((ROOT / "pngs").glob("*_qr.png"))


def photograph(picture: Image.Image, seed: int = 0) -> Image.Image:
    """A code as a phone sees it: from the side, out of focus, in uneven light, with noise and JPEG's blocks."""
    picture = picture.convert("L").resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST)
    side = picture.width
    # the code's corners come to (0.07, 0.10), (0.95, 0.04), (0.91, 0.97), (0.03, 0.90): left and far, right and near
    how = (1.34, 0.07, -0.1 * side, 0.09, 1.28, -0.13 * side, 0.19 / side, 0.02 / side), Image.Resampling.BICUBIC
    turned = picture.transform((side, side), Image.Transform.PERSPECTIVE, *how, fillcolor=255)
    seen = np.asarray(turned.filter(ImageFilter.GaussianBlur(4)).resize((side // 2, side // 2)), float)
    light = np.linspace(0.95, 0.45, side // 2)[None] * np.linspace(1, 0.75, side // 2)[:, None]
    noise = np.random.default_rng(seed).normal(0, 6, seen.shape)
    jpeg = io.BytesIO()
    Image.fromarray(((40 + 0.8 * seen) * light + noise).clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=80)
    return Image.open(jpeg)


@pytest.mark.parametrize("length", [100, 2953])
def test_bytes_come_back_from_a_photograph_of_their_code(length):
    content = random.Random(length).randbytes(length)
    assert export.scan(photograph(Image.open(io.BytesIO(export.draw(content))))) == content


def test_a_network_is_recognized_by_its_bytes():
    for name in ("bytes_99_5", "bytes_99"):
        model, levels = EXPERIMENTS[name].recipe.model, EXPERIMENTS[name].recipe.levels
        network = quantize.end(packed.models.build(model), levels)
        found, read, *_ = export.recognize(packed.write(network, model, levels, 0.1, 0.3))
        assert found == name and torch.equal(read[0].weight, network[0].weight)


def test_a_run_is_drawn_and_read_back(scratch, monkeypatch, capsys):
    few = TINY.with_recipe(levels=5)
    monkeypatch.setitem(EXPERIMENTS, "tiny", few)
    monkeypatch.setattr(export, "ROOT", scratch)
    monkeypatch.setattr(export.datasets, "load", lambda name, load=export.datasets.load: load("digits"))
    result = runs.run(few, device="cpu", echo=False)
    export.main([str(result.weights), "--to", "qr"])
    path = records.own_root() / "pngs" / f"{few.key}_qr.png"
    assert path.is_file() and f"{result.facts.packed} bytes" in capsys.readouterr().out
    export.main(["--read", str(path)])
    told = f"holds tiny: {result.facts.test.correct} of {result.facts.test.total} test images of digits"
    assert told in capsys.readouterr().out


def test_mistakes_are_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    os.mkfifo(tmp_path / "pipe")  # or a device, which root would replace by a file
    for action, message in (
        (lambda: export.main([]), "expected the NAME of a network to export, or --read FILE"),
        (lambda: export.main(["bytes_99_5", f"{tmp_path}/pipe", "--to", "qr"]), "pipe is no regular file"),
        (lambda: export.main(["bytes_99_5", "/", "--to", "qr"]), "/ is a folder: expected the path of a file"),
        (lambda: export.main(["base", "--to", "qr"]), r"base\.bin.*Only a network whose recipe has levels"),
        (lambda: export.main(["--read", "README.md"]), "README.md is not a picture: expected PNG"),
        (lambda: export.draw(bytes(2954)), "2954 bytes: expected at most the 2953"),
        (lambda: export.scan(Image.new("L", (200, 200), 255)), "no QR code can be read"),
        (lambda: export.recognize(b"hello"), "the 5 bytes of this code are no network of the course: expected one of"),
    ):
        with pytest.raises(CourseError, match=message):
            action()


@pytest.mark.parametrize("path", PRINTED, ids=lambda path: path.stem)
@pytest.mark.parametrize("seen", [lambda picture: picture, photograph], ids=["picture", "photograph"])
def test_a_printed_network_is_the_published_one(path, seen):
    name = path.stem.removesuffix("_qr")
    content = export.scan(seen(Image.open(path)))
    assert content == (ROOT / "saved_dict" / f"{name}.bin").read_bytes()
    assert export.recognize(content)[0] == name
