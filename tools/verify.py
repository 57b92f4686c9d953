"""Load, hash and evaluate every published state dict, and compare it with its sidecar: python -m tools.verify

Exit status 1 and one line per finding if a file is missing, damaged, altered or unknown, or if its score differs from
its sidecar.
"""

from tools import command  # isort: skip

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tools import ensemble
from tools.measurements import ENSEMBLE, read_ensemble
from utils import ROOT, CourseError, files, models, printable
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import packed, pretrained, records, trials
from utils.runs.records import RunMetadata, RunPaths, seed_of
from utils.training import devices
from utils.training.loops import Score, evaluate

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
        parts = {part: evaluate(model, split, *pixels) for part, split in dataset.parts.items()}
        score = together(parts.values()) if parts else evaluate(model, dataset.test, *pixels)
        found = f"{score.correct}/{score.total}"
        good = facts.test and agrees(score, facts.test) and parts.keys() == facts.parts.keys()
        good = good and all(agrees(parts[part], facts.parts[part]) for part in parts)
        return recorded, found, "agrees" if good else "DISAGREES"
    except CourseError as error:
        return recorded, found, f"REFUSED: {error}"


def together(parts: Collection[Score]) -> Score:
    """The score of all parts of a test set."""
    total = sum(part.total for part in parts)
    return Score(sum(part.loss * part.total for part in parts) / total, sum(part.correct for part in parts), total)


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

SHAPES = {  # what may lie below logs/ and saved_dict/, and the suffix of the file that it needs next to it
    r"logs/(reproductions\.jsonl|writers\.jsonl|ensemble\.json|runs\.csv|benchmarks/\w+\.json)": "",
    r"logs/trials/(?P<name>\w+)\.jsonl": "",
    r"logs/(?P<name>\w+)/seed(0|[1-9]\d*)\.csv": ".json",
    r"logs/(?P<name>\w+)/seed(0|[1-9]\d*)\.json": ".csv",
    r"saved_dict/(?P<name>\w+?)(_seed[1-9]\d*)?\.pth": ".json",
    r"saved_dict/(?P<name>\w+?)(_seed[1-9]\d*)?\.(json|bin)": ".pth",
}


def published(root: Path) -> tuple[list[Path], list[str]]:
    """All published files below logs/ and saved_dict/, and one line for each other entry or missing twin."""
    paths, findings = [], []
    for path in sorted(path for folder in ("logs", "saved_dict") for path in (root / folder).rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(root).as_posix()
        if wrong := _why_stray(path, name):
            findings.append(printable(f"{name} {wrong}"))
        else:
            paths.append(path)
    return paths, findings


def _why_stray(path: Path, name: str) -> str:
    """Why a file is not published, or what it lacks; "" if nothing is wrong."""
    if path.is_symlink() or not path.is_file():
        return "is a link, a pipe or a device, expected a file: delete it"
    for shape, suffix in SHAPES.items():
        found = re.fullmatch(shape, name, re.ASCII)
        if found and found.groupdict().get("name") in {None, *EXPERIMENTS}:
            twin = path.with_suffix(suffix)
            return f"has no {twin.name} next to it" if suffix and not twin.is_file() else ""
    return "belongs to no experiment: delete it"


def strays(root: Path = ROOT) -> list[str]:
    """One line for each published file that is missing (of seed 0), unknown, unreadable, or contradicted by its log."""
    findings = published(root)[1]
    for sidecar in sorted((root / "saved_dict").glob("*.json")):
        name, _, seed = sidecar.stem.partition("_seed")
        log = RunPaths(root, name, 0).facts.with_name(f"seed{seed or 0}.json")
        findings += [] if log.is_file() else [f"{sidecar.relative_to(root)} has no {log.relative_to(root)}"]
    for experiment in EXPERIMENTS.values():
        run = RunPaths(root, experiment.name, 0)
        if run.facts.is_file() and experiment.weights and not run.weights.is_file():
            findings.append(f"{run.weights.relative_to(root)} is missing")
        findings += _problem(trials.read_file, root / "logs" / "trials" / f"{experiment.name}.jsonl")
        for seed in sorted(seed for path in run.log.parent.glob("seed*.json") if (seed := seed_of(path)) is not None):
            findings += _problem(_require_unchanged, replace(run, seed=seed))
    return findings


def _problem(action: Callable[[object], object], argument: object) -> list[str]:
    """The CourseError of action(argument) as a line, or nothing."""
    try:
        action(argument)
    except CourseError as error:
        return [printable(str(error))]
    return []


def _require_unchanged(run: RunPaths) -> None:
    """Raise CourseError if a run's sidecar differs from its log, or if its log is damaged or names no network."""
    sidecar, log = run.weights.with_suffix(".json"), run.facts.relative_to(run.root)
    if sidecar.is_file() and files.read(sidecar, most=files.JSON) != files.read(run.facts, most=files.JSON):
        raise CourseError(f"{sidecar.relative_to(run.root)} is not what {log} says: it was changed")
    models.parse(records.read_record(run).facts.recipe.model)


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
