"""Measurements in logs/ → tables. What measures them imports this module, which imports none of that:

logs/benchmarks/KIND.json   python -m tools.speed.measure --publish    how fast the course is
logs/reproductions.jsonl    python -m tools.reproduce NAME             published runs, trained again
logs/ensemble.json          python -m tools.ensemble                   networks that answer together
logs/benchmarks/stress.json python -m tools.stress --publish           what kill -9 loses
logs/benchmarks/train_in_tab.json python -m tools.site.train_in_tab    what the web pages' "Train" tab reaches
"""

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils import ROOT, CourseError, files
from utils.experiments import EXPERIMENTS
from utils.report.tables import Markup, escape, mean_sd, table
from utils.runs import facts, records
from utils.runs.facts import Code, Environment
from utils.training.loops import Score

MEASURED = dict[str, float]  # seconds, loading, peak_mib, seed, and what the work reports: epochs, accuracy, rows
KINDS = ("cpu", "cuda")  # of devices that a benchmark may be published for
BN_EPOCH = "training epoch of bn_augmentation"
TO_99 = "time to 99 %"
# The first side of a compared row is the course. The others are the usual ways, of which the fastest counts.
COMPARED = (
    "augmented batches, one epoch",
    BN_EPOCH,
    TO_99,
    "time to 99.4 %",
    "3D-MNIST rows of 60 digits",
    "training epoch of voxel_reference",
)
# from the usual way to the course's, step by step: an epoch of the example, then trainings to 99 %
MACHINE_STEPS = "one epoch of PyTorch's example, changed step by step"
RECIPE_STEPS = "from PyTorch's example to sprint, changed step by step"
TRIED = (  # the first side is what the course does
    "100 batches of bn_augmentation",
    "50 batches of frontier_best",
    "100 batches of bn_augmentation, five seeds",
    "the images of an epoch of sprint",
    "the optimizer's steps in an epoch of sprint",
    "sprint on held-out images",
)
ALONE = "an epoch of sprint as a reader's command does it"
BUSY = tuple(f"the same, other processes at work: {busy}" for busy in (1, 2))
DAILY = (
    ALONE,
    *BUSY,
    "five seeds of bn_augmentation, two epochs each",
    "from the command to 99 %",
    "loading MNIST",
    "10,000 images by every published network",
    "make verify",
)
REPRODUCTIONS, ENSEMBLE = ROOT / "logs" / "reproductions.jsonl", ROOT / "logs" / "ensemble.json"


@dataclass(frozen=True)
class Machine(Environment):
    """Where a benchmark ran, and when."""

    cores: int
    data: str
    commit: str
    time: str


@dataclass(frozen=True)
class Benchmark:
    """The measurements of one kind of device. rows: by row, then by side. sizes: of an epoch on more images. floor,
    profile: see tools.speed.measure. environment: the machine of all rows except those in `later`, which were measured
    again separately."""

    rows: dict[str, dict[str, list[MEASURED]]]
    sizes: dict[str, list[MEASURED]]
    floor: dict[str, float]
    profile: dict[str, float]
    environment: Machine
    sprint_floor: dict[str, float] = field(default_factory=dict)  # as floor, of sprint instead of bn_augmentation
    later: dict[str, Machine] = field(default_factory=dict)

    def machine(self, row: str) -> Machine:
        """Where and when a row was measured."""
        return self.later.get(row, self.environment)


def path(kind: str = "cpu", root: Path = ROOT) -> Path:
    """Where the benchmark of a kind of device lies."""
    return root / "logs" / "benchmarks" / f"{kind}.json"


def read(kind: str = "cpu") -> Benchmark:
    """The published measurements. Raises CourseError if there are none, or they are damaged."""
    return files.read_json(path(kind), Benchmark, "`python -m tools.speed.measure --publish` measures them.")


def median(measurements: list[MEASURED], key: str) -> float:
    return statistics.median(one[key] for one in measurements)


