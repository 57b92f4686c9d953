"""Logs and sidecars → the tables in README.md and docs/, logs/runs.csv and pngs/. No number is typed by hand.

python -m tools.report            write the tables of README.md and docs/*.md, logs/runs.csv and pngs/
python -m tools.report --check    exit 1 and show the difference if a table or logs/runs.csv differs from the logs
python -m tools.report --execute  execute each notebook whose outputs differ from the published results, and replace it
python -m tools.report runs/      tables and curves of your own finished runs, below runs/pngs/
"""

from tools import command  # isort: skip

import difflib
import io
import os
import sys
from pathlib import Path

import nbformat
from matplotlib.figure import Figure
from torch import nn

from tools import colab, measurements
from utils import ROOT, CourseError, files, models
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.files import display_path
from utils.layers import PrincipalAxisView
from utils.report import diagrams, plots, tables
from utils.runs import Result, records
from utils.training.loops import predict

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
    "c": lambda _: measurements.c_section(),
    "train_in_tab": lambda _: measurements.in_tab_section(),
    "photographs": lambda _: measurements.photographs_section(),
}
WRITTEN = "<!-- {}: written by `python -m tools.report`, do not edit -->", "<!-- end of {} -->"


def filled(pages: dict[Path, str]) -> dict[Path, str]:
    """Pages with every section rewritten from the logs. Raises CourseError unless one page has a section's markers."""
    new = dict(pages)
    for name, section in SECTIONS.items():
        start, end = (marker.format(name) for marker in WRITTEN)
        holders = [path for path, text in pages.items() if start in text]
        if len(holders) != 1:
            found, todo = ", ".join(map(display_path, holders)) or "none", f"Write it and {end!r} there once."
            raise CourseError(f"{start!r}: found in {found}, expected in one of README.md and docs/*.md. {todo}")
        [page] = holders
        link = "../" * (len(page.relative_to(ROOT).parts) - 1)
        new[page] = colab.between(new[page], start, end, section(link), display_path(page))
    return new


def texts() -> tuple[dict[Path, str], dict[Path, str]]:
    """Every generated text file: its present text, and its text according to the logs and the notebooks."""
    readme, runs = ROOT / "README.md", ROOT / "logs" / "runs.csv"
    pages = [readme, *sorted((ROOT / "docs").glob("*.md"))]
    found = [*pages, runs] if files.exists(runs) else pages
    old = {runs: ""} | {path: colab.read_text(path) for path in found}
    new = filled({path: old[path] for path in pages}) | {runs: tables.runs_csv()}
    new[readme] = colab.readme(new[readme], colab.address(), new[runs])
    return old, new


def save_picture(figure: Figure, path: Path) -> None:
    """A figure as PNG, without the program's version, so that equal figures give equal files."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    files.write(path, picture.getvalue())


def draw() -> None:
    """Draw pngs/: the charts of all networks, the curves of each, the small family's graphs, and real voxels."""
    folder = ROOT / "pngs"
    save_picture(plots.frontier(*tables.frontier()), folder / "frontier.png")
    save_picture(plots.frontier(*tables.frontier(), ["parameters"], (7.6, 4)), folder / "accuracy_by_size.png")
    for experiment in EXPERIMENTS.values():
        histories = [record.history for record in records.published(experiment)]
        if histories and len(histories[0]) > 1:  # one epoch is no curve
            reported = tables.reported(experiment)
            figure = plots.curves(histories, experiment.name, reported and reported.test)
            save_picture(figure, folder / f"{experiment.name}_curves.png")
    for experiment in FAMILY:
        figure = diagrams.network(models.build(experiment.recipe.model), (1, 28, 28))
        save_picture(figure, folder / f"{experiment.name}_graph.png")
    cubes = datasets.load("mnist3d")
    if cubes.name == "mnist3d":  # not of fallback digits
        grids, labels = cubes.test[:20].tensors
        save_picture(plots.solids(list(grids[2:4, 0]), ["upright", "rotated and blurred"]), folder / "voxels.png")
        titles = [f"{label} {'rotated' if row % 2 else 'upright'}" for row, label in enumerate(labels.tolist())]
        views = PrincipalAxisView()(grids).mean(1, keepdim=True)
        save_picture(plots.images(views, titles), folder / "voxels_principal_view.png")


