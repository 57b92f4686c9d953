"""run(): the one place where a recipe becomes files (log, state dict, facts), and where it continues after a kill."""

import ctypes
import hashlib
import os
import platform
import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils import ROOT, CourseError, artifacts, distributed, models, smoke
from utils import data as datasets
from utils.data import Dataset
from utils.experiments import EXPERIMENTS, RETIRED, Experiment
from utils.loops import Row, Training, describe, evaluate, fit, kept


@dataclass(frozen=True)
class Result:
    """A finished run. model: trained, in eval mode, on the CPU; history: one row an epoch; facts: the sidecar's content."""

    experiment: Experiment
    seed: int
    model: nn.Module
    data: Dataset
    history: list[Row]
    facts: dict
    weights: Path
    log: Path


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" → CUDA, then MPS, then CPU; else the device of that name. Raises CourseError if it is not there.

    Of several processes each gets a GPU of its own machine for itself, or all of them the CPU.
    """
    if distributed.world() > 1:
        return pick_share(name)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, there in available.items() if there)
        raise CourseError(f"device {name!r} is not available: expected auto or one of {there}")
    return torch.device(name)


def pick_share(name: str) -> torch.device:
    """The device of this process among several. Raises CourseError if its machine has fewer GPUs than processes."""
    if name not in ("auto", "cuda", "cpu"):
        raise CourseError(f"device {name!r} can't be used by several processes: expected auto, cuda or cpu")
    gpus, here = torch.cuda.device_count(), distributed.local_rank()
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    if here >= gpus:
        raise CourseError(f"more processes here than GPUs ({gpus}): expected one GPU each; lower --nproc-per-node, or use --device cpu")
    return torch.device("cuda", here)


def run(
    experiment: Experiment,
    seed: int = 0,
    device: str = "auto",
    publish: bool | None = None,
    retrain: bool = True,
    root: Path | None = None,
    echo: bool = True,
    again: bool = True,
    after_epoch: Callable[[list[Row]], None] = lambda history: None,
) -> Result:
    """Train one experiment with one seed and file the result; continue where an earlier, interrupted call stopped.
    Where several processes train together, all of them call it and process 0 alone reads and writes files.

    publish: write logs/ and saved_dict/ of the repository (default: whether COURSE_PUBLISH is 1); what is published
    already by this recipe is read, not trained again. retrain=False: read the published run and train nothing.
    root: where the files go instead of runs/ (see utils.artifacts). again=False: a finished run of this recipe, seed and
    data that lies there is read, not trained again. after_epoch: called with the rows so far, once they are safe on disk.

    Raises CourseError for a folder that can't be written (before training), a loss that is not finite, processes that
    hold different recipes or data, or a publication of anything but a full run of an unchanged recipe on the real data.
    """
    publish = os.environ.get("COURSE_PUBLISH") == "1" if publish is None else publish
    if publish and smoke():
        raise CourseError("a smoke run can't be published: leave out --publish or set COURSE_SMOKE=0")
    if not retrain or (publish and distributed.from_lead(lambda: is_published(experiment, seed))):
        return distributed.from_lead(lambda: read_finished(ROOT, experiment, seed, datasets.load(experiment.data), echo))
    if smoke():
        experiment = replace(experiment, epochs=1, valid=min(experiment.valid, 128))
    where = distributed.together(lambda: pick_device(device))
    data = distributed.in_turns(lambda: datasets.load(experiment.data))
    if publish:
        distributed.together(lambda: refuse_unpublishable(experiment, data))
    if experiment.valid:
        data = data.hold_out(experiment.valid)
    if experiment.fresh:
        data = data.undrawn()
    if not experiment.normalise:
        data = replace(data, mean=0.0, std=1.0)
    own = root or artifacts.own_root()
    root = ROOT if publish else own
    log, weights = artifacts.log_path(root, experiment.name, seed), artifacts.weights_path(root, experiment.name, seed)
    recipe = experiment.recipe()
    checkpoint = artifacts.checkpoint_path(own, recipe, seed)
    distributed.from_lead(lambda: artifacts.require_writable(log.parent, weights.parent, checkpoint.parent))

    prepare_process(where)
    facts = {
        "name": experiment.name,
        "model": experiment.model,
        "seed": seed,
        "recipe": recipe,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "images": len(data.train), "whole": data.whole}
        | ({"source": data.source} if data.source else {}),
        "normalisation": {"mean": data.mean, "std": data.std},
        "environment": environment(where),
        "commit": commit(),
        "started": now(),
        "continued_after_epochs": [],
    }
    distributed.require_same({**recipe, "seed": seed, "data": facts["data"], "device": where.type})
    if not again and distributed.from_lead(lambda: is_finished(root, experiment, seed, facts["data"])):
        return distributed.from_lead(lambda: read_finished(root, experiment, seed, data, echo))
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    model = models.build(experiment.model, experiment.dropout)
    model = model.to(where, memory_format=models.memory_format(model))
    if distributed.rank():
        torch.manual_seed(seed + distributed.rank())  # equal weights to begin with, but other masks of dropout
    saved = distributed.from_lead(lambda: artifacts.read_checkpoint(checkpoint))
    state = None
    if saved and saved["facts"]["data"] == facts["data"]:
        state, facts = saved["training"], saved["facts"]
        facts["continued_after_epochs"].append(len(state["history"]))
        if echo:
            print(f"{experiment.name}, seed {seed}: continuing after epoch {len(state['history'])} of {experiment.epochs}")
            for row in state["history"]:
                print(describe(row))
        if facts["environment"] != environment(where):
            print(
                "This is another machine, device or number of threads or processes than it began on: "
                "the result will not be bit for bit the same."
            )

    def save(training: Training) -> None:
        state = training.state_dict()  # every process's, not only the one's that writes
        distributed.from_lead(lambda: artifacts.write(checkpoint, artifacts.to_bytes({"training": state, "facts": facts})))
        after_epoch(training.history)

    try:
        history = fit(model, data.to(where), experiment, seed, state, save, echo)
    except KeyboardInterrupt:
        done = "after its last finished epoch" if checkpoint.is_file() else "from the start (no epoch was finished)"
        raise CourseError(f"{experiment.name}, seed {seed}: interrupted. The same command continues it {done}.") from None

    model = model.to("cpu", memory_format=torch.contiguous_format).eval()
    content = artifacts.to_bytes(model.state_dict())
    score = evaluate(model, data.test, data.mean, data.std)
    if data.digits is not None:
        turns = {name: evaluate(model, data.test[first::2], data.mean, data.std) for first, name in enumerate(("upright", "rotated"))}
        facts |= {name: turned._asdict() for name, turned in turns.items()}
    facts |= {
        "parameters": models.count_parameters(model),
        "epochs": len(history),
        "kept_epoch": kept(history, experiment)["epoch"],
        "test": score._asdict(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "finished": now(),
    }

    def keep() -> None:
        artifacts.write_log(log, history)
        if not publish or (seed == 0 and experiment.weights):
            artifacts.write(weights, content)
            artifacts.write_json(weights.with_suffix(".json"), facts)
        artifacts.write_json(log.with_suffix(".json"), facts)  # last: its presence says that all the rest is there
        checkpoint.unlink(missing_ok=True)

    distributed.from_lead(keep)
    return Result(experiment, seed, model, data, history, facts, weights, log)


def is_finished(root: Path, experiment: Experiment, seed: int, data: dict | None = None) -> bool:
    """Whether the logs below `root` hold this seed, complete, by this very recipe and (where given) on the data of these facts."""
    log = artifacts.log_path(root, experiment.name, seed)
    if not log.with_suffix(".json").is_file() or not log.is_file():
        return False
    facts = artifacts.read_json(log.with_suffix(".json"))
    defaults = Experiment(experiment.name, experiment.model, "").recipe()  # a field that is newer than the run means what it did
    recorded = {key: value for key, value in facts["recipe"].items() if (key, value) not in RETIRED.items()}
    return {**defaults, **recorded} == experiment.recipe() and data in (None, facts["data"])


def is_published(experiment: Experiment, seed: int) -> bool:
    """Whether logs/ holds this seed, complete and by this very recipe."""
    return is_finished(ROOT, experiment, seed)


def read_finished(root: Path, experiment: Experiment, seed: int, data: Dataset, echo: bool = True) -> Result:
    """A finished run, from logs/ and saved_dict/ below `root`; of published runs the weights are there for seed 0 only."""
    log, weights = artifacts.log_path(root, experiment.name, seed), artifacts.weights_path(root, experiment.name, seed)
    history = artifacts.read_log(log)
    facts = artifacts.read_json(log.with_suffix(".json"))
    model = artifacts.load_model(weights)[0] if root != ROOT or (seed == 0 and experiment.weights) else None
    if echo:
        where = datasets.shown(log)
        print(f"Read from {where} (trained {facts['started'][:10]}, {facts['environment']['device']}), not trained again:")
        for row in history:
            print(describe(row))
    return Result(experiment, seed, model, data, history, facts, weights, log)


def refuse_unpublishable(experiment: Experiment, data: Dataset) -> None:
    """Raise CourseError unless this is an unchanged recipe of the course on the real data."""
    if EXPERIMENTS.get(experiment.name) != experiment:
        raise CourseError(
            f"{experiment.name} can't be published with a changed recipe: leave out the overriding flags, or edit utils/experiments.py"
        )
    if distributed.world() > 1:
        raise CourseError("what several processes trained can't be published: the published runs are those of one process")
    if datasets.PUBLISHABLE.get(data.name) != data.fingerprint:
        raise CourseError(
            f"{experiment.name} can't be published: {data.name} (fingerprint {data.fingerprint[:12]}…) is not the real {experiment.data}"
        )


def prepare_process(device: torch.device) -> None:
    """Same seed, same bits on CUDA too; and on Linux keep freed memory, or every batch of 1,024 faults its pages in again."""
    torch.backends.cudnn.deterministic = True
    if device.type == "cpu" and platform.system() == "Linux":
        with suppress(OSError, AttributeError):  # not glibc: nothing to tune
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-4, 0)  # M_MMAP_MAX: no allocation of its own mapping
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back in between


def environment(device: torch.device) -> dict:
    """What the numbers may depend on: device, threads, processes and versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()}, {processor()}",
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def processor() -> str:
    """The processor's name; the architecture where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@lru_cache
def commit() -> str:
    """The commit that train.py and utils/ were at when first asked, with "+changes" if they differed; "unknown" outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "utils", "train.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
