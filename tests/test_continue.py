"""A continued run equals an uninterrupted one, bit for bit, for every kind; each random state that it uses counts."""

import shutil

import pytest
import torch
from tiny import TINY, interrupted, own, train

from utils.data import datasets, voxels
from utils.runs import records
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
FRESH = {part: torch.Generator().manual_seed(0).get_state() for part in ("order", "numbers")}  # as a run begins
FRESH["processes"] = [ddp.random_state()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_continued_run_has_the_bits_of_an_uninterrupted_one(kind, scratch, monkeypatch):
    for name, value in {"TRAIN": 48, "TEST": 16}.items():  # voxels of a few fallback digits
        monkeypatch.setattr(voxels, name, value)
    monkeypatch.setattr(datasets, "_idx", lambda name: None)
    experiment, states = KINDS[kind]
    expected = train(experiment, folder=scratch / "whole").facts.sha256
    interrupted(experiment, folder=scratch / "begun")
    for part, state in ({"nothing": None} | FRESH).items():
        root = shutil.copytree(scratch / "begun", scratch / part)
        checkpoint = own(experiment, root=root).checkpoint
        run_start, saved = records.read_checkpoint(checkpoint)
        records.write_checkpoint(checkpoint, run_start, saved | ({part: state} if state is not None else {}))
        torch.manual_seed(1)  # the process that continues knows nothing of the one before
        assert (train(experiment, folder=root).facts.sha256 != expected) == (part in states), f"without its {part}"
