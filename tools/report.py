"""Logs and sidecars → the tables in README.md and docs/, logs/runs.csv and pngs/. No number is typed by hand.

python -m tools.report            write the tables of README.md and docs/*.md, logs/runs.csv and pngs/
python -m tools.report --check    exit 1 and show the difference if a table or logs/runs.csv differs from the logs
python -m tools.report --stale    list the notebooks whose outputs differ from the published results
python -m tools.report --execute  execute these notebooks, and replace each one when it is finished
python -m tools.report runs/      tables and curves of your own finished runs, below runs/pngs/
"""

from tools import command  # isort: skip

import difflib
import io
import sys
from pathlib import Path

import nbformat
import torch
from matplotlib.figure import Figure
from torch import nn

from tools import colab, measurements, stale
from utils import ROOT, CourseError, files, models
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.files import display_path
from utils.layers import PrincipalAxisView
from utils.report import diagrams, photographs, plots, tables
from utils.runs import Result, records
from utils.training.loops import normalize, predict

FAMILY = [EXPERIMENTS[name] for name in ("mnist_medium", "mnist_small", "mnist_ultrasmall")]
# section → its text, given the path from the page that holds it to the repository's root
SECTIONS = {
    "networks": tables.networks,
    "details": tables.details,
    "references": lambda _: tables.against_references(),
    "voxels": tables.voxels,
    "family": lambda link: tables.family(FAMILY, link),
    "machines": lambda _: measurements.reproductions_section(),
    "speed": lambda _: measurements.speed_section(),
    "stress": lambda _: measurements.stress_section(),
    "train_in_tab": lambda _: measurements.in_tab_section(),
    "photographs": lambda _: photographs.section(),
}
WRITTEN = "<!-- {}: written by `python -m tools.report`, do not edit -->", "<!-- end of {} -->"


def filled(pages: dict[Path, str]) -> dict[Path, str]:
    """Pages with every section rewritten from the logs between its two markers, on the one page that holds them.

    Raises CourseError if no page or several pages hold a section's markers.
    """
    new = dict(pages)
    for name, section in SECTIONS.items():
        start, end = (marker.format(name) for marker in WRITTEN)
        holders = [path for path, text in pages.items() if start in text]
        if len(holders) != 1:
            found = ", ".join(map(display_path, holders)) or "none"
            todo = f"Write it and {end!r} there once."
            raise CourseError(f"{start!r}: found in {found}, expected in one of README.md and docs/*.md. {todo}")
        [page] = holders
        link = "../" * (len(page.relative_to(ROOT).parts) - 1)
        new[page] = colab.between(new[page], start, end, section(link), display_path(page))
    return new


def texts() -> tuple[dict[Path, str], dict[Path, str]]:
    """Every generated text file: its present text, and its text according to the logs and the notebooks."""
    readme, runs = ROOT / "README.md", ROOT / "logs" / "runs.csv"
    pages = [readme, *sorted((ROOT / "docs").glob("*.md"))]
    old = {
        path: path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "" for path in (*pages, runs)
    }
    new = filled({path: old[path] for path in pages}) | {runs: tables.runs_csv()}
    new[readme] = colab.readme(new[readme], colab.address(), new[runs])
    return old, new


def save_picture(figure: Figure, path: Path) -> None:
    """A figure as PNG, without the date or the program that would make it differ from the next."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    files.write(path, picture.getvalue())


def draw() -> None:
    """Draw pngs/: accuracy by size and time, NAME_curves.png for every published experiment of more than one epoch, the
    graphs of the small family, and voxelized digits (real ones only)."""
    folder = ROOT / "pngs"
    save_picture(plots.frontier(*tables.frontier()), folder / "frontier.png")
    save_picture(plots.frontier(*tables.frontier(), ["parameters"], (7.6, 4)), folder / "accuracy_by_size.png")
    for experiment in EXPERIMENTS.values():
        histories = [record.history for record in records.published(experiment)]
        if histories and len(histories[0]) > 1:  # one epoch is no curve
            figure = tables.reported(experiment)
            save_picture(
                plots.curves(histories, experiment.name, figure and figure.test),
                folder / f"{experiment.name}_curves.png",
            )
    for experiment in FAMILY:
        save_picture(
            diagrams.network(models.build(experiment.recipe.model), (1, 28, 28)),
            folder / f"{experiment.name}_graph.png",
        )
    cubes = datasets.load("mnist3d")
    if cubes.name == "mnist3d":  # not of fallback digits
        grids, labels = cubes.test[:20].tensors
        save_picture(plots.solids(list(grids[2:4, 0]), ["upright", "rotated and blurred"]), folder / "voxels.png")
        titles = [f"{label} {'rotated' if row % 2 else 'upright'}" for row, label in enumerate(labels.tolist())]
        save_picture(
            plots.images(PrincipalAxisView()(grids).mean(1, keepdim=True), titles), folder / "voxels_face_on.png"
        )


def portrait(result: Result) -> str:
    """Evaluate a run's network again and draw it below pngs/ of the reader's own files: curves and confusion, and of
    images also examples, mistakes, and the kernels and feature maps of the first layer. Returns what was found, and
    where the pictures are, in two lines."""
    message, name = result.facts.test, result.weights.stem
    model, test = (
        result.model,
        result.data.test if message else result.data.valid,
    )  # what was shut while training stays shut
    if model is None:
        raise CourseError(f"{name}: its weights are not published, only its log: train it, without --final-state")
    outputs = predict(model, test.images, result.data.mean, result.data.std)
    log_probabilities, labels = models.probabilities(model, outputs).log(), outputs.argmax(1)
    figure = tables.reported(result.experiment)
    pictures = {"curves": plots.curves([result.history], name, figure and figure.test)}
    if result.data.kind == "voxels":
        for first, part in enumerate(result.data.parts):
            pictures[part] = plots.confusion(test.labels[first::2], labels[first::2], result.data.classes, part)
    else:
        first = next(layer for layer in models.layers(model) if isinstance(layer, nn.Conv2d))
        with torch.inference_mode():
            maps = first_maps(model, first, normalize(test.images[:1], result.data.mean, result.data.std))
        pictures |= {
            "examples": plots.examples(test.images[:20], test.labels[:20], labels[:20]),
            "mistakes": plots.mistakes(test.images, test.labels, log_probabilities)[0],
            "confusion": plots.confusion(test.labels, labels, result.data.classes),
            "kernels": plots.kernels(first.weight),
            "features": plots.feature_maps(maps, test.images[0]),
        }
    folder = records.own_root() / "pngs"
    for kind, picture in pictures.items():
        save_picture(picture, folder / f"{name}_{kind}.png")
    right = int((labels == test.labels).sum())
    says = (
        f"the sidecar says {message.correct} of {message.total}"
        if message
        else "of held-out images; the test set stays closed"
    )
    return f"Evaluated now: {right} of {len(test)} right; {says}.\nDrawn: {display_path(folder)}/{name}_{{{','.join(pictures)}}}.png"


def first_maps(model: nn.Module, layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What `layer` makes of the first image on its way through the network: (C, H, W)."""
    found = []
    hook = layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output[0]))
    model(images)
    hook.remove()
    return found[0]


