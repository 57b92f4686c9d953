"""Logs and sidecars → the tables in README.md and the pictures in pngs/. No number is typed by hand.

python -m utils.report            write README's tables and pngs/
python -m utils.report --check    exit 1 and show the difference if README's tables are not what the logs say
python -m utils.report --stale    list the notebooks whose seed 0 is not published by the present recipe
python -m utils.report --verify   load every published state dict, evaluate it, exit 1 on any disagreement
"""

import argparse
import difflib
import io
import re
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL.Image import Image
from torch import nn

from utils import ROOT, CourseError, artifacts, models, plots
from utils import data as datasets
from utils.experiments import EXPERIMENTS, MNIST_MEDIUM, MNIST_SMALL, MNIST_ULTRASMALL, Experiment
from utils.layers import FaceOn
from utils.loops import Row, evaluate, kept, normalise, predict
from utils.runs import Result, is_published

README = ROOT / "README.md"
BENCHMARK = ROOT / "logs" / "benchmarks" / "cpu.json"
FAMILY = (MNIST_MEDIUM, MNIST_SMALL, MNIST_ULTRASMALL)
EXAMPLE_STEPS = "one epoch of PyTorch's example, changed step by step"
TRIED_ROWS = ("100 batches of bn_augmentation", "100 batches of bn_augmentation, five seeds")
WRITTEN = "<!-- {}: written by `python -m utils.report`, do not edit -->", "<!-- end of {} -->"


