"""What the benchmark times: each row's work by the course, and in other ways."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tools import verify
from tools.measurements import ALONE, BN_EPOCH, BUSY, MACHINE_STEPS, MEASURED, RECIPE_STEPS
from tools.speed import baseline
from utils import ROOT, CourseError, models
from utils.data import datasets, voxels
from utils.data.augment import augmentation
from utils.data.datasets import Dataset
from utils.data.fresh_voxels import fresh_grids
from utils.experiments import EXPERIMENTS, Recipe
from utils.runs import pretrained
from utils.runs.records import RunPaths
from utils.training import cpu
from utils.training.loops import Training, evaluate, fit, normalize, train_epoch
from utils.training.steps import make_optimizer, make_scheduler

CPU = torch.device("cpu")
BN, SPRINT, SPRINT_994, BEST = (
    EXPERIMENTS[name].recipe for name in ("bn_augmentation", "sprint", "sprint_994", "frontier_best")
)
VOXELS = EXPERIMENTS["voxel_reference"].recipe
TUNED = {
    "OMP_PROC_BIND": "true",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}  # what `make train` sets, and the usual way does not
USUAL = dict.fromkeys(TUNED, "") | {
    "GOMP_SPINCOUNT": "300000",
    "KMP_BLOCKTIME": "200",
}  # OpenMP's own defaults, which utils may change


@dataclass(frozen=True)
class Side:
    """One way to do a row's work: work(data, seed).

    tuned: as the course trains, with freed memory kept, threads that stay on their cores and large pages (see
    Makefile).
    untouched: by the settings that a reader's own command finds; else by those that OpenMP brings, which the course
    changes.
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


