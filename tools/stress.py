"""Kill commands at random moments and check whether anything is lost: files, finished runs, epochs, or bits.

python -m tools.stress              100 times kill -9, over every kind of run; the figures go below runs/
python -m tools.stress --kills 10   fewer
python -m tools.stress --publish    the same, kept in logs/benchmarks/ for docs/training.md

After each kill, every file is checked and the same command runs again, until it ends. Its results are compared with
those of an undisturbed command. The trainings are short, on a few of scikit-learn's digits.
"""

from tools import command  # isort: skip

import csv
import hashlib
import os
import random
import shutil
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
from tools.measurements import Machine, Stress, Stressed
from tools.measurements import path as measurement_path
from utils import ROOT, CourseError, files
from utils.data import datasets, voxels
from utils.runs import facts, pretrained, records, trials

TRAIN, TEST = 192, 48  # digits
FEW = ["--quiet", "--device", "cpu", "--threads", "1", "--batch-size", "64"]
KINDS = {  # commands in order, of which the last one is killed
    "plain": ["train base --epochs 4"],
    "augmented": ["train bn_augmentation --epochs 4"],
    "dropout": ["train dropout --epochs 4"],
    "plateau and early stopping": ["train base --valid 40 --schedule plateau --patience 2 --epochs 5"],
    "voxels, and building them": ["train voxel_best --epochs 2"],
    "several runs": ["train base dropout --seeds 2 --epochs 2"],
    "a report": ["train base --seeds 2 --epochs 2", "report"],
}


def prepare(root: Path) -> None:
    """MNIST's files below `root`, holding a few of scikit-learn's digits."""
    digits, source = datasets.load("digits"), datasets.SOURCES["mnist"].files(root / "data")
    for split, n, images, labels in ((digits.train, TRAIN, *source[:2]), (digits.test, TEST, *source[2:])):
        files.write_idx(images, split.images[:n].squeeze(1))
        files.write_idx(labels, split.labels[:n].to(torch.uint8))


def do(root: Path, line: str) -> None:
    """Run a command in this process and exit; it reads and writes below `root` only."""
    os.environ |= {"COURSE_RUNS": str(root), "COURSE_DATA": str(root / "data"), "COURSE_SMOKE": "0"}
    datasets.ROOT, voxels.TRAIN, voxels.TEST = root, TRAIN // 2, TEST // 2
    name, *argv = line.split()
    action, argv = (train.main, [*argv, *FEW]) if name == "train" else (report.main, [str(root)])
    with (root / "printed.txt").open("a") as file, redirect_stdout(file), redirect_stderr(file):
        status = command.run(name, action, argv)
    os._exit(status)


def start(root: Path, line: str):
    # a fork has imported everything already, so a kill hits the work and not the imports
    process = get_context("fork").Process(target=do, args=(root, line))
    process.start()
    return process


def finish(root: Path, line: str) -> float:
    """Run a command to its end; seconds. Raises CourseError if it fails."""
    begin, process = time.perf_counter(), start(root, line)
    process.join()
    if process.exitcode:
        printed = (root / "printed.txt").read_text().strip().splitlines() or ["nothing"]
        raise CourseError(f"{line} ended with status {process.exitcode} and printed: {printed[-1]}")
    return time.perf_counter() - begin


def read_weights(path: Path) -> None:
    if path.with_suffix(".json").exists():
        pretrained.load_model(path)
    else:
        files.load_safely(path, files.read(path, most=files.TENSORS), "")


CHECKS: dict[str, Callable[[Path], object]] = {  # by suffix: read a file, and raise an error if it is damaged
    ".csv": records.read_log,
    ".json": records.read_facts,
    ".jsonl": lambda path: files.read_lines(path, trials.Trial),
    ".pt": records.read_checkpoint,
    ".pth": read_weights,
    ".h5": voxels.read,
    ".png": lambda path: Image.open(path).verify(),
}


