"""Are the published results what their files say?

python -m tools.verify                               load, hash and evaluate every published state dict
python -m tools.verify --retrain sprint --seeds 20   train published runs again, here (--threads 2): is the test loss
                                                     identical, and if not, how far apart are the accuracies?
python -m tools.verify --choose-ensemble             choose the ensemble again on held-out images, then test it once

Exit status 1 and one line per finding if a file is missing, damaged, altered or unknown, or if its score differs from
its sidecar. Each retrained run adds a line to logs/reproductions.jsonl, the source of the table in
docs/reproducibility.md. logs/ensemble.json records the ensemble.
"""

from tools import command  # isort: skip

import os
import re
import stat
import tempfile
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.measurements import ENSEMBLE, REPRODUCTIONS, Ensemble, Reproduction, ensemble_table, read_ensemble
from utils import ROOT, CourseError, closest, files, models, printable, runs
from utils.data import datasets
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import facts, pretrained, records, trials
from utils.runs.records import RunPaths, seed_of
from utils.training import devices
from utils.training.loops import Score, evaluate, predict

SINGLE = ("logs/reproductions.jsonl", "logs/ensemble.json", "logs/runs.csv")
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
    folder, suffix, is_known = path.parent.name, path.suffix, path.stem in EXPERIMENTS
    if name in SINGLE or re.fullmatch(r"logs/benchmarks/\w+\.json", name):
        return ""
    if is_known and name in (f"logs/trials/{path.stem}.jsonl", f"saved_dict/{path.stem}.pth"):
        return ""  # a missing sidecar is reported where it is read
    if is_known and name == f"saved_dict/{path.name}" and suffix in (".json", ".bin"):
        return "" if path.with_suffix(".pth").is_file() else "has no state dict beside it"
    twins = {".csv": ".json", ".json": ".csv"}
    if name == f"logs/{folder}/{path.name}" and folder in EXPERIMENTS and seed_of(path) is not None and suffix in twins:
        twin = path.with_suffix(twins[suffix])
        return "" if twin.is_file() else f"has no {twin.name} beside it"
    return "belongs to no experiment: delete it"


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
    """One line for each unreadable log of an experiment, and for a sidecar that differs from its log."""
    findings = []
    for path in sorted(run.log.parent.glob("seed*.json")):
        seed = seed_of(path)
        try:
            if seed is not None:  # else it is a stray
                models.parse(records.read_record(RunPaths(run.root, run.key, seed)).facts.recipe.model)
        except CourseError as error:
            findings.append(printable(str(error)))
    sidecar = run.weights.with_suffix(".json")
    if sidecar.is_file() and run.facts.is_file() and sidecar.read_bytes() != run.facts.read_bytes():
        log = run.facts.relative_to(run.root)
        findings.append(f"{sidecar.relative_to(run.root)} is not what {log} says: it was changed")
    return findings


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


def retrain(names: list[str], seeds: int, threads: int) -> None:
    """Train published seeds of experiments again, and add a line for each. Raises CourseError."""
    if min(seeds, threads) < 1:
        raise CourseError(f"--seeds {seeds} --threads {threads}: expected 1 or more")
    for name in names:
        if name not in EXPERIMENTS:
            raise CourseError(f"no experiment is called {name!r}: expected {closest(name, EXPERIMENTS)}")
        if not records.published(EXPERIMENTS[name]):
            raise CourseError(f"{name} is not published by its present recipe: there is nothing to compare with")
    torch.set_num_threads(threads)
    for name in names:
        for record in records.published(EXPERIMENTS[name])[:seeds]:
            with tempfile.TemporaryDirectory() as folder:
                where = {"device": "cpu", "publish": False, "retrain": True, "folder": Path(folder), "echo": False}
                now = runs.run(EXPERIMENTS[name], record.facts.seed, **where).facts
            line = Reproduction(now.name, now.seed, now.environment, now.code, now.test, now.sha256, now.finished)
            files.append_line(REPRODUCTIONS, line)
            print(records.against_published(EXPERIMENTS[name], now), flush=True)


# ---- the ensemble: the choice of members needs images that no network was trained on, and must not use the test
# images. So each candidate has a twin with the same recipe that never saw 10,000 training images (python train.py
# NAME --valid 10000). The twins' predictions there decide.

HELD_OUT = 10_000  # images
VOTES = 20  # at most, over all members


def answer(path: Path, split: Split) -> Tensor:
    """The probabilities (N, 10) float64 of a state dict's network. Raises CourseError like load_model."""
    model, facts = pretrained.load_model(path)
    outputs = predict(model, split.images, facts.normalization.mean, facts.normalization.std)
    return models.probabilities(model, outputs.double())


