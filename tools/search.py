"""Search for recipes on held-out images with Optuna: `python train.py NAME --search N`.

All processes and machines that see the same folder share one study, a journal to which each adds its trials. A killed
worker loses its current trial. Each trial that ends, or is pruned, is also a line of the study in utils.runs.trials. A
trial that diverges fails, and the search goes on.
"""

import hashlib

from tools.command import need
from utils import CourseError, files, runs, smoke
from utils.experiments import Experiment, Range, Recipe
from utils.report import tables
from utils.runs.records import RunPaths, own_root
from utils.training.loops import Diverged, Row

optuna = need("optuna")
HELD_OUT = 10_000  # training images, where the recipe holds out none


def space(experiment: Experiment, trial: optuna.Trial) -> dict[str, object]:
    """One draw from an experiment's search space: a number from each Range, or one of the choices."""
    drawn = {}
    for field, choices in experiment.search.items():
        if isinstance(choices, Range):
            low, high = choices.low, choices.high
            drawn[field] = trial.suggest_float(field, low, high, log=low > 0 and high / low >= 4)
        else:
            drawn[field] = trial.suggest_categorical(field, choices)
    return drawn


def study_name(experiment: Experiment) -> str:
    """Name and digest of the search space and of everything fixed, so that a study holds comparable trials only."""
    differs = experiment.recipe.changes(Recipe(""))
    fixed = [(name, value) for name, (_, value) in differs.items() if name not in experiment.search]
    space = repr((fixed, sorted(experiment.search.items())))
    return f"{experiment.name}-{hashlib.sha256(space.encode()).hexdigest()[:8]}"


def open_study(experiment: Experiment) -> optuna.Study:
    """The study of an experiment, new or continued; every process that opens it takes part."""
    path = own_root() / "trials" / f"{experiment.name}.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a failed trial is one line of ours
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, experiment.recipe.epochs // 4))
    how = {"direction": "maximize", "load_if_exists": True, "pruner": pruner, "study_name": study_name(experiment)}
    journal = optuna.storages.journal.JournalFileBackend(str(path))
    try:
        return optuna.create_study(storage=optuna.storages.JournalStorage(journal), **how)
    except (ValueError, LookupError) as error:
        todo = "Delete it to begin a new search; the trials stay in the study."
        raise CourseError(f"{files.display_path(path)} is damaged ({files.one_line(str(error))}). {todo}") from error


def run(experiment: Experiment, n: int, device: str = "auto", publish: bool | None = None, echo: bool = True) -> str:
    """Try `n` recipes with seed 0, and return the study as a table. Raises CourseError without a search space."""
    if not experiment.search or n < 1:
        expected = "expected a search space next to its recipe (utils/experiments.py) and a number of trials"
        raise CourseError(f"{experiment.name}: {expected}, not {n}")
    held = experiment.with_recipe(valid=experiment.recipe.valid or (128 if smoke() else HELD_OUT))
    study = open_study(held)

    def objective(trial: optuna.Trial) -> float:
        tried, rows = held.with_recipe(**space(experiment, trial)), []

        def after_epoch(history: list[Row]) -> None:
            rows[:], row = history, history[-1]
            trial.report(row["valid_correct"] / row["valid_total"], row["epoch"])
            if trial.should_prune() and row["epoch"] < tried.recipe.epochs:
                raise optuna.TrialPruned  # given up, because others were better by this epoch

        try:
            found = runs.run(tried, 0, device, after_epoch, publish=publish, echo=False)
        except optuna.TrialPruned:
            runs.give_up(tried, 0, rows, publish)
            raise
        except Diverged as error:
            RunPaths.of(tried, 0, own_root()).checkpoint.unlink(missing_ok=True)
            if echo:
                print(f"{experiment.name}, trial {trial.number}, failed: {error}", flush=True)
            raise
        percent = 100 * found.history[found.facts.kept_epoch - 1]["valid_correct"] / found.history[-1]["valid_total"]
        if echo:
            print(f"{experiment.name}, trial {trial.number}: {percent:.2f} % with {trial.params}", flush=True)
        return percent / 100

    study.optimize(objective, n_trials=n, catch=(Diverged,))
    return tables.study(experiment)
