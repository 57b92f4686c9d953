"""Photographs of digits, read by a trained network: `python train.py NAME --read photo.jpg …`."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tools.report import save_picture
from utils import CourseError, models, runs
from utils.data import photo, voxels
from utils.experiments import Experiment
from utils.files import display_path, shorten
from utils.report import plots
from utils.runs import load_pretrained, records

DRAWN = 30  # pictures in the figure, at most


def find(experiment: Experiment, seed: int = 0) -> Path:
    """The state dict of your own finished run of this recipe, or of the published one. Raises CourseError."""
    found = runs.load(experiment, seed, echo=False)
    if found.model is None:
        why = "no trained weights of this recipe found. Train it: repeat the command without --read"
        raise CourseError(f"{experiment.name}, seed {seed}: {why}")
    return found.weights


def run(experiment: Experiment, paths: list[str], seed: int = 0) -> str:
    """Print one line per picture: its path, digit and probability. Returns where the drawing of the inputs is.

    Pictures that can't be read as one digit get a line too; at the end they raise CourseError.
    """
    weights = find(experiment, seed)
    model, preprocess = load_pretrained(weights)
    inputs, titles, rejections = [], [], []
    for path in paths:
        try:
            image = _input(path, preprocess.kind)
        except CourseError as error:
            rejections.append(str(error))
            if len(paths) > 1:
                print(error, flush=True)
            continue
        digit, most = _answer(model, preprocess(image))
        print(f"{shorten(path)}: {digit} ({most:.1%})", flush=True)
        if len(inputs) < DRAWN:
            inputs.append(image)
            titles.append(f"{shorten(Path(path).name, 24)}: {digit}, {most:.0%}")
    where = ""
    if inputs:
        draw = plots.solids if preprocess.kind == "voxels" else _gallery
        target = records.own_root() / "pngs" / f"{weights.stem}_read.png"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # characters that the font lacks are drawn as boxes
            save_picture(draw(inputs, titles), target)
        first = f" (the first {DRAWN} pictures)" if len(paths) - len(rejections) > DRAWN else ""
        where = f"What {experiment.name} saw{first}: {display_path(target)}"
    if rejections:
        if where:
            print(where)
        count = f"{len(rejections)} of {len(paths)} pictures could not be read as one digit: " if len(paths) > 1 else ""
        raise CourseError(f"{count}{rejections[0]}")
    return where


def _gallery(inputs: list[Tensor], titles: list[str]) -> plots.Figure:
    return plots.images(torch.stack(inputs)[:, None], titles, columns=min(3, len(titles)))


def _answer(model: nn.Module, batch: Tensor) -> tuple[int, float]:
    """The most probable digit and its probability."""
    with torch.inference_mode():
        probabilities = models.probabilities(model, model(batch))
    return int(probabilities.argmax()), float(probabilities.max())


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
