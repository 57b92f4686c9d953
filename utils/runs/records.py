"""A finished run: where it lies, how it is written and read.

Below a root (the repository for what is published; runs/, or in a smoke run a temporary folder, for a reader's own):
    saved_dict/RUN.pth, RUN.json      state dict and its sidecar: the facts of that file
    saved_dict/RUN.bin                the same network in as few bytes as its numbers need, if its recipe has levels
    (utils.packed) logs/RUN/seedK.csv, seedK.json    one row per epoch; the facts of that run
    unfinished/RUN_seedK.pt           checkpoint of a run that is not finished, with its rows (always below runs/, or
    the temporary folder) unfinished/RUN_seedK.lock         held by the process that trains the run, with .holder, which
    names it (there too)
RUN is the experiment's name, and of a reader's own runs also the recipe's digest, so that no two recipes share a path.
"""

import csv
import hashlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import msgspec
import torch

from .. import ROOT, CourseError, files, folder_setting, smoke, workspace
from ..data.datasets import PUBLISHABLE, Dataset
from ..experiments import RANGES, Experiment, Recipe
from ..files import display_path
from ..training.loops import Row, Score
from .facts import Code, Continued, Environment

COLUMNS = {"epoch": "d", "lr": ".6g", "train_loss": ".6f", "train_correct": "d", "train_total": "d"}
COLUMNS |= {
    "valid_loss": ".6f",
    "valid_correct": "d",
    "valid_total": "d",
    "test_loss": ".6f",
    "test_correct": "d",
    "test_total": "d",
}
COLUMNS |= {"seconds": ".2f"}
FORMS = [
    [column for column in COLUMNS if not column.startswith(part)] for part in ("valid", "test")
]  # a log has one of these headers
# what a checkpoint holds of a training besides its rows (see loops.Training)
STATE = {
    "model": dict,
    "average": dict | None,
    "optimizer": dict,
    "scheduler": dict,
    "order": torch.Tensor,
    "numbers": torch.Tensor,
}
STATE |= {"device": str, "processes": list, "best": dict | None}


@dataclass(frozen=True)
class DataFacts:
    """Which data a run saw. images: in the training half; whole: not a smoke run's few."""

    name: str
    kind: str
    input_shape: tuple[int, ...]
    fingerprint: str
    images: int
    whole: bool

    def __post_init__(self):
        if self.images < 1:
            raise ValueError(f"images = {self.images}: expected 1 or more")

    @classmethod
    def of(cls, data: Dataset) -> "DataFacts":
        return cls(data.name, data.kind, data.input_shape, data.fingerprint, len(data.train), data.whole)


@dataclass(frozen=True)
class Normalization:
    mean: float
    std: float

    def __post_init__(self):
        if not self.std > 0:
            raise ValueError(f"std = {self.std}: expected more than 0")


OWN = "-mine"  # ends the name of an experiment whose network is a reader's own
LICENSE = "MIT"  # of the weights, as of the code
INPUTS = {
    "images": ("(N, 1, 28, 28) uint8, 0 (black) to 255 (white), white on black", "(x / 255 - mean) / std"),
    "voxels": ("(N, 1, 16, 16, 16) float32, densities from 0 to 1", "(x - mean) / std"),
}


@dataclass(frozen=True)
class Use:
    """What other code needs to know to use the weights: names of the outputs, raw input, and how it is normalized."""

    classes: tuple[str, ...]
    input: str
    preprocess: str
    license: str

    @classmethod
    def of(cls, data: Dataset) -> "Use":
        return cls(data.classes, *INPUTS[data.kind], LICENSE)


@dataclass
class RunStart:
    """What is known of a run before its first epoch."""

    name: str
    seed: int
    recipe: Recipe
    data: DataFacts
    normalization: Normalization
    environment: Environment
    code: Code
    started: str
    continued: list[Continued]

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}: expected 0 or more")


@dataclass
class RunMetadata(RunStart):
    """What is known of a finished run. test: of the kept epoch, None where the test set stayed closed; parts: of the
    test half's parts;
    packed: bytes of the network as a file of few bits (utils.packed), 0 without levels."""

    parameters: int
    epochs: int
    kept_epoch: int
    test: Score | None
    sha256: str
    bytes: int
    seconds: float
    finished: str
    parts: dict[str, Score] = field(default_factory=dict)
    use: Use | None = None  # not recorded in earlier versions
    packed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.kept_epoch <= self.epochs:
            raise ValueError(f"kept_epoch = {self.kept_epoch} of {self.epochs} epochs")
        if min(self.parameters, self.bytes, self.packed, self.seconds) < 0:
            raise ValueError("a count or a time is negative")


