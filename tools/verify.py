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


def agrees(found: Score, message: Score) -> bool:
    """Whether two evaluations of one network on two machines are the same: ± 1 correct in 10,000, and the loss to a
    thousandth."""
    return (
        abs(found.correct - message.correct) * 10_000 <= max(message.total, 10_000)
        and abs(found.loss - message.loss) <= LOSS * message.loss
    )


def check(path: Path, loaded: dict[str, datasets.Dataset]) -> tuple[str, str, str]:
    """What the sidecar of a state dict says, what was found, and the verdict. loaded: the data sets so far, by name."""
    message = found = "–"
    try:
        model, facts = pretrained.load_model(path)
        message = f"{facts.test.correct}/{facts.test.total}" if facts.test else "no test"
        if models.count_parameters(model) != facts.parameters:
            return (
                message,
                found,
                f"DISAGREES: {models.count_parameters(model)} parameters, the sidecar says {facts.parameters}",
            )
        name = facts.data.name
        dataset = loaded[name] = loaded.get(name) or datasets.load(name)
        if (dataset.fingerprint, dataset.whole) != (facts.data.fingerprint, True):
            return message, found, f"NOT EVALUATED: {name} was not found"
        normalization = (facts.normalization.mean, facts.normalization.std)
        score = evaluate(model, dataset.test, *normalization)
        found = f"{score.correct}/{score.total}"
        parts = {part: evaluate(model, split, *normalization) for part, split in dataset.parts.items()}
        good = facts.test and agrees(score, facts.test) and parts.keys() == facts.parts.keys()
        good = good and all(agrees(parts[part], facts.parts[part]) for part in parts)
        return message, found, "agrees" if good else "DISAGREES"
    except CourseError as error:
        return message, found, f"REFUSED: {error}"


def answer(path: Path, split: Split) -> Tensor:
    """The (N, 10) float64 probabilities that a state dict's network gives. Raises CourseError like
    pretrained.load_model."""
    model, facts = pretrained.load_model(path)
    outputs = predict(model, split.images, facts.normalization.mean, facts.normalization.std)
    return models.probabilities(model, outputs.double())


def weighted_mean(answers: dict[str, Tensor], votes: dict[str, int]) -> Tensor:
    """The mean of the members' probabilities (N, 10), each as often as it has votes."""
    return sum(answers[name] * count for name, count in votes.items()) / sum(votes.values())


def score_probabilities(probabilities: Tensor, labels: Tensor) -> Score:
    """Mean cross-entropy and correct answers of probabilities (N, 10) float64."""
    return Score(
        F.nll_loss(probabilities.log(), labels).item(), int((probabilities.argmax(1) == labels).sum()), len(labels)
    )


def score_ensemble(votes: dict[str, int], split: Split) -> Score:
    """What the published members reach together. Raises CourseError for one that is not there."""
    unknown = ", ".join(name for name in votes if name not in EXPERIMENTS)
    if unknown:
        raise CourseError(f"no experiment is called {unknown}. Make it again: python -m tools.ensemble.")
    answers = {name: answer(RunPaths.of(EXPERIMENTS[name], 0).weights, split) for name in votes}
    return score_probabilities(weighted_mean(answers, votes), split.labels)


def check_ensemble(loaded: dict[str, datasets.Dataset]) -> tuple[str, str, str]:
    """The same of the networks that answer together (tools.ensemble)."""
    message = found = "–"
    try:
        recorded = read_ensemble()
        message = f"{recorded.test.correct}/{recorded.test.total}"
        dataset = loaded["mnist"] = loaded.get("mnist") or datasets.load("mnist")
        if dataset.name != "mnist" or not dataset.whole:
            return message, found, "NOT EVALUATED: mnist was not found"
        score = score_ensemble(recorded.votes, dataset.test)
        return message, f"{score.correct}/{score.total}", "agrees" if agrees(score, recorded.test) else "DISAGREES"
    except CourseError as error:
        return message, found, f"REFUSED: {error}"


def strays(root: Path = ROOT) -> list[str]:
    """One line for each published file that is missing, or that does not belong there, or that its log contradicts."""
    _, findings = inventory.published(root)
    for experiment in EXPERIMENTS.values():
        run = RunPaths(root, experiment.name, 0)
        if run.facts.is_file() and experiment.weights:
            findings += [
                f"{path.relative_to(root)} is missing"
                for path in (run.weights, run.weights.with_suffix(".json"))
                if not path.is_file()
            ]
        findings += contradictions(run) + unreadable_trials(root / "logs" / "trials" / f"{experiment.name}.jsonl")
    return findings


def contradictions(run: RunPaths) -> list[str]:
    """One line for each log of an experiment that can't be read, and for a sidecar that is not its log's twin."""
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
        findings.append(
            f"{sidecar.relative_to(run.root)} is not what {run.facts.relative_to(run.root)} says: it was changed"
        )
    return findings


def unreadable_trials(path: Path) -> list[str]:
    """One line if a study can't be read."""
    try:
        trials.read_file(path)
    except CourseError as error:
        return [printable(str(error))]
    return []


def verify(root: Path = ROOT) -> tuple[str, bool]:
    """A table of every state dict below `root`/saved_dict, one line for each further finding, and whether all is
    well."""
    for sidecar in (root / "saved_dict").glob("*.json"):
        pretrained.fetch(sidecar.with_suffix(".pth"))
    paths, loaded = sorted((root / "saved_dict").glob("*.pth")), {}
    rows = [[path.name, *check(path, loaded)] for path in paths]
    if root == ROOT and ENSEMBLE.exists():
        rows.append([ENSEMBLE.name, *check_ensemble(loaded)])
    findings = strays(root)
    good = bool(rows) and not findings and all(row[-1] == "agrees" for row in rows)
    text = (
        tables.table(["state dict", "sidecar", "evaluated now", "verdict"], rows)
        if rows
        else f"{root / 'saved_dict'} holds no state dict"
    )
    return "\n".join([text, *findings]), good


def main(argv: list[str]) -> int:
    command.Parser(prog="python -m tools.verify", description=__doc__).parse_args(argv)
    text, good = verify()
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    command.main("verify", main)
