"""How fast the course is against the usual way, side by side in one run.

    python -m utils.bench                measure everything, print the table, keep the measurements below runs/
    python -m utils.bench --publish      the same, kept in logs/benchmarks/ (real MNIST only): README and notebook 08 show them
    python -m utils.bench --only epoch   measure the rows whose name holds a word, print only

Every measurement runs in a fresh process, the sides in turn, several times; a table gives medians, the spread and the
ratio. What a side times is its work alone. Loading is given beside it: the data and, before a training, two steps of a network
that is thrown away, for on its first step a process compiles its kernels.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from utils.report import BENCHMARK, EXAMPLE_STEPS, TRIED_ROWS, speed_table

from utils import ROOT, CourseError, artifacts, models, runs, usual, voxels
from utils import data as datasets
from utils.augment import affine
from utils.data import Dataset
from utils.experiments import EXPERIMENTS, Experiment
from utils.loops import Training, evaluate, fit, normalise, train_epoch

RECIPE, SPRINT = EXPERIMENTS["bn_augmentation"], EXPERIMENTS["sprint"]
TO_994 = "time to 99.4 %"
VOXEL_BUILD, VOXEL_EPOCH = "3D-MNIST rows of 60 digits", "training epoch of voxel_reference"


def batches(data: Dataset) -> None:
    random = torch.Generator().manual_seed(0)
    for rows in torch.randperm(len(data.train)).split(RECIPE.batch_size):
        images = data.train.images.index_select(0, rows).float().div_(255)
        affine(images, random, RECIPE.rotate, RECIPE.shift, RECIPE.scale, RECIPE.shear).sub_(data.mean).div_(data.std)


def usual_batches(data: Dataset, workers: int) -> None:
    for _batch in usual.loader(data, RECIPE, workers):
        pass


def sixty(data: Dataset) -> np.ndarray:
    return data.test.images[:60, 0].numpy()


def warm_up(build: Callable[[], nn.Module], recipe: Experiment) -> None:
    """A step of a throwaway network at both of an epoch's batch sizes, in the layout in which it will be trained."""
    model = build()
    for size in (recipe.batch_size, 60_000 % recipe.batch_size or recipe.batch_size):
        F.cross_entropy(model(torch.zeros(size, 1, 28, 28)), torch.zeros(size, dtype=torch.long)).backward()


def course_network(recipe: Experiment) -> nn.Module:
    """As runs.run builds it."""
    model = models.build(recipe.model, recipe.dropout)
    return model.to(memory_format=models.memory_format(model))


def epoch(data: Dataset, recipe: Experiment = RECIPE) -> None:
    train_epoch(Training(course_network(recipe), recipe, 0, len(data.train)), data, recipe)


def train(data: Dataset, name: str) -> dict:
    """A whole published recipe, seeded by the clock: every repetition is another draw."""
    recipe = EXPERIMENTS[name]
    torch.manual_seed(time.time_ns() % 2**32)
    model = course_network(recipe)
    history = fit(model, data, recipe, time.time_ns() % 2**32, echo=False)
    return {"epochs": len(history), "accuracy": evaluate(model, data.test, data.mean, data.std).percent}


def usual_train(data: Dataset, target: float) -> dict:
    accuracies = usual.train_example(data, target)
    return {"epochs": len(accuracies), "accuracy": max(accuracies)}


def steps() -> dict[str, Callable[[Dataset], None]]:
    """From the usual way to the course's, one change at a time: one epoch of PyTorch's example each."""

    def tensors(data: Dataset, prepare: bool = False, layout: torch.memory_format = torch.contiguous_format) -> None:
        if prepare:
            runs.prepare_process(torch.device("cpu"))
        model = usual.example_network().to(memory_format=layout)
        training = Training(model, usual.EXAMPLE, 0, len(data.train))
        training.optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
        train_epoch(training, data, usual.EXAMPLE)

    return {
        "PyTorch's example, DataLoader": lambda data: usual.example_epoch(data),
        "the images as one tensor on the device": tensors,
        "freed memory is kept": lambda data: tensors(data, True),
        "channels-last": lambda data: tensors(data, True, torch.channels_last),
    }


