"""Logs, sidecars, studies and benchmarks → results.json, which every chart reads, and the Markdown of the pages that
stand around them.

Everything is read as the dataclass that wrote it. What is text in it (a device, a network's name) is escaped where it
becomes markup.
"""

import html
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tools import measurements
from utils import ROOT, CourseError, files, models
from utils.experiments import EXPERIMENTS, Experiment
from utils.files import display_path
from utils.report import tables
from utils.report.tables import Markup, escape, table
from utils.runs import records, trials
from utils.runs.records import FinishedRun

NOT_SHOWN = ("name", "model", "data")  # fields of a recipe that stand elsewhere on its page
COMPARED = (
    "The course compared with the usual approach, on one machine. Times are medians of fresh processes. "
    "The course's bars are blue. The first bar of each group is the one that the others are compared with."
)
BENCHMARK = '<figure class="chart" data-chart="benchmark"></figure>'
SHORTENED = ("valid", "epochs")  # fields in which a trial differs from what it is tried for


def spread(values: list[float]) -> dict:
    """Mean and standard deviation (of a sample; none for a single value) with the number of values."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "sd": sd, "n": len(values)}


def run(record: FinishedRun) -> dict:
    """One seed: what it reached and its curves."""
    facts, rows = record.facts, record.history
    parts = [part for part in ("train", "valid", "test") if f"{part}_correct" in rows[0]]
    watched = parts[-1]
    best = max(rows, key=lambda row: tables.percent(row, watched))
    return {
        "seed": facts.seed,
        "log": record.log.relative_to(ROOT).as_posix(),
        "test": round(tables.test_percents([record])[0], 4),
        "train": round(tables.percent(record.result_row, "train"), 4),
        "best": {"part": watched, "percent": round(tables.percent(best, watched), 4), "epoch": best["epoch"]},
        "kept": facts.kept_epoch,
        "seconds": facts.seconds,
        "device": facts.environment.device,
        "threads": facts.environment.threads,
        "parts": {part: round(score.percent, 4) for part, score in facts.parts.items()},
        "curves": {part: [round(tables.percent(row, part), 4) for row in rows] for part in parts},
        "losses": {part: [row[f"{part}_loss"] for row in rows] for part in parts},
    }


def experiment(one: Experiment) -> dict | None:
    """All published seeds of an experiment; None where there is none. Raises CourseError for a log that can't be
    read."""
    found = records.published(one)
    if not found:
        return None
    models.parse(one.recipe.model)
    sidecar, facts = records.RunPaths.of(one, 0).weights.with_suffix(".json"), found[0].facts
    weights = records.read_facts(sidecar) if sidecar.is_file() else None
    runs = [run(record) for record in found]
    shown_facts = {
        "name": one.name,
        "kind": "voxels" if one.recipe.kind == "voxels" else "image",
        "page": f"logs/{one.name}/",
        "lesson": one.notebook,
        "model": one.recipe.model,
        "data": one.recipe.data,
        "parameters": facts.parameters,
        "epochs": facts.epochs,
        "stopped": bool(one.recipe.patience),
        "recipe": asdict(one.recipe),
        "weights": weights and {"file": f"saved_dict/{one.name}.pth", "sha256": weights.sha256, "bytes": weights.bytes},
        **{key: spread([run[key] for run in runs]) for key in ("test", "train", "seconds")},
        "runs": runs,
    }
    figure = tables.reported(one)
    if figure:
        reference = tables.references().references.get(figure.reference)
        shown_facts["reported"] = {**(asdict(reference) if reference else {}), **asdict(figure)}
    return shown_facts


def message(fields: dict) -> str:
    values = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in fields.items()}
    return ", ".join(f"{key} {value}" for key, value in values.items())


def study(path: Path) -> dict:
    """A study: each recipe that was tried to its end, with its seeds' accuracies on held-out images. The one that is
    kept for the experiment (in as many epochs as were tried) or else the best is given by all that varies, the others
    by what differs from it.

    Raises CourseError for a line that can't be read.
    """
    found = [(asdict(trial.recipe), trial) for trial in trials.read_file(path) if not trial.pruned]
    recipes = [recipe for recipe, _ in found]
    varied = [key for key in recipes[0] if len({recipe[key] for recipe in recipes}) > 1] if recipes else []
    kept = asdict(EXPERIMENTS[path.stem].recipe)
    tried: dict[str, dict[int, float]] = {}
    for recipe, trial in found:  # of a repeated seed the last run counts
        seeds = tried.setdefault(json.dumps({key: recipe[key] for key in varied}), {})
        seeds[trial.seed] = round(trial.valid.percent, 4)
    rows = []
    for text, seeds in tried.items():
        recipe, values = json.loads(text), list(seeds.values())
        is_kept = all(kept[key] == value for key, value in recipe.items() if key not in SHORTENED)
        rows.append({"recipe": recipe, **spread(values), "values": values, "kept": is_kept})
    rows.sort(key=lambda row: -row["mean"])
    middle = next((row for row in rows if row["kept"]), rows[0] if rows else None)
    for row in rows:
        differs = {key: value for key, value in row["recipe"].items() if value != middle["recipe"][key]}
        itself = f"{'kept' if row['kept'] else 'best'}: {message(row['recipe']) or 'the recipe as it is'}"
        row["what"] = message(differs) or itself
    held, epochs = (max((recipe[key] for recipe in recipes), default=0) for key in ("valid", "epochs"))
    return {"name": path.stem, "log": path.relative_to(ROOT).as_posix(), "held": held, "epochs": epochs, "rows": rows}


def benchmark() -> dict | None:
    """The published measurements: seconds of each side of each comparison. Raises CourseError where they can't be
    read."""
    path = measurements.path(root=ROOT)
    if not path.is_file():
        return None
    found, rows = files.read_json(path, measurements.Benchmark), []
    for what, sides in found.rows.items():
        for side, times in sides.items():
            if not times or not all("seconds" in one for one in times):
                expected = "found no seconds, expected some in each measurement. Measure it again."
                raise CourseError(f"{display_path(path)}: {what!r}, {side!r}: {expected}")
            seconds, accuracy = sorted(one["seconds"] for one in times), times[0].get("accuracy")
            row = {"what": what, "side": side, "seconds": seconds, "accuracy": accuracy}
            rows.append(row | {"on": found.machine(what).device})
    return {"log": path.relative_to(ROOT).as_posix(), "rows": rows}


def results(commit: str) -> dict:
    """Everything that the charts show. Raises CourseError for a file that can't be read."""
    found = [experiment(EXPERIMENTS[name]) for name in sorted(EXPERIMENTS)]
    studied = [path for name in sorted(EXPERIMENTS) if (path := trials.path(name, publish=True)).is_file()]
    return {
        "commit": commit,
        "experiments": [one for one in found if one],
        "studies": [study(path) for path in studied],
        "field": [asdict(claim) for claim in tables.references().field],
        "benchmark": benchmark(),
    }


