"""What the benchmark times: each row's work by the course, and in other ways."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tools.measurements import BN_EPOCH, MACHINE_STEPS, MEASURED, RECIPE_STEPS, TO_99
from tools.speed import baseline
from utils import ROOT, CourseError, models
from utils.data import datasets, voxels
from utils.data.augment import augmentation
from utils.data.datasets import Dataset
from utils.experiments import EXPERIMENTS, Recipe
from utils.training import devices
from utils.training.loops import Training, evaluate, fit, make_optimizer, make_scheduler, normalize, train_epoch

CPU = torch.device("cpu")
NAMES = ("bn_augmentation", "sprint", "sprint_994", "voxel_reference")
BN, SPRINT, SPRINT_994, VOXELS = (EXPERIMENTS[name].recipe for name in NAMES)
TUNED = {"OMP_PROC_BIND": "true", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SETTINGS = {  # environment variables: of `make train`; OpenMP's defaults, which tools.command may change; the reader's
    "tuned": TUNED,
    "usual": dict.fromkeys(TUNED, "") | {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    "own": {},
}
Work = Callable[[Dataset, int], MEASURED | None]  # data and seed → what it reports


@dataclass(frozen=True)
class Side:
    """One way to do a row's work. settings: a key of SETTINGS; tuned also keeps freed memory. warm_up: runs before the
    clock starts, because a process compiles its kernels on its first step."""

    work: Work
    settings: str = "usual"
    warm_up: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Row:
    """One line of a table: the same work in several ways. data: the data set to load first, if any."""

    sides: dict[str, Side]
    data: str | None = "mnist"


def in_fresh_process(*argv: str, settings: str = "usual") -> MEASURED:
    """What `python -m tools.speed.measure *argv` prints as JSON on its last line. Raises CourseError if it fails."""
    command = [sys.executable, "-m", "tools.speed.measure", *argv]
    variables = {key: value for key, value in {**os.environ, **SETTINGS[settings]}.items() if value}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, check=False)
    if ended.returncode:
        raise CourseError(f"{' '.join(argv)} failed: {ended.stderr.strip()[-400:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def network(recipe: Recipe) -> nn.Module:
    """A recipe's network as the course trains it."""
    return devices.prepare(models.build(recipe.model, recipe.dropout), CPU)


def warm_up(build: Callable[[], nn.Module], recipe: Recipe) -> Callable[[], None]:
    """One step of a throwaway network and its optimizer, at both of an epoch's batch sizes."""

    def steps() -> None:
        model = build()
        optimizer = make_optimizer(model, recipe)
        for size in (recipe.batch_size, 60_000 % recipe.batch_size or recipe.batch_size):
            F.cross_entropy(model(torch.zeros(size, 1, 28, 28)), torch.zeros(size, dtype=torch.long)).backward()
            optimizer.step()

    return steps


WARM_EXAMPLE = warm_up(baseline.example_network, baseline.EXAMPLE)


# ---- the course against the usual way


def batches(data: Dataset, seed: int) -> None:
    """Every augmented batch of an epoch of bn_augmentation."""
    augment = augmentation(BN, torch.Generator().manual_seed(seed))
    for rows in torch.randperm(len(data.train)).split(BN.batch_size):
        normalize(augment(data.train.images.index_select(0, rows), rows), data.mean, data.std)


def usual_batches(workers: int) -> Side:
    def work(data: Dataset, _seed: int) -> None:
        for _batch in baseline.loader(data, BN, workers):
            pass

    return Side(work)


def epoch(recipe: Recipe) -> Work:
    """One training epoch of a recipe."""

    def work(data: Dataset, seed: int) -> None:
        train_epoch(Training(network(recipe), recipe, seed, len(data.train)), data)

    return work


def usual_epoch(workers: int) -> Side:
    warm = warm_up(lambda: models.build(BN.model), BN)
    return Side(lambda data, _seed: baseline.recipe_epoch(data, BN, workers), warm_up=warm)


