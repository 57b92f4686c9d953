"""Photographs of digits, read by a network: those of a reader (`python train.py NAME --read photo.jpg …`), and how
often reading succeeds: in frames, in hard shadows, cropped tightly.

python -m tools.photographs            make them from MNIST's test images, and write logs/benchmarks/photographs.json
python -m tools.photographs --bound    choose the confidence below which the live page doubts that a drawing is a digit,
                                       and write logs/benchmarks/no_digit.json
"""

from tools import command  # isort: skip

import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tools import measurements
from tools.measurements import Kind, NoDigit, Photographs
from tools.report import save_picture
from utils import CourseError, files, models, runs
from utils.data import datasets, photo, voxels
from utils.experiments import EXPERIMENTS, Experiment
from utils.files import display_path, shorten
from utils.report import plots
from utils.runs import facts, job, load_pretrained, records
from utils.training.loops import predict

DRAWN = 30  # pictures in the figure, at most
NETWORK, N, WIDE, HIGH = "bn_augmentation", 200, 480, 400  # photographs of each kind; pixels
# the network behind the bound is quick to train, and seldom sure of a letter; 1 of 50 digits may be doubted
DOUBTER, HELD_OUT, SHARE = "sprint_994", 10_000, 0.02
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSansMono")
FONTS += ("STIXGeneral", "STIXGeneralItalic")
LETTERS = "ACEFHKLMNPRTUVWXYadefhkmnprtuvwxy"  # not those that could be digits: B, I, l, O, S, Z, …
Place = tuple[int, int, int]  # left, top and size of the digit's square


# ---- a reader's


def read_all(experiment: Experiment, paths: list[str], seed: int = 0) -> str:
    """Print one line per picture: its path, digit and probability. Returns where the drawing of the inputs is.

    Raises CourseError without trained weights, and at the end for pictures that can't be read as one digit.
    """
    run = runs.load(experiment, seed, echo=False)
    if run.model is None:
        why = "no trained weights of this recipe found. Train it: repeat the command without --read"
        raise CourseError(f"{experiment.name}, seed {seed}: {why}")
    model, preprocess = load_pretrained(run.weights)
    inputs, titles, rejections = [], [], []
    for path in paths:
        try:
            inputs.append(_input(path, preprocess.kind))
        except CourseError as error:
            rejections.append(str(error))
            continue
        with torch.inference_mode():
            most, digit = models.probabilities(model, model(preprocess(inputs[-1])))[0].max(0)
        print(f"{shorten(path)}: {digit} ({most:.1%})", flush=True)
        titles.append(f"{shorten(Path(path).name, 24)}: {digit}, {most:.0%}")
    target = records.own_root() / "pngs" / f"{run.weights.stem}_read.png"
    where = f"What {experiment.name} saw: {display_path(target)}" if inputs else ""
    if inputs:
        _draw(inputs[:DRAWN], titles[:DRAWN], preprocess.kind, target)
    if rejections:
        if where:
            print(where)
        count = f"{len(rejections)} of {len(paths)} pictures could not be read as one digit: " if len(paths) > 1 else ""
        raise CourseError(count + "; ".join(rejections))
    return where


