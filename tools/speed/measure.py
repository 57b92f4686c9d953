"""How fast the course is against the usual way, side by side in one run.

python -m tools.speed.measure                measure everything, print the table, write the measurements below runs/
python -m tools.speed.measure --publish      the same, kept in logs/benchmarks/ (real MNIST only)
python -m tools.speed.measure --only epoch   measure the rows whose name holds a word, print only; --publish replaces
them alone python -m tools.speed.measure --device cuda  the rows for a GPU; one line if there is none
python -m tools.speed.measure --once ROW SIDE SEED   one measurement in this process, as JSON

Each measurement runs in a fresh process. The sides alternate, and each repetition has its own recorded seed. A table
gives medians, the spread and the ratio. A side times only its work. Loading is a separate figure: the data and, before
a training, two steps of a throwaway network, because a process compiles its kernels on the first step.
"""

from tools import command  # isort: skip

import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tools.measurements import BN_EPOCH, KINDS, MEASURED, Benchmark, Machine, path, read, speed_table, tried_table
from tools.speed.rows import BN, CPU, ROWS, SPRINT, TUNED, USUAL, epoch, in_fresh_process, network
from utils import ROOT, CourseError, files, models
from utils.data import datasets
from utils.data.datasets import Dataset
from utils.experiments import Recipe
from utils.runs import facts, records
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


