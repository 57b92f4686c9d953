"""How often a network reads photographs of digits: in frames, in hard shadows, cropped tightly. Made of MNIST's test
images.

python -m tools.photographs [--n N]    write logs/benchmarks/photographs.json
"""

from tools import command  # isort: skip

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw

from utils import CourseError, files
from utils.data import datasets, photo
from utils.report.photographs import KINDS, PATH, Kind, Photographs, section
from utils.runs import facts, load_pretrained

NETWORK, WIDE, HIGH = "bn_augmentation", 480, 400
Place = tuple[int, int, int]  # left, top and size of the digit's square


def page(random: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, Place]:
    """A digit somewhere on a page: ink (H, W) from 0 to 1, and its place."""
    size, ink = int(random.choice([84, 140, 200])), np.zeros((HIGH, WIDE))
    left, top = int(random.integers(30, WIDE - size - 29)), int(random.integers(30, HIGH - size - 29))
    ink[top : top + size, left : left + size] = (
        np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) / 255
    )
    return ink, (left, top, size)


def drawn(draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    draw(ImageDraw.Draw(image := Image.new("L", (WIDE, HIGH))))
    return np.asarray(image) / 255


def box(random: np.random.Generator, place: Place) -> list[float]:
    (left, top, size), gaps = place, random.uniform(0.0, 0.3, 4) * place[2]
    return [left - gaps[0], top - gaps[1], left + size + gaps[2], top + size + gaps[3]]


def cell(random, ink, place):
    return drawn(lambda brush: brush.rectangle(box(random, place), outline=255, width=int(random.integers(1, 15))))


def circle(random, ink, place, low=0.5, high=0.7):
    (left, top, size), radius = place, place[2] * random.uniform(low, high)
    around = [left + size / 2 - radius, top + size / 2 - radius, left + size / 2 + radius, top + size / 2 + radius]
    return drawn(lambda brush: brush.ellipse(around, outline=255, width=int(random.integers(1, 12))))


def double(random, ink, place):
    left, top, right, bottom = inner = box(random, place)
    both = inner, [left - 12, top - 12, right + 12, bottom + 12]
    return drawn(lambda brush: [brush.rectangle(one, outline=255, width=3) for one in both])


def border(random, ink, place):
    around = [offset := int(random.integers(0, 4)), offset, WIDE - 1 - offset, HIGH - 1 - offset]
    return drawn(lambda brush: brush.rectangle(around, outline=255, width=int(random.integers(1, 20))))


def partial(random, ink, place):
    left, top, right, bottom = box(random, place)
    corners = [left, bottom, left, top, right, top, right, bottom]
    return drawn(lambda brush: brush.line(corners[: 2 * int(random.integers(3, 5))], 255, int(random.integers(1, 10))))


def touching(random, ink, place):
    (rows, columns), gap = np.nonzero(ink > 0.5), random.uniform(0.05, 0.3, 2) * place[2]
    around = [columns.min(), rows.min() - gap[0], columns.max() + gap[1], rows.max()]
    return drawn(lambda brush: brush.rectangle(around, outline=255, width=int(random.integers(2, 8))))


FRAMES = {
    "form cell": cell,
    "circle": circle,
    "double frame": double,
    "screenshot border": border,
    "part of a frame": partial,
}
FRAMES |= {
    "frame that touches the digit": touching,
    "circle that crosses the digit": lambda *page: circle(*page, 0.28, 0.36),
}


def shadow(random: np.random.Generator, place: Place) -> np.ndarray:
    """The light (H, W) on a page that a straight edge shades, across the digit."""
    (left, top, size), angle = place, random.uniform(0, 2 * np.pi)
    down, right = np.mgrid[:HIGH, :WIDE]
    beyond = (
        (right - left - size / 2) * np.cos(angle)
        + (down - top - size / 2) * np.sin(angle)
        + random.uniform(-0.2, 0.2) * size
    )
    return 1 - random.uniform(0.3, 0.65) / (1 + np.exp(np.clip(beyond / random.uniform(0.5, 4), -50, 50)))


def photograph(kind: str, random: np.random.Generator, image: np.ndarray) -> Image.Image:
    """A test image as a photograph of this kind: dark on light, or (but in shadows) light on dark; with a sensor's
    noise."""
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
            correct += predict(photo.read(photograph(kind, random, test.images[row, 0].numpy()))) == int(
                test.labels[row]
            )
        except CourseError:
            rejected += 1
    return Kind(n, int(correct), rejected, n - int(correct) - rejected)


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.photographs", description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="photographs of each kind (default: 200)")
    n, mnist = parser.parse_args(argv).n, datasets.load("mnist")
    if mnist.name != "mnist" or not 1 <= n <= len(mnist.test):
        raise CourseError(
            f"--n {n}: expected 1 to {len(mnist.test)} of MNIST's test images (set COURSE_DATA, leave out COURSE_SMOKE)"
        )
    model, preprocess = load_pretrained(NETWORK)
    found = {kind: measure(kind, mnist.test, n, lambda image: int(model(preprocess(image)).argmax())) for kind in KINDS}
    files.write_json(
        PATH, Photographs(NETWORK, found, facts.code(), facts.environment(torch.device("cpu")), facts.now())
    )
    print(section())


if __name__ == "__main__":
    command.main("photographs", main)
