"""Kill commands at random moments and see whether anything is lost: files, finished runs, epochs, or bits.

python -m tools.stress              a hundred times kill -9, over every kind of run; the figures go below runs/
python -m tools.stress --kills 10   fewer
python -m tools.stress --publish    the same, kept in logs/benchmarks/ for docs/training.md

Every kill hits a process at a moment that is drawn at random. Then every file is looked at, and the same command is
given again, until it ends; what it leaves is compared with what it leaves undisturbed. The trainings are short, on a
few of scikit-learn's digits.
"""

from tools import command  # isort: skip

import csv
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image

from tools import report, train
from tools.measurements import Machine, Stress, Stressed, stress_path
from utils import ROOT, CourseError, files
from utils.data import datasets, voxels
from utils.runs import facts, pretrained, records, trials

TRAIN, TEST = 192, 48  # digits
FEW = ["--quiet", "--device", "cpu", "--threads", "1", "--batch-size", "64"]
KINDS: dict[str, list[list[str]]] = {  # commands in order; the first word is the tool
    "plain": [["train", "base", "--epochs", "4"]],
    "augmented": [["train", "bn_augmentation", "--epochs", "4"]],
    "dropout": [["train", "dropout", "--epochs", "4"]],
    "plateau and early stopping": [
        ["train", "base", "--valid", "40", "--schedule", "plateau", "--patience", "2", "--epochs", "5"]
    ],
    "voxels, and building them": [["train", "voxel_best", "--epochs", "2"]],
    "several runs": [["train", "base", "dropout", "--seeds", "2", "--epochs", "2"]],
    "a report": [["train", "base", "--seeds", "2", "--epochs", "2"], ["report"]],
}


def prepare(root: Path) -> None:
    """MNIST's files below `root`, holding a few of scikit-learn's digits."""
    digits, source = datasets.load("digits"), datasets.SOURCES["mnist"].files(root / "data")
    for split, n, images, labels in ((digits.train, TRAIN, *source[:2]), (digits.test, TEST, *source[2:])):
        files.write_idx(images, split.images[:n].squeeze(1))
        files.write_idx(labels, split.labels[:n].to(torch.uint8))


def do(root: Path, argv: list[str]) -> None:
    """A command, as a process of its own runs it: everything that it reads and writes lies below `root`."""
    os.environ |= {"COURSE_RUNS": str(root), "COURSE_DATA": str(root / "data"), "COURSE_SMOKE": "0"}
    datasets.ROOT, voxels.TRAIN, voxels.TEST = root, TRAIN // 2, TEST // 2
    action, argv = (train.main, [*argv[1:], *FEW]) if argv[0] == "train" else (report.main, [str(root)])
    with (root / "said.txt").open("a") as message, redirect_stdout(message), redirect_stderr(message):
        status = command.run(argv[0], action, argv)
    os._exit(status)


def start(root: Path, argv: list[str]):
    # forked: what takes time to import is there already, so a kill hits the work and not the imports
    process = get_context("fork").Process(target=do, args=(root, argv))
    process.start()
    return process


def finish(root: Path, argv: list[str]) -> float:
    """Give a command and wait for its end; seconds. Raises CourseError if it failed."""
    run_start, process = time.perf_counter(), start(root, argv)
    process.join()
    if process.exitcode:
        message = (root / "said.txt").read_text().strip().splitlines() or ["nothing"]
        raise CourseError(f"{' '.join(argv)} ended with status {process.exitcode} and said: {message[-1]}")
    return time.perf_counter() - run_start


CHECKS: dict[str, Callable[[Path], object]] = {  # by suffix: reads a file, and raises an error if it is not whole
    ".csv": records.read_log,
    ".json": records.read_facts,
    ".jsonl": lambda path: files.read_lines(path, trials.Trial),
    ".pt": records.read_checkpoint,
    ".pth": lambda path: (
        pretrained.load_model(path)
        if path.with_suffix(".json").exists()
        else files.load_safely(path, files.read(path, most=files.TENSORS), "")
    ),
    ".h5": voxels.read,
    ".png": lambda path: Image.open(path).verify(),
}


