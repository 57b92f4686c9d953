"""A finished run: where its files are, how they are written and read.

Below a root (the repository for published runs; runs/, or in a smoke run a temporary folder, for a reader's own):
    saved_dict/RUN.pth, RUN.json      state dict and its sidecar: the facts of that file; RUN_seedK of seeds above 0
    saved_dict/RUN.bin                the same network in few bytes, if its recipe has levels (see packed.py)
    logs/RUN/seedK.csv, seedK.json    one row per epoch; the facts of that run
    unfinished/RUN_seedK.pt           checkpoint of an unfinished run, with its rows (never in the repository)
    unfinished/RUN_seedK.lock         locked by the process that trains the run; .holder names that process
RUN is the experiment's name, and for a reader's own runs also the recipe's digest, so that no two recipes share a path.
"""

import csv
import hashlib
import io
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import msgspec

from .. import ROOT, CourseError, files, folder_setting, smoke, workspace
from ..data.datasets import PUBLISHABLE, Dataset
from ..experiments import Experiment, Recipe
from ..files import display_path
from ..training.loops import Row, Score
from .facts import Code, Continued, Environment

COLUMNS = {"epoch": "d", "lr": ".6g"}
for _part in ("train", "valid", "test"):
    COLUMNS |= {f"{_part}_loss": ".6f", f"{_part}_correct": "d", f"{_part}_total": "d"}
COLUMNS |= {"seconds": ".2f"}
FORMS = [{name for name in COLUMNS if not name.startswith(part)} for part in ("valid", "test")]  # of a log


@dataclass(frozen=True)
class DataFacts:
    """The data that a run saw. images: in the training half; whole: not only a smoke run's few."""

    name: str
    kind: str
    input_shape: tuple[int, ...]
    fingerprint: str
    images: int
    whole: bool

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


OWN = "-mine"  # the end of the name of an experiment with a reader's own network
LICENSE = "MIT"  # of the weights and the code
INPUTS = {
    "images": ("(N, 1, 28, 28) uint8, 0 (black) to 255 (white), white on black", "(x / 255 - mean) / std"),
    "voxels": ("(N, 1, 16, 16, 16) float32, densities from 0 to 1", "(x - mean) / std"),
}


@dataclass(frozen=True)
class Use:
    """What other code needs to use the weights: names of the outputs, raw input, and its normalization."""

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


@dataclass
class RunMetadata(RunStart):
    """What is known of a finished run. test: of the kept epoch, None if the test set was not used; parts: of the test
    half's parts; packed: bytes of the packed file (see packed.py), 0 without levels."""

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
        if not 1 <= self.kept_epoch <= self.epochs:
            raise ValueError(f"kept_epoch = {self.kept_epoch} of {self.epochs} epochs")


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run's files."""

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
    """A finished run as read from its files."""

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
    """The root of unpublished files: $COURSE_RUNS, else runs/, or in a smoke run a temporary folder."""
    given = folder_setting("COURSE_RUNS")
    return Path(_temporary().name) if smoke() and not given else ROOT / (given or "runs")


def stays(path: Path) -> bool:
    """Whether a run's file exists and outlives this process: a smoke run's doesn't, unless COURSE_RUNS is set."""
    return path.is_file() and not (smoke() and path.is_relative_to(_temporary().name))


def read_facts(path: Path) -> RunMetadata:
    """The facts of a run or a sidecar. Raises CourseError if they are missing or invalid."""
    todo = "No number counts without it: train it with train.py, or check out the file again."
    return files.read_json(path, RunMetadata, todo)


def read_record(run: RunPaths) -> FinishedRun:
    """A finished run. Raises CourseError if its files are damaged or contradict each other."""
    facts, history = read_facts(run.facts), read_log(run.log)
    if (facts.seed, facts.epochs) != (run.seed, len(history)):
        found = f"seed {facts.seed} and {facts.epochs} epochs"
        expected = f"expected seed {run.seed} and the {len(history)} of {run.log.name}"
        todo = "Check out both files again, or train it again (--retrain)."
        raise CourseError(f"{display_path(run.facts)} says {found}, {expected}. {todo}")
    return FinishedRun(facts, history, run.log)


