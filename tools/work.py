"""What the benchmark times: each row's work, once by the course and once the usual way."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tools import baseline
from utils import ROOT, CourseError, models
from utils.data import voxels
from utils.data.augment import augmentation
from utils.data.datasets import Dataset
from utils.experiments import EXPERIMENTS, Recipe
from utils.training import cpu
from utils.training.loops import Training, evaluate, fit, normalise, train_epoch

CPU = torch.device("cpu")
BN, SPRINT, SPRINT_994, BEST = (EXPERIMENTS[name].recipe for name in ("bn_augmentation", "sprint", "sprint_994", "frontier_best"))
VOXELS = EXPERIMENTS["voxel_reference"].recipe
TUNED = {"OMP_PROC_BIND": "true", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # what `make train` sets, and the usual way does not
USUAL = dict.fromkeys(TUNED, "") | {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}  # OpenMP's own defaults, which utils may change
MEASURED = dict[str, float]  # seconds, loading, peak_mib, seed, and what the work says of itself: epochs, accuracy, rows


@dataclass(frozen=True)
class Side:
    """One way to do a row's work: work(data, seed).

    tuned: as the course trains, with freed memory kept, threads that stay on their cores and large pages (see Makefile).
    untouched: by the settings that a reader's own command finds; else by those that OpenMP brings, which the course changes.
    warm_up: what is done before the clock starts, since a process compiles its kernels on its first step.
    """

    work: Callable[[Dataset, int], MEASURED | None]
    tuned: bool = False
    warm_up: Callable[[], None] = lambda: None
    untouched: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a table: what is done, in several ways. data: which data set is loaded before, if any."""

    sides: dict[str, Side]
    data: str | None = "mnist"