def damaged(root: Path) -> list[Path]:
    """Damaged files below `root`. A name with a leading dot is a temporary file."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix in CHECKS and not path.name.startswith("."):
            try:
                CHECKS[path.suffix](path)
            except (CourseError, OSError, SyntaxError):
                found.append(path)
    return found


def outcome(root: Path) -> dict[str, str]:
    """A digest of each result: state dicts, logs without times, voxels, pictures, and the trials of a study."""
    found = {}
    for path in sorted(path for path in root.rglob("[!.]*") if path.suffix in CHECKS):
        if path.suffix == ".csv":
            with path.open() as file:
                content = repr([row | {"seconds": ""} for row in csv.DictReader(file)]).encode()
        elif path.suffix == ".h5":
            content = b"".join(values.tobytes() for values in voxels.read(path)[0])
        elif path.suffix == ".jsonl":  # a kill may add a run twice, of which one counts
            lines = files.read_lines(path, trials.Trial)
            content = repr(sorted({(one.recipe.digest(), one.seed, one.valid) for one in lines}, key=repr)).encode()
        else:
            content = b"" if path.suffix == ".json" else path.read_bytes()
        found[str(path.relative_to(root))] = hashlib.sha256(content).hexdigest()
    return found


Left = tuple[dict[Path, bytes], dict[Path, int]]  # facts of finished runs; epochs in the checkpoints of the others


def left(root: Path) -> Left:
    """What there is now, after a kill or at the end."""
    finished = {path: path.read_bytes() for path in root.glob("logs/*/seed*.json")}
    epochs = {}
    for path in root.glob("unfinished/*.pt"):
        run_start, state = records.read_checkpoint(path)
        epochs[records.RunPaths(root, path.name.rpartition("_seed")[0], run_start.seed).facts] = len(state["history"])
    return finished, {path: rows for path, rows in epochs.items() if path not in finished}


def lost(before: Left, after: Left) -> tuple[int, int]:
    """How many finished runs, and how many epochs, were trained again after a kill."""
    again = sum(after[0].get(path) != content for path, content in before[0].items())
    epochs = 0
    for path, rows in before[1].items():
        kept = after[1].get(path, 0)
        if path in after[0] and (continued := files.decode(after[0][path], records.RunMetadata, path.name).continued):
            kept = continued[-1].after_epoch
        epochs += max(0, rows - kept)
    return again, epochs


def stress(kind: str, kills: int, draw: random.Random) -> Stressed:
    """Kill one kind of command `kills` times, each time a new or a continued one. Raises CourseError if it fails."""
    found = Stressed()
    *before, last = KINDS[kind]
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        begin, whole = Path(folder, "begin"), Path(folder, "whole")
        prepare(begin)
        for line in before:
            finish(begin, line)
        shutil.copytree(begin, whole)
        seconds, expected = finish(whole, last), outcome(whole)
        for number in range(10 * kills):
            if found.kills == kills:
                return found
            root = shutil.copytree(begin, Path(folder, str(number)))
            lives = run_until_killed(root, last, seconds, min(kills - found.kills, draw.choice((1, 1, 2))), draw, found)
            found.kills += len(lives) - 1
            found.same += (len(lives) - 1) * (outcome(root) == expected)
            for earlier, later in pairwise(lives):
                runs, epochs = lost(earlier, later)
                found.lost_runs += runs
                found.lost_epochs += epochs
    raise CourseError(f"{kind}: the commands end before they can be killed, in {seconds:.2f} s")


def run_until_killed(
    root: Path, line: str, seconds: float, kills: int, draw: random.Random, found: Stressed
) -> list[Left]:
    """Start a command, kill it up to `kills` times, then let it end. Returns what each kill and the end left, and adds
    damaged files to `found`."""
    lives = []
    for _ in range(kills):
        process = start(root, line)
        process.join(draw.uniform(0, seconds))
        if process.exitcode is not None:  # it ended first
            break
        process.kill()
        process.join()
        found.damaged += len(damaged(root))
        lives.append(left(root))
    finish(root, line)
    found.damaged += len(damaged(root))
    return [*lives, left(root)]


def main(argv: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.stress", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args(argv)
    if options.kills < 1:
        raise CourseError(f"--kills {options.kills}: expected 1 or more")
    if sys.platform in ("win32", "darwin"):
        raise CourseError(f"stress forks processes, which {sys.platform} can't after torch is imported: expected Linux")
    torch.set_num_threads(1)  # a process that has computed with several threads can't be forked
    draw, found = random.Random(options.seed), {}
    for number, kind in enumerate(KINDS):
        kills = options.kills // len(KINDS) + (number < options.kills % len(KINDS))
        found[kind] = stress(kind, kills, draw) if kills else Stressed()
        print(f"{kind}: {asdict(found[kind])}", flush=True)
    machine = asdict(facts.environment(torch.device("cpu")))
    machine = Machine(**machine, cores=os.cpu_count(), data="digits", commit=facts.code().commit, time=facts.now())
    result = Stress(found, machine)
    files.write_json(measurement_path("stress", ROOT if options.publish else records.own_root()), result)
    print(f"all: {asdict(result.total)}")
    return int(not result.passed)


if __name__ == "__main__":
    command.main("stress", main)