def train(recipe: Recipe) -> Work:
    """A whole published recipe, including the test after each epoch."""

    def work(data: Dataset, seed: int) -> MEASURED:
        model = network(recipe)
        history = fit(model, data, recipe, seed, echo=False)
        return {"epochs": len(history), "accuracy": evaluate(model, data.test, data.mean, data.std).percent}

    return work


def time_to(target: float, recipe: Recipe) -> Row:
    """A recipe that reaches a test accuracy (%), and PyTorch's example until it does."""

    def example(data: Dataset, seed: int) -> MEASURED:
        accuracies = baseline.train_example(data, target, seed=seed)
        return {"epochs": len(accuracies), "accuracy": max(accuracies)}

    course = Side(train(recipe), "tuned", warm_up(lambda: network(recipe), recipe))
    return Row({"course": course, "PyTorch's example": Side(example, warm_up=WARM_EXAMPLE)})


def voxels_of_60_digits(data: Dataset) -> np.ndarray:
    return data.test.images[:60, 0].numpy()


def course_voxels(data: Dataset, seed: int) -> MEASURED:
    return {"rows": len(voxels.pairs(voxels_of_60_digits(data), (seed,)))}


def plain_voxels(data: Dataset, _seed: int) -> MEASURED:
    pairs = [baseline.plain_pair(image, number) for number, image in enumerate(voxels_of_60_digits(data))]
    return {"rows": sum(map(len, pairs))}


LOADERS = {f"DataLoader, {workers} workers": workers for workers in (0, 2)}
COMPARED_ROWS = {
    "augmented batches, one epoch": Row(
        {"course": Side(batches, "tuned")} | {name: usual_batches(workers) for name, workers in LOADERS.items()}
    ),
    BN_EPOCH: Row(
        {"course": Side(epoch(BN), "tuned", warm_up(lambda: network(BN), BN))}
        | {name: usual_epoch(workers) for name, workers in LOADERS.items()}
    ),
    TO_99: time_to(99.0, SPRINT),
    "time to 99.4 %": time_to(99.4, SPRINT_994),
    "training epoch of voxel_reference": Row(
        {
            "course": Side(epoch(VOXELS), "tuned"),
            "DataLoader of RGB arrays": Side(lambda data, _seed: baseline.voxel_epoch(data, VOXELS)),
        },
        "mnist3d",
    ),
    "3D-MNIST rows of 60 digits": Row({"course": Side(course_voxels, "tuned"), "plain Python": Side(plain_voxels)}),
}


# ---- from PyTorch's example to sprint, one change at a time


def as_example(model: nn.Module, recipe: Recipe, seed: int, images: int) -> Training:
    """A training with the optimizer and schedule of PyTorch's example instead of the recipe's."""
    training = Training(model, recipe, seed, images)
    training.optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    training.scheduler = torch.optim.lr_scheduler.StepLR(training.optimizer, math.ceil(images / recipe.batch_size), 0.7)
    return training


def example_epoch(keep: bool, prepare: bool) -> Work:
    """One epoch of PyTorch's example by the course's loop. keep: keep freed memory; prepare: channels-last layout."""

    def work(data: Dataset, seed: int) -> None:
        if keep:
            devices.keep_memory()
        model = devices.prepare(baseline.example_network(), CPU) if prepare else baseline.example_network()
        train_epoch(as_example(model, baseline.EXAMPLE, seed, len(data.train)), data)

    return work


def to_99(recipe: Recipe, begin: Callable[[nn.Module, Recipe, int, int], Training] = Training) -> Side:
    """Train from scratch for 1, 2, 3, … epochs until the test accuracy is 99 %; seconds: of the last training alone."""

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

    return Side(work, "tuned", warm_up(lambda: network(recipe), recipe))


