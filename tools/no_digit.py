"""When the live page says that a drawing looks like no digit: below which confidence, chosen on digits that the network has not seen.

python -m tools.no_digit    train once with held-out images, choose, write logs/benchmarks/no_digit.json

A published network has seen every training image. So its recipe is trained once more, without some of them, and the confidence is taken
that all but a few of those held-out digits reach. Letters, printed in the fonts that matplotlib brings, show what the bound is worth;
nothing is chosen on them.
"""

from tools import command  # isort: skip

from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils import ROOT, CourseError, files, smoke
from utils.data import photo
from utils.experiments import EXPERIMENTS
from utils.runs import facts, job, run
from utils.training.loops import predict

PATH = ROOT / "logs" / "benchmarks" / "no_digit.json"
NETWORK, HELD_OUT, SHARE = "sprint_994", 10_000, 0.02  # quick to train, and seldom sure of a letter; 1 of 50 digits may be doubted
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "STIXGeneralItalic")
LETTERS = "ACEFHKLMNPRTUVWXYadefhkmnprtuvwxy"  # not those that could be digits: B, I, l, O, S, Z, …


@dataclass(frozen=True)
class NoDigit:
    """Where the bound comes from. least: the probability of the likeliest digit below which a picture is doubted; share: of the
    held-out digits that stay below it; letters, doubted: printed letters, and how many of them stay below it."""

    network: str
    least: float
    share: float
    held_out: int
    letters: int
    doubted: int
    fingerprint: str
    code: facts.Code
    environment: facts.Environment
    finished: str


def letters() -> np.ndarray:
    """Printed letters, MNIST's way: (N, 28, 28) uint8."""
    images = []
    for font in FONTS:
        type_ = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"), 160)
        for letter in LETTERS:
            page = Image.new("L", (300, 300), 255)
            ImageDraw.Draw(page).text((150, 150), letter, 0, type_, anchor="mm")
            images.append(photo.read(page))
    return np.stack(images)


def bound(confidence: Tensor, share: float = SHARE) -> float:
    """The confidence below which `share` of (N,) confidences lie, rounded down to what can be shown."""
    return int(float(torch.quantile(confidence.double(), share)) * 1000) / 1000


def main(words: list[str]) -> None:
    command.Parser(prog="python -m tools.no_digit", description=__doc__).parse_args(words)
    refused = "the bound is chosen on all of MNIST: set COURSE_DATA to the folder that holds it, and leave out COURSE_SMOKE"
    if smoke():
        raise CourseError(refused)
    published = EXPERIMENTS[NETWORK]
    shorter = replace(published, recipe=replace(published.recipe, valid=HELD_OUT))
    job.require_committed(shorter)
    done = run(shorter, publish=False)
    if done.data.name != "mnist":
        raise CourseError(refused)

    def confidence(images: Tensor) -> Tensor:
        return predict(done.model, images, done.data.mean, done.data.std).softmax(1).max(1).values

    digits = confidence(done.data.valid.images)
    printed = confidence(torch.from_numpy(letters())[:, None])
    least = bound(digits)
    found = NoDigit(
        network=NETWORK,
        least=least,
        share=float((digits < least).double().mean()),
        held_out=len(digits),
        letters=len(printed),
        doubted=int((printed < least).sum()),
        fingerprint=done.facts.data.fingerprint,
        code=facts.code(),
        environment=done.facts.environment,
        finished=facts.now(),
    )
    files.write_json(PATH, found)
    seldom = f"{found.share:.2%} of {found.held_out:,} digits and {found.doubted} of {found.letters} letters"
    print(f"{files.shown(PATH)}: below {least:.1%} for {seldom}")


if __name__ == "__main__":
    command.main("no_digit", main)