def spread(measurements: list[MEASURED]) -> str:
    """Median seconds (smallest to largest)."""
    seconds = [one["seconds"] for one in measurements]
    return f"{statistics.median(seconds):.2f}" + (
        f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else ""
    )


def speed_table(rows: dict[str, dict[str, list[MEASURED]]]) -> str:
    """The course against the best of the usual ways: seconds, accuracy where one is reached, how much faster."""
    lines = []
    for row in filter(rows.__contains__, COMPARED):
        best, course = best_usual(rows[row])
        reached = [
            f", {median(side, 'accuracy'):.2f} %" if "accuracy" in side[0] else "" for side in (rows[row][best], course)
        ]
        times = median(rows[row][best], "seconds") / median(course, "seconds")
        cells = [spread(rows[row][best]) + reached[0], spread(course) + reached[1]]
        lines.append([row, best, *cells, Markup(f"**{more(row, rows[row][best])}{times:.1f} ×**"), len(course)])
    return table(["what", "against", "usual, s", "course, s", "faster", "n"], lines, right="n")


def memory_table(rows: dict[str, dict[str, list[MEASURED]]]) -> str:
    """How much faster the course is with loading and warming up counted too, and the peak memory of both sides."""
    lines = []
    for row in filter(rows.__contains__, COMPARED):
        best, course = best_usual(rows[row])
        usual, ours = (median(side, "seconds") + median(side, "loading") for side in (rows[row][best], course))
        peaks = [f"{median(side, 'peak_mib'):,.0f}" for side in (rows[row][best], course)]
        lines.append([row, f"{more(row, rows[row][best])}{usual / ours:.1f} ×", *peaks])
    return table(["what", "faster, with loading", "usual, MiB", "course, MiB"], lines, right="usual, MiB course, MiB")


def best_usual(sides: dict[str, list[MEASURED]]) -> tuple[str, list[MEASURED]]:
    """The fastest of the usual ways, by name, and the course's measurements."""
    _, *others = sides
    return min(others, key=lambda side: median(sides[side], "seconds")), sides["course"]


def more(row: str, usual: list[MEASURED]) -> str:
    """ "> " where the usual way gave up before it reached what the row is about."""
    target = re.search(r"time to ([\d.]+) %", row)
    return "> " if target and median(usual, "accuracy") < float(target[1]) else ""


@dataclass(frozen=True)
class Step:
    """One bar of the ladder: seconds of an epoch's training, and how many epochs it takes to 99 %."""

    name: str
    epoch: float
    epochs: float

    @property
    def seconds(self) -> float:
        return self.epoch * self.epochs


def ladder(found: Benchmark) -> list[Step]:
    """From PyTorch's example to sprint. What changes nothing that is learned takes as many epochs as the example; the
    rest says its own.

    Raises CourseError where its rows come from different machines.
    """
    rows, parts = found.rows, (TO_99, MACHINE_STEPS, RECIPE_STEPS)
    if len({replace(found.machine(row), commit="", time="") for row in parts if row in rows}) > 1:
        raise CourseError(
            f"{', '.join(parts)}: measured on different machines. Measure them together: python -m tools.speed.measure --publish --only …"
        )
    to_99 = rows[TO_99]
    epochs = median(to_99["PyTorch's example"], "epochs")
    steps = [Step(name, median(times, "seconds"), epochs) for name, times in rows[MACHINE_STEPS].items()]
    changed = rows.get(RECIPE_STEPS) or {
        "the network and recipe of sprint": to_99["course"]
    }  # as measured before there were steps
    for name, times in changed.items():
        epochs = median(times, "epochs")
        steps.append(Step(name, median(times, "seconds") / epochs, epochs))
    return steps