def finished(
    experiment: Experiment, seed: int, root: Path | None = None, data: DataFacts | None = None
) -> FinishedRun | None:
    """The finished run of this recipe and seed below `root` (None: published), or None. data: on these data only."""
    run = RunPaths.of(experiment, seed, root)
    if not files.exists(run.facts) or not files.exists(run.log):
        return None
    record = read_record(run)
    expected = found = record.facts.data.fingerprint
    if data or root is None:
        expected = data.fingerprint if data else PUBLISHABLE.get(experiment.recipe.data)
    return record if (record.facts.recipe, found) == (experiment.recipe, expected) else None


def published(experiment: Experiment) -> list[FinishedRun]:
    """All published seeds of the experiment's present recipe, in order. Raises CourseError for one without a test."""
    found = _of_all_seeds(experiment, None)
    untested = [record.log.with_suffix(".json") for record in found if record.facts.test is None]
    if untested:
        raise CourseError(f"{display_path(untested[0])}: found no `test`, expected one: a published run is tested.")
    return found


def own(experiment: Experiment) -> list[FinishedRun]:
    """A reader's own finished seeds of this recipe, in order."""
    return _of_all_seeds(experiment, own_root())


def seed_of(path: Path) -> int | None:
    """The seed in a log's name: 0 for seed0.json; None for any other name, and for seed00.json."""
    number = path.stem.removeprefix("seed")
    return int(number) if number.isdecimal() and path.stem == f"seed{int(number)}" else None


def _of_all_seeds(experiment: Experiment, root: Path | None) -> list[FinishedRun]:
    folder = RunPaths.of(experiment, 0, root).log.parent
    seeds = sorted(seed for path in folder.glob("seed*.json") if (seed := seed_of(path)) is not None)
    return [record for seed in seeds if (record := finished(experiment, seed, root))]


def write_log(path: Path, history: list[Row]) -> None:
    """One row per epoch, in the order of COLUMNS, with the columns that the rows have."""
    table = io.StringIO()
    columns = [column for column in COLUMNS if column in history[0]]
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([format(row[column], COLUMNS[column]) for column in columns] for row in history)
    files.write(path, table.getvalue().encode())


def read_log(path: Path) -> list[Row]:
    """The rows of a log, counts as int, the rest as float. Raises CourseError with file and line if damaged."""
    todo = "Train it with train.py, or check out the file again."
    rows: list[Row] = []
    try:
        text = files.read(path, f"This run has not been logged. {todo}").decode()
        for cells in csv.DictReader(io.StringIO(text, newline=None)):
            row = {name: int(cell) if COLUMNS[name] == "d" else float(cell) for name, cell in cells.items()}
            require_row(row, len(rows) + 1)
            rows.append(row)
        if not rows:
            raise ValueError("no row")
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        expected = f"expected one row per epoch with numbers in the columns {', '.join(COLUMNS)}"
        found = f"{display_path(path)}, line {len(rows) + 2}: found {files.shorten(error)}, {expected}"
        raise CourseError(f"{found} (valid or test). {todo}") from error
    return rows


def require_row(row: Row, epoch: int) -> None:
    """Raise ValueError unless this can be the row of the `epoch`th epoch."""
    if set(row) not in FORMS:
        raise ValueError(f"the columns {', '.join(row)}")
    if row["epoch"] != epoch:
        raise ValueError(f"epoch {row['epoch']} in the place of {epoch}")
    if not all(0 <= value < 2**53 for value in row.values()):  # NaN fails, too
        raise ValueError(f"numbers that are negative or not finite in {row}")
    for part in (column.removesuffix("_total") for column in row if column.endswith("_total")):
        if not row[f"{part}_correct"] <= row[f"{part}_total"] > 0:
            raise ValueError(f"{row[f'{part}_correct']} correct of {row[f'{part}_total']}")


@dataclass
class Saved:
    """The part of a checkpoint that is not tensors."""

    run_start: RunStart
    history: list[dict[str, int | float]]


