"""How fast the course is against the usual way, side by side in one run.

python -m tools.bench                measure everything, print the table, keep the measurements below runs/
python -m tools.bench --publish      the same, kept in logs/benchmarks/ (real MNIST only): README and notebook 10 show them
python -m tools.bench --only epoch   measure the rows whose name holds a word, print only; with --publish those rows alone are replaced
python -m tools.bench --device cuda  the rows of a GPU, kept apart; where there is none, says so
python -m tools.bench --once ROW SIDE SEED   one measurement in this process, as JSON

Every measurement runs in a fresh process, the sides in turn, each repetition with a seed of its own, which is recorded; a table gives
medians, the spread and the ratio. What a side times is its work alone. Loading is given beside it: the data and, before a training, two
steps of a network that is thrown away, for on its first step a process compiles its kernels.
"""

from tools import command  # isort: skip

import hashlib
import json
import os
import re
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from tools import costs, daily, gpu
from tools.measure import ROWS, measure, once, sizes
from tools.tried import TRIED
from tools.work import BN, BN_EPOCH, COMPARED, CPU, MACHINE_STEPS, MEASURED, RECIPE_STEPS, SPRINT
from utils import ROOT, CourseError, files
from utils.data import datasets
from utils.report.tables import Markup, escape, table
from utils.runs import facts, records
from utils.runs.facts import Environment

KINDS = ("cpu", "cuda")  # of devices that a benchmark may be published for


@dataclass(frozen=True)
class Machine(Environment):
    """Where a benchmark ran, and when."""

    cores: int
    data: str
    commit: str
    time: str


@dataclass(frozen=True)
class Benchmark:
    """The measurements of one kind of device. rows: by row, then by side; sizes: of an epoch on more images; floor, profile: see
    tools.costs. environment: where all was measured but `later`, rows that were measured anew by themselves."""

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
    return files.read_json(path(kind), Benchmark, "`python -m tools.bench --publish` measures them.")


def median(measurements: list[MEASURED], key: str) -> float:
    return statistics.median(one[key] for one in measurements)


def spread(measurements: list[MEASURED]) -> str:
    """Median seconds (smallest to largest)."""
    seconds = [one["seconds"] for one in measurements]
    return f"{statistics.median(seconds):.2f}" + (f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else "")


def speed_table(rows: dict[str, dict[str, list[MEASURED]]]) -> str:
    """The course against the best of the usual ways: seconds, accuracy where one is reached, how much faster."""
    lines = []
    for row in filter(rows.__contains__, COMPARED):
        best, course = best_usual(rows[row])
        reached = [f", {median(side, 'accuracy'):.2f} %" if "accuracy" in side[0] else "" for side in (rows[row][best], course)]
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
    """From PyTorch's example to sprint. What changes nothing that is learned takes as many epochs as the example; the rest says its own.

    Raises CourseError where its rows come from different machines.
    """
    rows, parts = found.rows, ("time to 99 %", MACHINE_STEPS, RECIPE_STEPS)
    if len({replace(found.machine(row), commit="", time="") for row in parts if row in rows}) > 1:
        raise CourseError(
            f"{', '.join(parts)}: measured on different machines. Measure them together: python -m tools.bench --publish --only …"
        )
    to_99 = rows["time to 99 %"]
    epochs = median(to_99["PyTorch's example"], "epochs")
    steps = [Step(name, median(times, "seconds"), epochs) for name, times in rows[MACHINE_STEPS].items()]
    changed = rows.get(RECIPE_STEPS) or {"the network and recipe of sprint": to_99["course"]}  # as measured before there were steps
    for name, times in changed.items():
        epochs = median(times, "epochs")
        steps.append(Step(name, median(times, "seconds") / epochs, epochs))
    return steps


def ladder_table(steps: list[Step]) -> str:
    """The ladder as a table, each step against the one before."""
    before = [steps[0], *steps]
    lines = [
        [step.name, f"{step.epoch:.1f}", f"{step.epochs:g}", f"{step.seconds:.1f}", f"{last.seconds / step.seconds:.2f} ×"]
        for step, last in zip(steps, before, strict=False)
    ]
    header = ["after this change", "s per epoch", "epochs", "s to 99 %", "against the line before"]
    return table(header, lines, right="s per epoch epochs s to 99 %")


def tried_table(rows: dict[str, dict[str, list[MEASURED]]], which: Iterable[str] = TRIED) -> str:
    """What was tried against what the course does, the first of each row: seconds, accuracy where one is reached, peak memory. which: of
    the rows."""
    lines = []
    for row in filter(rows.__contains__, which):
        first = next(iter(rows[row].values()))
        for side, times in rows[row].items():
            reached = f", {median(times, 'accuracy'):.2f} %" if "accuracy" in times[0] else ""
            faster, peak = median(first, "seconds") / median(times, "seconds"), median(times, "peak_mib")
            lines.append([row, side, spread(times) + reached, f"{faster:.{2 if faster > 0.1 else 3}f} ×", f"{peak:,.0f}", len(times)])
    return table(["work", "how", "seconds", "as fast as the first", "peak MiB", "n"], lines, right="peak MiB n")