def table(header: list[str], rows: list[list], right: str = "") -> str:
    """An aligned Markdown table; the columns whose header is in `right` are aligned to the right."""
    cells = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    rule = ["-" * (width - 1) + (":" if name in right else "-") for name, width in zip(header, widths, strict=True)]
    lines = [
        [cell.rjust(width) if name in right else cell.ljust(width) for cell, name, width in zip(row, header, widths, strict=True)]
        for row in cells
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def percent(row: Row, part: str) -> float:
    """Accuracy of one epoch, in %."""
    return 100 * row[f"{part}_correct"] / row[f"{part}_total"]


def result(log: Path, experiment: Experiment) -> tuple[float, float]:
    """Training and test accuracy (%) of the epoch that a run kept. Where images are held out, the log's rows know nothing of the
    test set: it is evaluated once, at the end."""
    row = kept(artifacts.read_log(log), experiment)
    score = artifacts.read_json(log.with_suffix(".json"))["test"]
    return percent(row, "train"), percent(row, "test") if "test_correct" in row else 100 * score["correct"] / score["total"]


def list_experiments() -> str:
    """All experiments, one row each."""
    header = ["experiment", "parameters", "epochs", "data", "published seeds", "what it teaches"]
    rows = [
        [e.name, f"{models.count_parameters(models.build(e.model, e.dropout)):,}", e.epochs, e.data, len(published_logs(e)), e.teaches]
        for e in EXPERIMENTS.values()
    ]
    return table(header, rows, right="parameters epochs published seeds")


def summary(results: list[Result]) -> str:
    """What train.py ends with: a row a run."""
    header = ["experiment", "seed", "train %", "test %", "best epoch", "seconds", "state dict", "log"]
    rows = []
    for run in results:
        part = "test" if "test_loss" in run.history[-1] else "valid"
        best = max(run.history, key=lambda row: percent(row, part))
        score = run.facts["test"]
        rows.append(
            [
                run.experiment.name,
                run.seed,
                f"{percent(kept(run.history, run.experiment), 'train'):.2f}",
                f"{100 * score['correct'] / score['total']:.2f}",
                f"{percent(best, part):.2f}{' (validation)' * (part == 'valid')} in epoch {best['epoch']}",
                f"{run.facts['seconds']:.0f}",
                datasets.shown(run.weights) if run.weights.is_file() else "not kept",
                datasets.shown(run.log),
            ]
        )
    return table(header, rows, right="seed train % test % seconds")


def published_logs(experiment: Experiment) -> list[Path]:
    """The logs of all published seeds that were trained by the experiment's present recipe."""
    found = sorted((ROOT / "logs" / experiment.name).glob("seed*.csv"), key=lambda path: int(path.stem[4:]))
    return [path for path in found if is_published(experiment, int(path.stem[4:]))]


def compare(experiments: list[Experiment]) -> str:
    """Last-epoch training and test accuracy of published experiments, mean ± standard deviation over their seeds."""
    rows = []
    for e in experiments:
        found = [result(log, e) for log in published_logs(e)]
        train, test = zip(*found, strict=True) if found else ((), ())
        gap = [a - b for a, b in found]
        rows.append([e.name, len(found), *map(mean_sd, (train, test, gap))])
    return table(["experiment", "seeds", "train %", "test %", "gap"], rows, right="seeds train % test % gap")


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± standard deviation (of a sample; left out for a single value)."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values) or "none published"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def results_table() -> str:
    """The table of README: the reference's figure beside ours."""
    header = [
        "experiment",
        "reported",
        "ours: last epoch, mean ± sd",
        "seeds",
        "best epoch: mean (highest)",
        "train",
        "parameters",
        "state dict",
        "log",
        "notebook",
    ]
    rows = []
    flat = [e for e in EXPERIMENTS.values() if not e.data.startswith("mnist3d")]
    for e in flat:
        logs = published_logs(e)
        if not logs:
            continue
        train, test = zip(*(result(log, e) for log in logs), strict=True)
        best = [] if e.valid else [max(percent(row, "test") for row in artifacts.read_log(log)) for log in logs]
        rows.append(
            [
                e.name,
                f"{e.reported_test:.2f}{'*' if e.reported_note else ''}" if e.reported_test else "not reported",
                f"**{mean_sd(test)}**{'†' * bool(e.patience)}",
                len(test),
                f"{statistics.mean(best):.2f} ({max(best):.2f})" if best else "not looked at",
                f"{statistics.mean(train):.2f}",
                *files(e, logs),
            ]
        )
    return "\n\n".join([table(header, rows, right="seeds parameters train"), *notes(flat)])


def files(experiment: Experiment, logs: list[Path], link: str = "") -> list[str]:
    """The last columns of a table: parameters, and links to state dict, logs and notebook."""
    facts = artifacts.read_json(logs[0].with_suffix(".json"))
    size = f"[{facts['bytes'] / 1024:.0f} KB]({link}saved_dict/{experiment.name}.pth)" if experiment.weights else "not kept"
    book = f"[{experiment.notebook}]({link}notebooks/{experiment.notebook}.ipynb)"
    return [f"{facts['parameters']:,}", size, f"[{len(logs)} csv]({link}logs/{experiment.name})", book]


def notes(experiments: list[Experiment]) -> list[str]:
    """What stands below a table: one paragraph for each mark in it."""
    shown = [e for e in experiments if published_logs(e)]
    lines = [f"\\* {e.name}: {e.reported_note}" for e in shown if e.reported_note]
    if any(e.patience for e in shown):
        lines.append("† the epoch that is best on held-out training images (early stopping); the test set is looked at once")
    return lines


def voxels_table(link: str = "") -> str:
    """3D-MNIST: training, validation and test accuracy beside the reported ones; upright and rotated test rows apart."""
    header = ["experiment", "reported: train / valid / test", "train", "valid", "ours: test, mean ± sd", "upright", "rotated", "seeds"]
    rows = []
    cubes = [e for e in EXPERIMENTS.values() if e.data.startswith("mnist3d")]
    for e in cubes:
        logs = published_logs(e)
        if not logs:
            continue
        train, test = zip(*(result(log, e) for log in logs), strict=True)
        scores = [artifacts.read_json(log.with_suffix(".json")) for log in logs]
        apart = [mean_sd([100 * facts[part]["correct"] / facts[part]["total"] for facts in scores]) for part in ("upright", "rotated")]
        valid = statistics.mean(percent(kept(artifacts.read_log(log), e), "valid") for log in logs) if e.valid else None
        reported = [f"{value:.4g}" if value else "–" for value in (e.reported_train, e.reported_valid, e.reported_test)]
        rows.append(
            [
                e.name,
                " / ".join(reported) + "*" * bool(e.reported_note) if e.reported_test else "not reported",
                f"{statistics.mean(train):.2f}",
                f"{valid:.2f}" if valid else "all trained on",
                f"**{mean_sd(test)}**{'†' * bool(e.patience)}",
                *apart,
                len(test),
                *files(e, logs, link),
            ]
        )
    header += ["parameters", "state dict", "log", "notebook"]
    return "\n\n".join([table(header, rows, right="train valid seeds parameters"), *notes(cubes)])


def family_table(link: str = "") -> str:
    """The small family: what it costs, what it sees and what it reaches. link: what leads from the reader to the repository's root."""
    header = ["network", "parameters", "file size", "blocks", "receptive field", "reported (best epoch)", "ours (last epoch)", "state dict"]
    rows = []
    for e in FAMILY:
        model = models.build(e.model)
        # a 1×1 convolution stands after every block but the last
        mixers = sum(isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) for layer in model[:-2])
        found = [result(log, e)[1] for log in published_logs(e)]
        weights = artifacts.weights_path(ROOT, e.name)
        rows.append(
            [
                e.name,
                f"{models.count_parameters(model):,}",
                f"{artifacts.read_json(weights.with_suffix('.json'))['bytes'] / 1024:.0f} KB" if found else "–",
                1 + mixers,
                models.receptive_field(model),
                f"{e.reported_test:.2f}",
                f"**{mean_sd(found)}** ({len(found)} seeds)",
                f"[{weights.name}]({link}saved_dict/{weights.name})",
                f"[{e.notebook}]({link}notebooks/{e.notebook}.ipynb)",
            ]
        )
    return table([*header, "notebook"], rows, right="parameters file size blocks receptive field")


