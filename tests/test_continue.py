"""A continued run equals an uninterrupted one, bit for bit, for every kind; each random state that it uses counts."""

import shutil

import pytest
import torch
from tiny import TINY

from utils import Interrupted, runs
from utils.data import datasets, voxels
from utils.experiments import Experiment
from utils.runs import records
from utils.runs.records import RunPaths
from utils.training import ddp

PLAIN = TINY.with_recipe(dropout=0.0, rotate=0.0)
CUBES = PLAIN.with_recipe(model="tiny_voxels", data="mnist3d", batch_size=32)
SGD = {"optimizer": "sgd", "schedule": "constant", "label_smoothing": 0.1, "decay_vectors": False, "normalize": False}
AVERAGED = {"optimizer": "heavy_ball", "schedule": "step", "drop_at": 2, "average": 0.9, "levels": 5, "images": 700}
STOP = {"valid": 200, "patience": 3, "schedule": "plateau", "epochs": 4, "keep": "loss"}
KINDS = {  # and the random states that decide the weights: of the order, of the augmentation, and the global one
    "SGD, smoothed labels, not normalized": (PLAIN.with_recipe(**SGD), {"order"}),
    "heavy ball, steps, averaged, few levels, part of the images": (PLAIN.with_recipe(**AVERAGED), {"order"}),
    "plateau, early stopping": (PLAIN.with_recipe(**STOP), {"order"}),
    "elastic, other pens, holes": (PLAIN.with_recipe(elastic=1.0, stroke=0.5, erase=6.0), {"order", "numbers"}),
    "dropout and augmentation": (TINY, {"order", "numbers", "processes"}),
    "voxels with dropout": (CUBES.with_recipe(dropout=0.3), {"order", "processes"}),
    "voxels drawn anew": (CUBES.with_recipe(fresh=True, rotate=5.0), {"order", "numbers"}),
}


@pytest.fixture(autouse=True)
def whole(scratch, monkeypatch):
    """Scratch runs; voxels of a few fallback digits."""
    monkeypatch.setattr(datasets, "_idx", lambda name: None)
    monkeypatch.setattr(voxels, "TRAIN", 48)
    monkeypatch.setattr(voxels, "TEST", 16)


def train(experiment: Experiment, root, **options) -> str:
    return runs.run(experiment, device="cpu", echo=False, folder=root, **options).facts.sha256


def interrupted(experiment: Experiment, root) -> RunPaths:
    """A run of which the first epoch is done."""

    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train(experiment, root, after_epoch=stop)
    return RunPaths.of(experiment, 0, root)


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
        run = RunPaths.of(experiment, 0, tmp_path / part)
        run_start, state = records.read_checkpoint(run.checkpoint)
        torch.manual_seed(1)
        records.write_checkpoint(run.checkpoint, run_start, state | {part: fresh(part)})
        assert (train(experiment, tmp_path / part) != expected) == (part in states), f"without its {part}"