LARGE = replace(SPRINT, images=0)
SMALL_BATCHES = replace(
    LARGE, batch_size=baseline.EXAMPLE.batch_size, lr=SPRINT.lr * baseline.EXAMPLE.batch_size / SPRINT.batch_size
)
BARE = replace(SMALL_BATCHES, weight_decay=0.0, label_smoothing=0.0)
STEPS = {
    MACHINE_STEPS: Row(  # they change the cost of an epoch, but not what it learns
        {
            "PyTorch's example, DataLoader": Side(lambda data, _seed: baseline.example_epoch(data)),
            "the images as one tensor on the device": Side(example_epoch(False, False)),
            "freed memory is kept": Side(example_epoch(True, False)),
            "channels-last": Side(example_epoch(True, True)),
            "threads stay on their cores, memory in large pages": Side(example_epoch(True, True), "tuned"),
        }
    ),
    RECIPE_STEPS: Row(
        {
            "the network of sprint": to_99(BARE, as_example),
            "Nesterov's momentum and one cycle": to_99(BARE),
            "weight decay": to_99(replace(SMALL_BATCHES, label_smoothing=0.0)),
            "smoothed labels": to_99(SMALL_BATCHES),
            "larger batches at a higher rate": to_99(LARGE),
            f"epochs of {SPRINT.images:,} images: sprint": to_99(SPRINT),
        }
    ),
}


# ---- sprint with another network, optimizer or recipe, which lesson 12 shows


class HalfSizeFirst(nn.Module):
    """The network of sprint, with images of half the size (and no pooling) for its first third of the steps."""

    def __init__(self, _data: Dataset):
        super().__init__()
        self.network, self.steps = network(SPRINT), SPRINT.images // SPRINT.batch_size // 3

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = self.training and self.steps > 0
        self.steps -= half
        if half:
            images = F.pad(F.avg_pool2d(images, 2), (3, 3, 3, 3))
        for layer in self.network:
            if not (half and isinstance(layer, nn.MaxPool2d)):
                images = layer(images)
        return images


def narrow(_data: Dataset) -> nn.Module:
    """The network of sprint with half as many channels in its first layer."""
    model = models.build(SPRINT.model)
    model[1], model[2] = nn.Conv2d(1, 8, 5, stride=2, bias=False), nn.BatchNorm2d(8)
    model[4] = nn.Conv2d(8, 32, 3, bias=False)
    return devices.prepare(model, CPU)


def whitened(data: Dataset) -> nn.Module:
    """The network of sprint. Half of its first kernels are the main directions of image patches, divided by their
    spread; the other half are their negatives. They are not trained (K. Jordan 2024, "94% on CIFAR-10 in 3.29
    seconds")."""
    model = network(SPRINT)
    images = normalize(data.train.images[:2000], data.mean, data.std)
    patches = F.unfold(model[0](images), 5, stride=2).transpose(1, 2).reshape(-1, 25)
    values, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (directions / (values + 0.01).sqrt()).T[-8:].view(8, 1, 5, 5)
    model[1].weight.data.copy_(torch.cat([kernels, -kernels]))
    model[1].weight.requires_grad_(False)
    return model


class Muon(torch.optim.SGD):
    """SGD, but a step of the first group's kernels is an orthogonal matrix, and their length is fixed (K. Jordan et al.
    2024, "Muon: an optimizer for hidden layers in neural networks")."""

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        for kernels in group["params"]:
            momentum = self.state[kernels].setdefault("momentum", torch.zeros_like(kernels)).mul_(0.6)
            momentum.add_(kernels.grad)
            matrix = kernels.grad.add(momentum, alpha=0.6).flatten(1)
            matrix /= matrix.norm() + 1e-7
            for _ in range(3):  # steps of Newton and Schulz towards the nearest orthogonal matrix
                square = matrix @ matrix.T
                matrix = 3.4445 * matrix + (2.0315 * square @ square - 4.775 * square) @ matrix
            kernels.mul_(len(kernels) ** 0.5 / kernels.norm()).sub_(matrix.view_as(kernels), alpha=group["lr"] / 3)
            kernels.grad = None  # the next line leaves them out
        super().step()