def link(text: str, address: str) -> Markup:
    """A link as HTML: to a file of the site, which Sphinx does not know."""
    return Markup(f'<a href="{html.escape(address)}">{escape(text)}</a>')


def shown_spread(value: dict) -> str:
    """Mean ± standard deviation of accuracies."""
    return f"{value['mean']:.2f}" + (f" ± {value['sd']:.2f}" if value["sd"] is not None else "")


def accuracy_table(experiments: list[dict], up: str = "") -> str:
    """Accuracy, parameters and seconds of every experiment, and the reference's figure. up: from page to root."""
    reported = any("reported" in one for one in experiments)
    header = ["experiment", "test, %", "seeds", "parameters", "seconds", *["reported"] * reported]
    rows = []
    for one in sorted(experiments, key=lambda one: -one["test"]["mean"]):
        figure, name = one.get("reported", {}), link(one["name"], up + one["page"])
        source = link(f"{figure['test']:g}", figure["address"]) if figure.get("address") else figure.get("test") or "–"
        cells = [name, shown_spread(one["test"]), one["test"]["n"], f"{one['parameters']:,}"]
        rows.append([*cells, f"{one['seconds']['mean']:,.0f}", *[source] * reported])
    return table(header, rows, right=header[1:])


def seeds_table(one: dict) -> str:
    """Every seed of an experiment with its log."""
    parts = [part for part in ("upright", "rotated") if all(part in run["parts"] for run in one["runs"])]
    header = ["seed", "test, %", *parts, "train, %", "best epoch", "seconds", "log"]
    rows = []
    for seed in one["runs"]:
        held = " (held out)" if seed["best"]["part"] == "valid" else ""
        best = f"{seed['best']['percent']:.2f} in {seed['best']['epoch']}{held}"
        logs = Markup(" ".join(link(text, "../../" + seed["log"].replace(".csv", text)) for text in (".csv", ".json")))
        numbers = [f"{seed['test']:.2f}", *(f"{seed['parts'][part]:.2f}" for part in parts), f"{seed['train']:.2f}"]
        rows.append([seed["seed"], *numbers, best, f"{seed['seconds']:,.0f}", logs])
    return table(header, rows, right=header[1:-1])


