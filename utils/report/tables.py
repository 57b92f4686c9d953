"""Records → tables: every number in README.md, docs/ and the notebooks that comes from a log."""

import csv
import io
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from .. import files, models, workspace
from ..experiments import EXPERIMENTS, Experiment
from ..files import display_path
from ..runs import records, trials
from ..runs.records import FinishedRun, RunPaths, mean_sd, percent, seeds, test_percents


@dataclass(frozen=True)
class Reference:
    """A reproduced project. address: None if it is unknown."""

    name: str
    address: str | None

    def __post_init__(self):
        if self.address and not re.fullmatch(r"https?://[\w./~?=&%+:#-]+", self.address):
            raise ValueError("an address is no plain http(s) address")


@dataclass(frozen=True)
class Figure:
    """The accuracies (%) that a reference reports of a network, and where they appear."""

    reference: str
    where: str
    train: float | None
    test: float
    note: str
    valid: float | None = None


@dataclass(frozen=True)
class Claim:
    """A published accuracy (%) of a small network, with its parameters, or the bytes of its weights."""

    name: str
    parameters: int | None
    accuracy: float
    selected_on_test: bool
    conditions: str
    bytes: int | None = None


@dataclass(frozen=True)
class References:
    references: dict[str, Reference]
    figures: dict[str, Figure]  # by experiment
    field: list[Claim]
    files: list[Claim]  # of which the bytes are known

    def __post_init__(self):
        unknown = {figure.reference for figure in self.figures.values()} - self.references.keys()
        if unknown:
            raise ValueError(f"no reference is called {min(unknown)!r}")


@dataclass(frozen=True)
class Point:
    """A network of the frontier's chart; None: unknown. sd: over its seeds. seconds: of one training. bytes: of its
    packed file, or of its float32 parameters."""

    name: str
    parameters: int | None
    accuracy: float
    sd: float | None = None
    seconds: float | None = None
    selected_on_test: bool = False
    bytes: int | None = None


@lru_cache
def references() -> References:
    """references.json. Raises CourseError if it is damaged."""
    return files.read_json(workspace.root / "references.json", References)


def reported(experiment: Experiment) -> Figure | None:
    """What an experiment's reference reports, or None."""
    return references().figures.get(experiment.name)


class Markup(str):
    """Markdown that table() leaves as it is. Every other cell is text without markup."""


# line breaks, terminal escapes, changes of direction; Markdown, MyST and what hosts turn into links
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
MEANINGFUL = re.compile(r"[\\`*\[\]{}~$|@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")