def own_report(root: Path) -> str:
    """Tables and curves of the finished runs below a reader's folder, and what is left out. Raises CourseError if no
    run can be read."""
    if root == ROOT:
        raise CourseError(f"{root} holds what is published: leave the folder out to draw that")
    found: dict[str, list[records.FinishedRun]] = {}
    strays, unreadable = [], []
    for path in sorted(root.glob("logs/*/*.json")):
        seed = records.seed_of(path)
        if seed is None:
            strays.append(display_path(path))
            continue
        run = records.RunPaths(root, path.parent.name, seed)
        try:
            found[run.key] = [*found.get(run.key, []), records.read_record(run)]
        except CourseError as error:
            unreadable.append(f"Left out: {error}")
    if not found and unreadable:
        raise CourseError(unreadable[0])
    if not found:
        raise CourseError(
            f"{display_path(root)} holds no finished run: expected logs/NAME/seedK.json in it, as train.py writes them"
        )
    rows = []
    for key, runs in found.items():
        save_picture(plots.curves([record.history for record in runs], key), root / "pngs" / f"{key}_curves.png")
        part = "test" if "test_loss" in runs[0].history[0] else "valid"
        percents = [tables.percent(record.result_row, part) for record in runs]
        rows.append(
            [key, part, tables.mean_sd(percents), len(runs), f"{runs[0].facts.parameters:,}", runs[0].facts.epochs]
        )
    header = ["run", "images", "accuracy %", "seeds", "parameters", "epochs"]
    ignored = [f"No runs, and ignored: {', '.join(strays)}"] if strays else []
    table = tables.table(header, rows, right="seeds parameters epochs")
    return "\n".join([f"{table}\n", f"Curves: {display_path(root / 'pngs')}/", *ignored, *unreadable])


def execute(path: Path) -> None:
    """Execute a notebook and replace it by the one with its outputs, whole or not at all. Raises CourseError if a cell
    fails."""
    from nbclient import NotebookClient  # only here: drawing a table needs no kernel
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    book = stale.read(path)
    folder = {"metadata": {"path": str(path.parent)}}
    try:
        NotebookClient(book, timeout=None, record_timing=False, coalesce_streams=True, resources=folder).execute()
    except (CellExecutionError, DeadKernelError) as error:
        why = files.shorten(str(error).strip().splitlines()[-1])
        raise CourseError(
            f"{display_path(path)} stopped with an error, and its file is unchanged: {why}. Run it in Jupyter."
        ) from error
    files.write(path, (nbformat.writes(book) + "\n").encode())


def main(argv: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.report", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--stale", action="store_true")
    what.add_argument("--execute", action="store_true")
    options = parser.parse_args(argv)
    if options.folder:
        print(own_report(options.folder.resolve()))
        return 0
    if options.stale:
        print(*(display_path(path) for path in stale.notebooks()), sep="\n")
        return 0
    if options.execute:
        for path in stale.notebooks():
            execute(path)
        return 0
    old, new = texts()
    if options.check:
        for path, text in new.items():
            lines = old[path].splitlines(True), text.splitlines(True)
            sys.stdout.writelines(difflib.unified_diff(*lines, display_path(path), "what the logs say"))
        return int(old != new)
    draw()
    for path, text in new.items():
        if text != old[path]:
            files.write(path, text.encode())
    return 0


if __name__ == "__main__":
    command.main("report", main)
