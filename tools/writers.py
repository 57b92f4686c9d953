"""Is a random hold-out honest? Its images come from writers that also wrote the training images; test images do not.

python -m tools.writers [--splits 5] [--seeds 3]    train sprint_994 without each split's held-out images

Each run adds a line to logs/writers.jsonl, the source of a table in docs/reproducibility.md and of lesson 15.
C. Yadav and L. Bottou 2019, "Cold case: the lost MNIST digits", found the writer of every image. Their labels (QMNIST)
are searched below $COURSE_DATA and data/, then downloaded.
"""

from tools import command  # isort: skip

import itertools
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tools.measurements import HELD_OUT_RUNS, HeldOutRun, held_out_runs, held_out_section
from utils import CourseError, files
from utils.data import Dataset, Split, datasets, sources
from utils.experiments import EXPERIMENTS
from utils.runs import execution, facts
from utils.training import loops

EXPERIMENT, HELD_OUT = "sprint_994", 10_000


def writer_numbers(mnist: Dataset) -> list[Tensor]:
    """The writer of each training and test image, two int64 (N,). Raises CourseError if the labels are not MNIST's."""
    source, numbers = sources.SOURCES["qmnist"], []
    for split, prefix in ((mnist.train, source.prefixes[0]), (mnist.test, source.prefixes[1])):
        names = [prefix + source.labels + end for end in ("", ".gz")]
        places = [folder / source.torchvision_class / "raw" / name for folder in datasets.folders() for name in names]
        if not any(place.is_file() for place in places):
            sources.download("qmnist", datasets.folders()[-1])
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise CourseError(f"no writers found: put {names[0]} into {files.display_path(places[-1].parent)}")
        rows = files.read_idx(file)[: len(split)].long()
        if len(rows) < len(split) or rows.shape[1:] != (8,) or not torch.equal(rows[:, 0], split.labels):
            raise CourseError(f"{files.display_path(file)}: expected MNIST's labels in the first of eight columns")
        numbers.append(rows[:, 2])
    return numbers


def held_out(writers: Tensor, by_writer: bool, split: int) -> Tensor:
    """Which images are held out, bool (N,): about HELD_OUT, either at random or all images of random writers."""
    random = np.random.RandomState(split)
    if not by_writer:
        order = torch.from_numpy(random.permutation(len(writers)))
        return torch.zeros(len(writers), dtype=torch.bool).index_fill_(0, order[:HELD_OUT], True)
    names, counts = writers.unique(return_counts=True)
    order = torch.from_numpy(random.permutation(len(names)))
    chosen = names[order[: int((counts[order].cumsum(0) < HELD_OUT).sum()) + 1]]
    return torch.isin(writers, chosen)


def misread(model: torch.nn.Module, split: Split, mnist: Dataset) -> Tensor:
    """Which images the network misreads, bool (N,)."""
    return loops.predict(model, split.images, mnist.mean, mnist.std).argmax(1) != split.labels


def measure(mnist: Dataset, writers: list[Tensor], by_writer: bool, split: int, seed: int) -> HeldOutRun:
    """Train without a split's held-out images, then test on them and on the test images."""
    out, experiment = held_out(writers[0], by_writer, split), EXPERIMENTS[EXPERIMENT]
    part = replace(mnist, train=mnist.train[~out], valid=mnist.train[out])
    torch.manual_seed(seed)
    model = execution.initial(experiment)
    loops.fit(model, part, experiment.recipe, seed, echo=False)
    wrong = [
        numbers[misread(model.eval(), half, mnist)].tolist()
        for half, numbers in ((part.valid, writers[0][out]), (part.test, writers[1]))
    ]
    where = facts.environment(torch.device("cpu"))
    return HeldOutRun(by_writer, split, seed, images(writers[0][out]), *wrong, facts.code(), where, facts.now())


def images(writers: Tensor) -> dict[str, int]:
    """How many images each writer has."""
    names, counts = writers.unique(return_counts=True)
    return dict(zip(map(str, names.tolist()), counts.tolist(), strict=True))


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.writers", description=__doc__)
    parser.add_argument("--splits", type=int, default=5, help="splits of each kind (default: 5)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds on each split (default: 3)")
    options, mnist = parser.parse_args(argv), datasets.load("mnist")
    if mnist.name != "mnist" or not mnist.whole or min(options.splits, options.seeds) < 1:
        raise CourseError("expected one or more splits and seeds, and the whole of MNIST (COURSE_DATA)")
    writers = writer_numbers(mnist)
    done = {(run.split, run.by_writer, run.seed) for run in held_out_runs()}
    for todo in itertools.product(range(options.splits), (False, True), range(options.seeds)):
        if todo not in done:
            split, by_writer, seed = todo
            run = measure(mnist, writers, by_writer, split, seed)
            files.append_line(HELD_OUT_RUNS, run)
            kind = "by writer" if by_writer else "at random"
            print(f"split {split} {kind}, seed {seed}: {run.held_out:.2f} % held out, {run.test:.2f} % test")
    print(held_out_section())


if __name__ == "__main__":
    command.main("writers", main)