def _draw(inputs: list[Tensor], titles: list[str], kind: str, target: Path) -> None:
    if kind == "voxels":
        figure = plots.solids(inputs, titles)
    else:
        figure = plots.images(torch.stack(inputs)[:, None], titles, min(3, len(titles)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # characters that the font lacks are drawn as boxes
        save_picture(figure, target)


def _input(path: str, kind: str) -> Tensor:
    """The input of a network for a photograph: (28, 28) uint8, or the digit's upright voxel grid."""
    try:
        image = photo.read(path)
    except CourseError as error:
        name = shorten(path)
        raise CourseError(str(error) if name in str(error) else f"{name}: {error}") from error
    if kind == "voxels":
        return torch.from_numpy(voxels.voxelize(voxels.cloud(image)).astype(np.float32)).view((voxels.SIDE,) * 3)
    return torch.from_numpy(image)


# ---- made from test images


def page(random: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, Place]:
    """A digit somewhere on a page: ink (H, W) from 0 to 1, and its place."""
    size, ink = int(random.choice([84, 140, 200])), np.zeros((HIGH, WIDE))
    left, top = int(random.integers(30, WIDE - size - 29)), int(random.integers(30, HIGH - size - 29))
    digit = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    ink[top : top + size, left : left + size] = np.asarray(digit) / 255
    return ink, (left, top, size)


def drawn(shape: str, around: list[float], width: int) -> np.ndarray:
    """The ink (H, W) of a shape of ImageDraw's: rectangle, ellipse or line."""
    image = Image.new("L", (WIDE, HIGH))
    color = {"fill": 255} if shape == "line" else {"outline": 255}
    getattr(ImageDraw.Draw(image), shape)(around, width=width, **color)
    return np.asarray(image) / 255


def box(random: np.random.Generator, place: Place) -> list[float]:
    (left, top, size), gaps = place, random.uniform(0.0, 0.3, 4) * place[2]
    return [left - gaps[0], top - gaps[1], left + size + gaps[2], top + size + gaps[3]]


def cell(random, ink, place):
    return drawn("rectangle", box(random, place), int(random.integers(1, 15)))


def circle(random, ink, place, low=0.5, high=0.7):
    (left, top, size), radius = place, place[2] * random.uniform(low, high)
    around = [left + size / 2 - radius, top + size / 2 - radius, left + size / 2 + radius, top + size / 2 + radius]
    return drawn("ellipse", around, int(random.integers(1, 12)))


def double(random, ink, place):
    left, top, right, bottom = inner = box(random, place)
    outer = [left - 12, top - 12, right + 12, bottom + 12]
    return np.maximum(drawn("rectangle", inner, 3), drawn("rectangle", outer, 3))


def border(random, ink, place):
    around = [offset := int(random.integers(0, 4)), offset, WIDE - 1 - offset, HIGH - 1 - offset]
    return drawn("rectangle", around, int(random.integers(1, 20)))


def partial(random, ink, place):
    left, top, right, bottom = box(random, place)
    corners = [left, bottom, left, top, right, top, right, bottom][: 2 * int(random.integers(3, 5))]
    return drawn("line", corners, int(random.integers(1, 10)))


def touching(random, ink, place):
    (rows, columns), gap = np.nonzero(ink > 0.5), random.uniform(0.05, 0.3, 2) * place[2]
    around = [columns.min(), rows.min() - gap[0], columns.max() + gap[1], rows.max()]
    return drawn("rectangle", around, int(random.integers(2, 8)))


FRAMES = {
    "form cell": cell,
    "circle": circle,
    "double frame": double,
    "screenshot border": border,
    "part of a frame": partial,
    "frame that touches the digit": touching,
    "circle that crosses the digit": lambda *page: circle(*page, 0.28, 0.36),
}
KINDS = ("plain page", "hard shadow", "tight crop", *FRAMES)


def shadow(random: np.random.Generator, place: Place) -> np.ndarray:
    """The light (H, W) on a page that a straight edge shades, across the digit."""
    (left, top, size), angle = place, random.uniform(0, 2 * np.pi)
    down, right = np.mgrid[:HIGH, :WIDE]
    across = (right - left - size / 2) * np.cos(angle) + (down - top - size / 2) * np.sin(angle)
    beyond = across + random.uniform(-0.2, 0.2) * size
    return 1 - random.uniform(0.3, 0.65) / (1 + np.exp(np.clip(beyond / random.uniform(0.5, 4), -50, 50)))


def photograph(kind: str, random: np.random.Generator, image: np.ndarray) -> Image.Image:
    """A test image as a photograph of this kind, with noise: dark on light, or (but in shadows) light on dark."""
    ink, place = page(random, image)
    if kind == "tight crop":
        rows, columns = (np.flatnonzero((ink > 0.25).any(axis)) for axis in (1, 0))
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    marks = np.maximum(ink, FRAMES[kind](random, ink, place)) if kind in FRAMES else ink
    paper, tone = (0.92, 0.12) if kind == "hard shadow" or random.random() < 0.6 else (0.12, 0.92)
    light = (paper + (tone - paper) * marks) * (shadow(random, place) if kind == "hard shadow" else 1)
    return Image.fromarray(((light + random.normal(0, 0.01, light.shape)).clip(0, 1) * 255).astype(np.uint8))


def measure(kind: str, test: datasets.Split, n: int, predict: Callable[[np.ndarray], int]) -> Kind:
    random, correct, rejected = np.random.default_rng(0), 0, 0
    for row in random.choice(len(test), n, replace=False):
        try:
            digit = predict(photo.read(photograph(kind, random, test.images[row, 0].numpy())))
            correct += int(digit == int(test.labels[row]))
        except CourseError:
            rejected += 1
    return Kind(n, correct, rejected, n - correct - rejected)


# ---- the bound of doubt


def letters() -> Tensor:
    """Printed letters as MNIST's images: (N, 1, 28, 28) uint8."""
    images = []
    for font in (Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf") for name in FONTS):
        for letter in LETTERS:
            page = Image.new("L", (300, 300), 255)
            ImageDraw.Draw(page).text((150, 150), letter, 0, ImageFont.truetype(str(font), 160), anchor="mm")
            images.append(photo.read(page))
    return torch.from_numpy(np.stack(images))[:, None]


def measure_bound() -> None:
    """Write the confidence that all but a few held-out digits reach.

    A published network has seen every training image, so its recipe is trained once more without some of them. Printed
    letters show what the bound is worth; nothing is chosen on them.
    """
    experiment = EXPERIMENTS[DOUBTER].with_recipe(valid=HELD_OUT)
    job.require_publishable(experiment, measurements.whole_mnist())
    done = runs.run(experiment, publish=False)
    held_out, printed = (
        predict(done.model, images, done.data.mean, done.data.std).softmax(1).max(1).values.double()
        for images in (done.data.valid.images, letters())
    )
    least = int(float(torch.quantile(held_out, SHARE)) * 1000) / 1000  # rounded down to what can be shown
    counts = {"share": float((held_out < least).double().mean()), "held_out": HELD_OUT}
    counts |= {"doubted": int((printed < least).sum()), "letters": len(printed)}
    source = {"fingerprint": done.facts.data.fingerprint, "code": facts.code(), "environment": done.facts.environment}
    found = NoDigit(DOUBTER, least, **counts, **source, finished=facts.now())
    target = measurements.path("no_digit")
    files.write_json(target, found)
    print(
        f"{display_path(target)}: below {least:.1%} for {found.share:.2%} of the digits, {found.doubted} of the letters"
    )


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.photographs", description=__doc__)
    parser.add_argument("--bound", action="store_true", help="measure the bound of doubt instead")
    options = parser.parse_args(argv)
    if options.bound:
        return measure_bound()
    test = measurements.whole_mnist().test
    model, preprocess = load_pretrained(NETWORK)
    found = {kind: measure(kind, test, N, lambda image: int(model(preprocess(image)).argmax())) for kind in KINDS}
    where = facts.environment(torch.device("cpu"))
    files.write_json(measurements.path("photographs"), Photographs(NETWORK, found, facts.code(), where, facts.now()))
    print(measurements.photographs_section())


if __name__ == "__main__":
    command.main("photographs", main)