def escape(text: object) -> Markup:
    """One line of Markdown that shows exactly this text."""
    if isinstance(text, Markup):
        return text
    line = CONTROLS.sub(" ", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return Markup(MEANINGFUL.sub(r"\\\g<0>", line))


def table(header: list[str], rows: list[list], right: Sequence[str] = "") -> str:
    """An aligned Markdown table. right: the headers of right-aligned columns. Cells are escaped unless Markup."""
    cells = [header, *([escape(cell) for cell in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    align = [str.rjust if name in right else str.ljust for name in header]
    rule = ["-" * (width - 1) + (":" if name in right else "-") for name, width in zip(header, widths, strict=True)]
    lines = [[to(cell, width) for to, cell, width in zip(align, row, widths, strict=True)] for row in cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def train_percents(found: list[FinishedRun]) -> list[float]:
    return [percent(record.result_row, "train") for record in found]


def published_of_kind(kind: str) -> dict[Experiment, list[FinishedRun]]:
    """The published runs of every experiment on images, or on voxels, that has any."""
    of_kind = [experiment for experiment in EXPERIMENTS.values() if experiment.recipe.kind == kind]
    return {experiment: runs for experiment in of_kind if (runs := records.published(experiment))}


def links(experiment: Experiment, link: str) -> str:
    """An experiment's state dict (with its size) and logs, as Markup."""
    run = RunPaths.of(experiment, 0)
    sidecar, size = run.weights.with_suffix(".json"), ""  # a clone may lack the weights, but not the sidecar
    if sidecar.is_file():
        size = f"[{records.read_facts(sidecar).bytes / 1024:,.0f} KB]({link}saved_dict/{run.weights.name}), "
    return Markup(f"{size}[log]({link}logs/{experiment.name})" if run.log.parent.is_dir() else "not published")


def name(experiment: Experiment, link: str) -> str:
    linked = f"[{experiment.name}]({link}notebooks/{experiment.notebook}.ipynb)"
    return Markup(linked if experiment.notebook else experiment.name)


def networks(link: str = "") -> str:
    """Every network with a published state dict: on images, then on voxels, each group best first.

    link: the path from the page that holds the table to the repository's root.
    """
    header = ["network", "test, %", "seeds", "parameters", "epochs", "files", "theirs"]
    rows, found = [], {}
    for kind, title in (("images", "MNIST"), ("voxels", "3D-MNIST")):
        group = {e: runs for e, runs in published_of_kind(kind).items() if e.weights}
        best_first = sorted(group.items(), key=lambda item: -statistics.mean(test_percents(item[1])))
        rows += [[Markup(f"**{title}**"), *[""] * (len(header) - 1)]] if group else []
        rows += [network_row(e, runs, link) for e, runs in best_first]
        found |= group
    return "\n\n".join([table(header, rows, right="seeds parameters epochs"), *early_stopping(found)])


def network_row(experiment: Experiment, runs: list[FinishedRun], link: str) -> list[object]:
    """One row of networks()."""
    facts, recipe, figure = runs[0].facts, experiment.recipe, reported(experiment)
    files = [f"[pth]({link}saved_dict/{experiment.name}.pth)", f"[log]({link}logs/{experiment.name})"]
    files += [f"[png]({link}pngs/{experiment.name}_curves.png)"] if len(runs[0].history) > 1 else []
    return [
        name(experiment, link),
        unbroken(headline(experiment, runs)),
        len(runs),
        f"{facts.parameters:,}",
        f"{recipe.epochs * recipe.drawn(facts.data.images) / facts.data.images:.3g}",
        unbroken(" ".join(files)),
        Markup(f"{figure.test:.2f}{'*' if figure.note else ''}") if figure else "–",
    ]


def unbroken(text: str) -> Markup:
    """Markup in one line: its spaces are no-break spaces."""
    return Markup(text.replace(" ", "\N{NO-BREAK SPACE}"))


def details(link: str = "") -> str:
    """More about each published network: training accuracy, best epoch, size of the state dict, time of a run."""
    header = ["network", "training, %", "test, %", "gap", "best epoch, %", "KB", "minutes"]
    rows = []
    for e, runs in (published_of_kind("images") | published_of_kind("voxels")).items():
        train, size = train_percents(runs), f"{runs[0].facts.bytes / 1024:,.0f}" if e.weights else "–"
        gap = statistics.mean(train) - statistics.mean(test_percents(runs))
        minutes = f"{statistics.median(record.facts.seconds for record in runs) / 60:.1f}"
        accuracies = [unbroken(mean_sd(train)), unbroken(headline(e, runs))]
        rows.append([name(e, link), *accuracies, f"{gap:.2f}", best_epoch(runs), size, minutes])
    return table(header, rows, right=header[3:4] + header[5:])


def best_epoch(runs: list[FinishedRun]) -> str:
    """Mean and maximum of the runs' best test accuracies, as references report them."""
    tested = [record.history for record in runs if "test_correct" in record.result_row]  # in every epoch
    best = [max(percent(row, "test") for row in history) for history in tested]
    return f"{statistics.mean(best):.2f} ({max(best):.2f})" if best else "not evaluated"


def headline(experiment: Experiment, found: list[FinishedRun]) -> str:
    """Test accuracy over the seeds, with a dagger if early stopping chose the epoch."""
    accuracy = mean_sd(test_percents(found))
    return Markup(f"**{accuracy}**{'†' if experiment.recipe.patience else ''}")


def early_stopping(found: dict[Experiment, list[FinishedRun]]) -> list[str]:
    """The explanation of a table's daggers, if it has any."""
    if not any(e.recipe.patience for e in found):
        return []
    return [
        "† Early stopping: a run can end before its last planned epoch. The epoch that counts is the best on held-out "
        "training images. The test set is evaluated once, for this epoch."
    ]


def against_references() -> str:
    """Every published network that has a reference: the reported figure, its place, and ours."""
    header = ["network", "reported", "ours, last epoch", "ours, best epoch: mean (highest)", "source"]
    rows, notes = [], []
    for e, runs in (published_of_kind("images") | published_of_kind("voxels")).items():
        figure = reported(e)
        if figure is None:
            continue
        address, source = references().references[figure.reference].address, escape(figure.reference)
        source = f"[{source}]({address})" if address else source
        theirs = Markup(f"{figure.test:.2f}{'*' if figure.note else ''}")
        rows.append([e.name, theirs, headline(e, runs), best_epoch(runs), Markup(f"{source}, {escape(figure.where)}")])
        notes += [f"- {e.name}: {escape(figure.note)}"] if figure.note else []
    named = []
    for key, one in references().references.items():
        named.append(f"- {escape(key)}: “{escape(one.name)}”{'' if one.address else ', address unknown'}")
    lists = [("Notes on figures with \\*:", notes), ("Sources:", named)]
    return "\n\n".join([table(header, rows), *("\n".join([f"{title}\n", *lines]) for title, lines in lists if lines)])


def voxels(link: str = "") -> str:
    """3D-MNIST: test accuracy, upright and rotated test rows separately, training and validation."""
    parts, found, rows = ("upright", "rotated"), published_of_kind("voxels"), []
    header = ["network", "test %, mean ± sd", *parts, "train", "valid", "seeds", "parameters", "weights, log"]
    for e, runs in found.items():
        scores = [[r.facts.parts[part].percent for r in runs if part in r.facts.parts] for part in parts]
        valid = [percent(record.result_row, "valid") for record in runs] if e.recipe.valid else []
        means = [f"{statistics.mean(values):.2f}" if values else "–" for values in (train_percents(runs), valid)]
        cells = [len(runs), f"{runs[0].facts.parameters:,}", links(e, link)]
        rows.append([name(e, link), headline(e, runs), *map(mean_sd, scores), *means, *cells])
    return "\n\n".join([table(header, rows, right="train valid seeds parameters"), *early_stopping(found)])


def family(experiments: Sequence[Experiment], link: str = "") -> str:
    """Networks that belong together: their sizes, receptive fields and accuracies."""
    header = ["network", "parameters", "batch norm folded", "receptive field"]
    header += ["reported (best epoch)", "ours (last epoch)", "weights, log"]
    rows = []
    for e in experiments:
        model, figure, found = models.build(e.recipe.model), reported(e), records.published(e)
        counts = [f"{count(model):,}" for count in (models.count_parameters, models.count_folded)]
        theirs = f"{figure.test:.2f}" if figure else "–"
        accuracy, count = mean_sd(test_percents(found)), seeds(found)
        ours = Markup(f"**{accuracy}** ({count})")
        rows.append([e.name, *counts, models.receptive_field(model), theirs, ours, links(e, link)])
    return table(header, rows, right="parameters batch norm folded receptive field")


RUN_COLUMNS = ["experiment", "seed", "epoch", "correct", "total", "percent", "loss", "parameters", "seconds"]
RUN_COLUMNS += ["device", "torch", "commit", "file"]


def runs_csv() -> str:
    """Every published run, one row per seed, for pandas: the test score of the kept epoch, size, time and machine."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RUN_COLUMNS)
    for experiment in EXPERIMENTS.values():
        for record in records.published(experiment):
            facts, score, ran = record.facts, record.facts.test, record.facts.environment
            row = [experiment.name, facts.seed, facts.kept_epoch, score.correct, score.total]
            row += [f"{score.percent:.2f}", f"{score.loss:.6f}", facts.parameters, f"{facts.seconds:.1f}"]
            row += [ran.device, ran.torch, facts.code.commit]
            writer.writerow([*row, record.log.relative_to(workspace.root).as_posix()])
    return text.getvalue()


def frontier() -> tuple[list[Point], list[Point]]:
    """Accuracy against size: every published network on images (not ablations), and every figure of others."""
    ours, theirs = [], []
    for c in (*references().field, *references().files):
        theirs.append(Point(c.name, c.parameters, c.accuracy, selected_on_test=c.selected_on_test, bytes=c.bytes))
    for e, runs in published_of_kind("images").items():
        if not e.weights:
            continue
        percents, parameters = test_percents(runs), runs[0].facts.parameters
        sd = statistics.stdev(percents) if len(percents) > 1 else None
        seconds = statistics.median(record.facts.seconds for record in runs)
        size = runs[0].facts.packed or 4 * parameters
        ours.append(Point(e.name, parameters, statistics.mean(percents), sd, seconds, bytes=size))
        figure = reported(e)
        if figure and not e.name.endswith("_reference"):
            theirs.append(Point(f"{e.name}, reported", parameters, figure.test, selected_on_test=True))
    return ours, theirs


def compare(found: dict[Experiment, list[FinishedRun]]) -> str:
    """Training and test accuracy of experiments' runs, mean ± standard deviation."""
    rows = []
    for e, runs in found.items():
        train, test = train_percents(runs), test_percents(runs)
        gap = [a - b for a, b in zip(train, test, strict=True)]
        rows.append([e.name, len(runs), *map(mean_sd, (train, test, gap))])
    return table(["network", "seeds", "train %", "test %", "gap"], rows, right="seeds train % test % gap")


def list_experiments() -> str:
    """All experiments, one row each."""
    header = ["experiment", "parameters", "epochs", "data", "published seeds", "what it teaches"]
    rows = []
    for e in EXPERIMENTS.values():
        recipe, parameters = e.recipe, models.count_parameters(models.build(e.recipe.model, e.recipe.dropout))
        part = f"{recipe.epochs} × {recipe.images:,} images".removeprefix("1 × ")  # of the training images
        epochs = part if recipe.images else recipe.epochs
        rows.append([e.name, f"{parameters:,}", epochs, recipe.data, len(records.published(e)), e.teaches])
    return table(header, rows, right="parameters epochs published seeds")


def summary(results: Sequence) -> str:
    """The table that train.py prints: one row per run (runs.Result), and the mean over the seeds of a trial."""
    header = ["experiment", "seed", "train %", "held out %", "test %", "best epoch", "seconds", "state dict", "log"]
    rows, held = [], {}
    for run in results:
        part = "test" if "test_loss" in run.history[-1] else "valid"
        best, last = max(run.history, key=lambda row: percent(row, part)), run.history[run.facts.kept_epoch - 1]
        if part == "valid":
            held.setdefault(run.experiment, []).append(percent(last, "valid"))
        valid = f"{percent(last, 'valid'):.2f}" if part == "valid" else "–"
        test = f"{run.facts.test.percent:.2f}" if run.facts.test else "closed"
        places = [display_path(path) if records.stays(path) else "not kept" for path in (run.weights, run.log)]
        epoch, seconds = f"{percent(best, part):.2f} in epoch {best['epoch']}", f"{run.facts.seconds:.0f}"
        train = f"{percent(last, 'train'):.2f}"
        rows.append([run.experiment.name, run.seed, train, valid, test, epoch, seconds, *places])
    spread = [(e.name, mean_sd(values), seeds(values)) for e, values in held.items()]
    means = [f"{name}, held-out images: {percents} % ({count})" for name, percents, count in spread]
    return "\n".join([table(header, rows, right="seed train % held out % test % seconds"), *means])


def study(experiment: Experiment, most: int = 12) -> str:
    """A study as a Markdown table: what differs from the kept recipe, validation mean ± sd, seeds."""
    tried = trials.study(experiment)
    if not tried:
        held = experiment.recipe.valid or (1000 if experiment.recipe.kind == "voxels" else 10_000)
        return f"No study of {experiment.name} yet: `python train.py {experiment.name} --valid {held}` adds to it."
    rows = []
    for one in tried[:most]:
        values = [
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in one.changes.items()
        ]
        differs = ", ".join(values) or Markup("**kept**")
        rows.append([differs, one.recipe.epochs, mean_sd(one.percents), len(one.percents)])
    pruned = sum(trial.pruned for trial in trials.read(experiment.name))
    held = " or ".join(f"{images:,}" for images in sorted({one.recipe.valid for one in tried}))
    notes = [f"Accuracy (%) on {held} held-out training images"]
    notes += [f"{len(tried) - most} more, all below these"] if len(tried) > most else []
    notes += [f"{pruned} given up early"] if pruned else []
    shown = table(["what differs", "epochs", "held-out, mean ± sd", "seeds"], rows, right="epochs seeds")
    return f"{shown}\n\n{'; '.join(notes)}."