def damaged(root: Path) -> list[Path]:
    """Files below `root` that are not whole. What begins with a dot was never anything but an attempt."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix in CHECKS and not path.name.startswith("."):
            try:
                CHECKS[path.suffix](path)
            except (CourseError, OSError, SyntaxError):
                found.append(path)
    return found


def outcome(root: Path) -> dict[str, str]:
    """A digest of all results of a command: state dicts, logs without times, voxels, pictures, and the trials of a
    study."""
    found = {}
    for path in sorted(path for path in root.rglob("[!.]*") if path.suffix in CHECKS):
        if path.suffix == ".csv":
            with path.open() as file:
                content = repr([row | {"seconds": ""} for row in csv.DictReader(file)]).encode()
        elif path.suffix == ".h5":
            content = b"".join(values.tobytes() for values in voxels.read(path)[0])
        elif path.suffix == ".jsonl":  # a kill may let a run be counted twice, of which one counts
            content = repr(
                sorted(
                    {(one.recipe.digest(), one.seed, one.valid) for one in files.read_lines(path, trials.Trial)},
                    key=repr,
                )
            ).encode()
        else:
            content = b"" if path.suffix == ".json" else path.read_bytes()
        found[str(path.relative_to(root))] = hashlib.sha256(content).hexdigest()
    return found


def left(root: Path) -> tuple[dict[Path, bytes], dict[Path, int]]:
    """What is there after a kill: the facts of finished runs, and how many epochs the checkpoints of the others
    hold."""
    finished = {path: path.read_bytes() for path in root.glob("logs/*/seed*.json")}
    epochs = {}
    for path in root.glob("unfinished/*.pt"):
        run_start, state = records.read_checkpoint(path)
        epochs[records.RunPaths(root, path.name.rpartition("_seed")[0], run_start.seed).facts] = len(state["history"])
    return finished, {path: rows for path, rows in epochs.items() if path not in finished}


def lost(before: tuple[dict[Path, bytes], dict[Path, int]]) -> tuple[int, int]:
    """Of what was there after a kill, how many finished runs were done again in the end, and how many epochs."""
    finished, unfinished = before
    again = sum(not path.exists() or path.read_bytes() != content for path, content in finished.items())
    epochs = 0
    for path, rows in unfinished.items():
        continued = records.read_facts(path).continued
        epochs += max(0, rows - (continued[-1].after_epoch if continued else 0))
    return again, epochs


def stress(kind: str, kills: int, draw: random.Random) -> Stressed:
    """Kill one kind of command so many times, each time a new one or one that continues. Raises CourseError if a
    command fails."""
    found = Stressed()
    *before, last = KINDS[kind]
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        run_start, whole = Path(folder, "run_start"), Path(folder, "whole")
        prepare(run_start)
        for argv in before:
            finish(run_start, argv)
        copy(run_start, whole)
        seconds, expected = finish(whole, last), outcome(whole)
        for number in range(10 * kills):
            if found.kills == kills:
                return found
            root = Path(folder, str(number))
            copy(run_start, root)
            run_until_killed(
                root, last, seconds, expected, found, min(kills - found.kills, draw.choice((1, 1, 2))), draw
            )
    raise CourseError(f"{kind}: the commands end before they can be killed, in {seconds:.2f} s")


def copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            files.write(target / path.relative_to(source), path.read_bytes())


def run_until_killed(
    root: Path, argv: list[str], seconds: float, expected: dict, found: Stressed, kills: int, draw: random.Random
) -> None:
    """Begin a command, kill it up to `kills` times, let it end, and add to `found` what came of it."""
    killed, lives = 0, []
    for _ in range(kills):
        process = start(root, argv)
        process.join(draw.uniform(0, seconds))
        if process.exitcode is not None:  # it was quicker
            break
        process.kill()
        process.join()
        killed += 1
        found.damaged += len(damaged(root))
        lives.append(left(root))
    finish(root, argv)
    found.kills += killed
    found.damaged += len(damaged(root)) * bool(killed)
    for runs, epochs in map(lost, lives[-1:]):
        found.lost_runs += runs
        found.lost_epochs += epochs
    for earlier, later in pairwise(lives):
        found.lost_runs += len(earlier[0].keys() - later[0].keys())
        found.lost_epochs += sum(max(0, rows - later[1].get(path, rows)) for path, rows in earlier[1].items())
    found.same += killed if outcome(root) == expected else 0


def main(argv: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.stress", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args(argv)
    if options.kills < 1:
        raise CourseError(f"--kills {options.kills}: expected 1 or more")
    if sys.platform in ("win32", "darwin"):
        raise CourseError(
            f"stress forks its processes, which {sys.platform} can't after torch is imported: expected Linux"
        )
    torch.set_num_threads(1)  # a process that has computed with several can't be forked
    draw, found = random.Random(options.seed), {}
    for number, kind in enumerate(KINDS):
        kills = options.kills // len(KINDS) + (number < options.kills % len(KINDS))
        found[kind] = stress(kind, kills, draw) if kills else Stressed()
        print(f"{kind}: {asdict(found[kind])}", flush=True)
    machine = asdict(facts.environment(torch.device("cpu")))
    machine = Machine(**machine, cores=os.cpu_count(), data="digits", commit=facts.code().commit, time=facts.now())
    result = Stress(found, machine)
    files.write_json(stress_path(ROOT if options.publish else records.own_root()), result)
    print(f"all: {asdict(result.total)}")
    return int(not result.passed)


if __name__ == "__main__":
    command.main("stress", main)
