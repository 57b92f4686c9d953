"""The usual way, for comparison only: what tutorials do and beginners copy.

A DataLoader over torchvision's MNIST with per-sample transforms, NCHW, float32, an evaluation that sums batch by batch;
and the network of PyTorch's own MNIST example with its Adadelta. Nothing else in the course uses this module.
"""

import random
import statistics
from collections.abc import Callable

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from utils import models
from utils.data import voxels
from utils.data.datasets import Dataset, Split
from utils.experiments import Recipe


class Samples(torch.utils.data.Dataset):
    """A split as torchvision.datasets.MNIST returns it: one PIL image at a time through a transform."""

    def __init__(self, split: Split, transform: Callable):
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(transforms.functional.to_pil_image(self.split.images[i])), int(self.split.labels[i])


def loader(data: Dataset, recipe: Recipe, workers: int) -> DataLoader:
    """Shuffled training batches with the recipe's augmentation, sample by sample."""
    shift = (recipe.shift / data.train.images.shape[-1],) * 2
    scale, bilinear = (1 - recipe.scale, 1 + recipe.scale), transforms.InterpolationMode.BILINEAR
    steps = [transforms.ToTensor(), transforms.Normalize((data.mean,), (data.std,))]
    if any((recipe.rotate, recipe.shift, recipe.scale, recipe.shear)):
        steps.insert(0, transforms.RandomAffine(recipe.rotate, shift, scale, recipe.shear or None, bilinear))
    samples = Samples(data.train, transforms.Compose(steps))
    return DataLoader(samples, recipe.batch_size, shuffle=True, num_workers=workers)


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader) -> None:
    """One training epoch."""
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


def recipe_epoch(data: Dataset, recipe: Recipe, workers: int) -> None:
    """One training epoch of one of the course's recipes."""
    model = models.build(recipe.model, recipe.dropout)
    optimizer = torch.optim.SGD(model.parameters(), recipe.lr, momentum=0.9, nesterov=True)
    epoch(model, optimizer, loader(data, recipe, workers))


def example_network() -> nn.Module:
    """The network of PyTorch's MNIST example: 1,199,882 parameters."""
    convolutions = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)]
    linear = [nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)]
    return nn.Sequential(*convolutions, *linear)


EXAMPLE = Recipe("", batch_size=64)  # the part of PyTorch's MNIST example that a recipe can express


def example_epoch(data: Dataset) -> None:
    """One training epoch of the example: Adadelta 1.0, batch 64."""
    model = example_network()
    epoch(model, torch.optim.Adadelta(model.parameters(), lr=1.0), loader(data, EXAMPLE, 0))


def train_example(data: Dataset, target: float, most: int = 14, seed: int = 0) -> list[float]:
    """Train the example (Adadelta 1.0, a factor of 0.7 per epoch, batch 64) until its test accuracy (%) reaches target.

    Returns the test accuracy after each epoch; at most `most` of them, the example's own number.
    """
    torch.manual_seed(seed)
    model = example_network()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((data.mean,), (data.std,))])
    test = DataLoader(Samples(data.test, transform), 1000)
    accuracies = []
    while len(accuracies) < most and max(accuracies, default=0.0) < target:
        epoch(model, optimizer, loader(data, EXAMPLE, 0))
        schedule.step()
        model.eval()
        with torch.no_grad():
            correct = sum((model(images).argmax(1) == labels).sum().item() for images, labels in test)
        accuracies.append(100 * correct / len(data.test))
    return accuracies


def plain_pair(image: np.ndarray, seed: int) -> list[list[float]]:
    """The two 3D-MNIST rows of a (28, 28) image, upright and rotated, in plain Python."""
    upright = plain_cloud(image)
    chance = random.Random(seed)
    matrix = voxels.rotation(*(chance.gauss(0, degrees) for degrees in (90, 90, 180))).tolist()
    turned = [tuple(sum(point[i] * matrix[i][k] for i in range(3)) for k in range(3)) for point in upright]
    spread = [statistics.pstdev(axis) for axis in zip(*turned, strict=True)]
    turned = [tuple(value + chance.uniform(-0.25, 0.25) * spread[k] for k, value in enumerate(p)) for p in turned]
    return [plain_voxels(upright), plain_voxels(turned)]


def plain_cloud(image: np.ndarray) -> list[tuple[float, ...]]:
    wide = [-0.5 + i / 4 for i in range(5)]
    deep = [-3 + 6 * i / 29 for i in range(30)]
    ink = [[value > 0 for value in row] for row in np.pad(image, 1).tolist()]
    points = []
    for row in range(30):
        for column in range(30):
            if not ink[row][column]:
                continue
            points += [(row + x, column + y, z) for z in (3, -3) for x in wide for y in wide]
            for side in (-1, 1):
                if not ink[row + side][column]:
                    points += [(row + side / 2, column + y, z) for z in deep for y in wide]
                if not ink[row][column + side]:
                    points += [(row + x, column + side / 2, z) for z in deep for x in wide]
    longest = max(max(axis) - min(axis) for axis in zip(*points, strict=True))
    points = [tuple(value / longest for value in point) for point in points]
    center = [sum(axis) / len(points) for axis in zip(*points, strict=True)]
    return [(z - center[2], y - center[1], center[0] - x) for x, y, z in points]


def plain_voxels(points: list[tuple[float, ...]]) -> list[float]:
    """Points in each of 16³ voxels, divided by the largest count, counted one by one."""
    low = [min(axis) - 0.001 for axis in zip(*points, strict=True)]
    high = [max(axis) + 0.001 for axis in zip(*points, strict=True)]
    side = max(b - a for a, b in zip(low, high, strict=True))
    start = [(a + b - side) / 2 for a, b in zip(low, high, strict=True)]
    counts = [0] * 16**3
    for point in points:
        x, y, z = (int((value - begin) / side * 16) for value, begin in zip(point, start, strict=True))
        counts[x + 16 * (y + 16 * z)] += 1
    most = max(counts)
    return [count / most for count in counts]


def voxel_epoch(data: Dataset, recipe: Recipe) -> None:
    """One training epoch of voxel_reference as its authors do it: RGB float arrays, sample by sample."""
    grids = data.train.images.flatten(1).numpy()
    colored = np.stack([colormaps["Oranges"](row)[:, :3].T.reshape(3, 16, 16, 16) for row in grids])  # float64
    samples = torch.utils.data.TensorDataset(torch.from_numpy(colored).float(), data.train.labels)
    model = models.build(recipe.model, recipe.dropout)[1:]  # its input already has colors
    epoch(model, torch.optim.Adam(model.parameters(), recipe.lr), DataLoader(samples, recipe.batch_size, shuffle=True))