def in_fresh_process(*words: str, **environment: str) -> MEASURED:
    """What `python -m tools.bench *words` prints as JSON on its last line."""
    command = [sys.executable, "-m", "tools.bench", *words]
    variables = {key: value for key, value in {**os.environ, **environment}.items() if value}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, check=False)
    if ended.returncode:
        raise CourseError(f"{' '.join(words)} failed: {ended.stderr.strip()[-400:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def network(recipe: Recipe, device: torch.device = CPU) -> nn.Module:
    """A recipe's network as the course trains it."""
    return cpu.prepare(models.build(recipe.model, recipe.dropout), device)


def warm_up(build: Callable[[], nn.Module], recipe: Recipe) -> Callable[[], None]:
    """A step of a throwaway network at both of an epoch's batch sizes, in the layout in which it will be trained."""

    def steps() -> None:
        model = build()
        for size in (recipe.batch_size, 60_000 % recipe.batch_size or recipe.batch_size):
            F.cross_entropy(model(torch.zeros(size, 1, 28, 28)), torch.zeros(size, dtype=torch.long)).backward()

    return steps


def batches(data: Dataset, seed: int) -> None:
    """Every batch of an epoch of bn_augmentation, ready for the network, where the data lie."""
    device = data.train.labels.device
    augment = augmentation(BN, torch.Generator(device).manual_seed(seed))
    for rows in torch.randperm(len(data.train)).to(device).split(BN.batch_size):
        normalise(augment(data.train.images.index_select(0, rows), rows), data.mean, data.std)


def usual_batches(workers: int) -> Callable[[Dataset, int], None]:
    def work(data: Dataset, _seed: int) -> None:
        for _batch in baseline.loader(data, BN, workers):
            pass

    return work


def epoch(recipe: Recipe) -> Callable[[Dataset, int], None]:
    """One training epoch of a recipe."""

    def work(data: Dataset, seed: int) -> None:
        train_epoch(Training(network(recipe, data.train.labels.device), recipe, seed, len(data.train)), data)

    return work


def train(recipe: Recipe) -> Callable[[Dataset, int], MEASURED]:
    """A whole published recipe, its test after each epoch included."""

    def work(data: Dataset, seed: int) -> MEASURED:
        model = network(recipe, data.train.labels.device)
        history = fit(model, data, recipe, seed, echo=False)
        return {"epochs": len(history), "accuracy": evaluate(model, data.test, data.mean, data.std).percent}

    return work


def usual_train(target: float) -> Callable[[Dataset, int], MEASURED]:
    def work(data: Dataset, seed: int) -> MEASURED:
        accuracies = baseline.train_example(data, target, seed=seed)
        return {"epochs": len(accuracies), "accuracy": max(accuracies)}

    return work


def as_example(model: nn.Module, recipe: Recipe, seed: int, images: int) -> Training:
    """A training with the optimizer and schedule of PyTorch's example instead of the recipe's."""
    training = Training(model, recipe, seed, images)
    training.optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    training.scheduler = torch.optim.lr_scheduler.StepLR(training.optimizer, math.ceil(images / recipe.batch_size), 0.7)
    return training


def example_epoch(keep: bool, prepare: bool) -> Callable[[Dataset, int], None]:
    """One epoch of PyTorch's example by the course's loop. keep: freed memory; prepare: the network's memory layout."""

    def work(data: Dataset, seed: int) -> None:
        if keep:
            cpu.keep_memory()
        model = cpu.prepare(baseline.example_network(), CPU) if prepare else baseline.example_network()
        train_epoch(as_example(model, baseline.EXAMPLE, seed, len(data.train)), data)

    return work


def to_99(recipe: Recipe, begin: Callable[[nn.Module, Recipe, int, int], Training] = Training) -> Side:
    """Train anew for 1, 2, 3 … epochs until the last one's test accuracy is 99 %; seconds: of that training alone, without its test."""

    def work(data: Dataset, seed: int) -> MEASURED:
        for epochs in range(1, 15):
            torch.manual_seed(seed)
            model = network(recipe)
            training = begin(model, replace(recipe, epochs=epochs), seed, len(data.train))
            start = time.perf_counter()
            for _ in range(epochs):
                train_epoch(training, data)
            seconds = time.perf_counter() - start
            accuracy = evaluate(model, data.test, data.mean, data.std).percent
            if accuracy >= 99:
                break
        return {"seconds": seconds, "epochs": epochs, "accuracy": accuracy}

    return Side(work, True, warm_up(lambda: network(recipe), recipe))


def machine_steps() -> dict[str, Side]:
    """What makes an epoch of PyTorch's example cheaper and changes nothing that it learns: one change at a time."""
    return {
        "PyTorch's example, DataLoader": Side(lambda data, _seed: baseline.example_epoch(data)),
        "the images as one tensor on the device": Side(example_epoch(False, False)),
        "freed memory is kept": Side(example_epoch(True, False)),
        "channels-last": Side(example_epoch(True, True)),
        "threads stay on their cores, memory in large pages": Side(example_epoch(True, True), tuned=True),
    }


def recipe_steps() -> dict[str, Side]:
    """What changes what is learned, from PyTorch's example to sprint: one change at a time, each trained to 99 %."""
    batch = baseline.EXAMPLE.batch_size
    large = replace(SPRINT, images=0)
    small = replace(large, batch_size=batch, lr=SPRINT.lr * batch / SPRINT.batch_size)
    bare = replace(small, weight_decay=0.0, label_smoothing=0.0)
    return {
        "the network of sprint": to_99(bare, as_example),
        "Nesterov's momentum and one cycle": to_99(bare),
        "weight decay": to_99(replace(small, label_smoothing=0.0)),
        "smoothed labels": to_99(small),
        "larger batches at a higher rate": to_99(large),
        f"epochs of {SPRINT.images:,} images: sprint": to_99(SPRINT),
    }


def sixty(data: Dataset) -> np.ndarray:
    return data.test.images[:60, 0].numpy()


BN_EPOCH = "training epoch of bn_augmentation"
# Of a compared row the first side is the course's; the others are the usual ways, the best of which counts.
COMPARED = {
    "augmented batches, one epoch": Row(
        {
            "course": Side(batches, tuned=True),
            "DataLoader, 0 workers": Side(usual_batches(0)),
            "DataLoader, 2 workers": Side(usual_batches(2)),
        }
    ),
    BN_EPOCH: Row(
        {
            "course": Side(epoch(BN), True, warm_up(lambda: network(BN), BN)),
            **{
                f"DataLoader, {workers} workers": Side(
                    lambda data, _seed, workers=workers: baseline.recipe_epoch(data, BN, workers),
                    warm_up=warm_up(lambda: models.build(BN.model), BN),
                )
                for workers in (0, 2)
            },
        }
    ),
    **{
        f"time to {target:g} %": Row(
            {
                "course": Side(train(recipe), True, warm_up(lambda recipe=recipe: network(recipe), recipe)),
                "PyTorch's example": Side(usual_train(target), warm_up=warm_up(baseline.example_network, baseline.EXAMPLE)),
            }
        )
        for target, recipe in ((99.0, SPRINT), (99.4, SPRINT_994))
    },
    "3D-MNIST rows of 60 digits": Row(
        {
            "course": Side(lambda data, seed: {"rows": len(voxels.pairs(sixty(data), (seed,)))}, tuned=True),
            "plain Python": Side(lambda data, _seed: {"rows": sum(len(baseline.plain_pair(*one[::-1])) for one in enumerate(sixty(data)))}),
        }
    ),
    "training epoch of voxel_reference": Row(
        {
            "course": Side(epoch(VOXELS), tuned=True),
            "DataLoader of RGB arrays": Side(lambda cubes, _seed: baseline.voxel_epoch(cubes, VOXELS)),
        },
        data="mnist3d",
    ),
}
# from the usual way to the course's, step by step: an epoch of the example, then trainings to 99 %
MACHINE_STEPS, RECIPE_STEPS = (
    "one epoch of PyTorch's example, changed step by step",
    "from PyTorch's example to sprint, changed step by step",
)
STEPS = {MACHINE_STEPS: Row(machine_steps()), RECIPE_STEPS: Row(recipe_steps())}
