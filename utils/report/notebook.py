"""Helpers for notebooks only: setup, and showing tables and pictures."""

import importlib.util
import io
import os
import statistics
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from .. import ROOT, CourseError, smoke, switch

if TYPE_CHECKING:  # in Colab this module is imported before what it shows is installed
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from torch import nn

    from ..data import Dataset
    from ..experiments import Experiment

# module → package: what the course imports and Colab or Kaggle may lack, never torch or numpy
NEEDED = {name: name for name in ("h5py", "matplotlib", "msgspec", "safetensors", "scipy", "torchsummary", "tqdm")}
NEEDED |= {"PIL": "pillow", "sklearn": "scikit-learn"}


def setup(save_to_drive: bool = False) -> None:
    """Make this notebook ready to run, and print where it runs. In a clone that it made, install missing packages.

    save_to_drive: keep your own runs in Google Drive. Raises CourseError for missing packages outside such a clone.
    """
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing and cloned():
        install(missing)
    elif missing:
        todo = f"run `python -m pip install -r requirements.txt` in {ROOT.name}/"
        raise CourseError(f"{', '.join(missing)} not installed: {todo}")
    if save_to_drive:
        keep_runs_in_drive()
    import torch

    from ..training.devices import pick_device

    device = {"cuda": "a GPU", "mps": "Apple's GPU", "cpu": "the CPU"}[pick_device().type]
    print(f"torch {torch.__version__} on {device}{', smoke run: a few hundred images, one epoch' if smoke() else ''}")


def cloned() -> bool:
    """Whether a notebook's setup cell cloned this course (see tools.colab), so that the machine is a guest's."""
    with suppress(OSError):  # without git nothing was cloned
        return subprocess.run(["git", "-C", str(ROOT), "config", "course.cloned"], capture_output=True).returncode == 0
    return False


def install(packages: list[str]) -> None:
    """Install packages for this kernel's own interpreter. Raises CourseError if pip fails."""
    print("installing", ", ".join(packages))
    command = [sys.executable, "-m", "pip", "install", "--quiet", *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        failed = f"pip could not install {', '.join(packages)}: {reason}"
        raise CourseError(f"{failed}. Connect to the Internet and run this cell again.")
    importlib.invalidate_caches()


def keep_runs_in_drive() -> None:
    """Send your own runs to a folder of your Google Drive. Raises CourseError outside Colab."""
    try:
        from google.colab import drive
    except ImportError as error:
        todo = "set SAVE_TO_DRIVE = False (COURSE_RUNS names another folder)"
        raise CourseError(f"only Colab can save to Google Drive: {todo}") from error
    drive.mount("/content/drive")
    os.environ["COURSE_RUNS"] = "/content/drive/MyDrive/mnist-course"
    print("your own runs go to", os.environ["COURSE_RUNS"])


def markdown(text: str) -> None:
    """Show Markdown, such as a table of utils.report.tables."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def picture(figure: "Figure", alt: str) -> None:
    """Show a figure with a text for readers who can't see it."""
    from IPython.display import Image, display
    from PIL import Image as Pictures

    whole, png = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=100)
    Pictures.open(whole).convert("RGB").quantize(256).save(png, format="png", optimize=True)  # a third of the bytes
    display(Image(png.getvalue(), format="png", metadata={"alt": alt}))  # Image(alt=…) needs IPython 8, Colab has 7


# ---- what a lesson consists of


class Means(NamedTuple):
    """Accuracies (%) at the last epoch, averaged over the published seeds. gap: training minus test. tests: one per
    seed. reported: the test accuracy that the reference reports, or None."""

    train: float
    test: float
    gap: float
    tests: list[float]
    reported: float | None


SHORT = {"epochs": 2, "images": 20_000}  # what a short run changes in a recipe


def short_changes(experiment: "Experiment", images: int = 0) -> dict[str, int]:
    """What a short run changes in this recipe: nothing if the recipe is as short. images: for an unusual number."""
    recipe = experiment.recipe
    if 0 < recipe.epochs * recipe.images <= SHORT["epochs"] * SHORT["images"]:
        return {}
    changes = SHORT if recipe.kind == "images" else {"epochs": SHORT["epochs"]}
    return changes | ({"images": images} if images else {})


def card(experiment: "Experiment", prerequisites: str, goals: list[str], images: int = 0) -> None:
    """Show the card at the top of a lesson: prerequisites, training times from the published logs, and goals.

    images: per epoch of the short run, as in short_run.
    """
    changes = short_changes(experiment, images)
    short, full = (training_time(experiment, **some) for some in (changes, {}))
    takes = f"{short} in the short run, {full} with `RETRAIN = True`" if changes else full
    lines = [f"**You need** {prerequisites}", f"**One training takes** {takes}"]
    lines += [f"**Times come from** {machine(experiment)}"]
    lines += ["**Afterward you can**\n" + "\n".join(f"  - {goal}" for goal in goals)]
    markdown("\n".join(f"- {line}" for line in lines))


def short_run(experiment: "Experiment", retrain: bool = False, images: int = 0) -> "Experiment":
    """The experiment with few epochs of few images, or as it is if retrain=True; prints what it trains, and how long.

    images: per epoch of the short run, instead of the usual number. A short run keeps its last weights, because a
    running average would still contain those of its first steps.
    """
    changes = {} if retrain else short_changes(experiment, images)
    chosen = experiment.with_recipe(**changes, average=0.0) if changes else experiment
    recipe = chosen.recipe
    drawn = f"{recipe.images:,} random training images each" if recipe.images else "all training images"
    kind, epochs = "short" if changes else "full", f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}"
    takes = training_time(experiment, **changes)
    print(f"{kind} run of {experiment.name}: {epochs} of {drawn}, {takes} at the published runs' speed")
    return chosen