def read_benchmark() -> dict:
    """The published measurements. Raises CourseError if there are none."""
    return artifacts.read_json(BENCHMARK)


def median(measurements: list[dict], key: str) -> float:
    return statistics.median(one[key] for one in measurements)


def to_99(found: dict) -> list[dict]:
    """Seconds of training to 99 % after each step: its epoch times the epochs that the example needs, and the sprint's own total."""
    example, course = (found["time to 99 %"][side] for side in ("PyTorch's example", "course"))
    epochs = median(example, "epochs")
    rows = [{"name": side, "seconds": epochs * median(times, "seconds")} for side, times in found[EXAMPLE_STEPS].items()]
    return [*rows, {"name": "the network and recipe of sprint", "seconds": median(course, "seconds")}]


def speed_table(found: dict) -> str:
    """The table of the course against the best of the usual ways."""
    rows = []
    for row, sides in found.items():
        if row in (EXAMPLE_STEPS, *TRIED_ROWS):
            continue
        course, *others = sides
        best = min(others, key=lambda side: median(sides[side], "seconds"))
        cells = []
        for side in (best, course):
            seconds = [one["seconds"] for one in sides[side]]
            spread = f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else ""
            reached = f", {median(sides[side], 'accuracy'):.2f} %" if "accuracy" in sides[side][0] else ""
            cells.append(f"{statistics.median(seconds):.2f}{spread}{reached}")
        times = median(sides[best], "seconds") / median(sides[course], "seconds")
        loaded = [median(sides[side], "seconds") + median(sides[side], "loading") for side in (best, course)]
        target = re.search(r"time to ([\d.]+) %", row)
        more = "> " * bool(target and median(sides[best], "accuracy") < float(target[1]))  # it gave up before
        memory = " / ".join(f"{median(sides[side], 'peak_mib'):,.0f}" for side in (best, course))
        count = len(sides[course])
        rows.append([row, best, *cells, f"**{more}{times:.1f} ×**", f"{more}{loaded[0] / loaded[1]:.1f} ×", memory, count])
    header = ["what", "against", "usual, s", "course, s", "faster", "with loading", "peak MiB, usual / course", "n"]
    return table(header, rows, right="n")