def speed_shares(found: Benchmark) -> list[str]:
    """How much of the speed to 99 % comes from the smaller network and its recipe, and how much from the machine.

    Nothing where the steps between PyTorch's example and the course are not measured.
    """
    if MACHINE_STEPS not in found.rows:
        return []
    steps = ladder(found)
    first, same_network, last = steps[0].seconds, steps[len(found.rows[MACHINE_STEPS]) - 1].seconds, steps[-1].seconds
    return [
        "How the course reaches 99 % faster than PyTorch's example: a smaller network and its recipe make it "
        f"{same_network / last:.1f} × faster, and better use of the machine makes it {first / same_network:.1f} × faster. "
        f"These steps were measured in separate runs. The product of the two factors is {first / last:.1f} ×."
    ]


def tried_table(rows: dict[str, dict[str, list[MEASURED]]], which: Iterable[str] = TRIED) -> str:
    """What was tried against what the course does, the first of each row: seconds, accuracy where one is reached, peak
    memory. which: of the rows."""
    lines = []
    for row in filter(rows.__contains__, which):
        first = next(iter(rows[row].values()))
        for side, times in rows[row].items():
            reached = f", {median(times, 'accuracy'):.2f} %" if "accuracy" in times[0] else ""
            faster, peak = median(first, "seconds") / median(times, "seconds"), median(times, "peak_mib")
            lines.append(
                [
                    row,
                    side,
                    spread(times) + reached,
                    f"{faster:.{2 if faster > 0.1 else 3}f} ×",
                    f"{peak:,.0f}",
                    len(times),
                ]
            )
    return table(["work", "how", "seconds", "as fast as the first", "peak MiB", "n"], lines, right="peak MiB n")


def note(found: Benchmark, which: Iterable[str]) -> str:
    """How rows were measured, and on what machines."""
    rows = [row for row in which if row in found.rows]
    counts = sorted({len(times) for row in rows for times in found.rows[row].values()})
    several = f"{counts[0]} to {counts[-1]}" if counts[-1] > counts[0] else str(counts[0])
    places: dict[str, list[str]] = {}
    for row in rows:
        one = found.machine(row)
        threads = f"{one.threads} thread{'s' * (one.threads != 1)}"
        places.setdefault(escape(f"{one.device}, {threads}, torch {one.torch}, {one.time[:10]}"), []).append(row)
    most, *others = sorted(places, key=lambda place: -len(places[place]))
    apart = "".join(f" “{', '.join(places[place])}” was measured on {place}." for place in others)
    return f"Medians (smallest to largest) of n = {several} fresh processes per side, alternating, on {most}.{apart}"


def speed_section() -> str:
    """Tables of every published benchmark, each followed by its machine, and the devices that are not measured."""
    parts = []
    for kind in KINDS:
        if not path(kind).exists():
            parts.append(f"Not measured yet: {kind.upper()}. `{files.display_path(path(kind))}` does not exist.")
            continue
        try:
            parts += tables_of(read(kind))
        except (KeyError, IndexError, ValueError, TypeError, ArithmeticError) as error:
            where = f"{files.display_path(path(kind))}: a measurement is missing or no number"
            raise CourseError(
                f"{where} ({type(error).__name__}: {files.shorten(str(error))}). Measure it again."
            ) from error
    return "\n\n".join(parts)


def tables_of(found: Benchmark) -> list[str]:
    """The part of speed_section for one kind of device."""
    parts = [speed_table(found.rows), note(found, COMPARED), *speed_shares(found), memory_table(found.rows)]
    if found.rows.keys() & set(DAILY):
        parts += [tried_table(found.rows, DAILY), note(found, DAILY)]
    if found.sprint_floor:
        floor = found.sprint_floor["floor_seconds"]
        parts.append(
            f"At the highest rates of this machine, the arithmetic of one epoch of sprint takes {floor:.2f} s."
        )
    return parts


@dataclass(frozen=True)
class Reproduction:
    """One published run, trained again. sha256: of the state dict's file, whose form changes with torch even where no
    weight does."""

    name: str
    seed: int
    environment: facts.Environment
    code: facts.Code
    test: Score
    sha256: str
    finished: str

    @property
    def title(self) -> tuple[str, str, int, str]:
        """Experiment, device, threads, torch: what a row of the table is about."""
        return self.name, self.environment.device, self.environment.threads, self.environment.torch.split("+")[0]


