"""Load, hash and evaluate every published state dict, and compare it with its sidecar: python -m tools.verify

Exit status 1 and one line per finding if a file is missing, damaged, altered or unknown, or if its score differs from
its sidecar.
"""

from tools import command  # isort: skip

import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tools import ensemble
from tools.measurements import ENSEMBLE, read_ensemble
from utils import ROOT, CourseError, files, models, printable
from utils.data import datasets
from utils.experiments import EXPERIMENTS, Experiment
from utils.report import tables
from utils.runs import packed, pretrained, records, trials
from utils.runs.records import RunMetadata, RunPaths, seed_of
from utils.training import devices
from utils.training.loops import Score, evaluate

SINGLE = ("logs/reproductions.jsonl", "logs/writers.jsonl", "logs/ensemble.json", "logs/runs.csv")
LOSS = 1e-3  # relative: over three processors and torch 2.6 to 2.15 the loss moved by less than a tenth of it
Datasets = dict[str, datasets.Dataset]  # loaded so far, by name
Finding = tuple[str, str, str]  # the sidecar's score, the score now, and the verdict


def agrees(found: Score, recorded: Score) -> bool:
    """Whether two machines evaluated the same network: ± 1 correct in 10,000, and the loss to a thousandth."""
    close = abs(found.correct - recorded.correct) * 10_000 <= max(recorded.total, 10_000)
    return close and abs(found.loss - recorded.loss) <= LOSS * recorded.loss


def check(path: Path, loaded: Datasets) -> Finding:
    """Evaluate one state dict."""
    recorded = found = "–"
    try:
        model, facts = pretrained.load_model(path)
        model = devices.prepare(model, torch.device("cpu"))  # a fifth to a half less time
        recorded = f"{facts.test.correct}/{facts.test.total}" if facts.test else "no test"
        parameters = models.count_parameters(model)
        if parameters != facts.parameters:
            return recorded, found, f"DISAGREES: {parameters} parameters, the sidecar says {facts.parameters}"
        if wrong := packed_problem(path, model, facts):
            return recorded, found, f"DISAGREES: {wrong}"
        name = facts.data.name
        dataset = loaded[name] = loaded.get(name) or datasets.load(name)
        if (dataset.fingerprint, dataset.whole) != (facts.data.fingerprint, True):
            return recorded, found, f"NOT EVALUATED: {name} was not found"
        pixels = (facts.normalization.mean, facts.normalization.std)
        score = evaluate(model, dataset.test, *pixels)
        found = f"{score.correct}/{score.total}"
        parts = {part: evaluate(model, split, *pixels) for part, split in dataset.parts.items()}
        good = facts.test and agrees(score, facts.test) and parts.keys() == facts.parts.keys()
        good = good and all(agrees(parts[part], facts.parts[part]) for part in parts)
        return recorded, found, "agrees" if good else "DISAGREES"
    except CourseError as error:
        return recorded, found, f"REFUSED: {error}"


def packed_problem(path: Path, model: nn.Module, facts: RunMetadata) -> str:
    """Why the packed file of a state dict holds another network; "" if it does not, or if none belongs there.
    Raises CourseError if it can't be read."""
    if not facts.recipe.levels:
        return ""
    content = files.read(path.with_suffix(".bin"), most=facts.packed)  # a larger one would be read for minutes
    state, small = model.state_dict(), packed.read(content, facts.recipe.model)[0].state_dict()
    same = all(torch.equal(value, state[key]) for key, value in small.items() if "num_batches_tracked" not in key)
    return "" if same else f"{path.stem}.bin holds another network"


# ---- which files are published


def published(root: Path) -> tuple[list[Path], list[str]]:
    """All published files below logs/ and saved_dict/, and one line for each other entry or missing twin."""
    paths, findings = [], []
    for path in _entries(root):
        mode, name = path.lstat().st_mode, path.relative_to(root).as_posix()
        if stat.S_ISDIR(mode):
            wrong = "" if _is_known_folder(name) else "belongs to no experiment: delete it"
        elif not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "a pipe, a device or a socket"
            wrong = f"is {kind}: expected a file. Delete it"
        else:
            wrong = _why_stray(path, name)
            paths += [] if wrong else [path]
        findings += [printable(f"{name} {wrong}")] if wrong else []
    return paths, findings


def _entries(root: Path) -> list[Path]:
    """Files, folders and links below logs/ and saved_dict/, in order, without following links."""
    found = [path for path in (root / "logs", root / "saved_dict") if path.is_symlink()]
    for top in (root / "logs", root / "saved_dict"):
        if top not in found:
            found += [Path(folder, name) for folder, folders, names in os.walk(top) for name in (*folders, *names)]
    return sorted(found)


def _is_known_folder(name: str) -> bool:
    top, _, inner = name.partition("/")
    return top == "logs" and (inner in EXPERIMENTS or inner in ("trials", "benchmarks"))