def tried_table(found: dict) -> str:
    """What was tried against what the course does, the first of each row."""
    rows = []
    for row in TRIED_ROWS:
        first = next(iter(found[row].values()))
        for side, times in found[row].items():
            seconds = [one["seconds"] for one in times]
            spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
            rows.append([row, side, spread, f"{median(first, 'seconds') / statistics.median(seconds):.2f} ×", len(times)])
    return table(["work", "how", "seconds", "as fast as the first", "n"], rows, right="n")


def sizes_table(found: dict) -> str:
    """Images, seconds and peak memory of an epoch, and its time a million images against the smallest size."""
    first = median(found["1 × read"], "seconds") / found["1 × read"][0]["images"]
    rows = [
        [
            name,
            f"{times[0]['images']:,}",
            f"{median(times, 'seconds'):.2f}",
            f"{median(times, 'seconds') / times[0]['images'] / first:.2f}",
            f"{median(times, 'peak_mib'):,.0f}",
        ]
        for name, times in found.items()
    ]
    return table(["images", "count", "seconds", "time an image against 1 ×", "peak MiB"], rows, right="count seconds peak MiB")


def speed_section() -> str:
    """README's benchmark table, with the machine and the protocol in a line below."""
    found = read_benchmark()
    machine = found["environment"]
    note = (
        f"Medians (smallest to largest) of n fresh processes a side, sides in turn, on {machine['device']}, {machine['threads']} threads, "
        f"torch {machine['torch']}, {machine['time'][:10]}; the GPU rows are not measured yet."
    )
    return f"{speed_table(found['rows'])}\n\n{note}"


def readme(text: str) -> str:
    """README's text with its tables between the markers replaced by what the logs say. Raises CourseError without markers."""
    for name, section in (("results", results_table), ("voxels", voxels_table), ("family", family_table), ("speed", speed_section)):
        start, end = (marker.format(name) for marker in WRITTEN)
        if text.count(start) != 1 or text.count(end) != 1:
            raise CourseError(f"{README.name} must hold the two lines {start!r} and {end!r} once each")
        before, rest = text.split(start)
        text = f"{before}{start}\n\n{section()}\n\n{end}{rest.split(end)[1]}"
    return text


def save_picture(figure: Figure | Image, path: Path) -> None:
    """A figure or a picture as PNG, without the date or the program that would make it differ from the next."""
    picture = io.BytesIO()
    if isinstance(figure, Figure):
        figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    else:
        figure.convert("RGB").quantize(64).save(picture, format="png", optimize=True)
    artifacts.write(path, picture.getvalue())


def draw() -> None:
    """Below pngs/: NAME_curves.png for every published experiment of more than one epoch, MODEL_graph.png for every network of the
    small family (only where visualtorch is installed, see requirements-extra.txt), and digits as voxels and face-on (of real ones only)."""
    for experiment in EXPERIMENTS.values():
        histories = [artifacts.read_log(log) for log in published_logs(experiment)]
        if histories and len(histories[0]) > 1:  # one epoch is no curve
            figure = plots.curves(histories, experiment.name, experiment.reported_test)
            save_picture(figure, ROOT / "pngs" / f"{experiment.name}_curves.png")
    cubes = datasets.load("mnist3d")
    if cubes.name == "mnist3d":  # not of digits that stand in
        grids, labels = cubes.test[:20]
        save_picture(plots.solids(list(grids[2:4, 0]), ["upright", "turned and blurred"]), ROOT / "pngs" / "voxels.png")
        titles = [f"{label} {'turned' if row % 2 else 'upright'}" for row, label in enumerate(labels.tolist())]
        save_picture(plots.images(FaceOn()(grids).mean(1, keepdim=True), titles), ROOT / "pngs" / "voxels_face_on.png")
    with suppress(ImportError):
        for experiment in FAMILY:
            save_picture(plots.network(models.build(experiment.model), (1, 28, 28)), ROOT / "pngs" / f"{experiment.model}_graph.png")