@dataclass(frozen=True)
class RunPaths:
    """Where one run's files lie."""

    root: Path
    key: str
    seed: int

    @classmethod
    def of(cls, experiment: Experiment, seed: int, root: Path | None = None) -> "RunPaths":
        """root: of a reader's own files; None: of published ones."""
        return cls(workspace.root, experiment.name, seed) if root is None else cls(root, experiment.key, seed)

    @property
    def weights(self) -> Path:
        return self.root / "saved_dict" / (f"{self.key}.pth" if self.seed == 0 else f"{self.key}_seed{self.seed}.pth")

    @property
    def log(self) -> Path:
        return self.root / "logs" / self.key / f"seed{self.seed}.csv"

    @property
    def facts(self) -> Path:
        return self.log.with_suffix(".json")

    @property
    def checkpoint(self) -> Path:
        return self.root / "unfinished" / f"{self.key}_seed{self.seed}.pt"

    @property
    def lock(self) -> Path:
        return self.checkpoint.with_suffix(".lock")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run as its files tell it."""

    facts: RunMetadata
    history: list[Row]
    log: Path

    @property
    def result_row(self) -> Row:
        return self.history[self.facts.kept_epoch - 1]


@lru_cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="mnist-course-", ignore_cleanup_errors=True)


def own_root() -> Path:
    """The root of what is not published: $COURSE_RUNS, else runs/, or in a smoke run a folder that goes with the
    process."""
    given = folder_setting("COURSE_RUNS")
    return Path(_temporary().name) if smoke() and not given else ROOT / (given or "runs")


def stays(path: Path) -> bool:
    """Whether a run's file is there and outlives this process: a smoke run's go with it, unless COURSE_RUNS names their
    folder."""
    return path.is_file() and not (smoke() and path.is_relative_to(_temporary().name))


def read_facts(path: Path) -> RunMetadata:
    """A run's or a sidecar's facts. Raises CourseError, naming file and field, if they are missing or not what they
    should be."""
    return files.read_json(
        path, RunMetadata, "No number counts without it: train it with train.py, or check out the file again."
    )


def read_record(run: RunPaths) -> FinishedRun:
    """A finished run. Raises CourseError if its files are damaged or contradict each other."""
    facts, history = read_facts(run.facts), read_log(run.log)
    if (facts.seed, facts.epochs) != (run.seed, len(history)):
        raise CourseError(
            f"{display_path(run.facts)} says seed {facts.seed} and {facts.epochs} epochs, expected seed {run.seed} and the {len(history)} "
            f"of {run.log.name}. Check out both files again, or train it again (--retrain)."
        )
    return FinishedRun(facts, history, run.log)


def finished(
    experiment: Experiment, seed: int, root: Path | None = None, data: DataFacts | None = None
) -> FinishedRun | None:
    """The finished run of this recipe and seed below `root` (None: published), where given on these data; None if there
    is none."""
    run = RunPaths.of(experiment, seed, root)
    if not files.exists(run.facts) or not files.exists(run.log):
        return None
    record = read_record(run)
    expected = (
        data.fingerprint
        if data
        else PUBLISHABLE.get(experiment.recipe.data)
        if root is None
        else record.facts.data.fingerprint
    )
    return record if (record.facts.recipe, record.facts.data.fingerprint) == (experiment.recipe, expected) else None


def published(experiment: Experiment) -> list[FinishedRun]:
    """All published seeds that were trained by the experiment's present recipe, in order. Raises CourseError for one
    without a test."""
    found = _of_all_seeds(experiment, None)
    for record in found:
        if record.facts.test is None:
            raise CourseError(
                f"{display_path(record.log.with_suffix('.json'))}: found no `test`, expected one: a published run is tested."
            )
    return found


def own(experiment: Experiment) -> list[FinishedRun]:
    """A reader's own finished seeds of this recipe, in order."""
    return _of_all_seeds(experiment, own_root())


def seed_of(path: Path) -> int | None:
    """The seed that a log's name gives: 0 of seed0.json; None of any other name, also of seed00.json, which would count
    seed 0 twice."""
    number = path.stem.removeprefix("seed")
    return int(number) if number.isdecimal() and path.stem == f"seed{int(number)}" else None


def _of_all_seeds(experiment: Experiment, root: Path | None) -> list[FinishedRun]:
    folder = RunPaths.of(experiment, 0, root).log.parent
    files.exists(folder / "seed0.json")  # of a folder that may not be entered, glob would tell nothing
    seeds = sorted(seed for path in folder.glob("seed*.json") if (seed := seed_of(path)) is not None)
    return [record for seed in seeds if (record := finished(experiment, seed, root))]


def write_log(path: Path, history: list[Row], before_rename: Callable[[], None] = lambda: None) -> None:
    """One row per epoch, in the order of COLUMNS; only the columns that the rows have."""
    table = io.StringIO()
    columns = [column for column in COLUMNS if column in history[0]]
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([format(row[column], COLUMNS[column]) for column in columns] for row in history)
    files.write(path, table.getvalue().encode(), before_rename)