def reproductions() -> list[Reproduction]:
    """All lines so far. Raises CourseError for one that can't be read, or that names no experiment."""
    found = files.read_lines(REPRODUCTIONS, Reproduction)
    for number, line in enumerate(found, 1):
        if line.name not in EXPERIMENTS:
            raise CourseError(
                f"{files.display_path(REPRODUCTIONS)}, line {number}: no experiment is called {line.name[:80]!r}. Delete that line."
            )
    return found


def reproduction_rows() -> list[list[object]]:
    """One row for each experiment and each kind of conditions in which it was trained again."""
    groups: dict[tuple, list[Reproduction]] = {}
    for line in reproductions():
        groups.setdefault(line.title, []).append(line)
    rows = []
    for title, lines in sorted(groups.items()):
        then = {record.facts.seed: record.facts for record in records.published(EXPERIMENTS[title[0]])}
        latest = {line.seed: line for line in lines if line.seed in then}  # a later line replaces an earlier one
        if latest:
            pairs = [(line, then[seed]) for seed, line in sorted(latest.items())]
            same = sum(line.test == fact.test for line, fact in pairs)
            now, before = ([one.test.percent for one in side] for side in zip(*pairs, strict=True))
            apart = max(abs(line.test.correct - fact.test.correct) for line, fact in pairs)
            rows.append([*title, f"{same} of {len(pairs)}", mean_sd(now), mean_sd(before), apart])
    return rows


def reproductions_section() -> str:
    """The table of what another machine, another number of threads or another version changes."""
    found = reproduction_rows()
    if not found:
        return "No published run has been trained again yet: `python -m tools.reproduce NAME`."
    header = ["experiment", "device", "threads", "torch", "identical", "here %", "published %", "images apart"]
    return table(header, found, right="threads")


@dataclass(frozen=True)
class Ensemble:
    """votes: of each member, by its experiment's name. twins: score of each candidate's twin on the held-out images.
    held_out: score of the members' twins together. test: score of the members together on the test images."""

    votes: dict[str, int]
    twins: dict[str, Score]
    held_out: Score
    test: Score
    environment: facts.Environment
    code: facts.Code
    finished: str


def read_ensemble() -> Ensemble | None:
    """What is published; None where nothing is. Raises CourseError if it can't be read."""
    return (
        files.read_json(ENSEMBLE, Ensemble, "Make it again: python -m tools.ensemble.") if ENSEMBLE.exists() else None
    )


def ensemble_table(ensemble: Ensemble) -> str:
    """A table of the candidates: their votes, and what each reaches alone and all together."""
    rows = []
    for name, twin in sorted(
        ensemble.twins.items(), key=lambda item: (-ensemble.votes.get(item[0], 0), -item[1].correct)
    ):
        published = (
            records.finished(EXPERIMENTS[name], 0) if name in EXPERIMENTS else None
        )  # its recipe may be another by now
        test = f"{published.facts.test.percent:.2f}" if published else "–"
        rows.append([name, ensemble.votes.get(name, 0), f"{twin.percent:.2f}", test])
    reached = [Markup(f"**{one.percent:.2f}**") for one in (ensemble.held_out, ensemble.test)]
    rows.append(["together", sum(ensemble.votes.values()), *reached])
    return table(["network", "votes", "its twin, held out %", "test %"], rows, right="votes")


@dataclass
class Stressed:
    """What came of the kills of one kind. same: of the kills, after how many the command ended with what it leaves
    undisturbed."""

    kills: int = 0
    damaged: int = 0
    lost_runs: int = 0
    lost_epochs: int = 0
    same: int = 0


@dataclass(frozen=True)
class Stress:
    kinds: dict[str, Stressed]
    environment: Machine

    @property
    def total(self) -> Stressed:
        return Stressed(
            *(sum(getattr(one, name) for one in self.kinds.values()) for name in Stressed.__dataclass_fields__)
        )

    @property
    def passed(self) -> bool:
        all_ = self.total
        return all_.kills == all_.same and not (all_.damaged or all_.lost_runs or all_.lost_epochs)


