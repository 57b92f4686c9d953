"""A printed network reads digits: pixels of a QR code → bytes → network → score, also from a photograph of it."""

import pytest
from PIL import Image
from shapes import photograph
from tiny import TINY

from tools import export
from utils import ROOT, CourseError, runs
from utils.experiments import EXPERIMENTS
from utils.runs import records

pytest.importorskip("segno", reason="QR codes need segno (requirements-extra.txt)")
pytest.importorskip("zxingcpp", reason="QR codes need zxing-cpp (requirements-extra.txt)")


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


def test_mistakes_are_told_in_one_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    for action, message in (
        (lambda: export.main([]), "expected the NAME of a network to export, or --read FILE"),
        (lambda: export.main(["bytes_99_5", "/", "--to", "qr"]), "/ is a folder: expected the path of a file"),
        (lambda: export.main(["base", "--to", "qr"]), r"base\.bin.*Only a network whose recipe has levels"),
        (lambda: export.main(["--read", "README.md"]), "README.md is not a picture: expected PNG"),
        (lambda: export.draw(bytes(2954)), "2954 bytes: expected at most the 2953"),
        (lambda: export.scan(Image.new("L", (200, 200), 255)), "no QR code can be read"),
        (lambda: export.recognize(b"hello"), "the 5 bytes of this code are no network of the course: expected one of"),
    ):
        with pytest.raises(CourseError, match=message):
            action()


def test_a_printed_network_is_the_published_one():
    [path] = (ROOT / "pngs").glob("*_qr.png")
    name, picture = path.stem.removesuffix("_qr"), Image.open(path)
    content = (ROOT / "saved_dict" / f"{name}.bin").read_bytes()
    assert export.scan(picture) == export.scan(photograph(picture)) == content
    assert export.recognize(content)[0] == name
