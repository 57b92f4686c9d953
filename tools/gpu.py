"""What the benchmark times on a GPU: the CPU's rows there, what a graph gives, and how many voxel grids it draws."""

import time
from collections.abc import Callable

import torch

from tools import baseline, work
from tools.work import BN, MEASURED, SPRINT, SPRINT_994, VOXELS, Row, Side
from utils.data.bodies import fresh_grids
from utils.data.datasets import Dataset
from utils.experiments import Recipe
from utils.training.loops import Training, train_epoch

Work = Callable[[Dataset, int], MEASURED | None]


def timed(work: Work, moved: bool = True, twice: bool = True) -> Side:
    """work, by a clock that waits for the GPU. moved: the data lie there; twice: only the second time counts, for the first compiles."""

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


def steps(recipe: Recipe, by_graph: bool) -> Work:
    """One training epoch of a recipe, as a graph or kernel by kernel."""

    def run(data: Dataset, seed: int) -> None:
        training = Training(work.network(recipe, data.train.labels.device), recipe, seed, len(data.train))
        training.by_graph = by_graph
        train_epoch(training, data)

    return run


def grids(data: Dataset, seed: int, count: int = 10_000) -> MEASURED:
    """New voxel grids of as many training digits, every second one rotated."""
    images = data.train.images[:count, 0]
    rotated = torch.arange(len(images), device=images.device) % 2 == 1
    return {"grids": len(fresh_grids(images, rotated, torch.Generator(images.device).manual_seed(seed)))}


ROWS = {
    "augmented batches, one epoch": Row(
        {"course": timed(work.batches), **{f"DataLoader, {n} workers": timed(work.usual_batches(n), False, False) for n in (0, 2)}}
    ),
    work.BN_EPOCH: Row(
        {
            "course": timed(work.epoch(BN)),
            **{f"DataLoader, {n} workers": usual(lambda data, n=n: baseline.recipe_epoch(data, BN, n, "cuda")) for n in (0, 2)},
        }
    ),
    **{
        f"time to {target:g} %": Row({"course": timed(work.train(recipe)), "PyTorch's example": example(target)})
        for target, recipe in ((99.0, SPRINT), (99.4, SPRINT_994))
    },
    "training epoch of voxel_reference": Row(
        {
            "course": timed(work.epoch(VOXELS)),
            "DataLoader of RGB arrays": usual(lambda cubes: baseline.voxel_epoch(cubes, VOXELS, "cuda")),
        },
        data="mnist3d",
    ),
    "training epoch of sprint": Row({"as a CUDA graph": timed(steps(SPRINT, True)), "kernel by kernel": timed(steps(SPRINT, False))}),
    "10,000 new voxel grids": Row({"on the GPU": timed(grids), "on the CPU": timed(grids, moved=False)}),
}