def stress_path(root: Path = ROOT) -> Path:
    return root / "logs" / "benchmarks" / "stress.json"


def stress_section() -> str:
    """How many kills were survived, in three sentences."""
    if not stress_path().exists():
        return f"Not measured yet: `{files.display_path(stress_path())}` does not exist (`make stress`)."
    found = files.read_json(stress_path(), Stress, "`python -m tools.stress --publish` writes it.")
    total, where = found.total, found.environment
    kinds = escape(", ".join(f"{name} {one.kills}" for name, one in found.kinds.items()))
    place = escape(f"{where.device}, torch {where.torch}, {where.time[:10]}")
    return (
        f"`make stress` stopped training {total.kills} times with `kill -9` at random moments ({kinds}). "
        f"It found {total.damaged} damaged files, {total.lost_runs} lost runs and {total.lost_epochs} lost epochs. "
        f"After {total.same} of {total.kills} kills, the command ended with the same bits as without a kill ({place})."
    )


@dataclass(frozen=True)
class NoDigit:
    """Where the bound comes from. least: the probability of the likeliest digit below which a picture is doubted;
    share: of the held-out digits that stay below it; letters, doubted: printed letters, and how many of them stay below
    it."""

    network: str
    least: float
    share: float
    held_out: int
    letters: int
    doubted: int
    fingerprint: str
    code: Code
    environment: Environment
    finished: str


IN_TAB = ROOT / "logs" / "benchmarks" / "train_in_tab.json"


@dataclass(frozen=True)
class TabRun:
    """A training in an engine. correct: of `total` test images; seconds: of the training alone; sha256: of the state
    dict."""

    engine: str
    seed: int
    seconds: float
    correct: int
    total: int
    sha256: str


@dataclass(frozen=True)
class InTab:
    """What the "Train" tab reaches. images: that it loads to train on; bytes: of what it loads, by file; load: how many
    processes wanted a core when the measurement began, in the mean of a minute (0: unknown)."""

    images: int
    bytes: dict[str, int]
    runs: list[TabRun]
    load: float
    cores: int
    environment: Environment
    finished: str


def in_tab_section() -> str:
    """What the "Train" tab reaches in each engine."""
    if not IN_TAB.exists():
        path = files.display_path(IN_TAB)
        return f"Not measured yet: `{path}` does not exist (`python -m tools.site.train_in_tab`)."
    found = files.read_json(IN_TAB, InTab, "`python -m tools.site.train_in_tab` writes it.")
    first = {run.seed: run.sha256 for run in reversed(found.runs)}  # of the first engine
    rows = []
    for engine in dict.fromkeys(run.engine for run in found.runs):
        runs = [run for run in found.runs if run.engine == engine]
        seconds = sorted(run.seconds for run in runs)
        same = sum(run.sha256 == first[run.seed] for run in runs)
        accuracy = mean_sd([100 * run.correct / run.total for run in runs])
        span = f"{statistics.median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})"
        rows.append([engine, accuracy, span, f"{same} of {len(runs)}", len(runs)])
    header = ["engine", "test accuracy, %", "seconds of training", "same state dict", "n"]
    sizes = ", ".join(f"`{name}` {count / 1e6:.2f} MB" for name, count in found.bytes.items())
    place = escape(f"{found.environment.device}, {found.finished[:10]}")
    busy = f"; {found.load:.0f} other processes shared its {found.cores} cores" if found.load >= 1 else ""
    return (
        f"{table(header, rows, right=('n',))}\n\n"
        f"n seeds in each engine, at the last step; the engines took turns on {place}{busy}. "
        "“Same state dict”: its SHA-256 is that of the first engine for the same seed. "
        f"The tab loads {sizes}, with {found.images:,} training images."
    )
