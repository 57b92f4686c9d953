"""How often a network reads photographs of digits: in frames, in hard shadows, cropped tightly.

python -m tools.photographs [--n N]    make them from MNIST's test images, and write logs/benchmarks/photographs.json
"""

from tools import command  # isort: skip

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw

from tools.measurements import Kind, Photographs, path, photographs_section
from utils import CourseError, files
from utils.data import datasets, photo
from utils.runs import facts, load_pretrained

NETWORK, WIDE, HIGH = "bn_augmentation", 480, 400
Place = tuple[int, int, int]  # left, top and size of the digit's square


def page(random: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, Place]:
    """A digit somewhere on a page: ink (H, W) from 0 to 1, and its place."""
    size, ink = int(random.choice([84, 140, 200])), np.zeros((HIGH, WIDE))
    left, top = int(random.integers(30, WIDE - size - 29)), int(random.integers(30, HIGH - size - 29))
    digit = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    ink[top : top + size, left : left + size] = np.asarray(digit) / 255
    return ink, (left, top, size)


def drawn(draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    draw(ImageDraw.Draw(image := Image.new("L", (WIDE, HIGH))))
    return np.asarray(image) / 255


def rectangle(around: list[float], width: int) -> np.ndarray:
    return drawn(lambda brush: brush.rectangle(around, outline=255, width=width))


def box(random: np.random.Generator, place: Place) -> list[float]:
    (left, top, size), gaps = place, random.uniform(0.0, 0.3, 4) * place[2]
    return [left - gaps[0], top - gaps[1], left + size + gaps[2], top + size + gaps[3]]


def cell(random, ink, place):
    return rectangle(box(random, place), int(random.integers(1, 15)))


def circle(random, ink, place, low=0.5, high=0.7):
    (left, top, size), radius = place, place[2] * random.uniform(low, high)
    around = [left + size / 2 - radius, top + size / 2 - radius, left + size / 2 + radius, top + size / 2 + radius]
    return drawn(lambda brush: brush.ellipse(around, outline=255, width=int(random.integers(1, 12))))


def double(random, ink, place):
    left, top, right, bottom = inner = box(random, place)
    return np.maximum(rectangle(inner, 3), rectangle([left - 12, top - 12, right + 12, bottom + 12], 3))


def border(random, ink, place):
    around = [offset := int(random.integers(0, 4)), offset, WIDE - 1 - offset, HIGH - 1 - offset]
    return rectangle(around, int(random.integers(1, 20)))


def partial(random, ink, place):
    left, top, right, bottom = box(random, place)
    corners = [left, bottom, left, top, right, top, right, bottom]
    return drawn(lambda brush: brush.line(corners[: 2 * int(random.integers(3, 5))], 255, int(random.integers(1, 10))))


def touching(random, ink, place):
    (rows, columns), gap = np.nonzero(ink > 0.5), random.uniform(0.05, 0.3, 2) * place[2]
    around = [columns.min(), rows.min() - gap[0], columns.max() + gap[1], rows.max()]
    return rectangle(around, int(random.integers(2, 8)))


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


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.photographs", description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="photographs of each kind (default: 200)")
    n, mnist = parser.parse_args(argv).n, datasets.load("mnist")
    if mnist.name != "mnist" or not 1 <= n <= len(mnist.test):
        raise CourseError(f"--n {n}: expected 1 to {len(mnist.test)} of the real MNIST's test images (COURSE_DATA)")
    model, preprocess = load_pretrained(NETWORK)
    found = {kind: measure(kind, mnist.test, n, lambda image: int(model(preprocess(image)).argmax())) for kind in KINDS}
    where = facts.environment(torch.device("cpu"))
    files.write_json(path("photographs"), Photographs(NETWORK, found, facts.code(), where, facts.now()))
    print(photographs_section())


if __name__ == "__main__":
    command.main("photographs", main)