def weighted_mean(answers: dict[str, Tensor], votes: dict[str, int]) -> Tensor:
    """The mean of the members' probabilities (N, 10), weighted by votes."""
    return sum(answers[name] * count for name, count in votes.items()) / sum(votes.values())


def score_probabilities(probabilities: Tensor, labels: Tensor) -> Score:
    """Mean cross-entropy and correct answers of probabilities (N, 10) float64."""
    correct = int((probabilities.argmax(1) == labels).sum())
    return Score(F.nll_loss(probabilities.log(), labels).item(), correct, len(labels))


def score_ensemble(votes: dict[str, int], split: Split) -> Score:
    """The score of the published members together. Raises CourseError for a missing one."""
    unknown = ", ".join(name for name in votes if name not in EXPERIMENTS)
    if unknown:
        raise CourseError(
            f"no experiment is called {unknown}. Make it again: python -m tools.verify --choose-ensemble."
        )
    answers = {name: answer(RunPaths.of(EXPERIMENTS[name], 0).weights, split) for name in votes}
    return score_probabilities(weighted_mean(answers, votes), split.labels)


def check_ensemble(loaded: Datasets) -> Finding:
    """Evaluate the published ensemble."""
    recorded = found = "–"
    try:
        ensemble = read_ensemble()
        recorded = f"{ensemble.test.correct}/{ensemble.test.total}"
        dataset = loaded["mnist"] = loaded.get("mnist") or datasets.load("mnist")
        if dataset.name != "mnist" or not dataset.whole:
            return recorded, found, "NOT EVALUATED: mnist was not found"
        score = score_ensemble(ensemble.votes, dataset.test)
        return recorded, f"{score.correct}/{score.total}", "agrees" if agrees(score, ensemble.test) else "DISAGREES"
    except CourseError as error:
        return recorded, found, f"REFUSED: {error}"


def choose(answers: dict[str, Tensor], labels: Tensor) -> dict[str, int]:
    """Votes of the members. Repeatedly, one vote goes to the network that adds the most correct answers, or the lowest
    loss in a tie. The smallest best number of votes is kept (R. Caruana et al. 2004, "Ensemble selection from libraries
    of models")."""

    def worth(votes: Counter) -> tuple[int, float]:
        found = score_probabilities(weighted_mean(answers, votes), labels)
        return found.correct, -found.loss

    tried = [Counter()]
    for _ in range(VOTES):
        tried.append(max((tried[-1] + Counter([name]) for name in answers), key=worth))
    return dict(max(tried[1:], key=lambda votes: worth(votes)[0]))  # max() keeps the first of equals


def twins() -> dict[str, Path]:
    """The state dicts of the twins that were trained here, by published experiment. Raises CourseError without any."""
    found = {}
    for experiment in EXPERIMENTS.values():
        if experiment.recipe.data != "mnist" or experiment.recipe.start:  # a start network has seen held-out images
            continue
        twin = RunPaths.of(experiment.with_recipe(valid=HELD_OUT), 0, records.own_root()).weights
        if twin.exists() and experiment.weights and records.finished(experiment, 0):
            found[experiment.name] = twin
    if not found:
        todo = f"train some first, python train.py NAME --valid {HELD_OUT}"
        raise CourseError(f"no published network has a twin here: {todo}")
    return found


def make_ensemble() -> Ensemble:
    """Choose among the twins, and test the published networks that they stand for. Raises CourseError."""
    mnist = datasets.load("mnist")
    if not (mnist.name == "mnist" and mnist.whole):
        raise CourseError("an ensemble is chosen and tested on the whole of MNIST, which was not found")
    held_out = mnist.hold_out(HELD_OUT).valid
    answers = {name: answer(path, held_out) for name, path in twins().items()}
    votes = choose(answers, held_out.labels)
    alone = {name: score_probabilities(answers[name], held_out.labels) for name in answers}
    reached = score_probabilities(weighted_mean(answers, votes), held_out.labels)
    where = facts.environment(torch.device("cpu"))
    return Ensemble(votes, alone, reached, score_ensemble(votes, mnist.test), where, facts.code(), facts.now())


def main(argv: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.verify", description=__doc__)
    parser.add_argument("--retrain", nargs="+", metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="of --retrain: published seeds 0 to N−1")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of --retrain; published runs used one")
    parser.add_argument("--choose-ensemble", action="store_true")
    options = parser.parse_args(argv)
    if options.retrain:
        retrain(options.retrain, options.seeds, options.threads)
        return 0
    if options.choose_ensemble:
        ensemble = make_ensemble()
        files.write_json(ENSEMBLE, ensemble)
        print(ensemble_table(ensemble))
        return 0
    text, good = verify()
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    command.main("verify", main)
