"""Commands are killed with `kill -9` at random moments, and nothing is lost: no file, finished run, epoch or bit.

Plain pytest kills three times. `make stress` kills a hundred times, and `make stress PUBLISH=1` keeps the figures in
logs/benchmarks/ for docs/training.md. After each kill, every file is checked and the same command runs again, until it
ends. Its results are compared with those of an undisturbed command. The trainings are short, on a few digits.
"""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from itertools import count, pairwise
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import pytest
import torch
from PIL import Image
from tiny import few_digits

from tools import command, measurements, report, train
from tools.measurements import Machine, Stress, Stressed
from utils import CourseError, files, runs
from utils.data import datasets, voxels
from utils.experiments import EXPERIMENTS
from utils.runs import facts, records, trials

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes can't be forked here once torch is imported")

KILLS = int(os.environ.get("STRESS_KILLS", "3"))
TRAIN, TEST = 192, 48  # digits
FEW = ["--quiet", "--device", "cpu", "--threads", "1", "--batch-size", "64"]
KINDS = {  # commands in order, of which the last one is killed
    "plateau and early stopping": ["train base --valid 40 --schedule plateau --patience 2 --epochs 5"],
    "voxels, and building them": ["train voxel_best --epochs 2"],
    "several runs": ["train base dropout --seeds 2 --epochs 2"],
    "plain": ["train base --epochs 4"],
    "augmented": ["train bn_augmentation --epochs 4"],
    "dropout": ["train dropout --epochs 4"],
    "a report": ["train base --seeds 2 --epochs 2", "report"],
}


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
    """Run a command to its end; seconds."""
    begin, process = perf_counter(), start(root, line)
    process.join()
    assert process.exitcode == 0, (root / "printed.txt").read_text()
    return perf_counter() - begin


CHECKS: dict[str, Callable[[Path], object]] = {  # by suffix: read a file, and raise an error if it is damaged
    ".csv": records.read_log,
    ".json": records.read_facts,
    ".jsonl": lambda path: files.read_lines(path, trials.Trial),
    ".pt": records.read_checkpoint,
    ".pth": lambda path: files.load_safely(path, files.read(path, most=files.TENSORS), ""),
    ".h5": voxels.read,
    ".png": lambda path: Image.open(path).verify(),
}


SAME = {  # by suffix: what two commands have in common, which is all but times and dates
    ".csv": lambda path: [row | {"seconds": 0} for row in records.read_log(path)],
    ".h5": lambda path: [values.tobytes() for values in voxels.read(path)[0]],
    ".json": lambda path: None,
    ".jsonl": lambda path: {(one.recipe, one.seed, one.valid) for one in files.read_lines(path, trials.Trial)},
}


def results(root: Path) -> list[Path]:
    """The files of results below `root`. A name with a leading dot is a temporary file."""
    return [path for path in root.rglob("[!.]*") if path.suffix in CHECKS]


def damaged(root: Path) -> list[Path]:
    found = []
    for path in results(root):
        try:
            CHECKS[path.suffix](path)
        except (CourseError, OSError, SyntaxError):
            found.append(path)
    return found


def outcome(root: Path) -> dict[Path, object]:
    return {path.relative_to(root): SAME.get(path.suffix, Path.read_bytes)(path) for path in results(root)}


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


def stress(kind: str, kills: int, draw: random.Random, folder: Path) -> Stressed:
    """Kill one kind of command `kills` times, each time a new or a continued one."""
    found = Stressed()
    *before, last = KINDS[kind]
    begin, whole = folder / "begin", folder / "whole"
    few_digits(begin / "data", TRAIN, TEST)
    for line in before:
        finish(begin, line)
    shutil.copytree(begin, whole)
    seconds, expected = finish(whole, last), outcome(whole)
    for number in count():
        if found.kills == kills:
            return found
        root, lives = shutil.copytree(begin, folder / str(number)), []
        for _ in range(min(kills - found.kills, draw.choice((1, 1, 2)))):
            process = start(root, last)
            process.join(draw.uniform(0, seconds))
            if process.exitcode is not None:  # it ended first
                break
            process.kill()
            process.join()
            found.damaged += len(damaged(root))
            lives.append(left(root))
        finish(root, last)
        found.damaged += len(damaged(root))
        found.kills += len(lives)
        found.same += len(lives) * (outcome(root) == expected)
        for earlier, later in pairwise([*lives, left(root)]):
            runs_again, epochs = lost(earlier, later)
            found.lost_runs += runs_again
            found.lost_epochs += epochs


def test_killed_commands_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a process that computes with several threads can't be forked
    draw, found = random.Random(0), {}
    for number, kind in enumerate(KINDS):
        if kills := KILLS // len(KINDS) + (number < KILLS % len(KINDS)):
            (tmp_path / kind).mkdir()
            found[kind] = stress(kind, kills, draw, tmp_path / kind)
            print(f"{kind}: {asdict(found[kind])}", flush=True)
    torch.set_num_threads(threads)
    where, commit = asdict(facts.environment(torch.device("cpu"))), facts.code().commit
    result = Stress(found, Machine(**where, cores=os.cpu_count(), data="digits", commit=commit, time=facts.now()))
    if os.environ.get("STRESS_PUBLISH"):
        files.write_json(measurements.path("stress"), result)
    assert result.total == Stressed(kills=KILLS, same=KILLS), result


def test_a_loss_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    experiment = EXPERIMENTS["base"].with_recipe(data="digits", valid=600, images=64, epochs=2)
    run = runs.run(experiment, device="cpu", folder=tmp_path, echo=False)
    before, whole, sidecar = left(tmp_path), outcome(tmp_path), run.log.with_suffix(".json")
    assert damaged(tmp_path) == []
    for path in (run.log, tmp_path / "trials" / "base.jsonl"):
        content = path.read_bytes()
        path.write_bytes(content[:-40] + b"\n")
        assert damaged(tmp_path) == [path]
        path.write_bytes(content.replace(b"600", b"601"))
        assert outcome(tmp_path) != whole
        path.write_bytes(content)
    assert lost(before, before) == (0, 0) and lost(({}, {sidecar: 2}), before) == (0, 2)  # it did not continue
    continued = {"continued": [{"after_epoch": 1, "code": None, "environment": None}]}
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | continued))
    assert lost(before, left(tmp_path)) == (1, 0) and lost(({}, {sidecar: 2}), left(tmp_path)) == (0, 1)
