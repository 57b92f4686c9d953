"""The usual way, for comparison only: what tutorials do and beginners copy.

A DataLoader over torchvision's MNIST with per-sample transforms, NCHW, float32, an evaluation that sums batch by batch;
and the network of PyTorch's own MNIST example with its Adadelta. Nothing else in the course uses this module.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from utils import models
from utils.data import Dataset, Split
from utils.experiments import Experiment


class Samples(torch.utils.data.Dataset):
    """A split as torchvision.datasets.MNIST hands it out: one PIL image at a time through a transform."""

    def __init__(self, split: Split, transform: Callable):
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(transforms.functional.to_pil_image(self.split.images[i])), int(self.split.labels[i])


def loader(data: Dataset, recipe: Experiment, workers: int) -> DataLoader:
    """Shuffled training batches with the recipe's augmentation, sample by sample."""
    side = data.train.images.shape[-1]
    affine = transforms.RandomAffine(
        recipe.rotate,
        translate=(recipe.shift / side, recipe.shift / side),
        scale=(1 - recipe.scale, 1 + recipe.scale),
        shear=recipe.shear or None,
        interpolation=transforms.InterpolationMode.BILINEAR,
    )
    augmented = any((recipe.rotate, recipe.shift, recipe.scale, recipe.shear))
    steps = [*([affine] if augmented else []), transforms.ToTensor(), transforms.Normalize((data.mean,), (data.std,))]
    return DataLoader(Samples(data.train, transforms.Compose(steps)), recipe.batch_size, shuffle=True, num_workers=workers)


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader) -> None:
    """One training epoch."""
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()


def recipe_epoch(data: Dataset, recipe: Experiment, workers: int) -> None:
    """One training epoch of one of the course's recipes."""
    model = models.build(recipe.model, recipe.dropout)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = nn.BatchNorm2d  # PyTorch's own kernel
    epoch(model, torch.optim.SGD(model.parameters(), recipe.lr, momentum=0.9, nesterov=True), loader(data, recipe, workers))


def example_network() -> nn.Module:
    """The network of PyTorch's MNIST example: 1,199,882 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


EXAMPLE = Experiment("example", model="", teaches="PyTorch's MNIST example", batch_size=64)


def example_epoch(data: Dataset) -> None:
    """One training epoch of the example: Adadelta 1.0, batch 64."""
    model = example_network()
    epoch(model, torch.optim.Adadelta(model.parameters(), lr=1.0), loader(data, EXAMPLE, 0))


def train_example(data: Dataset, target: float, most_epochs: int = 14, seed: int = 0) -> list[float]:
    """Train the example (Adadelta 1.0, a factor of 0.7 an epoch, batch 64) until its test accuracy (%) reaches target.

    Returns the test accuracy after each epoch; at most `most_epochs` of them, the example's own number.
    """
    torch.manual_seed(seed)
    model = example_network()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((data.mean,), (data.std,))])
    test = DataLoader(Samples(data.test, transform), 1000)
    accuracies = []
    while len(accuracies) < most_epochs and max(accuracies, default=0.0) < target:
        epoch(model, optimizer, loader(data, EXAMPLE, 0))
        schedule.step()
        model.eval()
        with torch.no_grad():
            correct = sum((model(images).argmax(1) == labels).sum().item() for images, labels in test)
        accuracies.append(100 * correct / len(data.test))
    return accuracies
