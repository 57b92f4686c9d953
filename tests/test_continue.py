"""Interrupted and continued is uninterrupted, bit for bit, for every kind of run; and each random state that a kind draws from counts."""

import shutil

import pytest
import torch
from tiny import TINY

from utils import Interrupted, runs
from utils.data import datasets, voxels
from utils.experiments import Experiment
from utils.runs import records
from utils.runs.records import Run
from utils.training import ddp

PLAIN = TINY.but(dropout=0.0, rotate=0.0)
CUBES = PLAIN.but(model="tiny_voxels", data="mnist3d", batch_size=32)
KINDS = {  # and the random states that decide the weights: of the order, of the augmentation, and the global one
    "plain": (PLAIN, {"order"}),
    "plain SGD, smoothed labels": (PLAIN.but(optimizer="sgd", schedule="constant", label_smoothing=0.1, decay_vectors=False), {"order"}),
    "heavy ball, steps": (PLAIN.but(optimizer="heavy_ball", schedule="step", drop_at=2), {"order"}),
    "averaged": (PLAIN.but(average=0.9), {"order"}),
    "augmented": (PLAIN.but(rotate=10.0, shift=2.0, scale=0.1, shear=5.0), {"order", "numbers"}),
    "part of the images": (PLAIN.but(images=700), {"order"}),
    "elastic, other pens, holes": (PLAIN.but(elastic=1.0, stroke=0.5, erase=6.0), {"order", "numbers"}),
    "dropout": (PLAIN.but(dropout=0.3), {"order", "processes"}),
    "dropout and augmentation": (TINY, {"order", "numbers", "processes"}),
    "plateau, early stopping": (PLAIN.but(valid=200, patience=3, schedule="plateau", epochs=4, keep="loss"), {"order"}),
    "not normalised": (PLAIN.but(normalise=False), {"order"}),
    "voxels": (CUBES, {"order"}),
    "voxels with dropout": (CUBES.but(dropout=0.3), {"order", "processes"}),
    "voxels drawn anew": (CUBES.but(fresh=True, rotate=5.0), {"order", "numbers"}),
}


@pytest.fixture(autouse=True)
def whole(scratch, monkeypatch):
    """Scratch runs; voxels of a few fallback digits."""
    monkeypatch.setattr(datasets, "_idx", lambda name: None)
    monkeypatch.setattr(voxels, "TRAIN", 48)
    monkeypatch.setattr(voxels, "TEST", 16)


def train(experiment: Experiment, root, **options) -> str:
    return runs.run(experiment, device="cpu", echo=False, folder=root, **options).facts.sha256


def interrupted(experiment: Experiment, root) -> Run:
    """A run of which the first epoch is done."""

    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train(experiment, root, after_epoch=stop)
    return Run.of(experiment, 0, root)


def fresh(part: str):
    """A random state as a run begins with it, not as it is after an epoch."""
    return [ddp.random_state()] if part == "processes" else torch.Generator().manual_seed(0).get_state()


@pytest.mark.parametrize("kind", KINDS)
def test_a_continued_run_has_the_bits_of_an_uninterrupted_one(kind, tmp_path):
    experiment, states = KINDS[kind]
    expected = train(experiment, tmp_path / "whole")
    interrupted(experiment, tmp_path / "order")
    for root in ("numbers", "processes", "continued"):
        shutil.copytree(tmp_path / "order", tmp_path / root)
    torch.manual_seed(1)  # the process that continues knows nothing of the one before
    assert train(experiment, tmp_path / "continued") == expected
    for part in ("order", "numbers", "processes"):
        run = Run.of(experiment, 0, tmp_path / part)
        begun, state = records.read_checkpoint(run.checkpoint)
        torch.manual_seed(1)
        records.write_checkpoint(run.checkpoint, begun, state | {part: fresh(part)})
        assert (train(experiment, tmp_path / part) != expected) == (part in states), f"without its {part}"