def training_time(experiment: "Experiment", epochs: int = 0, images: int = 0) -> str:
    """About how long one seed trains, from the logs; scaled to other epochs or images (0: the recipe's)."""
    from ..runs import records

    found = [record.facts for record in records.published(experiment)]
    if not found:
        return "an unknown time (no run is published)"
    recipe, available = experiment.recipe, found[0].data.images
    part = (epochs or recipe.epochs) * (images or recipe.drawn(available)) / (recipe.epochs * recipe.drawn(available))
    seconds = part * statistics.median(facts.seconds for facts in found)
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"


def machine(experiment: "Experiment") -> str:
    """The machine and the number of threads of an experiment's published runs."""
    from ..runs import records
    from . import tables

    found = [record.facts.environment for record in records.published(experiment)]
    if not found:
        return "no log yet"
    where = f"{tables.escape(found[0].device)}, {found[0].threads} thread{'s' * (found[0].threads > 1)}"
    runs = "run" if len(found) == 1 else "runs"
    return f"the logs of {len(found)} published {runs} ({where})"


def curves(experiment: "Experiment", alt: str) -> None:
    """Show loss and accuracy of an experiment's published runs, and the test accuracy that its reference reports."""
    from ..runs import records
    from . import plots, tables

    reported = tables.reported(experiment)
    histories = [record.history for record in records.published(experiment)]
    picture(plots.curves(histories, experiment.name, reported.test if reported else None), alt)


def frontier(cost: str, alt: str) -> None:
    """Show test accuracy against a cost (a key of plots.COSTS): the published networks, and figures of others."""
    from . import plots, tables

    picture(plots.frontier(*tables.frontier(), [cost]), alt)


def compare(*experiments: "Experiment") -> dict[str, Means]:
    """Show the published accuracies of experiments as a table, mean ± standard deviation; returns the means by name.

    Experiments without published runs are left out of both.
    """
    from ..runs import records
    from . import tables

    found = {experiment: runs for experiment in experiments if (runs := records.published(experiment))}
    markdown(tables.compare(found))
    means = {}
    for experiment, runs in found.items():
        tests = tables.test_percents(runs)
        train, test = statistics.mean(tables.train_percents(runs)), statistics.mean(tests)
        figure = tables.reported(experiment)
        means[experiment.name] = Means(train, test, train - test, tests, figure.test if figure else None)
    return means


def changes(experiment: "Experiment", before: "Experiment") -> None:
    """Show which fields of a recipe differ from another experiment's."""
    rows = [[name, old, new] for name, (old, new) in experiment.recipe.changes(before.recipe).items()]
    table(["field", before.name, experiment.name], rows)


def table(header: list[str], rows: list[list]) -> None:
    """Show a table."""
    from . import tables

    markdown(tables.table(header, rows))


def study(experiment: "Experiment") -> None:
    """Show the study that chose an experiment's recipe on held-out images."""
    from . import tables

    markdown(tables.study(experiment))


def check_network(network: "nn.Module", experiment: "Experiment") -> None:
    """Print whether a network is an experiment's own, or the first difference."""
    from .. import models

    published = models.build(experiment.recipe.model, experiment.recipe.dropout)
    try:
        wrong = models.difference(network, published)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        wrong = f"it raises {type(error).__name__}: {error}"
    if wrong:
        print(f"This is not the published network {experiment.name}: {wrong}. Training it is a run of your own.")
        return
    keys, parameters = len(published.state_dict()), models.count_parameters(published)
    same = f"the same {keys} state-dict keys and shapes, {parameters:,} parameters, equal outputs"
    print(f"This is the published network {experiment.name}: {same}.")


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The interval, in %, of the accuracies that `correct` of `total` speak for, with 95 % confidence (Wilson 1927,
    "Probable inference, the law of succession, and statistical inference"). Unlike p ± 2 standard errors it never
    leaves 0 to 100."""
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return 100 * interval.low, 100 * interval.high


def claim(sentence: str, holds: bool, data: "Dataset | None" = None, **numbers: float) -> None:
    """Print a conclusion with its numbers. Raises CourseError if it is false.

    data: the images that it is about; smoke runs and substitute images check nothing.
    """
    from ..data import datasets

    shown = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in numbers.items())
    line = f"{sentence}{f' ({shown})' if shown else ''}."
    real = data is None or datasets.PUBLISHABLE.get(data.name) == data.fingerprint
    if holds:
        print("✓", line)
    elif smoke() or not real:
        print("not checked on these few images:", line)
    else:
        raise CourseError(f"false: {line} Expected a true sentence. Check the code above, or correct the sentence.")


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if abs(value) >= 0.095 else f"{value:.2g}"


def explore(draw: "Callable[..., Figure]", alt: str, **choices: list) -> None:
    """Show a figure with a menu for each argument of draw; without ipywidgets, in a smoke run, or while a notebook is
    executed for publication, the figure of the first choices."""
    if smoke() or switch("COURSE_PUBLISH") or importlib.util.find_spec("ipywidgets") is None:
        picture(draw(**{name: options[0] for name, options in choices.items()}), alt)
        return
    import ipywidgets

    ipywidgets.interact(lambda **chosen: picture(draw(**chosen), alt), **choices)