def portrait(result: Result) -> str:
    """Evaluate a run's network again and draw it below the reader's pngs/. Returns the score and the paths."""
    score, name, data, model = result.facts.test, result.weights.stem, result.data, result.model
    test = data.test if score else data.valid  # a trial never sees the test set
    if model is None:
        raise CourseError(f"{name}: its weights are not published, only its log: train it, without --final-state")
    outputs = predict(model, test.images, data.mean, data.std)
    labels, reported = outputs.argmax(1), tables.reported(result.experiment)
    pictures = {"curves": plots.curves([result.history], name, reported and reported.test)}
    if data.kind == "voxels":
        for first, part in enumerate(data.parts):
            pictures[part] = plots.confusion(test.labels[first::2], labels[first::2], data.classes, part)
    else:
        first = next(layer for layer in models.layers(model) if isinstance(layer, nn.Conv2d))
        pictures |= {
            "examples": plots.examples(test.images[:20], test.labels[:20], labels[:20]),
            "mistakes": plots.mistakes(test.images, test.labels, models.probabilities(model, outputs).log())[0],
            "confusion": plots.confusion(test.labels, labels, data.classes),
            "kernels": plots.kernels(first.weight),
        }
    folder = records.own_root() / "pngs"
    for kind, picture in pictures.items():
        save_picture(picture, folder / f"{name}_{kind}.png")
    recorded = f"the sidecar says {score.correct} of {score.total}" if score else "held-out images, not the test set"
    drawn = f"Drawn: {display_path(folder)}/{name}_{{{','.join(pictures)}}}.png"
    return f"Evaluated now: {int((labels == test.labels).sum())} of {len(test)} right; {recorded}.\n{drawn}"


def own_report(root: Path) -> str:
    """Tables and curves of a reader's finished runs, and what is left out. Raises CourseError if none is readable."""
    if root == ROOT:
        raise CourseError(f"{root} holds what is published: leave the folder out to draw that")
    found: dict[str, list[records.FinishedRun]] = {}
    strays, unreadable = [], []
    for path in sorted(root.glob("logs/*/*.json")):
        seed, key = records.seed_of(path), path.parent.name
        if seed is None:
            strays.append(display_path(path))
            continue
        try:
            record = records.read_record(records.RunPaths(root, key, seed))
            found.setdefault(key, []).append(record)
        except CourseError as error:
            unreadable.append(f"Left out: {error}")
    if not found:
        expected = "expected logs/NAME/seedK.json in it, as train.py writes them"
        none = f"{display_path(root)} holds no finished run: {expected}"
        raise CourseError(unreadable[0] if unreadable else none)
    rows = []
    for key, runs in found.items():
        title = files.shorten(key, 80)
        save_picture(plots.curves([record.history for record in runs], title), root / "pngs" / f"{key}_curves.png")
        part, facts = "test" if "test_loss" in runs[0].history[0] else "valid", runs[0].facts
        accuracy = tables.mean_sd([tables.percent(record.result_row, part) for record in runs])
        rows.append([key, part, accuracy, len(runs), f"{facts.parameters:,}", facts.epochs])
    header = ["run", "images", "accuracy %", "seeds", "parameters", "epochs"]
    ignored = [f"No runs, and ignored: {', '.join(strays)}"] if strays else []
    table = tables.table(header, rows, right="seeds parameters epochs")
    return "\n".join([f"{table}\n", f"Curves: {display_path(root / 'pngs')}/", *ignored, *unreadable])


