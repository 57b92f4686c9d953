"""The confidence below which the live page doubts that a drawing is a digit: python -m tools.site.no_digit

A published network has seen every training image. So its recipe is trained once more without some of them, and the
bound is the confidence that all but a few of those held-out digits reach. Printed letters show what it is worth;
nothing is chosen on them. All that networks.json needs of it is written to logs/benchmarks/no_digit.json.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tools import command
from utils import ROOT, CourseError, files, smoke
from utils.data import photo
from utils.experiments import EXPERIMENTS
from utils.runs import facts, job, run
from utils.training.loops import predict

PATH = ROOT / "logs" / "benchmarks" / "no_digit.json"
# quick to train, and seldom sure of a letter; 1 of 50 digits may be doubted
NETWORK, HELD_OUT, SHARE = ("sprint_994", 10_000, 0.02)
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralItalic",
)
LETTERS = "ACEFHKLMNPRTUVWXYadefhkmnprtuvwxy"  # not those that could be digits: B, I, l, O, S, Z, …


def letters() -> Tensor:
    """Printed letters as MNIST's images: (N, 1, 28, 28) uint8."""
    images = []
    for font in (Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf") for name in FONTS):
        for letter in LETTERS:
            page = Image.new("L", (300, 300), 255)
            ImageDraw.Draw(page).text((150, 150), letter, 0, ImageFont.truetype(str(font), 160), anchor="mm")
            images.append(photo.read(page))
    return torch.from_numpy(np.stack(images))[:, None]


def main(argv: list[str]) -> None:
    command.Parser(prog="python -m tools.site.no_digit", description=__doc__).parse_args(argv)
    experiment = EXPERIMENTS[NETWORK].with_recipe(valid=HELD_OUT)
    job.require_committed(experiment)
    done = None if smoke() else run(experiment, publish=False)
    if done is None or done.data.name != "mnist":
        raise CourseError(
            "the bound is chosen on all of MNIST: set COURSE_DATA to its folder, and leave out COURSE_SMOKE"
        )
    held_out, printed = (
        predict(done.model, images, done.data.mean, done.data.std).softmax(1).max(1).values.double()
        for images in (done.data.valid.images, letters())
    )
    least = int(float(torch.quantile(held_out, SHARE)) * 1000) / 1000  # rounded down to what can be shown
    doubted = {"share": float((held_out < least).double().mean()), "doubted": int((printed < least).sum())}
    found = {"network": NETWORK, "least": least, "held_out": HELD_OUT, "letters": len(printed), **doubted}
    source = {"fingerprint": done.facts.data.fingerprint, "code": facts.code(), "environment": done.facts.environment}
    files.write_json(PATH, found | source | {"finished": facts.now()})
    counts = f"{doubted['share']:.2%} of the digits, {doubted['doubted']} of the letters"
    print(f"{files.display_path(PATH)}: below {least:.1%} for {counts}")


if __name__ == "__main__":
    command.main("no_digit", main)
