"""A run next to the published ones: mean and standard deviation over seeds, and whether it is within the spread."""

import statistics
from collections.abc import Sequence

from ..experiments import Experiment
from ..training.loops import Row
from .records import FinishedRun, RunMetadata, published


def percent(row: Row, part: str) -> float:
    """Accuracy of one epoch, in %."""
    return 100 * row[f"{part}_correct"] / row[f"{part}_total"]


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± standard deviation (of a sample; left out for a single value)."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values) or "none"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def seeds(found: Sequence) -> str:
    return "1 seed" if len(found) == 1 else f"{len(found)} seeds"


def test_percents(found: list[FinishedRun]) -> list[float]:
    """Test accuracies (%) of the kept epochs; with held-out images, of the one test at the end."""
    tests = [(record.result_row, record.facts.test) for record in found]
    return [percent(row, "test") if "test_correct" in row else test.percent for row, test in tests]


def stand_in(facts: RunMetadata) -> bool:
    """Whether a run saw scikit-learn's digits instead of its recipe's data."""
    return facts.data.name.startswith("digits") and not facts.recipe.data.startswith("digits")


def against_published(experiment: Experiment, facts: RunMetadata) -> str:
    """One line: a run's test accuracy and the published ones, what differs between the machines, and whether it is
    within four standard deviations of the seeds (with one seed: four standard errors of its accuracy)."""
    found, title = published(experiment) if experiment.registered else [], f"{experiment.name}, seed {facts.seed}"
    if stand_in(facts):
        yours = f"{facts.test.percent:.2f} % of {facts.test.total} test digits" if facts.test else "trained"
        data = f"scikit-learn's 1,797 digits as a stand-in for {facts.recipe.data}"
        return f"{title}: {yours}, on {data}; compared with nothing."
    if not found or facts.test is None:
        yours = f"{facts.test.percent:.2f} %" if facts.test else "the test set stays closed while images are held out"
        return f"{title}: {yours}; no published run has this recipe."
    percents = test_percents(found)
    mean, yours = statistics.mean(percents), facts.test.percent
    if all(facts.data.fingerprint != record.facts.data.fingerprint for record in found):
        return f"{title}: {yours:.2f} % on other data than the published runs', so it is not compared."
    chance = 100 * (mean / 100 * (1 - mean / 100) / facts.test.total) ** 0.5
    within = abs(yours - mean) <= 4 * (statistics.stdev(percents) if len(percents) > 1 else chance)
    same = next((record for record in found if record.facts.seed == facts.seed), found[0])
    pairs = {key: (here, getattr(same.facts.environment, key)) for key, here in vars(facts.environment).items()}
    differs = [f"{key} {here} (there {there})" for key, (here, there) in pairs.items() if here != there]
    # torch's versions write different files of the same weights
    alike = "the same loss to the last digit" if facts.test == same.facts.test else "other bits"
    bits = "the same bits" if facts.sha256 == same.facts.sha256 else alike
    conditions = f"with other {', '.join(differs)}" if differs else "under the same conditions"
    spread = f"{'within' if within else 'OUTSIDE'} the spread"
    ours = f"yours {yours:.2f} %, published {mean_sd(percents)} % ({seeds(found)})"
    return f"{title}: {ours}; {bits} as its seed {same.facts.seed}, {conditions}; {spread}."
