"""Photographs of digits, read by a trained network: `python train.py NAME --read photo.jpg …`."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tools.report import save_picture
from utils import CourseError, models
from utils.data import photo, voxels
from utils.experiments import Experiment
from utils.files import shown
from utils.report import plots
from utils.runs import records, runs
from utils.runs.pretrained import load_pretrained


def find(experiment: Experiment, seed: int = 0) -> Path:
    """The state dict of one's own finished run of this recipe, else of the published one. Raises CourseError if there is neither."""
    mine = runs.own_run(experiment, seed)
    if mine:
        return mine.weights
    published = records.Run.of(experiment, seed)
    if seed == 0 and published.weights.is_file() and records.finished(experiment, seed):
        return published.weights
    raise CourseError(
        f"{experiment.name}, seed {seed}: no trained weights of this recipe to read with. Train it: the same words without --read"
    )


def run(experiment: Experiment, paths: list[str], seed: int = 0) -> str:
    """One line per picture, its path, digit and probability, and where the picture of what the network saw lies.

    Raises CourseError, one line with the path, for the first picture that can't be read as one digit.
    """
    weights = find(experiment, seed)
    model, preprocess = load_pretrained(weights)
    images = [_read(path) for path in paths]
    batch = torch.from_numpy(np.stack(images))
    if preprocess.kind == "voxels":  # the body of the digit, upright
        bodies = np.stack([voxels.voxelise(voxels.cloud(image)) for image in images])
        batch = torch.from_numpy(bodies.astype(np.float32)).view(-1, *(voxels.SIDE,) * 3)
    with torch.inference_mode():
        outputs = model(preprocess(batch))
    probabilities = outputs if isinstance(models.layers(model)[-1], nn.Softmax) else outputs.softmax(1)
    likely, digits = (values.tolist() for values in probabilities.max(1))
    titles = [f"{Path(path).name}: {digit}, {most:.0%}" for path, digit, most in zip(paths, digits, likely, strict=True)]
    if preprocess.kind == "voxels":
        figure = plots.solids(list(batch), titles)
    else:
        figure = plots.images(batch.unsqueeze(1), titles, columns=min(3, len(titles)))
    target = records.own_root() / "pngs" / f"{weights.stem}_read.png"
    save_picture(figure, target)
    lines = [f"{path}: {digit} ({most:.1%})" for path, digit, most in zip(paths, digits, likely, strict=True)]
    return "\n".join([*lines, f"What {experiment.name} saw: {shown(target)}"])


def _read(path: str) -> np.ndarray:
    """(28, 28) uint8. Raises CourseError with the path in front."""
    try:
        return photo.read(path)
    except CourseError as error:
        raise CourseError(str(error) if path in str(error) else f"{path}: {error}") from error
