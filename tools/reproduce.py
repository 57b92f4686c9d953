"""Train published runs again, here: is the test loss identical, and if not, how far apart are the accuracies?

python -m tools.reproduce sprint --seeds 20              as published, on this machine
python -m tools.reproduce sprint --seeds 20 --threads 2  and where something else differs

Each run adds a line to logs/reproductions.jsonl, the source of the table in docs/reproducibility.md.
"""

from tools import command  # isort: skip

import tempfile
from pathlib import Path

import torch

from tools.measurements import REPRODUCTIONS, Reproduction
from utils import CourseError, closest, files, runs
from utils.experiments import EXPERIMENTS
from utils.runs import records
from utils.runs.job import prepare_data
from utils.runs.records import DataFacts


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.reproduce", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="published seeds 0 to N−1")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of one training; published runs used one")
    options = parser.parse_args(argv)
    if min(options.seeds, options.threads) < 1:
        raise CourseError(f"--seeds {options.seeds} --threads {options.threads}: expected 1 or more")
    for name in options.names:
        if name not in EXPERIMENTS:
            raise CourseError(f"no experiment is called {name[:80]!r}: expected {closest(name, EXPERIMENTS)}")
        if not records.published(EXPERIMENTS[name]):
            raise CourseError(f"{name} is not published by its present recipe: there is nothing to compare with")
    torch.set_num_threads(options.threads)
    for experiment in (EXPERIMENTS[name] for name in options.names):
        if DataFacts.of(prepare_data(experiment)) != records.published(experiment)[0].facts.data:
            raise CourseError(f"{experiment.name} was trained on other data: set COURSE_DATA and COURSE_SMOKE=0")
        for record in records.published(experiment)[: options.seeds]:
            with tempfile.TemporaryDirectory() as folder:
                where = {"device": "cpu", "publish": False, "retrain": True, "folder": Path(folder), "echo": False}
                now = runs.run(experiment, record.facts.seed, **where).facts
            line = Reproduction(now.name, now.seed, now.environment, now.code, now.test, now.sha256, now.finished)
            files.append_line(REPRODUCTIONS, line)
            print(records.against_published(experiment, now), flush=True)


if __name__ == "__main__":
    command.main("reproduce", main)