def sizes_table(found: dict[str, list[MEASURED]]) -> str:
    """Images, seconds and peak memory of an epoch, and its time per image against the smallest size."""
    first = median(found["1 × read"], "seconds") / found["1 × read"][0]["images"]
    lines = []
    for name, times in found.items():
        images, seconds = times[0]["images"], median(times, "seconds")
        against = f"{seconds / images / first:.2f}"
        lines.append([name, f"{images:,.0f}", f"{seconds:.2f}", against, f"{median(times, 'peak_mib'):,.0f}"])
    return table(["images", "count", "seconds", "time per image against 1 ×", "peak MiB"], lines, right="count seconds peak MiB")


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
    where = "; ".join([most, *(f"“{', '.join(places[place])}” on {place}" for place in others)])
    return f"Medians (smallest to largest) of n = {several} fresh processes per side, sides in turn, on {where}."


def section() -> str:
    """README's tables of every benchmark that is published, each with its machine in a line below, and what is not measured."""
    parts = []
    for kind in KINDS:
        if not path(kind).exists():
            parts.append(f"Not measured yet: {kind.upper()}, for there is no `{files.shown(path(kind))}`.")
            continue
        found = read(kind)
        parts += [speed_table(found.rows), note(found, COMPARED), memory_table(found.rows)]
        if found.rows.keys() & daily.ROWS.keys():
            parts += [tried_table(found.rows, daily.ROWS), note(found, daily.ROWS)]
        if found.sprint_floor:
            parts.append(f"An epoch of sprint can't take less than {found.sprint_floor['floor_seconds']:.2f} s here.")
    return "\n\n".join(parts)


def whole(found: dict, repetitions: int, data: datasets.Dataset, machine: Machine, kind: str) -> Benchmark:
    """What is kept: the rows, and of the CPU what an epoch costs on more images, at least, and by kind of operator."""
    if kind != "cpu":
        return Benchmark(found, {}, {}, {}, machine)
    return Benchmark(found, sizes(repetitions), environment=machine, **floors(data))


def floors(data: datasets.Dataset) -> dict[str, dict[str, float]]:
    """What stands beside the epoch of bn_augmentation and is measured where that is: its floor and its profile; and sprint's floor."""
    return {"floor": costs.floor(BN), "profile": costs.profile(data, BN), "sprint_floor": costs.floor(SPRINT)}


def measure_all(rows: list[str], repetitions: int, publish: bool, only: bool, kind: str = "cpu") -> dict[str, dict[str, list[MEASURED]]]:
    """Measure and write: the whole benchmark, or where `only` some rows were asked for, and to be published, those rows among the
    published ones. Raises CourseError for what can't be published."""
    data = datasets.load("mnist")
    if publish and (datasets.PUBLISHABLE.get(data.name) != data.fingerprint or not data.whole):
        raise CourseError("only a benchmark on the whole real MNIST can be published: set COURSE_DATA and COURSE_SMOKE=0")
    before = read(kind) if publish and only else None
    environment, code = asdict(facts.environment(CPU if kind == "cpu" else torch.device(kind))), facts.code()
    conditions = json.dumps([environment, asdict(code), data.fingerprint, rows, repetitions, publish])
    unfinished = records.own_root() / "unfinished" / f"benchmark_{hashlib.sha256(conditions.encode()).hexdigest()[:8]}.json"
    found = measure(rows, repetitions, unfinished, kind)
    machine = Machine(**environment, cores=os.cpu_count(), data=data.name, commit=code.commit, time=facts.now())
    if before:
        limits = floors(data) if BN_EPOCH in found and kind == "cpu" else {}
        among = replace(before, rows=before.rows | found, later=before.later | dict.fromkeys(found, machine), **limits)
        files.write_json(path(kind), among)
    elif not only:
        files.write_json(path(kind, ROOT if publish else records.own_root()), whole(found, repetitions, data, machine, kind))
    unfinished.unlink(missing_ok=True)
    return found


def main(words: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--only", metavar="WORD", nargs="+", help="only the rows whose names hold one of these; nothing is kept unless published"
    )
    parser.add_argument("--device", choices=KINDS, default="cpu", help="whose rows (default: cpu)")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--once", nargs=3, help=command.HIDDEN)
    parser.add_argument("--size", action="store_true", help=command.HIDDEN)
    options = parser.parse_args(words)
    if options.size:
        print(json.dumps(costs.epoch_of_all()))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"Not measured: {', '.join(gpu.ROWS)}. PyTorch {torch.__version__} finds no CUDA GPU here.")
        return
    if options.once:
        row, side, seed = options.once
        known = ROWS[options.device]
        if row not in known or side not in known[row].sides or not seed.isdecimal():
            raise CourseError(f"--once {' '.join(options.once)}: expected a row, one of its sides, and a seed")
        print(json.dumps(once(row, side, int(seed), options.device)))
        return
    if options.repetitions < 1:
        raise CourseError(f"--repetitions {options.repetitions}: expected 1 or more")
    rows = [row for row in ROWS[options.device] if not options.only or any(word in row for word in options.only)]
    if not rows:
        raise CourseError(f"no row holds {' or '.join(options.only)}: expected a word of {', '.join(ROWS[options.device])}")
    found = measure_all(rows, options.repetitions, options.publish, bool(options.only), options.device)
    print(tried_table(found, found) if options.only else speed_table(found))


if __name__ == "__main__":
    command.main("bench", main)