def field_table(field: list[dict]) -> str:
    header, rows = ["parameters", "test, %", "chosen on the test set", "conditions"], []
    for one in field:
        chosen = "yes" if one["selected_on_test"] else "no"
        rows.append([f"{one['parameters']:,}", f"{one['accuracy']:g}", chosen, one["conditions"]])
    return table(header, rows, right=header[:2])


def study_table(one: dict) -> str:
    header = ["recipe, or what differs from it", "held-out images, %", "seeds"]
    return table(header, [[row["what"], shown_spread(row), row["n"]] for row in one["rows"]], right=header[1:])


def benchmark_table(found: dict) -> str:
    rows = []
    for row in found["rows"]:
        times = row["seconds"]
        between = f"{times[0]:.2f} to {times[-1]:.2f}" if len(times) > 1 else "–"
        cells = [row["what"], row["side"], f"{statistics.median(times):.2f}", between, len(times)]
        rows.append([*cells, f"{row['accuracy']:.2f}" if row["accuracy"] else "–", row["on"]])
    header = ["what", "how", "median, s", "smallest to largest", "n", "reached, %", "on"]
    return table(header, rows, right=("median, s", "n", "reached, %"))


def summary(one: dict, is_studied: bool) -> Iterator[str]:
    """The parts of the first line of an experiment's page."""
    images, test = one["recipe"].get("images"), one["test"]
    yield f"**{shown_spread(test)} %** on the test set ({test['n']} seeds)"
    yield f"{one['parameters']:,} parameters"
    yield f"data {escape(one['data'])}"
    yield f"{one['epochs']} × {images:,} images" if images else f"{one['epochs']} epochs"
    if one["stopped"]:
        yield "the epoch that is best on held-out training images; the test set is evaluated once"
    if one["lesson"]:
        yield link(f"lesson {one['lesson']}", f"../../notebooks/{one['lesson']}.html")
    if is_studied:
        yield link("what was tried", f"../trials/{one['name']}.html")