def hundred(data: Dataset, step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], parameters: list) -> dict:
    """100 training batches of bn_augmentation without its augmentation, by plain SGD; step: images and labels → loss."""
    optimizer = torch.optim.SGD(parameters, RECIPE.lr, fused=True)
    images, labels = data.train[: 102 * RECIPE.batch_size]
    images = normalise(images, data.mean, data.std)
    parts = list(zip(images.split(RECIPE.batch_size), labels.split(RECIPE.batch_size), strict=True))
    for number, part in enumerate(parts):
        if number == 2:  # the first two compile
            start = time.perf_counter()
        optimizer.zero_grad()
        step(*part).backward()
        optimizer.step()
    return {"seconds": time.perf_counter() - start}


def one_network(data: Dataset, wrap: Callable = lambda model: model, bf16: bool = False) -> dict:
    network = course_network(RECIPE)
    model = wrap(network)

    def step(images, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return F.cross_entropy(model(images).float(), labels)

    return hundred(data, step, list(network.parameters()))


def grouped(data: Dataset, seeds: int = 5) -> dict:
    """Several networks as one whose convolutions have a group a seed."""
    layers: list[nn.Module] = []
    for layer in models.build(RECIPE.model):
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

    return hundred(data, step, list(model.parameters()))


def vmapped(data: Dataset, seeds: int = 5) -> dict:
    """Several networks by torch.func.vmap over their stacked parameters."""
    networks = [models.build(RECIPE.model) for _ in range(seeds)]
    for module in (module for network in networks for module in network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = nn.BatchNorm2d  # PyTorch's own: the course's has no rule for vmap
        if isinstance(module, nn.ReLU):
            module.inplace = False
    parameters, buffers = torch.func.stack_module_state(networks)

    def losses(parameters, buffers, images, labels):
        return F.cross_entropy(torch.func.functional_call(networks[0], (parameters, buffers), (images,)), labels)

    every = torch.func.vmap(losses, in_dims=(0, 0, None, None), randomness="different")
    return hundred(data, lambda images, labels: every(parameters, buffers, images, labels).sum(), list(parameters.values()))


def in_turn(data: Dataset, seeds: int = 5) -> dict:
    return {"seconds": sum(one_network(data)["seconds"] for _ in range(seeds))}


# what was tried; the first side is what the course does
TRIED: dict[str, dict[str, Callable[[Dataset], dict]]] = {
    TRIED_ROWS[0]: {
        "float32": one_network,
        "bfloat16 autocast": lambda data: one_network(data, bf16=True),
        "torch.compile": lambda data: one_network(data, torch.compile),
    },
    TRIED_ROWS[1]: {"one after another": in_turn, "grouped convolutions": grouped, "torch.func.vmap": vmapped},
}

# row → side → the work. The first side of a row is the course's; the others are the usual ways, the best of which counts.
WORK: dict[str, dict[str, Callable[[Dataset], dict | None]]] = {
    "augmented batches, one epoch": {
        "course": batches,
        "DataLoader, 0 workers": lambda data: usual_batches(data, 0),
        "DataLoader, 2 workers": lambda data: usual_batches(data, 2),
    },
    "training epoch of bn_augmentation": {
        "course": epoch,
        "DataLoader, 0 workers": lambda data: usual.recipe_epoch(data, RECIPE, 0),
        "DataLoader, 2 workers": lambda data: usual.recipe_epoch(data, RECIPE, 2),
    },
    "time to 99 %": {
        "course": lambda data: train(data, "sprint"),
        "PyTorch's example": lambda data: usual_train(data, 99.0),
    },
    TO_994: {
        "course": lambda data: train(data, "sprint_994"),
        "PyTorch's example": lambda data: usual_train(data, 99.4),
    },
    VOXEL_BUILD: {
        "course": lambda data: {"rows": len(voxels.pairs(sixty(data), (0,)))},
        "plain Python": lambda data: {"rows": sum(len(usual.plain_pair(image, seed)) for seed, image in enumerate(sixty(data)))},
    },
    VOXEL_EPOCH: {
        "course": lambda cubes: epoch(cubes, EXPERIMENTS["voxel_reference"]),
        "DataLoader of RGB arrays": lambda cubes: usual.voxel_epoch(cubes, EXPERIMENTS["voxel_reference"]),
    },
    EXAMPLE_STEPS: steps(),
    **TRIED,
}
# what both sides of a training row do before it is timed
WARM_UP: dict[str, dict[str, Callable[[], None]]] = {
    "training epoch of bn_augmentation": {
        "course": lambda: warm_up(lambda: course_network(RECIPE), RECIPE),
        "usual": lambda: warm_up(lambda: models.build(RECIPE.model), RECIPE),
    },
    "time to 99 %": {
        "course": lambda: warm_up(lambda: course_network(SPRINT), SPRINT),
        "usual": lambda: warm_up(usual.example_network, usual.EXAMPLE),
    },
}
WARM_UP[TO_994] = WARM_UP["time to 99 %"]

MAKE = {"OMP_PROC_BIND": "true", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # what `make train` sets, and the usual way does not
LESS = {"time to 99 %": 1, EXAMPLE_STEPS: 1, TO_994: 2}  # minutes each: so many repetitions less


def once(row: str, side: str) -> dict:
    """One measurement in this process: seconds of work and of loading, peak memory, and what the work returned."""
    start = time.perf_counter()
    data = datasets.load("mnist3d" if row == VOXEL_EPOCH else "mnist")
    if side == "course" or row in TRIED:
        runs.prepare_process(torch.device("cpu"))
    if row in WARM_UP:
        WARM_UP[row]["course" if side == "course" else "usual"]()
    ready = time.perf_counter()
    found = WORK[row][side](data) or {}
    seconds = time.perf_counter() - ready
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return {"seconds": seconds, "loading": ready - start, "peak_mib": peak, **found}  # a work that warms up first says its own seconds


def in_fresh_process(*words: str, **environment: str) -> dict:
    """What `python -m utils.bench *words` prints as JSON on its last line."""
    command = [sys.executable, "-m", "utils.bench", *words]
    variables = {key: value for key, value in {**os.environ, **environment}.items() if value}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, check=False)
    if ended.returncode:
        raise CourseError(f"{' '.join(words)} failed: {ended.stderr.strip()[-400:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def measure(rows: list[str], repetitions: int, unfinished: Path) -> dict:
    """row → side → the measurements of all repetitions, the sides of a row in turn. What is in `unfinished`, where every
    measurement is written at once, is not measured again: the whole takes half an hour."""
    found = artifacts.read_json(unfinished) if unfinished.is_file() else {}
    for row in rows:
        sides = found.setdefault(row, {side: [] for side in WORK[row]})
        for repetition in range(max(1, repetitions - LESS.get(row, 0))):
            for side in WORK[row]:
                if len(sides[side]) > repetition:
                    continue
                one = in_fresh_process("--once", row, side, **(MAKE if side == "course" or row in TRIED else dict.fromkeys(MAKE, "")))
                sides[side].append(one)
                artifacts.write_json(unfinished, found)
                print(f"{row}: {side}, {repetition + 1}: {one}", file=sys.stderr, flush=True)
    return {row: found[row] for row in rows}


def sizes(repetitions: int) -> dict:
    """Seconds and peak memory of one training epoch of `sprint` on 1, 2, 4 and 8 times the images; the largest also mapped."""
    mnist = datasets.load("mnist")
    found: dict = {}
    for times in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            write_repeated(mnist, times, Path(folder))
            for kind, bound in (("read", "inf"), *([("mapped", "0.01")] if times == 8 else [])):
                found[f"{times} × {kind}"] = [
                    in_fresh_process("--size", COURSE_DATA=folder, COURSE_MEMORY_GB=bound, **MAKE) for _ in range(repetitions)
                ]
    return found


def write_repeated(data: Dataset, times: int, folder: Path) -> None:
    """MNIST with its training half repeated, as IDX files in torchvision's layout below `folder`."""
    files = datasets.SOURCES["mnist"].files(folder)
    files[0].parent.mkdir(parents=True)
    for split, copies, images, labels in ((data.train, times, *files[:2]), (data.test, 1, *files[2:])):
        datasets.write_idx(images, split.images.squeeze(1).repeat(copies, 1, 1))
        datasets.write_idx(labels, split.labels.to(torch.uint8).repeat(copies))


def size_once() -> dict:
    """One epoch of `sprint` on whatever COURSE_DATA holds."""
    data = datasets.load("mnist")
    runs.prepare_process(torch.device("cpu"))
    epoch(data, SPRINT)  # the first epoch also pages the images in
    start = time.perf_counter()
    epoch(data, SPRINT)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": len(data.train), "seconds": time.perf_counter() - start, "peak_mib": peak}


def floor(recipe: Experiment, images: int = 60_000) -> dict:
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

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    model(batch)
    scale = images / recipe.batch_size
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


def profile(data: Dataset, recipe: Experiment = RECIPE) -> dict[str, float]:
    """Where a training epoch's time goes: fraction of the operators' own time by kind, over 40 batches."""
    runs.prepare_process(torch.device("cpu"))
    model = course_network(recipe)
    part = Dataset(**{**vars(data), "train": data.train[: 40 * recipe.batch_size]})
    training = Training(model, recipe, 0, len(part.train))
    train_epoch(training, part, recipe)
    with torch.profiler.profile() as profiler:
        train_epoch(training, part, recipe)
    kinds = {
        "convolution": ("conv",),
        "batch norm": ("batch_norm", "FewChannels", "addcmul", "aten::sum", "aten::pow"),
        "ReLU": ("clamp_min", "threshold"),
        "pooling": ("pool", "aten::fill_"),
        "dropout": ("bernoulli", "dropout"),
        "augmentation": ("grid", "index_select", "aten::rand", "aten::mm"),
        "optimizer": ("Optimizer", "fused"),
    }
    spent = dict.fromkeys((*kinds, "everything else"), 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, words in kinds.items() if any(word in event.key for word in words)), "everything else")
        spent[kind] += event.self_cpu_time_total
    return {kind: time / sum(spent.values()) for kind, time in spent.items()}


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m utils.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", metavar="WORD", help="only the rows whose name holds WORD; nothing is kept")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--size", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.once or options.size:
        print(json.dumps(once(*options.once) if options.once else size_once()))
        return
    rows = [row for row in WORK if not options.only or options.only in row]
    if not rows:
        raise CourseError(f"no row holds {options.only!r}: expected a word of {', '.join(WORK)}")
    data = datasets.load("mnist")
    if options.publish and (options.only or datasets.PUBLISHABLE.get(data.name) != data.fingerprint or not data.whole):
        raise CourseError("only a whole benchmark on the real MNIST can be published: leave out --only, set COURSE_DATA and COURSE_SMOKE=0")
    cpu = torch.device("cpu")
    conditions = json.dumps([runs.environment(cpu), data.fingerprint, rows, options.repetitions, options.publish])
    unfinished = artifacts.own_root() / "unfinished" / f"benchmark_{hashlib.sha256(conditions.encode()).hexdigest()[:8]}.json"
    found = {"rows": measure(rows, options.repetitions, unfinished)}
    if not options.only:
        found |= {"sizes": sizes(max(1, options.repetitions - 1)), "floor": floor(RECIPE), "profile": profile(data)}
        found["environment"] = runs.environment(cpu) | {"cores": os.cpu_count(), "data": data.name}
        found["environment"] |= {"commit": runs.commit(), "time": runs.now()}
        root = ROOT if options.publish else artifacts.own_root()
        artifacts.write_json(root / BENCHMARK.relative_to(ROOT), found)
    unfinished.unlink(missing_ok=True)
    print(speed_table(found["rows"]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CourseError as error:
        sys.exit(f"bench: {error}")
