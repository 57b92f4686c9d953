"""Published runs trained again, here: is the test loss the same to the last digit, and if not, how far off are the accuracies?

python -m tools.again sprint --seeds 20              as published, on this machine
python -m tools.again sprint --seeds 20 --threads 2  and where something else differs

Each run adds a line to logs/again.jsonl, from which README's table of machines is made. Nothing that is published changes.
"""

from tools import command  # isort: skip

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from utils import ROOT, CourseError, closest, files
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import facts, records, runs
from utils.runs.records import Facts
from utils.training.loops import Score

PATH = ROOT / "logs" / "again.jsonl"


@dataclass(frozen=True)
class Again:
    """One published run, trained again. sha256: of the state dict's file, whose form changes with torch even where no weight does."""

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


def recorded() -> list[Again]:
    """All lines so far. Raises CourseError for one that can't be read, or is of no experiment."""
    lines = files.read_lines(PATH, Again)
    for number, line in enumerate(lines, 1):
        if line.name not in EXPERIMENTS:
            said = f"no experiment is called {line.name[:80]!r}: expected {closest(line.name[:80], EXPERIMENTS)}"
            raise CourseError(f"{files.shown(PATH)}, line {number}: {said}. Delete that line.")
    return lines


def rows() -> list[list[object]]:
    """One row for each experiment and each kind of conditions in which it was trained again."""
    groups: dict[tuple, list[Again]] = {}
    for line in recorded():
        groups.setdefault(line.title, []).append(line)
    table = []
    for title, lines in sorted(groups.items()):
        then = {record.facts.seed: record.facts for record in records.published(EXPERIMENTS[title[0]])}
        latest = {line.seed: line for line in lines if line.seed in then}  # who trains twice corrects himself
        if latest:
            pairs = [(line, then[seed]) for seed, line in sorted(latest.items())]
            same = sum(line.test == fact.test for line, fact in pairs)
            now, before = ([one.test.percent for one in side] for side in zip(*pairs, strict=True))
            apart = max(abs(line.test.correct - fact.test.correct) for line, fact in pairs)
            table.append([*title, f"{same} of {len(pairs)}", tables.mean_sd(now), tables.mean_sd(before), apart])
    return table


def section() -> str:
    """README's table of what another machine, another number of threads or another version changes."""
    found = rows()
    if not found:
        return "No published run has been trained again yet: `python -m tools.again NAME`."
    header = ["experiment", "device", "threads", "torch", "identical", "here %", "published %", "images apart"]
    return tables.table(header, found, right="threads")


def train(published: Facts) -> Facts:
    """What comes out if a published run is trained once more, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        where = {"device": "cpu", "publish": False, "again": True, "root": Path(folder), "echo": False}
        return runs.run(EXPERIMENTS[published.name], published.seed, **where).facts


def main(words: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.again", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N−1, as far as they are published")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of one training; the published runs used one")
    options = parser.parse_args(words)
    if min(options.seeds, options.threads) < 1:
        raise CourseError(f"--seeds {options.seeds} --threads {options.threads}: expected 1 or more")
    torch.set_num_threads(options.threads)
    for name in options.names:
        if name not in EXPERIMENTS:
            raise CourseError(f"no experiment is called {name!r}: expected {closest(name, EXPERIMENTS)}")
        published = records.published(EXPERIMENTS[name])
        if not published:
            raise CourseError(f"{name} is not published by its present recipe: there is nothing to compare with")
        for record in published[: options.seeds]:
            now = train(record.facts)
            files.append_line(PATH, Again(now.name, now.seed, now.environment, now.code, now.test, now.sha256, now.finished))
            print(tables.against_published(EXPERIMENTS[name], now), flush=True)
    return 0


if __name__ == "__main__":
    command.main("again", main)