def read_checkpoint(path: Path) -> tuple[RunStart, dict] | None:
    """The facts and the training state of a checkpoint, or None. Raises CourseError if it is damaged."""
    if not files.exists(path):
        return None
    name = display_path(path)
    todo = f"Delete {name} to start this run again."
    digest, _, content = files.read(path, todo, files.TENSORS).partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise CourseError(f"{name} is damaged, or of another version of the course: its SHA-256 is another. {todo}")
    facts, _, tensors = content.partition(b"\n")
    saved = files.decode(facts, Saved, name, todo)
    return saved.run_start, files.load_safely(path, tensors, todo) | {"history": saved.history}


def write_checkpoint(path: Path, run_start: RunStart, training: dict) -> None:
    """Two lines, the SHA-256 of the rest and JSON of everything but tensors; then the tensors, as torch.save writes."""
    tensors = {name: part for name, part in training.items() if name != "history"}
    saved = files.without_defaults(Saved(run_start, training["history"]))
    content = msgspec.json.encode(saved) + b"\n" + files.to_bytes(tensors)
    files.write(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


# ---- a run next to the published ones


def percent(row: Row, part: str) -> float:
    """Accuracy of one epoch, in %."""
    return 100 * row[f"{part}_correct"] / row[f"{part}_total"]


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± standard deviation (of a sample; left out for a single value)."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values) or "none"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def seeds(found: Sequence) -> str:
    return "1 seed" if len(found) == 1 else f"{len(found)} seeds"


def test_percents(found: list[FinishedRun]) -> list[float]:
    """Test accuracies (%) of the kept epochs; with held-out images, of the one test at the end."""
    return [record.facts.test.percent for record in found]


def stand_in(facts: RunMetadata) -> bool:
    """Whether a run saw scikit-learn's digits instead of its recipe's data."""
    return facts.data.name.startswith("digits") and not facts.recipe.data.startswith("digits")


def against_published(experiment: Experiment, facts: RunMetadata) -> str:
    """One line: a run's test accuracy and the published ones, what differs between the machines, and whether it is
    within four standard deviations of the seeds (with one seed: four standard errors of its accuracy)."""
    found, title = published(experiment) if experiment.registered else [], f"{experiment.name}, seed {facts.seed}"
    if facts.test is None:
        return f"{title}: the test set stays closed while images are held out; no published run has this recipe."
    yours = facts.test.percent
    if stand_in(facts):
        data = f"{facts.test.total} test digits, on scikit-learn's 1,797 digits as a stand-in for {facts.recipe.data}"
        return f"{title}: {yours:.2f} % of {data}; compared with nothing."
    if not found:
        return f"{title}: {yours:.2f} %; no published run has this recipe."
    percents = test_percents(found)
    mean = statistics.mean(percents)
    if all(facts.data.fingerprint != record.facts.data.fingerprint for record in found):
        return f"{title}: {yours:.2f} % on other data than the published runs', so it is not compared."
    chance = 100 * (mean / 100 * (1 - mean / 100) / facts.test.total) ** 0.5
    within = abs(yours - mean) <= 4 * (statistics.stdev(percents) if len(percents) > 1 else chance)
    same = next((record for record in found if record.facts.seed == facts.seed), found[0])
    pairs = {key: (here, getattr(same.facts.environment, key)) for key, here in vars(facts.environment).items()}
    differs = [f"{key} {here} (there {there})" for key, (here, there) in pairs.items() if here != there]
    # torch's versions write different files of the same weights
    alike = "the same loss to the last digit" if facts.test == same.facts.test else "not the same bits"
    bits = "the same bits" if facts.sha256 == same.facts.sha256 else alike
    conditions = f"with other {', '.join(differs)}" if differs else "under the same conditions"
    spread = f"{'within' if within else 'OUTSIDE'} the spread"
    ours = f"yours {yours:.2f} %, published {mean_sd(percents)} % ({seeds(found)})"
    return f"{title}: {ours}; {bits} as its seed {same.facts.seed}, {conditions}; {spread}."