def in_fresh_process(*argv: str, **environment: str) -> MEASURED:
    """What `python -m tools.speed.measure *words` prints as JSON on its last line."""
    command = [sys.executable, "-m", "tools.speed.measure", *argv]
    variables = {key: value for key, value in {**os.environ, **environment}.items() if value}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, check=False)
    if ended.returncode:
        raise CourseError(f"{' '.join(argv)} failed: {ended.stderr.strip()[-400:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def network(recipe: Recipe, device: torch.device = CPU) -> nn.Module:
    """A recipe's network as the course trains it."""
    return cpu.prepare(models.build(recipe.model, recipe.dropout), device)


def warm_up(build: Callable[[], nn.Module], recipe: Recipe) -> Callable[[], None]:
    """A step of a throwaway network at both of an epoch's batch sizes, in the layout in which it will be trained, and
    of its optimizer, whose first use imports much of torch."""

    def steps() -> None:
        model = build()
        make_optimizer(model, recipe).step()
        for size in (recipe.batch_size, 60_000 % recipe.batch_size or recipe.batch_size):
            F.cross_entropy(model(torch.zeros(size, 1, 28, 28)), torch.zeros(size, dtype=torch.long)).backward()

    return steps


def batches(data: Dataset, seed: int) -> None:
    """Every batch of an epoch of bn_augmentation, ready for the network, where the data lie."""
    device = data.train.labels.device
    augment = augmentation(BN, torch.Generator(device).manual_seed(seed))
    for rows in torch.randperm(len(data.train)).to(device).split(BN.batch_size):
        normalize(augment(data.train.images.index_select(0, rows), rows), data.mean, data.std)


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
    """Train from scratch for 1, 2, 3 … epochs until the last one's test accuracy is 99 %; seconds: without its test."""

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


def voxels_of_60_digits(data: Dataset) -> np.ndarray:
    return data.test.images[:60, 0].numpy()


COMPARED_ROWS = {
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
                "PyTorch's example": Side(
                    usual_train(target), warm_up=warm_up(baseline.example_network, baseline.EXAMPLE)
                ),
            }
        )
        for target, recipe in ((99.0, SPRINT), (99.4, SPRINT_994))
    },
    "3D-MNIST rows of 60 digits": Row(
        {
            "course": Side(
                lambda data, seed: {"rows": len(voxels.pairs(voxels_of_60_digits(data), (seed,)))}, tuned=True
            ),
            "plain Python": Side(
                lambda data, _seed: {
                    "rows": sum(len(baseline.plain_pair(*one[::-1])) for one in enumerate(voxels_of_60_digits(data)))
                }
            ),
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


def hundred_batches(
    data: Dataset, step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], parameters: list
) -> MEASURED:
    """100 training batches of bn_augmentation without its augmentation, by plain SGD; step: images and labels →
    loss."""
    optimizer = torch.optim.SGD(parameters, BN.lr, fused=True)
    images, labels = data.train[: 102 * BN.batch_size].tensors
    images = normalize(images, data.mean, data.std)
    start = time.perf_counter()
    for number, part in enumerate(zip(images.split(BN.batch_size), labels.split(BN.batch_size), strict=True)):
        if number == 2:  # the first two compile
            start = time.perf_counter()
        optimizer.zero_grad()
        step(*part).backward()
        optimizer.step()
    return {"seconds": time.perf_counter() - start}


def one_network(data: Dataset, wrap: Callable = lambda model: model, bf16: bool = False) -> MEASURED:
    plain = network(BN)
    model = wrap(plain)

    def step(images, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return F.cross_entropy(model(images).float(), labels)

    return hundred_batches(data, step, list(plain.parameters()))


def grouped(data: Dataset, seeds: int = 5) -> MEASURED:
    """Several networks as one whose convolutions have one group per seed."""
    layers: list[nn.Module] = []
    for layer in models.build(BN.model):
        if isinstance(layer, nn.Conv2d):
            into, out = seeds * layer.in_channels, seeds * layer.out_channels
            layers.append(nn.Conv2d(into, out, layer.kernel_size, padding=layer.padding, groups=seeds, bias=False))
        elif isinstance(layer, nn.BatchNorm2d):
            layers.append(nn.BatchNorm2d(seeds * layer.num_features))
        elif isinstance(layer, nn.Linear):
            layers.append(nn.Conv2d(seeds * 4, seeds * 10, 7, groups=seeds))  # of 4×7×7 each, not flattened
        elif not isinstance(layer, nn.Flatten):
            layers.append(layer)
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def step(images, labels):
        logits = model(images.expand(-1, seeds, -1, -1)).view(-1, 10)
        return seeds * F.cross_entropy(logits, labels.repeat_interleave(seeds))

    return hundred_batches(data, step, list(model.parameters()))


def vmapped(data: Dataset, seeds: int = 5) -> MEASURED:
    """Several networks by torch.func.vmap over their stacked parameters."""
    networks = [models.build(BN.model) for _ in range(seeds)]
    for module in (module for one in networks for module in one.modules()):
        if isinstance(module, nn.ReLU):
            module.inplace = False
    parameters, buffers = torch.func.stack_module_state(networks)

    def losses(parameters, buffers, images, labels):
        return F.cross_entropy(torch.func.functional_call(networks[0], (parameters, buffers), (images,)), labels)

    every = torch.func.vmap(losses, in_dims=(0, 0, None, None), randomness="different")
    return hundred_batches(
        data, lambda images, labels: every(parameters, buffers, images, labels).sum(), list(parameters.values())
    )


def fifty_batches(data: Dataset, bfloat16: bool) -> MEASURED:
    """The last 50 batches of 100 of frontier_best, with all that its training does."""
    recipe = replace(BEST, bfloat16=bfloat16, images=50 * BEST.batch_size, epochs=2)
    history = fit(network(recipe), replace(data, test=data.test[: BEST.batch_size]), recipe, echo=False)
    return {"seconds": history[-1]["seconds"]}


def tried(work: Callable[[Dataset], MEASURED]) -> Side:
    return Side(lambda data, _seed: work(data), tuned=True)


class HalfSizeFirst(nn.Module):
    """sprint's network, whose first training batches, as many as `steps`, are images of half the size; they need no
    pool."""

    def __init__(self, network: nn.Sequential, steps: int):
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = self.training and self.steps > 0
        self.steps -= half
        if half:
            images = F.pad(F.avg_pool2d(images, 2), (3, 3, 3, 3))
        for layer in self.network:
            if not (half and isinstance(layer, nn.MaxPool2d)):
                images = layer(images)
        return images


def half_size_first() -> nn.Module:
    """The network of sprint, for a third of its steps at half the size."""
    return HalfSizeFirst(network(SPRINT), SPRINT.images // SPRINT.batch_size // 3)


def narrow() -> nn.Module:
    """The network of sprint with half as many channels in its first layer."""
    model = models.build(SPRINT.model)
    model[1], model[2], model[4] = (
        nn.Conv2d(1, 8, 5, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 32, 3, bias=False),
    )
    return cpu.prepare(model, CPU)


def held_out(data: Dataset, seed: int, build: Callable[[], nn.Module] = lambda: network(SPRINT), **changes) -> MEASURED:
    """A training of sprint with another network or recipe: its seconds, and its accuracy on held-out images."""
    part = data.hold_out(len(data.train) // 6)
    history = fit(build(), part, replace(SPRINT, **changes), seed, echo=False)
    return {
        "seconds": history[-1]["seconds"],
        "accuracy": 100 * history[-1]["valid_correct"] / history[-1]["valid_total"],
    }


def gathered(data: Dataset, size: int) -> MEASURED:
    """The images of an epoch of sprint, in a random order, `size` at a time, as its network sees them: seconds."""
    order = torch.randperm(len(data.train))[: SPRINT.images]
    start = time.perf_counter()
    for rows in order.split(size):
        for batch in data.train.images.index_select(0, rows).split(SPRINT.batch_size):
            normalize(batch, data.mean, data.std)
    return {"seconds": time.perf_counter() - start}


def stepped(fused: bool) -> MEASURED:
    """The steps of sprint's optimizer and of its schedule in an epoch, without gradients' computation: seconds."""
    model, steps = network(SPRINT), SPRINT.images // SPRINT.batch_size
    optimizer = make_optimizer(model, SPRINT)
    for group in optimizer.param_groups:
        group["fused"], group["foreach"] = fused, not fused
    scheduler = make_scheduler(optimizer, SPRINT, steps)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return {"seconds": time.perf_counter() - start}


TRIED_ROWS = {
    "100 batches of bn_augmentation": Row(
        {
            "float32": tried(one_network),
            "bfloat16 autocast": tried(lambda data: one_network(data, bf16=True)),
            "torch.compile": tried(lambda data: one_network(data, torch.compile)),
        }
    ),
    "50 batches of frontier_best": Row(
        {
            "bfloat16": tried(lambda data: fifty_batches(data, bfloat16=True)),
            "float32": tried(lambda data: fifty_batches(data, bfloat16=False)),
        }
    ),
    "100 batches of bn_augmentation, five seeds": Row(
        {
            "one after another": tried(lambda data: {"seconds": sum(one_network(data)["seconds"] for _ in range(5))}),
            "grouped convolutions": tried(grouped),
            "torch.func.vmap": tried(vmapped),
        }
    ),
    "the images of an epoch of sprint": Row(
        {
            "batch by batch": tried(lambda data: gathered(data, SPRINT.batch_size)),
            "gathered all at once": tried(lambda data: gathered(data, SPRINT.images)),
        }
    ),
    "the optimizer's steps in an epoch of sprint": Row(
        {
            "one fused kernel": tried(lambda _data: stepped(fused=True)),
            "a kernel for each operation": tried(lambda _data: stepped(fused=False)),
        }
    ),
    "sprint on held-out images": Row(
        {
            name: Side(lambda data, seed, changes=changes: held_out(data, seed, **changes))
            for name, changes in {
                "as it is": {},
                "all images": {"images": 0},
                "all images, batches of 192, lr 0.4": {"images": 0, "batch_size": 192, "lr": 0.4},
                "24,000 images": {"images": 24_000},
                "batches of 64, lr 0.2": {"batch_size": 64, "lr": 0.2},
                "batches of 256, lr 0.5": {"batch_size": 256, "lr": 0.5},
                "a third of the batches at half size": {"build": half_size_first},
                "8 channels in the first layer": {"build": narrow},
            }.items()
        }
    ),
}


SMALL = 64 * 100  # images of PyTorch's example under load: a whole epoch of it would only take longer


@contextmanager
def with_busy_processes(busy: int) -> Iterator[None]:
    """So many other processes at work for as long as the block lasts."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def one_thread(data: Dataset, seed: int) -> None:
    torch.set_num_threads(1)
    epoch(SPRINT)(data, seed)


def small_example(data: Dataset, _seed: int) -> None:
    baseline.example_epoch(replace(data, train=data.train[:SMALL]))


WAYS = {
    "default threads": Side(epoch(SPRINT), warm_up=warm_up(lambda: network(SPRINT), SPRINT), untouched=True),
    "one thread": Side(one_thread, warm_up=warm_up(lambda: network(SPRINT), SPRINT), untouched=True),
    f"PyTorch's example, {SMALL:,} images": Side(
        small_example, warm_up=warm_up(baseline.example_network, baseline.EXAMPLE)
    ),
}


def loaded(busy: int, side: str) -> Side:
    """The same measurement in one more process, begun while so many others are at"""

    def run(_data: Dataset, seed: int) -> MEASURED:
        with with_busy_processes(busy):
            return in_fresh_process("--once", ALONE, side, str(seed))

    return Side(run, untouched=WAYS[side].untouched)


def command(*argv: str, untouched: bool = True) -> Side:
    """`python *words` in a fresh process, everything counted, its files in a folder of its own; {seed} in a word is the
    seed."""

    def run(_data: None, seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            message = [sys.executable, *(word.replace("{seed}", str(seed)) for word in argv)]
            subprocess.run(
                message, cwd=ROOT, env={**os.environ, "COURSE_RUNS": folder}, check=True, capture_output=True
            )

    return Side(run, untouched=untouched)


def load(_data: None, _seed: int) -> MEASURED:
    return {"images": len(datasets.load("mnist").train)}


def load_usually(_data: None, _seed: int) -> MEASURED:
    """torchvision's two halves, from the folder where they lie."""
    root = next(folder for folder in datasets._folders() if (folder / "MNIST" / "raw").is_dir())
    train, _test = (torchvision.datasets.MNIST(str(root), train=half) for half in (True, False))
    return {"images": len(train)}


def published() -> list[torch.nn.Module]:
    """Every published network of images."""
    of_images = [entry for entry in EXPERIMENTS.values() if entry.recipe.kind == "images" and entry.weights]
    return [
        pretrained.load_model(path)[0]
        for path in (RunPaths(ROOT, entry.name, 0).weights for entry in of_images)
        if path.is_file()
    ]


def evaluate_all(data: Dataset, _seed: int) -> MEASURED:
    networks = published()
    return {"networks": len([evaluate(network, data.test, data.mean, data.std) for network in networks])}


def evaluate_usually(data: Dataset, _seed: int) -> MEASURED:
    networks = published()
    to_tensor = baseline.transforms.ToTensor()
    for network in networks:
        with torch.no_grad():
            for images, _labels in DataLoader(baseline.Samples(data.test, to_tensor), 1000):
                network((images - data.mean) / data.std).argmax(1)
    return {"networks": len(networks)}


FIVE = ("train.py", "bn_augmentation", "--seeds", "5", "--epochs", "2", "--retrain", "--quiet")
DAILY_ROWS = {
    ALONE: Row(WAYS),
    **{BUSY[busy - 1]: Row({side: loaded(busy, side) for side in WAYS}) for busy in (1, 2)},
    "five seeds of bn_augmentation, two epochs each": Row(
        {"one after another": command(*FIVE), "one process per core, --cluster": command(*FIVE, "--cluster")}, data=None
    ),
    "from the command to 99 %": Row(
        {
            "python train.py sprint": command("train.py", "sprint", "--seed", "{seed}", "--retrain", "--quiet"),
            "PyTorch's example": command(
                "-m", "tools.speed.measure", "--once", "time to 99 %", "PyTorch's example", "{seed}", untouched=False
            ),
        },
        data=None,
    ),
    "loading MNIST": Row({"data.load": Side(load), "torchvision": Side(load_usually)}, data=None),
    "10,000 images by every published network": Row(
        {"course": Side(evaluate_all), "DataLoader": Side(evaluate_usually)}
    ),
    "make verify": Row({"course": Side(lambda _data, _seed: verify.verify() and None)}, data="mnist3d"),
}


Work = Callable[[Dataset, int], MEASURED | None]


def timed(work: Work, moved: bool = True, twice: bool = True) -> Side:
    """work, by a clock that waits for the GPU. moved: the data lie there; twice: only the second time counts, for the
    first compiles."""

    def run(data: Dataset, seed: int) -> MEASURED:
        data = data.to("cuda") if moved else data
        if twice:
            work(data, seed)
        torch.cuda.synchronize()
        start = time.perf_counter()
        found = work(data, seed) or {}
        torch.cuda.synchronize()
        return {"seconds": time.perf_counter() - start, "gpu_mib": torch.cuda.max_memory_allocated() / 2**20} | found

    return Side(run)


def usual(work: Callable[[Dataset], object]) -> Side:
    """A usual way: its data come from the CPU batch by batch, and it takes too long for what it compiles to count."""
    return timed(lambda data, _seed: work(data) and None, moved=False, twice=False)


def example(target: float) -> Side:
    def train(data: Dataset, seed: int) -> MEASURED:
        accuracies = baseline.train_example(data, target, seed=seed, device="cuda")
        return {"epochs": len(accuracies), "accuracy": max(accuracies)}

    return timed(train, moved=False, twice=False)


def compiled(work: Work) -> Work:
    """The same with a network that torch compiles into CUDA graphs."""

    def run(data: Dataset, seed: int) -> MEASURED | None:
        os.environ["COURSE_COMPILE"] = "1"
        return work(data, seed)

    return run


def grids(data: Dataset, seed: int, count: int = 10_000) -> MEASURED:
    """New voxel grids of as many training digits, every second one rotated."""
    images = data.train.images[:count, 0]
    rotated = torch.arange(len(images), device=images.device) % 2 == 1
    return {"grids": len(fresh_grids(images, rotated, torch.Generator(images.device).manual_seed(seed)))}


GPU_ROWS = {
    "augmented batches, one epoch": Row(
        {
            "course": timed(batches),
            **{f"DataLoader, {n} workers": timed(usual_batches(n), False, False) for n in (0, 2)},
        }
    ),
    BN_EPOCH: Row(
        {
            "course": timed(epoch(BN)),
            **{
                f"DataLoader, {n} workers": usual(lambda data, n=n: baseline.recipe_epoch(data, BN, n, "cuda"))
                for n in (0, 2)
            },
        }
    ),
    **{
        f"time to {target:g} %": Row({"course": timed(train(recipe)), "PyTorch's example": example(target)})
        for target, recipe in ((99.0, SPRINT), (99.4, SPRINT_994))
    },
    "training epoch of voxel_reference": Row(
        {
            "course": timed(epoch(VOXELS)),
            "DataLoader of RGB arrays": usual(lambda cubes: baseline.voxel_epoch(cubes, VOXELS, "cuda")),
        },
        data="mnist3d",
    ),
    "training epoch of sprint": Row(
        {"kernel by kernel": timed(epoch(SPRINT)), "COURSE_COMPILE=1": timed(compiled(epoch(SPRINT)))}
    ),
    "10,000 new voxel grids": Row({"on the GPU": timed(grids), "on the CPU": timed(grids, moved=False)}),
}
STEPS = {MACHINE_STEPS: Row(machine_steps()), RECIPE_STEPS: Row(recipe_steps())}
ROWS = {"cpu": COMPARED_ROWS | STEPS | TRIED_ROWS | DAILY_ROWS, "cuda": GPU_ROWS}  # by kind of device