def portrait(result: Result) -> str:
    """Evaluate a run's network again and draw it below pngs/ of the reader's own files: curves and confusion, and of images also examples,
    mistakes, and the kernels and feature maps of the first layer. Returns what was found, and where the pictures are, in two lines."""
    model, test, name = result.model, result.data.test, result.experiment.name
    if model is None:
        raise CourseError(f"{name} is published without its weights, only to show a difference: train it, without --final-state")
    normalisation = result.facts["normalisation"]
    outputs = predict(model, test.images, **normalisation)
    outputs = outputs.log() if isinstance(model[-1], nn.Softmax) else outputs
    labels = outputs.argmax(1)
    pictures = {"curves": plots.curves([result.history], name, result.experiment.reported_test)}
    if result.data.digits is not None:
        for first, rows in enumerate(("upright", "rotated")):
            pictures[rows] = plots.confusion(test.labels[first::2], labels[first::2], result.data.classes, rows)
    else:
        first = next(i for i, layer in enumerate(model) if isinstance(layer, nn.Conv2d))
        with torch.inference_mode():
            maps = model[: first + 1](normalise(test.images[:1], **normalisation))[0]
        pictures |= {
            "examples": plots.examples(test.images[:20], test.labels[:20], labels[:20]),
            "mistakes": plots.mistakes(test.images, test.labels, outputs)[0],
            "confusion": plots.confusion(test.labels, labels, result.data.classes),
            "kernels": plots.kernels(model[first].weight),
            "features": plots.feature_maps(maps, test.images[0]),
        }
    folder = artifacts.own_root() / "pngs"
    for kind, figure in pictures.items():
        save_picture(figure, folder / f"{name}_{kind}.png")
    right, said = int((labels == test.labels).sum()), result.facts["test"]
    return (
        f"Evaluated now: {right} of {len(test)} right; the sidecar says {said['correct']} of {said['total']}.\n"
        f"Drawn: {datasets.shown(folder)}/{name}_{{{','.join(pictures)}}}.png"
    )


def verify() -> tuple[str, bool]:
    """A table of every published state dict: loaded safely, hashed, evaluated, compared with its sidecar; and whether all agree."""
    rows, good = [], True
    loaded = {}
    for path in sorted((ROOT / "saved_dict").glob("*.pth")):
        said = found = "–"
        try:
            model, facts = artifacts.load_model(path)
            name = facts["data"]["name"]
            said = f"{facts['test']['correct']}/{facts['test']['total']}"
            data = loaded[name] = loaded.get(name) or datasets.load(name)
            if (data.fingerprint, data.whole) != (facts["data"]["fingerprint"], True):
                verdict, good = f"NOT EVALUATED: {name} is not at hand", False
            else:
                score = evaluate(model, data.test, **facts["normalisation"])
                found = f"{score.correct}/{score.total}"
                agree = abs(score.correct - facts["test"]["correct"]) * 10_000 <= score.total
                verdict = "agrees" if agree else "DISAGREES"
                good &= agree
        except CourseError as error:
            verdict, good = f"REFUSED: {error}", False
        rows.append([path.name, said, found, verdict])
    return table(["state dict", "sidecar", "evaluated now", "verdict"], rows), good and bool(rows)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m utils.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--verify", action="store_true")
    what.add_argument("--stale", action="store_true")
    options = parser.parse_args(words)
    if options.stale:
        print(*dict.fromkeys(f"notebooks/{e.notebook}.ipynb" for e in EXPERIMENTS.values() if not is_published(e, 0)), sep="\n")
        return 0
    if options.verify:
        text, good = verify()
        print(text)
        return 0 if good else 1
    old = README.read_text(encoding="utf-8")
    new = readme(old)
    if options.check:
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "README.md", "what the logs say"))
        return int(old != new)
    draw()
    artifacts.write(README, new.encode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CourseError as error:
        sys.exit(f"report: {error}")
