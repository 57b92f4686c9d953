"""Load, hash and evaluate every published state dict, and compare it with its sidecar: python -m tools.verify

Exit status 1 and one line per finding if a file is missing, damaged, altered or unknown, or if its score differs from
its sidecar.
"""

from tools import command  # isort: skip

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from tools.measurements import ENSEMBLE, read_ensemble
from utils import ROOT, CourseError, models, printable
from utils.data import datasets
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.report import tables
from utils.runs import inventory, pretrained, records, trials
from utils.runs.records import RunPaths
from utils.training.loops import Score, evaluate, predict

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
        raise CourseError(f"no experiment is called {unknown}. Make it again: python -m tools.ensemble.")
    answers = {name: answer(RunPaths.of(EXPERIMENTS[name], 0).weights, split) for name in votes}
    return score_probabilities(weighted_mean(answers, votes), split.labels)


def check_ensemble(loaded: Datasets) -> Finding:
    """Evaluate the ensemble of tools.ensemble."""
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


def strays(root: Path = ROOT) -> list[str]:
    """One line for each published file that is missing, unknown, unreadable, or contradicted by its log."""
    _, findings = inventory.published(root)
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
        seed = records.seed_of(path)
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


def main(argv: list[str]) -> int:
    command.Parser(prog="python -m tools.verify", description=__doc__).parse_args(argv)
    text, good = verify()
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    command.main("verify", main)