def experiment_page(one: dict, is_studied: bool) -> str:
    """logs/NAME/index.md: what the repository holds about one experiment. is_studied: whether its recipe has a page of
    what was tried."""
    lines = [f"{FRONT}# {one['name']}", "", " · ".join(summary(one, is_studied)), ""]
    if "reported" in one:
        figure = one["reported"]
        name = figure.get("name", "its reference")  # references.json may lack the project
        name = link(name, figure["address"]) if figure.get("address") else escape(name)
        note = f" ({escape(figure['note'])})" if figure["note"] else ""
        lines += [f"Reported: {figure['test']:g} %{note}. {name}, {escape(figure['where'])}.", ""]
    if one["weights"]:
        file = link(f"{one['name']}.pth", f"../../{one['weights']['file']}")
        lines += [f"State dict of the first seed: {file} ({one['weights']['bytes'] / 1024:,.0f} KB)  "]
        lines += [f"SHA-256 <code class='hash'>{escape(one['weights']['sha256'])}</code>", ""]
    for what, title in (("curves", "Accuracy by epoch"), ("losses", "Loss by epoch")):
        chart = f'<figure class="chart" data-chart="{what}" data-experiment="{one["name"]}"></figure>'
        lines += [f"## {title}", "", chart, ""]
    recipe = [[Markup(f"`{key}`"), value] for key, value in one["recipe"].items() if key not in NOT_SHOWN]
    lines += ["## Seeds", "", seeds_table(one), "", "## Recipe", "", table(["field", "value"], recipe), ""]
    return "\n".join(lines)


FRONT = "---\nhide-toc: true\n---\n"
TRIED = "Recipes are chosen on held-out training images, never on the test set."


def study_page(one: dict, published: set[str]) -> str:
    """logs/trials/NAME.md: the chart, the table and the file of one study."""
    name = one["name"]
    facts = [f"{one['held']:,} held-out images", f"{one['epochs']} epoch{'s' * (one['epochs'] != 1)}"]
    facts += [link("the experiment", f"../{name}/index.html")] * (name in published)
    parts = [
        f"{FRONT}# {name}: what was tried",
        " · ".join([*facts, link("all trials", Path(one["log"]).name), link("all studies", "index.html")]),
        f"{TRIED} The kept recipe is orange.",
        f'<figure class="chart" data-chart="study" data-study="{name}"></figure>',
        study_table(one),
    ]
    return "\n\n".join(parts) + "\n"


def studies(found: dict) -> str:
    """logs/trials/index.md: every study with what it reached."""
    header, rows = ["experiment", "recipes", "runs", "held-out images", "epochs", "best recipe, %"], []
    for one in found["studies"]:
        name, runs = link(one["name"], f"{one['name']}.html"), sum(row["n"] for row in one["rows"])
        best = max((row["mean"] for row in one["rows"]), default=0)
        rows.append([name, len(one["rows"]), runs, f"{one['held']:,}", one["epochs"], f"{best:.2f}"])
    names = "\n".join(f"{one['name']} <{one['name']}>" for one in found["studies"])
    hidden = f"```{{toctree}}\n:hidden:\n\n{names}\n```"
    shown = f"{table(header, rows, right=header[1:])}\n\n{hidden}" if rows else "No study is published yet."
    return f"{FRONT}# What was tried\n\n{TRIED} Each study has a page.\n\n{shown}\n"


def pages(found: dict) -> Iterator[tuple[str, str]]:
    """(path below the pages' source, Markdown) of all that is written from results.json."""
    studied, published = ({one["name"] for one in found[key]} for key in ("studies", "experiments"))
    for one in found["experiments"]:
        yield f"{one['page']}index.md", experiment_page(one, one["name"] in studied)
    for one in found["studies"]:
        yield f"logs/trials/{one['name']}.md", study_page(one, published)
    yield "logs/trials/index.md", studies(found)
    for kind in ("image", "voxels"):
        yield f"tables/{kind}.md", accuracy_table([one for one in found["experiments"] if one["kind"] == kind])
    yield "tables/field.md", field_table(found["field"]) if found["field"] else "No figure of others is listed yet."
    speed, measured = found["benchmark"], "No benchmark is published yet."
    if speed:
        log = link(speed["log"], "../../" + speed["log"])
        numbers = f"<summary>All measurements</summary>\n\n{benchmark_table(speed)}\n\n"
        measured = f'{COMPARED}\n\n{BENCHMARK}\n\n{log}\n\n<details class="numbers">{numbers}</details>'
    yield "logs/benchmarks/index.md", f"{FRONT}# How fast is the course?\n\n{measured}\n"