# ---- notebooks: cells with the tag `published` show only what logs/, saved_dict/ and logs/trials/ contain. They are
# run again in this process, and every table and every number is compared with the committed outputs.

TAG = "published"


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook. Raises CourseError if the file is not one."""
    content = files.read(path)
    try:
        notebook = nbformat.reads(content.decode(), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # a damaged file can raise any exception
        name, kind = files.display_path(path), type(error).__name__
        raise CourseError(f"{name} is not a notebook ({kind}). Check out the file again.") from error
    return notebook


def stale() -> list[Path]:
    """The notebooks in which a published cell would now print something else."""
    return [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if differences(path)]


def differences(path: Path) -> list[str]:
    """One text for each published cell that now prints something else."""
    notebook = read_notebook(path)
    cells = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", [])]
    if not cells:
        return []
    found = []
    before = dict(os.environ), Path.cwd()
    os.environ |= {"COURSE_SMOKE": "0", "COURSE_PUBLISH": "1", "COURSE_RUNS": "no runs of one's own"}
    os.chdir(path.parent)
    try:
        shell = new_shell()
        run_cell(shell, notebook.cells[2].source.replace("RETRAIN = True", "RETRAIN = False"))
        for cell in cells:
            now, committed = run_cell(shell, cell.source), (printed(cell.outputs), displayed(cell.outputs))
            if [text.split() for text in now] != [text.split() for text in committed]:
                found.append("\n".join([f"{path.name} shows now", *now, "instead of", *committed]))
    finally:
        os.environ.clear()
        os.environ |= before[0]
        os.chdir(before[1])
    return found


def new_shell():
    """An IPython shell without a history, whose pictures are drawn into nothing."""
    import matplotlib
    from IPython.core.interactiveshell import InteractiveShell

    matplotlib.use("Agg")
    InteractiveShell.clear_instance()
    return InteractiveShell.instance(history_length=0)


def run_cell(shell, source: str) -> tuple[str, str]:
    """The text that a cell prints, and the Markdown that it displays. Raises what the cell raises."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result = shell.run_cell(source, silent=False)
    result.raise_error()
    outputs = [{"output_type": "display_data", "data": output.data} for output in captured.outputs]
    return captured.stdout, displayed(outputs)


def printed(outputs: list[dict]) -> str:
    """The standard output in a cell's outputs."""
    streams = [output for output in outputs if output["output_type"] == "stream" and output["name"] == "stdout"]
    return "".join(output["text"] for output in streams)


def displayed(outputs: list[dict]) -> str:
    """The Markdown in a cell's outputs, without pictures and highlighted sources."""
    shown = [output.get("data", {}) for output in outputs if output["output_type"] != "stream"]
    return "\n".join(data.get("text/markdown", "") for data in shown if "image/png" not in data)


def execute(path: Path) -> None:
    """Execute a notebook and replace the file. If a cell fails, the file stays as it is, and CourseError is raised."""
    from nbclient import NotebookClient  # only here: drawing a table needs no kernel
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    book = read_notebook(path)
    folder = {"metadata": {"path": str(path.parent)}}
    try:
        NotebookClient(book, timeout=None, record_timing=False, coalesce_streams=True, resources=folder).execute()
    except (CellExecutionError, DeadKernelError) as error:
        why = files.shorten(str(error).strip().splitlines()[-1])
        text = f"{display_path(path)} stopped with an error, and its file is unchanged: {why}. Run it in Jupyter."
        raise CourseError(text) from error
    files.write(path, (nbformat.writes(book) + "\n").encode())


def main(argv: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.report", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--execute", action="store_true")
    options = parser.parse_args(argv)
    if options.folder and (options.check or options.execute):
        raise CourseError("a FOLDER of your own runs is only shown: leave out --check and --execute")
    if options.folder:
        print(own_report(options.folder.resolve()))
        return 0
    if options.execute:
        for path in stale():
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