def read_log(path: Path) -> list[Row]:
    """The rows that write_log wrote, counts as int, the rest as float. Raises CourseError naming file and line if
    damaged."""
    todo = "Train it with train.py, or check out the file again."

    def reject(line: int, found: object, expected: str) -> None:
        raise CourseError(f"{display_path(path)}, line {line}: found {str(found)[:300]}, expected {expected}. {todo}")

    rows: list[Row] = []
    try:
        text = files.read(path, f"This run has not been logged. {todo}").decode()
        for line, row in enumerate(csv.DictReader(io.StringIO(text, newline=None)), 2):
            try:
                rows.append(
                    {column: int(value) if COLUMNS[column] == "d" else float(value) for column, value in row.items()}
                )
            except (KeyError, ValueError, TypeError):
                reject(line, dict(row), f"numbers in the columns {', '.join(COLUMNS)}")
            expected = row_problem(rows[-1], len(rows))
            if expected:
                reject(line, dict(row), expected)
    except UnicodeDecodeError:
        reject(1, "bytes that are no text", "a CSV file")
    except csv.Error as error:
        reject(1, f"what is no table ({error})", "a CSV file")
    if not rows:
        reject(1, "no row", "one row per epoch")
    return rows


def row_problem(row: Row, epoch: int) -> str:
    """What is expected of a row that stands `epoch`th in a history, if it is not so; else ""."""
    if not any(set(row) == set(form) for form in FORMS):
        return f"the columns {', '.join(FORMS[0])}, or of held-out images valid instead of test"
    if row["epoch"] != epoch or epoch > RANGES["epochs"][1]:
        return f"epoch {min(epoch, RANGES['epochs'][1])}"
    if not all(0 <= value < 2**53 for value in row.values()):  # NaN is neither
        return "finite numbers from 0"
    for part in (column.removesuffix("_total") for column in row if column.endswith("_total")):
        if not row[f"{part}_correct"] <= row[f"{part}_total"] > 0:
            return "correct between 0 and total, and a total, in training and of held-out or test images"
    return ""


@dataclass
class Saved:
    """What a checkpoint holds besides tensors."""

    run_start: RunStart
    history: list[dict[str, int | float]]


def read_checkpoint(path: Path) -> tuple[RunStart, dict] | None:
    """The facts and the training state of a checkpoint; None where there is none. Raises CourseError if it can't be
    used: one whose SHA-256 is another than when it was written, or that another run wrote.

    Whether its tensors fit the network shows in Training.load_state_dict.
    """
    if not files.exists(path):
        return None
    todo = f"Delete {display_path(path)} to start this run anew."
    digest, _, content = files.read(path, todo, files.TENSORS).partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise CourseError(
            f"{display_path(path)} is damaged, or no checkpoint of this course's present form: its SHA-256 is another. {todo}"
        )
    facts, _, tensors = content.partition(b"\n")
    saved, training = files.decode(facts, Saved, display_path(path), todo), files.load_safely(path, tensors, todo)
    run_start = saved.run_start
    own = RunPaths(path.parent.parent, f"{run_start.name}-{run_start.recipe.digest()}", run_start.seed)
    if path.name != own.checkpoint.name:
        raise CourseError(
            f"{display_path(path)} is the checkpoint of another run, expected the name {own.checkpoint.name}. Rename it or delete it."
        )
    if not isinstance(training, dict) or training.keys() != STATE.keys():
        raise CourseError(f"{display_path(path)} can't be continued: expected the parts {', '.join(STATE)}. {todo}")
    wrong = _state_problem(training, saved.history, run_start.recipe.epochs)
    if wrong:
        raise CourseError(f"{display_path(path)} can't be continued: {wrong}. {todo}")
    return run_start, training | {"history": saved.history}


def _state_problem(training: dict, history: list[Row], epochs: int) -> str:
    """What is wrong with a checkpoint's training state, as far as that shows before it meets a network; "" if nothing
    is."""
    for name, kind in STATE.items():
        part = training[name]
        if not isinstance(part, kind) or (isinstance(part, dict | list | str) and not part):
            return f"its part {name} is an empty or other {type(part).__name__}, expected {getattr(kind, '__name__', kind)}"
    if training["device"] not in ("cpu", "cuda", "mps"):
        return f"it was saved on the device {training['device'][:40]!r}, expected cpu, cuda or mps"
    if not 1 <= len(history) <= epochs:
        return f"its history has {len(history)} rows, expected 1 to {epochs}"
    for epoch, row in enumerate(history, 1):
        expected = row_problem(row, epoch)
        if expected:
            return f"row {epoch} of its history: expected {expected}"
    return ""


def write_checkpoint(
    path: Path, run_start: RunStart, training: dict, before_rename: Callable[[], None] = lambda: None
) -> None:
    """Three parts: the SHA-256 of all the rest and, as JSON, what is no tensor, a line each; then what torch.save
    writes."""
    tensors = {name: part for name, part in training.items() if name != "history"}
    saved = files.without_defaults(Saved(run_start, training["history"]))
    content = msgspec.json.encode(saved) + b"\n" + files.to_bytes(tensors)
    files.write(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content, before_rename)
