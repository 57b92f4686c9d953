"""Measurements in logs/ → tables. What measures them imports this module, which imports none of that:

logs/benchmarks/cpu.json          python -m tools.speed.measure --publish    how fast the course is
logs/benchmarks/stress.json       make stress PUBLISH=1                      what kill -9 loses
logs/benchmarks/photographs.json  python -m tools.photographs                how well photographs are read
logs/benchmarks/no_digit.json     python -m tools.photographs --bound        when the page doubts a digit
logs/benchmarks/c.json            python -m tools.export NAME --to c --publish  what a network costs in C
logs/benchmarks/train_in_tab.json python -m tools.site --measure               what the web pages' "Train" tab reaches
logs/reproductions.jsonl          python -m tools.reproduce NAME             published runs, trained again
logs/writers.jsonl                python -m tools.writers                    accuracy on images of known and new writers
logs/ensemble.json                python -m tools.ensemble                   networks that answer together
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from utils import ROOT, CourseError, files
from utils.data import Dataset, datasets
from utils.experiments import EXPERIMENTS
from utils.report.tables import Markup, escape, mean_sd, table
from utils.runs import records
from utils.runs.facts import Code, Environment
from utils.training.loops import Score

MEASURED = dict[str, float]  # seconds, loading, peak_mib, seed, and what the work reports: epochs, accuracy, rows
BN_EPOCH, TO_99 = "training epoch of bn_augmentation", "time to 99 %"
# the first side of a compared row is the course; the others are the usual ways, and the fastest of them counts
COMPARED = ("augmented batches, one epoch", BN_EPOCH, TO_99, "time to 99.4 %")
COMPARED += ("3D-MNIST rows of 60 digits", "training epoch of voxel_reference")
# from the usual way to the course's, step by step: an epoch of the example, then trainings to 99 %
MACHINE_STEPS = "one epoch of PyTorch's example, changed step by step"
RECIPE_STEPS = "from PyTorch's example to sprint, changed step by step"
DAILY = ("five seeds of bn_augmentation, two epochs each", "from the command to 99 %", "loading MNIST")
REPRODUCTIONS, ENSEMBLE = ROOT / "logs" / "reproductions.jsonl", ROOT / "logs" / "ensemble.json"
HELD_OUT_RUNS = ROOT / "logs" / "writers.jsonl"


@dataclass(frozen=True)
class Machine(Environment):
    """Where a benchmark ran, and when."""

    cores: int
    data: str
    commit: str
    time: str


@dataclass(frozen=True)
class Benchmark:
    """The measurements by row, then by side. environment: of all rows but those in `later`, which were measured again.
    floor, sprint_floor: see measure.floor."""

    rows: dict[str, dict[str, list[MEASURED]]]
    environment: Machine
    floor: dict[str, float] = field(default_factory=dict)  # of an epoch of bn_augmentation
    sprint_floor: dict[str, float] = field(default_factory=dict)
    later: dict[str, Machine] = field(default_factory=dict)

    def __post_init__(self):
        for row, sides in self.rows.items():
            if not all(times and all(one.get("seconds", 0) > 0 for one in times) for times in sides.values()):
                raise ValueError(f"{row}: expected one or more measurements of each side, each with its seconds")

    def machine(self, row: str) -> Machine:
        """Where and when a row was measured."""
        return self.later.get(row, self.environment)


def path(kind: str = "cpu", root: Path = ROOT) -> Path:
    """The file of the benchmark, or of `stress`, `photographs`, `no_digit`, `c` or `train_in_tab`."""
    return root / "logs" / "benchmarks" / f"{kind}.json"


def whole_mnist() -> Dataset:
    """MNIST, of which every image counts in a measurement. Raises CourseError if it was not found."""
    found = datasets.load("mnist")
    if found.name != "mnist" or not found.whole:
        size = "all" if found.whole else "a smoke run's part"
        raise CourseError(f"found {size} of {found.name}, expected all of MNIST: set COURSE_DATA and COURSE_SMOKE=0")
    return found


def read() -> Benchmark:
    """The published benchmark. Raises CourseError if it is missing or damaged."""
    return files.read_json(path(), Benchmark, "`python -m tools.speed.measure --publish` measures it.")


def median(measurements: list[MEASURED], key: str) -> float:
    return statistics.median(one[key] for one in measurements)


def spread(measurements: list[MEASURED]) -> str:
    """Median seconds (smallest to largest), and the median accuracy if one was reached."""
    seconds = [one["seconds"] for one in measurements]
    between = f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else ""
    reached = f", {median(measurements, 'accuracy'):.2f} %" if "accuracy" in measurements[0] else ""
    return f"{statistics.median(seconds):.2f}{between}{reached}"


def speed_table(rows: dict[str, dict[str, list[MEASURED]]]) -> str:
    """The course against the fastest usual way: seconds, accuracy if one is reached, and how much faster (">" if the
    usual way missed its target)."""
    lines = []
    for row in COMPARED:
        (_, course), *others = rows[row].items()
        best, usual = min(others, key=lambda side: median(side[1], "seconds"))
        target = re.search(r"to ([\d.]+) %", row)
        more = "> " if target and median(usual, "accuracy") < float(target[1]) else ""
        faster = Markup(f"**{more}{median(usual, 'seconds') / median(course, 'seconds'):.1f} ×**")
        lines.append([row, best, spread(usual), spread(course), faster, len(course)])
    return table(["what", "against", "usual, s", "course, s", "faster", "n"], lines, right="n")


class Step(NamedTuple):
    """One bar of the ladder: a change, and the seconds to 99 % with it and all changes before."""

    name: str
    seconds: float


def ladder(found: Benchmark) -> list[Step]:
    """From PyTorch's example to sprint. A step that doesn't change learning takes as many epochs as the example.

    Raises CourseError if the rows come from different machines.
    """
    rows, parts = found.rows, (TO_99, MACHINE_STEPS, RECIPE_STEPS)
    if len({replace(found.machine(row), commit="", time="") for row in parts}) > 1:
        command = "python -m tools.speed.measure --publish --only …"
        raise CourseError(f"{', '.join(parts)}: measured on different machines. Measure them together: {command}")
    epochs = median(rows[TO_99]["PyTorch's example"], "epochs")
    steps = [Step(name, median(times, "seconds") * epochs) for name, times in rows[MACHINE_STEPS].items()]
    return steps + [Step(name, median(times, "seconds")) for name, times in rows[RECIPE_STEPS].items()]


def speed_shares(found: Benchmark) -> str:
    """How much of the speed to 99 % comes from network and recipe, and how much from the machine."""
    seconds = [step.seconds for step in ladder(found)]
    first, same_network, last = seconds[0], seconds[len(found.rows[MACHINE_STEPS]) - 1], seconds[-1]
    return (
        "How the course reaches 99 % faster than PyTorch's example: a smaller network and its recipe make it "
        f"{same_network / last:.1f} × faster, and better use of the machine makes it {first / same_network:.1f} × "
        f"faster. These steps were measured in separate runs. The product of the two factors is {first / last:.1f} ×."
    )


def tried_table(rows: dict[str, dict[str, list[MEASURED]]]) -> str:
    """Every side of each row against its first side: seconds, accuracy if one is reached, peak memory."""
    lines = []
    for row, sides in rows.items():
        first = next(iter(sides.values()))
        for side, times in sides.items():
            faster, peak = median(first, "seconds") / median(times, "seconds"), median(times, "peak_mib")
            cells = [spread(times), f"{faster:.{2 if faster > 0.1 else 3}f} ×", f"{peak:,.0f}", len(times)]
            lines.append([row, side, *cells])
    return table(["work", "how", "seconds", "as fast as the first", "peak MiB", "n"], lines, right="peak MiB n")


def note(found: Benchmark, which: Sequence[str]) -> str:
    """How rows were measured, and on which machines."""
    counts = sorted({len(times) for row in which for times in found.rows[row].values()})
    several = f"{counts[0]} to {counts[-1]}" if counts[-1] > counts[0] else str(counts[0])
    places: dict[str, list[str]] = {}
    for row in which:
        one = found.machine(row)
        threads = f"{one.threads} thread{'s' * (one.threads != 1)}"
        places.setdefault(escape(f"{one.device}, {threads}, torch {one.torch}, {one.time[:10]}"), []).append(row)
    most, *others = sorted(places, key=lambda place: -len(places[place]))
    apart = "".join(f" “{escape(', '.join(places[place]))}” was measured on {place}." for place in others)
    return f"Medians (smallest to largest) of n = {several} fresh processes per side, alternating, on {most}.{apart}"


def speed_section() -> str:
    """The tables of the published benchmark, with its machines."""
    found = read()
    floor = f"{found.sprint_floor['floor_seconds']:.2f} s"
    parts = [speed_table(found.rows), note(found, COMPARED), speed_shares(found)]
    parts += [tried_table({row: found.rows[row] for row in DAILY}), note(found, DAILY)]
    parts += [f"At the highest rates of this machine, the arithmetic of one epoch of sprint takes {floor}."]
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Reproduction:
    """A published run, trained again. sha256: of the file, which depends on the version of torch."""

    name: str
    seed: int
    environment: Environment
    code: Code
    test: Score
    sha256: str
    finished: str

    def __post_init__(self):
        if self.name not in EXPERIMENTS:
            raise ValueError(f"no experiment is called {self.name[:80]!r}")


def reproductions() -> list[Reproduction]:
    """All lines so far. Raises CourseError for a damaged line, or one that names no experiment."""
    return files.read_lines(REPRODUCTIONS, Reproduction)


def reproduction_rows() -> list[list[object]]:
    """One row for each experiment and each device, number of threads and version of torch."""
    groups: dict[tuple, list[Reproduction]] = {}
    for line in reproductions():
        ran = line.environment
        groups.setdefault((line.name, ran.device, ran.threads, ran.torch.split("+")[0]), []).append(line)
    rows = []
    for title, lines in sorted(groups.items()):
        then = {record.facts.seed: record.facts for record in records.published(EXPERIMENTS[title[0]])}
        latest = {line.seed: line for line in lines if line.seed in then}  # a later line replaces an earlier one
        if latest:
            pairs = [(line.test, then[seed].test) for seed, line in sorted(latest.items())]
            now, before = ([one.percent for one in side] for side in zip(*pairs, strict=True))
            apart = max(abs(here.correct - there.correct) for here, there in pairs)
            same = f"{sum(here == there for here, there in pairs)} of {len(pairs)}"
            rows.append([*title, same, mean_sd(now), mean_sd(before), apart])
    return rows


def reproductions_section() -> str:
    """The table of what another machine, another number of threads or another version changes."""
    found = reproduction_rows()
    if not found:
        return "No published run has been trained again yet: `python -m tools.reproduce NAME`."
    header = ["experiment", "device", "threads", "torch", "identical", "here %", "published %", "images apart"]
    return table(header, found, right="threads")


@dataclass(frozen=True)
class HeldOutRun:
    """A training of sprint_994 without held-out images: a random tenth or so of the images, or all of random writers.
    images: how many of them each writer has; wrong, test_wrong: the writer of each misread one, and test image."""

    by_writer: bool
    split: int
    seed: int
    images: dict[str, int]  # a key of JSON is a string
    wrong: list[int]
    test_wrong: list[int]
    code: Code
    environment: Environment
    finished: str

    @property
    def held_out(self) -> float:
        """Accuracy on the held-out images, in percent."""
        return 100 * (1 - len(self.wrong) / sum(self.images.values()))

    @property
    def test(self) -> float:
        """Accuracy on the 10,000 test images, in percent."""
        return 100 - len(self.test_wrong) / 100


def held_out_runs() -> list[HeldOutRun]:
    """All lines so far. Raises CourseError for a damaged line."""
    return files.read_lines(HELD_OUT_RUNS, HeldOutRun)


@dataclass(frozen=True)
class Ensemble:
    """votes: of each member. twins: alone on held-out images. held_out, test: the members together."""

    votes: dict[str, int]
    twins: dict[str, Score]
    held_out: Score
    test: Score
    environment: Environment
    code: Code
    finished: str

    def __post_init__(self):
        if unknown := (self.votes.keys() | self.twins.keys()) - EXPERIMENTS.keys():
            raise ValueError(f"no experiment is called {', '.join(sorted(unknown))[:80]}")


def read_ensemble() -> Ensemble:
    """The published ensemble. Raises CourseError if it is missing or damaged."""
    return files.read_json(ENSEMBLE, Ensemble, "Make it again: python -m tools.ensemble.")


def ensemble_table(ensemble: Ensemble) -> str:
    """The candidates, most votes first: their votes, and what each reaches alone and all together."""
    rows = []
    for name, twin in ensemble.twins.items():
        published = records.finished(EXPERIMENTS[name], 0)  # None: its recipe has changed since
        test = f"{published.facts.test.percent:.2f}" if published else "–"
        rows.append([name, ensemble.votes.get(name, 0), f"{twin.percent:.2f}", test])
    rows.sort(key=lambda row: (-row[1], -ensemble.twins[row[0]].correct))
    reached = [Markup(f"**{one.percent:.2f}**") for one in (ensemble.held_out, ensemble.test)]
    rows.append(["together", sum(ensemble.votes.values()), *reached])
    return table(["network", "votes", "its twin, held out %", "test %"], rows, right="votes")


@dataclass
class Stressed:
    """What the kills of one kind did. same: after how many of them the command ended with the undisturbed result."""

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
        names = Stressed.__dataclass_fields__
        return Stressed(*(sum(getattr(one, name) for one in self.kinds.values()) for name in names))


def stress_section() -> str:
    """How many kills were survived, in three sentences."""
    found = files.read_json(path("stress"), Stress, "`make stress PUBLISH=1` writes it.")
    total, where = found.total, found.environment
    kinds = escape(", ".join(f"{name} {one.kills}" for name, one in found.kinds.items()))
    place = escape(f"{where.device}, torch {where.torch}, {where.time[:10]}")
    return (
        f"`make stress` stopped training {total.kills} times with `kill -9` at random moments ({kinds}). "
        f"It found {total.damaged} damaged files, {total.lost_runs} lost runs and {total.lost_epochs} lost epochs. "
        f"After {total.same} of {total.kills} kills, the command ended with the bits of an undisturbed run, on {place}."
    )


@dataclass(frozen=True)
class Kind:
    """Photographs of one kind: how many, and how many were read correctly, rejected, and read as another digit."""

    n: int
    correct: int
    rejected: int
    wrong: int


@dataclass(frozen=True)
class Photographs:
    network: str
    kinds: dict[str, Kind]
    code: Code
    environment: Environment
    finished: str


def photographs_section() -> str:
    """The table of docs/photographs.md."""
    found = files.read_json(path("photographs"), Photographs, "`python -m tools.photographs` writes it.")
    rows = []
    for name, one in found.kinds.items():
        rows.append([name, one.n, *(f"{100 * part / one.n:.1f}" for part in (one.correct, one.rejected, one.wrong))])
    header = ["photographs", "n", "correct %", "rejected %", "wrong %"]
    where = escape(f"torch {found.environment.torch}, {found.finished[:10]}")
    text = f"{escape(found.network)}, test images of MNIST on generated pages, {where}."
    return f"{table(header, rows, right=' '.join(header[1:]))}\n\n{text}"


@dataclass(frozen=True)
class NoDigit:
    """The bound below which a picture is doubted. least: the probability of the likeliest digit; share: of the held-out
    digits below it; letters, doubted: printed letters, and how many of them are below it."""

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


@dataclass(frozen=True)
class Costs:
    """What a network costs in C. constants: bytes of weights. memory: bytes of the static array. multiplications: for
    one image, without skipped weights of 0 and without address arithmetic. flash: bytes of constants and machine code,
    built for small size; None without the tool `size`."""

    levels: int
    constants: int
    memory: int
    multiplications: int
    flash: int | None
    compiler: str


def c_section() -> str:
    """What networks cost in C, as `python -m tools.export NAME --to c --publish` measured it."""
    found = files.read_json(path("c"), dict[str, Costs], "`python -m tools.export NAME --to c --publish` writes it.")
    rows = []
    for name, one in found.items():
        counts = (one.flash, one.constants, one.memory, one.multiplications)
        rows.append([name, *("–" if count is None else f"{count:,}" for count in counts)])
    header = ["network", "flash, bytes", "constants, bytes", "static memory, bytes", "multiplications"]
    compilers = ", ".join(dict.fromkeys(escape(one.compiler) for one in found.values()))
    return f"{table(header, rows, right=header[1:])}\n\nFlash: constants and machine code, by {compilers}."


@dataclass(frozen=True)
class TabRun:
    """A training in an engine. correct: of `total` test images. seconds: of the training alone. sha256: of the state
    dict."""

    engine: str
    seed: int
    seconds: float
    correct: int
    total: int
    sha256: str


@dataclass(frozen=True)
class InTab:
    """What the "Train" tab reaches. images: how many it loads to train on. bytes: of each file that it loads. load: how
    many processes wanted a core at the start of the measurement, averaged over a minute (0: unknown)."""

    images: int
    bytes: dict[str, int]
    runs: list[TabRun]
    load: float
    cores: int
    environment: Environment
    finished: str


def in_tab_section() -> str:
    """What the "Train" tab reaches in each engine."""
    found = files.read_json(path("train_in_tab"), InTab, "`python -m tools.site --measure` writes it.")
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
    busy = f", while {found.load:.0f} other processes shared its {found.cores} cores" if found.load >= 1.5 else ""
    return (
        f"{table(header, rows, right=('n',))}\n\n"
        f"n seeds in each engine, at the last step. The engines took turns on {place}{busy}. "
        "“Same state dict”: its SHA-256 is that of the first engine for the same seed. "
        f"The tab loads {sizes}, with {found.images:,} training images."
    )