OPERATORS = {  # of operators, by words in their names
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
    spent = dict.fromkeys((*OPERATORS, "everything else"), 0.0)
    for event in profiler.key_averages():
        kind = next(
            (kind for kind, argv in OPERATORS.items() if any(word in event.key for word in argv)), "everything else"
        )
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


def once(row: str, side: str, seed: int, kind: str = "cpu") -> MEASURED:
    """One measurement in this process: seconds of work and of loading, peak memory, the seed, and what the work
    returned."""
    work = ROWS[kind][row].sides[side]
    start = time.perf_counter()
    data = datasets.load(ROWS[kind][row].data) if ROWS[kind][row].data else None
    if work.tuned:
        cpu.keep_memory()
    torch.manual_seed(seed)
    work.warm_up()
    torch.manual_seed(seed)
    ready = time.perf_counter()
    found = work.work(data, seed) or {}
    measured = {"seconds": time.perf_counter() - ready, "loading": ready - start, "peak_mib": peak_mib(), "seed": seed}
    return measured | found  # a work that warms up first says its own seconds


def measure(
    rows: list[str], repetitions: int, unfinished: Path, kind: str = "cpu"
) -> dict[str, dict[str, list[MEASURED]]]:
    """row → side → the measurements of all repetitions. The sides of a row alternate. What is in `unfinished`, where
    every measurement is written at once, is not measured again."""
    found = files.read_json(unfinished, dict) if unfinished.is_file() else {}
    for row in rows:
        sides = found.setdefault(row, {side: [] for side in ROWS[kind][row].sides})
        for seed in range(repetitions):
            for side, work in ROWS[kind][row].sides.items():
                if len(sides[side]) > seed:
                    continue
                settings = TUNED if work.tuned else {} if work.untouched else USUAL
                one = in_fresh_process("--device", kind, "--once", row, side, str(seed), **settings)
                sides[side].append(one)
                files.write_json(unfinished, found)
                print(f"{row}: {side}, {seed + 1}: {one}", file=sys.stderr, flush=True)
    return {row: found[row] for row in rows}


def sizes(repetitions: int) -> dict[str, list[MEASURED]]:
    """Seconds and peak memory of one training epoch of `sprint` on 1, 2, 4 and 8 times the images; the largest also
    mapped."""
    mnist = datasets.load("mnist")
    found: dict = {}
    for times in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            write_repeated(mnist, times, Path(folder))
            for kind, bound in (("read", "inf"), *([("mapped", "0.01")] if times == 8 else [])):
                found[f"{times} × {kind}"] = [
                    in_fresh_process("--size", COURSE_DATA=folder, COURSE_MEMORY_GB=bound, **TUNED)
                    for _ in range(repetitions)
                ]
    return found


def whole(found: dict, repetitions: int, data: datasets.Dataset, machine: Machine, kind: str) -> Benchmark:
    """What is kept: the rows, and of the CPU what an epoch costs on more images, at least, and by kind of operator."""
    if kind != "cpu":
        return Benchmark(found, {}, {}, {}, machine)
    return Benchmark(found, sizes(repetitions), environment=machine, **floors(data))


def floors(data: datasets.Dataset) -> dict[str, dict[str, float]]:
    """The floor and the profile of an epoch of bn_augmentation, and the floor of sprint."""
    return {"floor": floor(BN), "profile": profile(data, BN), "sprint_floor": floor(SPRINT)}


def measure_all(
    rows: list[str], repetitions: int, publish: bool, only: bool, kind: str = "cpu"
) -> dict[str, dict[str, list[MEASURED]]]:
    """Measure and write the whole benchmark. With `only` and `publish`, replace these rows of the published one.

    Raises CourseError for what can't be published."""
    data = datasets.load("mnist")
    if publish and (datasets.PUBLISHABLE.get(data.name) != data.fingerprint or not data.whole):
        raise CourseError(
            "only a benchmark on the whole real MNIST can be published: set COURSE_DATA and COURSE_SMOKE=0"
        )
    before = read(kind) if publish and only else None
    environment, code = asdict(facts.environment(CPU if kind == "cpu" else torch.device(kind))), facts.code()
    conditions = json.dumps([environment, asdict(code), data.fingerprint, rows, repetitions, publish])
    unfinished = (
        records.own_root() / "unfinished" / f"benchmark_{hashlib.sha256(conditions.encode()).hexdigest()[:8]}.json"
    )
    found = measure(rows, repetitions, unfinished, kind)
    machine = Machine(**environment, cores=os.cpu_count(), data=data.name, commit=code.commit, time=facts.now())
    if before:
        limits = floors(data) if BN_EPOCH in found and kind == "cpu" else {}
        among = replace(before, rows=before.rows | found, later=before.later | dict.fromkeys(found, machine), **limits)
        files.write_json(path(kind), among)
    elif not only:
        files.write_json(
            path(kind, ROOT if publish else records.own_root()), whole(found, repetitions, data, machine, kind)
        )
    unfinished.unlink(missing_ok=True)
    return found


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.speed.measure", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--only",
        metavar="WORD",
        nargs="+",
        help="only the rows whose names hold one of these; nothing is kept unless published",
    )
    parser.add_argument("--device", choices=KINDS, default="cpu", help="whose rows (default: cpu)")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--once", nargs=3, help=command.HIDDEN)
    parser.add_argument("--size", action="store_true", help=command.HIDDEN)
    options = parser.parse_args(argv)
    if options.size:
        print(json.dumps(epoch_of_all()))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"Not measured: {', '.join(ROWS['cuda'])}. PyTorch {torch.__version__} finds no CUDA GPU here.")
        return
    if options.once:
        row, side, seed = options.once
        known = ROWS[options.device]
        if row not in known or side not in known[row].sides or not seed.isdecimal():
            raise CourseError(f"--once {' '.join(options.once)}: expected a row, one of its sides, and a seed")
        print(json.dumps(once(row, side, int(seed), options.device)))
        return
    if options.repetitions < 1:
        raise CourseError(f"--repetitions {options.repetitions}: expected 1 or more")
    rows = [row for row in ROWS[options.device] if not options.only or any(word in row for word in options.only)]
    if not rows:
        raise CourseError(
            f"no row holds {' or '.join(options.only)}: expected a word of {', '.join(ROWS[options.device])}"
        )
    found = measure_all(rows, options.repetitions, options.publish, bool(options.only), options.device)
    print(tried_table(found, found) if options.only else speed_table(found))


if __name__ == "__main__":
    command.main("measure", main)
