"""Measuring for tools.bench: every measurement in a fresh process, the sides of a row in turn."""

import sys
import tempfile
import time
from pathlib import Path

import torch

from tools import costs, daily, gpu
from tools.tried import TRIED
from tools.work import COMPARED, MEASURED, STEPS, TUNED, USUAL, in_fresh_process
from utils import files
from utils.data import datasets
from utils.training import cpu

ROWS = {"cpu": COMPARED | STEPS | TRIED | daily.ROWS, "cuda": gpu.ROWS}  # by kind of device


def once(row: str, side: str, seed: int, kind: str = "cpu") -> MEASURED:
    """One measurement in this process: seconds of work and of loading, peak memory, the seed, and what the work returned."""
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
    measured = {"seconds": time.perf_counter() - ready, "loading": ready - start, "peak_mib": costs.peak_mib(), "seed": seed}
    return measured | found  # a work that warms up first says its own seconds


def measure(rows: list[str], repetitions: int, unfinished: Path, kind: str = "cpu") -> dict[str, dict[str, list[MEASURED]]]:
    """row → side → the measurements of all repetitions, the sides of a row in turn. What is in `unfinished`, where every
    measurement is written at once, is not measured again."""
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
    """Seconds and peak memory of one training epoch of `sprint` on 1, 2, 4 and 8 times the images; the largest also mapped."""
    mnist = datasets.load("mnist")
    found: dict = {}
    for times in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            costs.write_repeated(mnist, times, Path(folder))
            for kind, bound in (("read", "inf"), *([("mapped", "0.01")] if times == 8 else [])):
                found[f"{times} × {kind}"] = [
                    in_fresh_process("--size", COURSE_DATA=folder, COURSE_MEMORY_GB=bound, **TUNED) for _ in range(repetitions)
                ]
    return found
