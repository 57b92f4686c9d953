"""What an epoch costs: at least (its arithmetic and its memory traffic), by kind of operator, and against the number of images."""

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tools.work import MEASURED, SPRINT, epoch, network
from utils import files, models
from utils.data import datasets
from utils.data.datasets import Dataset
from utils.experiments import Recipe
from utils.training import cpu
from utils.training.loops import Training, train_epoch


def peak_mib() -> float:
    """The most memory that this process, or one that it started, has held."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def floor(recipe: Recipe, images: int = 60_000) -> dict[str, float]:
    """What an epoch must at least cost: its arithmetic and its memory traffic at the machine's own measured rates.

    FLOPs: forward and backward of one batch, counted by torch. Bytes: every leaf module reads its input and writes its
    output once forward, and twice as much backward. Rates: a 2048³ float32 matrix product, a copy of 256 MiB.
    """
    batch = torch.randn(recipe.batch_size, 1, 28, 28)
    model = models.build(recipe.model, recipe.dropout)
    with FlopCounterMode(display=False) as counter:
        model(batch).sum().backward()
    moved = 0

    def count(_module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal moved
        moved += inputs[0].nbytes + output.nbytes

    for layer in models.layers(model):
        layer.register_forward_hook(count)
    model(batch)
    scale = recipe.drawn(images) / recipe.batch_size
    left, right, big = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(64 * 2**20)
    copy = torch.empty_like(big)
    flops_rate = 2 * 2048**3 / fastest(lambda: left @ right)
    bytes_rate = 2 * big.nbytes / fastest(lambda: copy.copy_(big))
    flops, traffic = counter.get_total_flops() * scale, 3 * moved * scale
    return {
        "gflop": flops / 1e9,
        "gbyte": traffic / 1e9,
        "gflop_per_s": flops_rate / 1e9,
        "gbyte_per_s": bytes_rate / 1e9,
        "floor_seconds": max(flops / flops_rate, traffic / bytes_rate),
    }


def fastest(work: Callable[[], object], repetitions: int = 8) -> float:
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


KINDS = {  # of operators, by words in their names
    "convolution": ("conv",),
    "batch norm": ("batch_norm", "FewChannels", "addcmul", "aten::sum", "aten::pow"),
    "ReLU": ("clamp_min", "threshold"),
    "pooling": ("pool", "aten::fill_"),
    "dropout": ("bernoulli", "dropout"),
    "augmentation": ("grid", "index_select", "aten::rand", "aten::mm"),
    "optimizer": ("Optimizer", "fused"),
}


def profile(data: Dataset, recipe: Recipe) -> dict[str, float]:
    """Where a training epoch's time goes: fraction of the operators' own time by kind, over 40 batches."""
    cpu.keep_memory()
    part = replace(data, train=data.train[: 40 * recipe.batch_size])
    training = Training(network(recipe), replace(recipe, epochs=2), 0, len(part.train))
    train_epoch(training, part)
    with torch.profiler.profile() as profiler:
        train_epoch(training, part)
    spent = dict.fromkeys((*KINDS, "everything else"), 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "everything else")
        spent[kind] += event.self_cpu_time_total
    return {kind: time / sum(spent.values()) for kind, time in spent.items()}


def write_repeated(data: Dataset, times: int, folder: Path) -> None:
    """MNIST with its training half repeated, as IDX files in torchvision's layout below `folder`."""
    paths = datasets.SOURCES["mnist"].files(folder)
    for split, copies, images, labels in ((data.train, times, *paths[:2]), (data.test, 1, *paths[2:])):
        files.write_idx(images, split.images.squeeze(1).repeat(copies, 1, 1))
        files.write_idx(labels, split.labels.to(torch.uint8).repeat(copies))


def epoch_of_all() -> MEASURED:
    """An epoch of sprint's network on all that COURSE_DATA holds."""
    data = datasets.load("mnist")
    cpu.keep_memory()
    work = epoch(replace(SPRINT, images=0))
    work(data, 0)  # the first epoch also pages the images in
    start = time.perf_counter()
    work(data, 0)
    return {"images": len(data.train), "seconds": time.perf_counter() - start, "peak_mib": peak_mib()}
