"""A network as a QR code, to print and to read back from a picture.

python -m tools.qr NAME [FILE]    write the packed file of NAME as a QR code (default: pngs/NAME_qr.png, or below runs/)
python -m tools.qr --read FILE    read the network in a picture of such a code, and evaluate it on the test images

NAME: a network whose recipe has levels (see utils/runs/packed.py), published or a run of your own. The largest code,
version 40, holds 2,953 bytes (ISO/IEC 18004). Needs the packages of requirements-extra.txt.
"""

from tools import command  # isort: skip

import io
from pathlib import Path

from PIL import Image
from torch import nn

from utils import ROOT, CourseError, files
from utils.data import datasets, photo
from utils.experiments import EXPERIMENTS
from utils.files import display_path
from utils.runs import packed
from utils.runs.pretrained import find_weights
from utils.runs.records import own_root
from utils.training.loops import evaluate

PIXELS = 4  # the side of a module, the smallest square of a code


def draw(content: bytes) -> bytes:
    """Bytes as a QR code in a PNG picture. Raises CourseError without segno, and for too many bytes."""
    segno, picture = command.need("segno"), io.BytesIO()
    try:
        segno.make_qr(content, error="L", mode="byte").save(picture, kind="png", scale=PIXELS)
    except segno.DataOverflowError as error:
        raise CourseError(f"{len(content)} bytes: expected at most the 2953 that a QR code holds") from error
    return picture.getvalue()


def scan(picture: Image.Image) -> bytes:
    """The bytes of the QR code in a picture. Raises CourseError without zxing-cpp, and if no code is readable."""
    zxingcpp = command.need("zxingcpp")
    found = zxingcpp.read_barcode(picture.convert("L"), formats=zxingcpp.BarcodeFormat.QRCode)
    if not found:
        raise CourseError("no QR code can be read in this picture: expected a sharp one with a white margin")
    return found.bytes


def recognize(content: bytes) -> tuple[str, nn.Module, float, float]:
    """The experiment whose network the bytes hold, the network, and its pixels' mean and standard deviation."""
    for experiment in EXPERIMENTS.values():
        if experiment.recipe.levels:
            try:
                return experiment.name, *packed.read(content, experiment.recipe.model)
            except CourseError:
                continue
    names = ", ".join(e.name for e in EXPERIMENTS.values() if e.recipe.levels)
    raise CourseError(f"the {len(content)} bytes of this code are no network of the course: expected one of {names}")


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.qr", description=__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path)
    parser.add_argument("--read", metavar="FILE", type=Path)
    options = parser.parse_args(argv)
    if (options.name is None) == (options.read is None):
        raise CourseError("expected the NAME of a network to draw, or --read FILE")
    if options.read:
        name, model, mean, std = recognize(scan(photo.open_picture(options.read)))
        test = datasets.load("mnist")
        score = evaluate(model, test.test, mean, std)
        right = f"{score.correct} of {score.total} test images of {test.name} are right"
        print(f"{display_path(options.read)} holds {name}: {right}")
        return
    weights = find_weights(options.name)
    content = files.read(weights.with_suffix(".bin"), "Only a network whose recipe has levels has such a file.")
    root = ROOT if weights.parent.parent == ROOT else own_root()
    path = options.file or root / "pngs" / f"{weights.stem}_qr.png"
    files.write(path, draw(content))
    print(f"{display_path(path)}: {len(content)} bytes")


if __name__ == "__main__":
    command.main("qr", main)
