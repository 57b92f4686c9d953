"""How fast the course is against the usual way, side by side in one run.

python -m tools.speed.measure                measure everything, print the table, write the measurements below runs/
python -m tools.speed.measure --publish      the same, kept in logs/benchmarks/ (real MNIST only)
python -m tools.speed.measure --only epoch   only rows whose name contains a word; with --publish, replace these rows
python -m tools.speed.measure --once ROW SIDE SEED   one measurement in this process, as JSON

Each measurement runs in a fresh process. The sides alternate, and each repetition has its own recorded seed. A table
gives medians, the spread and the ratio. A side times only its work, after the data are loaded and, before a training,
after two steps of a throwaway network, because a process compiles its kernels on the first step.
"""

from tools import command  # isort: skip

import json
import os
import resource
import sys
import time
import timeit
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.measurements import BN_EPOCH, MEASURED, Benchmark, Machine, path, read, speed_table, tried_table
from tools.speed.rows import BN, CPU, ROWS, SPRINT, in_fresh_process
from utils import ROOT, CourseError, files, models
from utils.data import datasets
from utils.experiments import Recipe
from utils.runs import facts, records
from utils.training import devices

REPETITIONS = 3  # of each side, with the seeds 0 to 2
Found = dict[str, dict[str, list[MEASURED]]]  # row → side → one measurement per repetition


def floor(recipe: Recipe, images: int = 60_000) -> dict[str, float]:
    """The least time for an epoch's arithmetic and memory traffic, at the highest rates measured here.

    FLOPs: forward and backward of one batch, counted by torch. Bytes: each leaf module reads its input and writes its
    output once forward, and twice as much backward. Rates: a 2048³ float32 matrix product, a copy of 256 MiB.
    """
    batch = torch.randn(recipe.batch_size, 1, 28, 28)
    model = models.build(recipe.model, recipe.dropout)
    with FlopCounterMode(display=False) as counter:
        model(batch).sum().backward()
    moved = []
    for layer in models.layers(model):
        layer.register_forward_hook(lambda _layer, inputs, output: moved.append(inputs[0].nbytes + output.nbytes))
    model(batch)
    scale = recipe.drawn(images) / recipe.batch_size
    left, right, big = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(64 * 2**20)
    copy = torch.empty_like(big)
    flops, flops_rate = counter.get_total_flops() * scale, 2 * 2048**3 / fastest(lambda: left @ right)
    traffic, bytes_rate = 3 * sum(moved) * scale, 2 * big.nbytes / fastest(lambda: copy.copy_(big))
    rates = {"gflop_per_s": flops_rate / 1e9, "gbyte_per_s": bytes_rate / 1e9}
    seconds = max(flops / flops_rate, traffic / bytes_rate)
    return {"gflop": flops / 1e9, "gbyte": traffic / 1e9, **rates, "floor_seconds": seconds}


def fastest(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=1, repeat=8))


def once(row: str, side: str, seed: str | int) -> MEASURED:
    """One measurement in this process: seconds of work, peak memory, seed, and what the work returns."""
    if row not in ROWS or side not in ROWS[row].sides or not str(seed).isdecimal():
        raise CourseError(f"--once {row} {side} {seed}: expected a row, one of its sides, and a seed")
    work, seed = ROWS[row].sides[side], int(seed)
    data = datasets.load(ROWS[row].data) if ROWS[row].data else None
    if work.settings == "tuned":
        devices.keep_memory()
    torch.manual_seed(seed)
    work.warm_up()
    torch.manual_seed(seed)
    start = time.perf_counter()
    found = work.work(data, seed) or {}
    measured = {"seconds": time.perf_counter() - start, "seed": seed}
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return measured | {"peak_mib": max(usage) / 1024} | found  # work with its own clock returns its own seconds


def measure(rows: list[str]) -> Found:
    """Measure rows, alternating their sides."""
    found: Found = {row: {side: [] for side in ROWS[row].sides} for row in rows}
    for row in rows:
        for seed in range(REPETITIONS):
            for side, work in ROWS[row].sides.items():
                one = in_fresh_process("--once", row, side, str(seed), settings=work.settings)
                found[row][side].append(one)
                print(f"{row}: {side}, {seed + 1}: {one}", file=sys.stderr, flush=True)
    return found


def measure_all(rows: list[str], publish: bool, only: bool) -> Found:
    """Measure and write the whole benchmark; with `only` and `publish`, replace these rows of the published one.

    Raises CourseError for what can't be published.
    """
    data = datasets.load("mnist")
    if publish and (datasets.PUBLISHABLE.get(data.name) != data.fingerprint or not data.whole):
        todo = "set COURSE_DATA and COURSE_SMOKE=0"
        raise CourseError(f"only a benchmark on the whole real MNIST can be published: {todo}")
    if publish and not facts.code().committed:
        raise CourseError("only a benchmark of committed sources can be published: commit them first")
    before = read() if only and publish else None
    found = measure(rows)
    where, code = asdict(facts.environment(CPU)), facts.code()
    machine = Machine(**where, cores=os.cpu_count(), data=data.name, commit=code.commit, time=facts.now())
    least = {"floor": floor(BN), "sprint_floor": floor(SPRINT)} if BN_EPOCH in found else {}
    if before:
        later = before.later | dict.fromkeys(found, machine)
        files.write_json(path(), replace(before, rows=before.rows | found, later=later, **least))
    elif not only:
        files.write_json(path(root=ROOT if publish else records.own_root()), Benchmark(found, machine, **least))
    return found


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.speed.measure", description=__doc__)
    parser.add_argument("--only", metavar="WORD", nargs="+", help="only rows whose name contains one of these words")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--once", nargs=3, help=command.HIDDEN)
    options = parser.parse_args(argv)
    if options.once:
        print(json.dumps(once(*options.once)))
        return
    rows = [row for row in ROWS if not options.only or any(word in row for word in options.only)]
    if not rows:
        raise CourseError(f"no row holds {' or '.join(options.only)}: expected a word of {', '.join(ROWS)}")
    found = measure_all(rows, options.publish, bool(options.only))
    print(tried_table(found) if options.only else speed_table(found))


if __name__ == "__main__":
    command.main("measure", main)
