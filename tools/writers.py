"""Is a random hold-out honest? Its images come from writers that also wrote the training images; test images do not.

python -m tools.writers    train sprint_994 three times without the held-out images of each of ten splits

Each run adds a line to logs/writers.jsonl, the source of a table in lesson 15.
C. Yadav and L. Bottou 2019, "Cold case: the lost MNIST digits", found the writer of every image. Their labels (QMNIST)
are searched below $COURSE_DATA and data/, then downloaded.
"""

from tools import command  # isort: skip

import itertools
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tools.measurements import HELD_OUT_RUNS, HeldOutRun, held_out_runs, whole_mnist
from utils import CourseError, files
from utils.data import Dataset, datasets, sources
from utils.experiments import EXPERIMENTS
from utils.runs import execution, facts
from utils.training import loops

EXPERIMENT, HELD_OUT = "sprint_994", 10_000
SPLITS, SEEDS = 5, 3  # splits at random and by writer; seeds on each


def writer_numbers(mnist: Dataset) -> list[Tensor]:
    """The writer of each training and test image, two int64 (N,). Raises CourseError if the labels are not MNIST's."""
    pairs = [sources.SOURCES["qmnist"].files(folder)[1::2] for folder in datasets.folders()]
    paths = next((pair for pair in pairs if all(path.is_file() for path in pair)), None)
    paths = paths or (sources.download("qmnist", datasets.folders()[-1]) or [])[1::2]
    if not paths:
        place = files.display_path(pairs[-1][0].parent)
        raise CourseError(f"no writers found: put {' and '.join(path.name for path in pairs[-1])} into {place}")
    numbers = []
    for split, path in zip((mnist.train, mnist.test), paths, strict=True):
        rows = files.read_idx(path)[: len(split)].long()
        if rows.shape != (len(split), 8) or not torch.equal(rows[:, 0], split.labels):
            raise CourseError(f"{files.display_path(path)}: expected MNIST's labels in the first of eight columns")
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


def measure(mnist: Dataset, writers: list[Tensor], by_writer: bool, split: int, seed: int) -> HeldOutRun:
    """Train without a split's held-out images, then test on them and on the test images."""
    out, experiment = held_out(writers[0], by_writer, split), EXPERIMENTS[EXPERIMENT]
    part = replace(mnist, train=mnist.train[~out], valid=mnist.train[out])
    torch.manual_seed(seed)
    model = execution.initial(experiment)
    loops.fit(model, part, experiment.recipe, seed, echo=False)
    wrong = []
    for half, numbers in ((part.valid, writers[0][out]), (part.test, writers[1])):
        answers = loops.predict(model, half.images, mnist.mean, mnist.std).argmax(1)
        wrong.append(numbers[answers != half.labels].tolist())
    names, counts = (one.tolist() for one in writers[0][out].unique(return_counts=True))
    images = dict(zip(map(str, names), counts, strict=True))
    where = facts.environment(torch.device("cpu"))
    return HeldOutRun(by_writer, split, seed, images, *wrong, facts.code(), where, facts.now())


def main(argv: list[str]) -> None:
    command.Parser(prog="python -m tools.writers", description=__doc__).parse_args(argv)
    mnist = whole_mnist()
    writers = writer_numbers(mnist)
    done = {(run.split, run.by_writer, run.seed) for run in held_out_runs()}
    for todo in itertools.product(range(SPLITS), (False, True), range(SEEDS)):
        if todo not in done:
            split, by_writer, seed = todo
            run = measure(mnist, writers, by_writer, split, seed)
            files.append_line(HELD_OUT_RUNS, run)
            kind = "by writer" if by_writer else "at random"
            print(f"split {split} {kind}, seed {seed}: {run.held_out:.2f} % held out, {run.test:.2f} % test")


if __name__ == "__main__":
    command.main("writers", main)