def with_muon(training: Training) -> None:
    """Let Muon train the second and third convolution. Its rate is a third of the others', 0.1 at its peak, the best of
    0.05, 0.1, 0.2 and 0.4."""
    recipe, kernels = training.recipe, [training.model[4].weight, training.model[8].weight]
    others = [one for one in training.model.parameters() if one.requires_grad and all(one is not k for k in kernels)]
    matrices, vectors = ([one for one in others if (one.ndim > 1) == several] for several in (True, False))
    groups = [{"params": kernels}, {"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors}]
    training.optimizer = Muon(groups, recipe.lr, recipe.momentum, nesterov=True)
    training.scheduler = make_scheduler(training.optimizer, recipe, training.steps)


def held_out(
    build: Callable[[Dataset], nn.Module] = lambda data: network(SPRINT),
    change: Callable[[Training], None] = lambda training: None,
    **changes,
) -> Side:
    """A training of sprint with another network, optimizer or recipe: its seconds, and its accuracy on held-out
    images."""

    def work(data: Dataset, seed: int) -> MEASURED:
        part, recipe = data.hold_out(len(data.train) // 6), replace(SPRINT, **changes)
        training = Training(build(part), recipe, seed, len(part.train))
        change(training)
        start = time.perf_counter()
        train_epoch(training, part)
        score = evaluate(training.model, part.valid, part.mean, part.std)
        return {"seconds": time.perf_counter() - start, "accuracy": score.percent}

    return Side(work)


TRIED_ROWS = {
    "sprint on held-out images": Row(
        {
            "as it is": held_out(),
            "all images": held_out(images=0),
            "all images, batches of 192, lr 0.4": held_out(images=0, batch_size=192, lr=0.4),
            "24,000 images": held_out(images=24_000),
            "batches of 64, lr 0.2": held_out(batch_size=64, lr=0.2),
            "batches of 256, lr 0.5": held_out(batch_size=256, lr=0.5),
            "a third of the batches at half size": held_out(HalfSizeFirst),
            "8 channels in the first layer": held_out(narrow),
            "whitened first layer": held_out(whitened),
            "Muon for the convolutions": held_out(change=with_muon),
            "Muon, 24,000 images": held_out(change=with_muon, images=24_000),
            "Muon and whitened first layer": held_out(whitened, with_muon),
        }
    )
}


# ---- what a reader does every day


def command(*argv: str, settings: str = "own") -> Side:
    """`python *argv` from start to end, with its files in a temporary folder; {seed} in a word becomes the seed."""

    def run(_data: None, seed: int) -> None:
        words = [word.replace("{seed}", str(seed)) for word in argv]
        with tempfile.TemporaryDirectory() as folder:
            how = {"cwd": ROOT, "env": os.environ | {"COURSE_RUNS": folder}, "capture_output": True}
            subprocess.run([sys.executable, *words], check=True, **how)

    return Side(run, settings)


def load(_data: None, _seed: int) -> MEASURED:
    return {"images": len(datasets.load("mnist").train)}


def load_usually(_data: None, _seed: int) -> MEASURED:
    """torchvision's MNIST, from the folder that holds it."""
    root = next(folder for folder in datasets.folders() if (folder / "MNIST" / "raw").is_dir())
    train, _test = (torchvision.datasets.MNIST(str(root), train=half) for half in (True, False))
    return {"images": len(train)}


FIVE = ("train.py", "bn_augmentation", "--seeds", "5", "--epochs", "2", "--retrain", "--quiet")
SPRINT_COMMAND = ("train.py", "sprint", "--seed", "{seed}", "--retrain", "--quiet")
EXAMPLE_COMMAND = ("-m", "tools.speed.measure", "--once", TO_99, "PyTorch's example", "{seed}")
DAILY_ROWS = {
    "five seeds of bn_augmentation, two epochs each": Row(
        {"one after another": command(*FIVE), "one process per core, --cluster": command(*FIVE, "--cluster")}, None
    ),
    "from the command to 99 %": Row(
        {
            "python train.py sprint": command(*SPRINT_COMMAND),
            "PyTorch's example": command(*EXAMPLE_COMMAND, settings="usual"),
        },
        None,
    ),
    "loading MNIST": Row({"data.load": Side(load), "torchvision": Side(load_usually)}, None),
}
ROWS = COMPARED_ROWS | STEPS | TRIED_ROWS | DAILY_ROWS