def _why_stray(path: Path, name: str) -> str:
    """Why a regular file is not published, or what it lacks; "" if nothing is wrong."""
    folder, suffix, experiment = path.parent.name, path.suffix, EXPERIMENTS.get(path.stem)
    if name in SINGLE or re.fullmatch(r"logs/benchmarks/\w+\.json", name):
        return ""
    if experiment and name == f"logs/trials/{path.stem}.jsonl":
        return ""
    if experiment := _trained_by(path):  # a missing sidecar is reported where it is read
        if name == f"saved_dict/{path.stem}.pth":
            small = path.with_suffix(".bin")
            return "" if small.is_file() or not experiment.recipe.levels else f"has no {small.name} next to it"
        if name == f"saved_dict/{path.name}" and suffix in (".json", ".bin"):
            return "" if path.with_suffix(".pth").is_file() else "has no state dict next to it"
    twins = {".csv": ".json", ".json": ".csv"}
    if name == f"logs/{folder}/{path.name}" and folder in EXPERIMENTS and seed_of(path) is not None and suffix in twins:
        twin = path.with_suffix(twins[suffix])
        return "" if twin.is_file() else f"has no {twin.name} next to it"
    return "belongs to no experiment: delete it"


def _trained_by(path: Path) -> Experiment | None:
    """The experiment of a file in saved_dict/: its name alone is that of seed 0, NAME_seed3 that of another seed."""
    name, _, seed = path.stem.rpartition("_")
    return EXPERIMENTS.get(name if seed_of(Path(seed)) else path.stem)


def strays(root: Path = ROOT) -> list[str]:
    """One line for each published file that is missing, unknown, unreadable, or contradicted by its log."""
    _, findings = published(root)
    for experiment in EXPERIMENTS.values():
        run = RunPaths(root, experiment.name, 0)
        if run.facts.is_file() and experiment.weights:
            pair = (run.weights, run.weights.with_suffix(".json"))
            findings += [f"{path.relative_to(root)} is missing" for path in pair if not path.is_file()]
        findings += contradictions(run)
        try:
            trials.read_file(root / "logs" / "trials" / f"{experiment.name}.jsonl")
        except CourseError as error:
            findings.append(printable(str(error)))
    return findings


def contradictions(run: RunPaths) -> list[str]:
    """One line for each unreadable log of an experiment, and for each sidecar that differs from its log."""
    findings = []
    seeds = sorted(seed for path in run.log.parent.glob("seed*.json") if (seed := seed_of(path)) is not None)
    for one, require in [(replace(run, seed=seed), check) for seed in seeds for check in (_readable, _unchanged)]:
        try:
            require(one)
        except CourseError as error:
            findings.append(printable(str(error)))
    return findings


def _readable(run: RunPaths) -> None:
    """Raise CourseError if a run's log is damaged, or names no network."""
    models.parse(records.read_record(run).facts.recipe.model)


def _unchanged(run: RunPaths) -> None:
    """Raise CourseError if a run's sidecar differs from its log, or can't be read."""
    sidecar, log = run.weights.with_suffix(".json"), run.facts.relative_to(run.root)
    if sidecar.is_file() and files.read(sidecar, most=files.JSON) != files.read(run.facts, most=files.JSON):
        raise CourseError(f"{sidecar.relative_to(run.root)} is not what {log} says: it was changed")


def verify(root: Path = ROOT) -> tuple[str, bool]:
    """A table of all state dicts below `root`/saved_dict, further findings, and whether everything agrees."""
    for sidecar in (root / "saved_dict").glob("*.json"):
        pretrained.fetch(sidecar.with_suffix(".pth"))
    loaded: Datasets = {}
    rows = [[path.name, *check(path, loaded)] for path in sorted((root / "saved_dict").glob("*.pth"))]
    if root == ROOT and ENSEMBLE.exists():
        rows.append([ENSEMBLE.name, *check_ensemble(loaded)])
    findings = strays(root)
    good = bool(rows) and not findings and all(row[-1] == "agrees" for row in rows)
    table = tables.table(["state dict", "sidecar", "evaluated now", "verdict"], rows)
    return "\n".join([table if rows else f"{root / 'saved_dict'} holds no state dict", *findings]), good


# ---- published runs, trained again


def check_ensemble(loaded: Datasets) -> Finding:
    """Evaluate the published ensemble."""
    recorded = found = "–"
    try:
        chosen = read_ensemble()
        recorded = f"{chosen.test.correct}/{chosen.test.total}"
        dataset = loaded["mnist"] = loaded.get("mnist") or datasets.load("mnist")
        if dataset.name != "mnist" or not dataset.whole:
            return recorded, found, "NOT EVALUATED: mnist was not found"
        score = ensemble.score(chosen.votes, dataset.test)
        return recorded, f"{score.correct}/{score.total}", "agrees" if agrees(score, chosen.test) else "DISAGREES"
    except CourseError as error:
        return recorded, found, f"REFUSED: {error}"


def main(argv: list[str]) -> int:
    command.Parser(prog="python -m tools.verify", description=__doc__).parse_args(argv)
    text, good = verify()
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    command.main("verify", main)
