"""How fast the course is against the usual way, side by side in one run: `python -m utils.bench`.

The usual way is what tutorials do: a DataLoader, per-sample torchvision transforms, NCHW, float32. Each side is measured
in a fresh process, in turn, several times; the table gives medians and their ratio, and logs/benchmarks/ keeps all times.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from utils import ROOT, CourseError, artifacts, models, runs
from utils import data as datasets
from utils.augment import affine
from utils.experiments import EXPERIMENTS
from utils.loops import Training, train_epoch
from utils.report import table

RECIPE = EXPERIMENTS["bn_augmentation"]


class Samples(torch.utils.data.Dataset):
    """MNIST as torchvision.datasets.MNIST hands it out: one PIL image at a time through a transform."""

    def __init__(self, split: datasets.Split, transform: Callable):
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = transforms.functional.to_pil_image(self.split.images[i])
        return self.transform(image), int(self.split.labels[i])


def usual_batches(data: datasets.Dataset, workers: int) -> DataLoader:
    """The recipe's augmentation by torchvision, sample by sample."""
    side = data.train.images.shape[-1]
    transform = transforms.Compose(
        [
            transforms.RandomAffine(
                RECIPE.rotate,
                translate=(RECIPE.shift / side, RECIPE.shift / side),
                scale=(1 - RECIPE.scale, 1 + RECIPE.scale),
                shear=RECIPE.shear or None,
                interpolation=transforms.InterpolationMode.BILINEAR,
            ),
            transforms.ToTensor(),
            transforms.Normalize((data.mean,), (data.std,)),
        ]
    )
    return DataLoader(Samples(data.train, transform), RECIPE.batch_size, shuffle=True, num_workers=workers)


def batches_usual(data: datasets.Dataset, workers: int) -> None:
    for _images, _labels in usual_batches(data, workers):
        pass


def batches_course(data: datasets.Dataset) -> None:
    random = torch.Generator().manual_seed(0)
    for rows in torch.randperm(len(data.train)).split(RECIPE.batch_size):
        images = data.train.images.index_select(0, rows).float().div_(255)
        affine(images, random, RECIPE.rotate, RECIPE.shift, RECIPE.scale, RECIPE.shear).sub_(data.mean).div_(data.std)


def epoch_usual(data: datasets.Dataset, workers: int) -> None:
    model = models.build(RECIPE.model, RECIPE.dropout).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    for images, labels in usual_batches(data, workers):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


def epoch_course(data: datasets.Dataset) -> None:
    runs.prepare_process(torch.device("cpu"))
    model = models.build(RECIPE.model, RECIPE.dropout).to(memory_format=torch.channels_last)
    train_epoch(Training(model, RECIPE, 0, len(data.train)), data, RECIPE)


SIDES = {
    "one epoch of augmented batches": {
        "usual way, 0 workers": lambda data: batches_usual(data, 0),
        "usual way, 2 workers": lambda data: batches_usual(data, 2),
        "course": batches_course,
    },
    "one training epoch of bn_augmentation": {
        "usual way, 0 workers": lambda data: epoch_usual(data, 0),
        "usual way, 2 workers": lambda data: epoch_usual(data, 2),
        "course": epoch_course,
    },
}


def seconds_in_fresh_process(row: str, side: str) -> float:
    """One measurement, loading not counted."""
    ended = subprocess.run([sys.executable, "-m", "utils.bench", "--one", row, side], cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise CourseError(f"{row}, {side} failed: {ended.stderr.strip()[-300:]}")
    return float(ended.stdout.split()[-1])


def measure(repetitions: int) -> dict:
    """All rows, sides in turn. Returns row → side → seconds of every repetition."""
    times = {row: {side: [] for side in sides} for row, sides in SIDES.items()}
    for row, sides in SIDES.items():
        for repetition in range(repetitions):
            for side in sides:
                times[row][side].append(seconds_in_fresh_process(row, side))
                print(f"{row}: {side}, {repetition + 1} of {repetitions}: {times[row][side][-1]:.2f} s", file=sys.stderr, flush=True)
    return times


def show(times: dict) -> str:
    """The table: medians, spread and the ratio of the usual way's better median to the course's."""
    rows = []
    for row, sides in times.items():
        usual = min((side for side in sides if side != "course"), key=lambda side: statistics.median(sides[side]))
        medians = [statistics.median(sides[side]) for side in (usual, "course")]
        spread = [
            f"{m:.2f} s ({min(sides[side]):.2f} to {max(sides[side]):.2f})" for m, side in zip(medians, (usual, "course"), strict=True)
        ]
        rows.append([row, usual, *spread, f"{medians[0] / medians[1]:.1f} ×"])
    return table(["what", "against", "usual", "course", "faster"], rows)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.bench", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SIDE"), help="measure one side once in this process")
    options = parser.parse_args(words)
    if options.one:
        data = datasets.load("mnist")
        start = time.perf_counter()
        SIDES[options.one[0]][options.one[1]](data)
        print(time.perf_counter() - start)
        return
    times = measure(options.repetitions)
    data, facts = datasets.load("mnist"), runs.environment(torch.device("cpu"))
    facts |= {"cores": os.cpu_count(), "data": data.name, "images": len(data.train), "commit": runs.commit(), "time": runs.now()}
    artifacts.write_json(ROOT / "logs" / "benchmarks" / "cpu.json", {"environment": facts, "seconds": times})
    print(show(times))
    print(json.dumps(facts, ensure_ascii=False))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CourseError as error:
        sys.exit(f"bench: {error}")
