"""Networks, data and recipes so small that a training takes a moment: what the tests of loops, runs and tables
train."""

from pathlib import Path

import pytest
import torch
from torch import nn

from utils import Interrupted, files, runs
from utils.data import datasets
from utils.data.datasets import Dataset, Split
from utils.experiments import Experiment, Recipe
from utils.runs import records
from utils.runs.facts import Code, Environment
from utils.runs.records import Continued, DataFacts, Normalization, RunMetadata, RunPaths
from utils.runs.trials import Trial
from utils.training.loops import Score

# without MNIST, mirrors and registries
OFFLINE = {"COURSE_DATA": "nowhere", "npm_config_offline": "true", "PIP_NO_INDEX": "1"}
OFFLINE |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")

# a terminal that has only ASCII
POOR = {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def tiny(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits; with all that has a state: a batch norm, dropout, vectors and matrices."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def tiny_voxels(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 16, 16, 16) → (N, 10) logits."""
    return nn.Sequential(
        nn.Conv3d(1, 2, 4, stride=4), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Flatten(), nn.Linear(128, 10)
    )


NETWORKS = {"tiny": tiny, "tiny_voxels": tiny_voxels}  # to be added to models.MODELS
# Every random state matters: order, augmentation (own generators) and dropout (the global one).
RECIPE = Recipe(
    "tiny",
    data="digits",
    epochs=3,
    batch_size=256,
    optimizer="adamw",
    schedule="one_cycle",
    weight_decay=0.01,
    dropout=0.1,
    rotate=5.0,
)
TINY = Experiment("tiny", RECIPE, "a network for tests", seeds=2)


def few_digits(root: Path, train: int = 384, test: int = 96) -> None:
    """MNIST's files below `root`, holding as many of scikit-learn's digits."""
    digits, source = datasets.load("digits"), datasets.SOURCES["mnist"].files(root)
    for split, n, images, labels in ((digits.train, train, *source[:2]), (digits.test, test, *source[2:])):
        files.write_idx(images, split.images[:n].squeeze(1))
        files.write_idx(labels, split.labels[:n].byte())


def dataset(train: int = 60, valid: int = 0) -> Dataset:
    """Random images, and labels that can be learnt from them: which tenth of the rows is brightest."""
    generator = torch.Generator().manual_seed(1)

    def split(n: int) -> Split:
        labels = torch.arange(n) % 10
        images = torch.randint(0, 128, (n, 1, 28, 28), generator=generator)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[0, 2 * label + 4 : 2 * label + 6] += 127
        return Split(images.to(torch.uint8), labels)

    first, test, held = (split(n) if n else None for n in (train, 40, valid))
    return Dataset("random", "images", first, test, 0.3, 0.2, "0" * 64, tuple("0123456789"), valid=held)


def train(experiment: Experiment = TINY, seed: int = 0, **options) -> runs.Result:
    """A run on the CPU that prints nothing."""
    return runs.run(experiment, seed, "cpu", **{"echo": False} | options)


def own(experiment: Experiment = TINY, seed: int = 0, root: Path | None = None) -> RunPaths:
    """Where a reader's own run is."""
    return RunPaths.of(experiment, seed, root or records.own_root())


def interrupted(experiment: Experiment = TINY, seed: int = 0, epoch: int = 1, **options) -> None:
    """A run that stops after an epoch, its checkpoint written."""

    def after_epoch(history):
        if len(history) == epoch:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train(experiment, seed, after_epoch=after_epoch, **options)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder: its path there, and its content."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# what such a run says of itself
RAN, CODE = Environment("CPU", 1, 1, "Linux", "3.11", "2.6", "1.26"), Code("a" * 40, "b" * 16)
_DATA = DataFacts("digits", "images", (1, 28, 28), "0" * 64, 1437, True)
_BEGUN = {"name": "tiny", "seed": 0, "recipe": Recipe("base"), "data": _DATA, "normalization": Normalization(0.1, 0.3)}
_BEGUN |= {"environment": RAN, "code": CODE, "started": "then", "continued": [Continued(1, CODE, RAN)]}
_DONE = {"parameters": 10, "epochs": 3, "kept_epoch": 3, "sha256": "c" * 64, "bytes": 100, "seconds": 1.5}
_DONE |= {"test": Score(0.1, 350, 360), "parts": {"upright": Score(0.1, 9, 10)}, "finished": "now"}
FACTS = RunMetadata(**_BEGUN, **_DONE)
TRIAL = Trial("tiny", Recipe("base", valid=100), 0, Score(0.2, 90, 100), 3, False, 1.5, "0" * 64, CODE, RAN, "now")
