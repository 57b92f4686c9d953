"""What the benchmark times of a day with the course: a busy machine, many seeds, from a command to a trained network, and checking."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch.utils.data import DataLoader
from torchvision import datasets as datasets_of_torchvision

from tools import baseline, verify, work
from tools.work import MEASURED, SPRINT, Row, Side
from utils import ROOT
from utils.data import datasets
from utils.data.datasets import Dataset
from utils.experiments import EXPERIMENTS
from utils.runs import pretrained
from utils.runs.records import Run
from utils.training.loops import evaluate

SMALL = 64 * 100  # images of PyTorch's example under load: a whole epoch of it would only take longer


@contextmanager
def beside(busy: int) -> Iterator[None]:
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
    work.epoch(SPRINT)(data, seed)


def small_example(data: Dataset, _seed: int) -> None:
    baseline.example_epoch(replace(data, train=data.train[:SMALL]))


ALONE = "an epoch of sprint as a reader's command does it"
WAYS = {
    "default threads": Side(work.epoch(SPRINT), warm_up=work.warm_up(lambda: work.network(SPRINT), SPRINT), untouched=True),
    "one thread": Side(one_thread, warm_up=work.warm_up(lambda: work.network(SPRINT), SPRINT), untouched=True),
    f"PyTorch's example, {SMALL:,} images": Side(small_example, warm_up=work.warm_up(baseline.example_network, baseline.EXAMPLE)),
}


def loaded(busy: int, side: str) -> Side:
    """The same measurement in one more process, begun while so many others are at work."""

    def run(_data: Dataset, seed: int) -> MEASURED:
        with beside(busy):
            return work.in_fresh_process("--once", ALONE, side, str(seed))

    return Side(run, untouched=WAYS[side].untouched)


def command(*words: str, untouched: bool = True) -> Side:
    """`python *words` in a fresh process, everything counted, its files in a folder of its own; {seed} in a word is the seed."""

    def run(_data: None, seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            said = [sys.executable, *(word.replace("{seed}", str(seed)) for word in words)]
            subprocess.run(said, cwd=ROOT, env={**os.environ, "COURSE_RUNS": folder}, check=True, capture_output=True)

    return Side(run, untouched=untouched)


def load(_data: None, _seed: int) -> MEASURED:
    return {"images": len(datasets.load("mnist").train)}


def load_usually(_data: None, _seed: int) -> MEASURED:
    """torchvision's two halves, from the folder where they lie."""
    root = next(folder for folder in datasets._folders() if (folder / "MNIST" / "raw").is_dir())
    train, _test = (datasets_of_torchvision.MNIST(str(root), train=half) for half in (True, False))
    return {"images": len(train)}


def published() -> list[torch.nn.Module]:
    """Every published network of images."""
    of_images = [entry for entry in EXPERIMENTS.values() if entry.recipe.kind == "images" and entry.weights]
    return [pretrained.load_model(path)[0] for path in (Run(ROOT, entry.name, 0).weights for entry in of_images) if path.is_file()]


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


def verify_all(_data: Dataset, _seed: int) -> None:
    verify.verify()


EVERY_NETWORK = "10,000 images by every published network"
FIVE = ("train.py", "bn_augmentation", "--seeds", "5", "--epochs", "2", "--again", "--quiet")
ROWS = {
    ALONE: Row(WAYS),
    **{f"the same, other processes at work: {busy}": Row({side: loaded(busy, side) for side in WAYS}) for busy in (1, 2)},
    "five seeds of bn_augmentation, two epochs each": Row(
        {"one after another": command(*FIVE), "one process per core, --cluster": command(*FIVE, "--cluster")}, data=None
    ),
    "from the command to 99 %": Row(
        {
            "python train.py sprint": command("train.py", "sprint", "--seed", "{seed}", "--again", "--quiet"),
            "PyTorch's example": command("-m", "tools.bench", "--once", "time to 99 %", "PyTorch's example", "{seed}", untouched=False),
        },
        data=None,
    ),
    "loading MNIST": Row({"data.load": Side(load), "torchvision": Side(load_usually)}, data=None),
    EVERY_NETWORK: Row({"course": Side(evaluate_all), "DataLoader": Side(evaluate_usually)}),
    "make verify": Row({"course": Side(verify_all)}, data="mnist3d"),
}
