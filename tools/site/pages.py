"""Logs, sidecars, studies and benchmarks → results.json, which every chart reads; and the source that Sphinx reads:
site/pages/, docs/, the notebooks with their outputs, a page for each module, experiment and study.

Text from a log (a device, a network's name) is escaped where it becomes markup.
"""

import ast
import html
import json
import re
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import nbformat

from tools import colab, measurements, report
from utils import ROOT, files
from utils.experiments import EXPERIMENTS, Experiment
from utils.report import tables
from utils.report.tables import Markup, escape, table
from utils.runs import records, trials
from utils.runs.records import FinishedRun

PAGES = ROOT / "site" / "pages"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./(?:\.\./)*[^)\s#]+)\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(\.\./(pngs/[^)\s]+)\)")
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
BESIDE = " ¶ "  # MyST-NB knows one text for all pictures of a cell; conf.py parts them again
RECORDING, STILL = "live.webp", "live.png"  # tests/site/test_recording.py makes them
FRONT = "---\nhide-toc: true\n---\n"
NOT_SHOWN = ("data",)  # fields of a recipe that stand elsewhere on its page
TRIED = "Recipes are chosen on held-out training images, never on the test set."
COMPARED = (
    "The course compared with the usual approach, on one machine. Times are medians of fresh processes. "
    "The course's bars are blue. The first bar of each group is the one that the others are compared with."
)


def size(one: dict) -> str:
    return f"{one['parameters']:,} parameters"


def file_size(one: dict) -> str:
    return f"{(ROOT / one['weights']['file']).with_suffix('.bin').stat().st_size:,} bytes"


HIGHLIGHTS = (  # experiment, what it stands for, and what it took
    ("frontier_best", "Best network", size),
    ("frontier_99_5", "A small network", size),
    ("frontier_99", "A very small network", size),
    ("bytes_99_5", "A network in one QR code", file_size),
    ("sprint", "Trained on one CPU core", lambda one: f"{one['seconds']['mean']:.1f} seconds"),
    ("voxel_frontier", "Solids in 3D, half of them rotated", size),
)


# ---- what the charts and the pages show


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
        "seconds": facts.seconds,
        "parts": {part: round(score.percent, 4) for part, score in facts.parts.items()},
        "curves": {part: [round(tables.percent(row, part), 4) for row in rows] for part in parts},
        "losses": {part: [row[f"{part}_loss"] for row in rows] for part in parts},
    }


def experiment(one: Experiment, found: list[FinishedRun]) -> dict:
    """All published seeds of an experiment."""
    sidecar = records.RunPaths.of(one, 0).weights.with_suffix(".json")
    weights = records.read_facts(sidecar) if sidecar.is_file() else None
    runs, figure = [run(record) for record in found], tables.reported(one)
    shown = {
        "name": one.name,
        "kind": "voxels" if one.recipe.kind == "voxels" else "image",
        "page": f"logs/{one.name}/",
        "lesson": one.notebook,
        "parameters": found[0].facts.parameters,
        "epochs": found[0].facts.epochs,
        "recipe": asdict(one.recipe),
        "weights": weights and {"file": f"saved_dict/{one.name}.pth", "sha256": weights.sha256, "bytes": weights.bytes},
        "test": spread([run["test"] for run in runs]),
        "seconds": spread([run["seconds"] for run in runs]),
        "runs": runs,
    }
    if figure:
        shown["reported"] = {**asdict(tables.references().references[figure.reference]), **asdict(figure)}
    return shown


def study(one: Experiment) -> dict:
    """Each recipe that was tried to its end, best first, by what differs from the kept one, with its seeds' accuracies
    on held-out images."""
    tried, rows = trials.study(one), []
    lengths = [key for key in ("valid", "epochs") if len({getattr(other.recipe, key) for other in tried}) > 1]
    for other in tried:
        values = {key: getattr(other.recipe, key) for key in lengths} | other.changes
        values = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in values.items()}
        differs = [f"{key} {value}" for key, value in values.items()]
        what = ", ".join(["the kept recipe"] * (not other.changes) + differs)
        percents = [round(percent, 4) for percent in other.percents]
        rows.append({"what": what, **spread(percents), "values": percents, "kept": not other.changes})
    rows.sort(key=lambda row: -row["mean"])
    held, epochs = (max(getattr(other.recipe, field) for other in tried) for field in ("valid", "epochs"))
    log = trials.path(one.name, publish=True).relative_to(ROOT).as_posix()
    return {"name": one.name, "log": log, "held": held, "epochs": epochs, "rows": rows}


def benchmark() -> dict:
    """The published measurements: seconds of each side of each comparison."""
    path = measurements.path(root=ROOT)
    found, rows = files.read_json(path, measurements.Benchmark), []
    for what, sides in found.rows.items():
        for side, times in sides.items():
            seconds, accuracy = sorted(one["seconds"] for one in times), times[0].get("accuracy")
            row = {"what": what, "side": side, "seconds": seconds, "accuracy": accuracy}
            rows.append(row | {"on": found.machine(what).device})
    return {"log": path.relative_to(ROOT).as_posix(), "rows": rows}


def results() -> dict:
    """Everything that the charts show. Raises CourseError for a file that can't be read."""
    every = [EXPERIMENTS[name] for name in sorted(EXPERIMENTS)]
    return {
        "experiments": [experiment(one, found) for one in every if (found := records.published(one))],
        "studies": [study(one) for one in every if trials.path(one.name, publish=True).is_file()],
        "field": [asdict(claim) for claim in tables.references().field],
        "benchmark": benchmark(),
    }


# ---- their tables and pages


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


def summary(one: dict, is_studied: bool) -> Iterator[str]:
    """The parts of the first line of an experiment's page."""
    recipe, test = one["recipe"], one["test"]
    yield f"**{shown_spread(test)} %** on the test set ({test['n']} seed{'s' * (test['n'] != 1)})"
    yield f"{one['parameters']:,} parameters"
    yield f"data {escape(recipe['data'])}"
    yield f"{one['epochs']} × {recipe['images']:,} images" if recipe["images"] else f"{one['epochs']} epochs"
    if recipe["patience"]:
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
        name = link(figure["name"], figure["address"]) if figure["address"] else escape(figure["name"])
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


def study_page(one: dict) -> str:
    """logs/trials/NAME.md: the chart, the table and the file of one study."""
    kept = "Orange: the kept recipe, for any number of epochs."
    if not any(row["kept"] for row in one["rows"]):
        kept = "None of these trials has exactly the kept recipe."
    name, header = one["name"], ["what differs from the kept recipe", "held-out images, %", "seeds"]
    facts = [f"{one['held']:,} held-out images", f"{one['epochs']} epoch{'s' * (one['epochs'] != 1)}"]
    facts += [link("the experiment", f"../{name}/index.html"), link("all trials", Path(one["log"]).name)]
    parts = [
        f"{FRONT}# {name}: what was tried",
        " · ".join([*facts, link("all studies", "index.html")]),
        f"{TRIED} {kept}",
        f'<figure class="chart" data-chart="study" data-study="{name}"></figure>',
        table(header, [[row["what"], shown_spread(row), row["n"]] for row in one["rows"]], right=header[1:]),
    ]
    return "\n\n".join(parts) + "\n"


def studies_page(studies: list[dict]) -> str:
    """logs/trials/index.md: every study with what it reached."""
    header, rows = ["experiment", "recipes", "runs", "held-out images", "epochs", "best recipe, %"], []
    for one in studies:
        name, runs = link(one["name"], f"{one['name']}.html"), sum(row["n"] for row in one["rows"])
        best = f"{one['rows'][0]['mean']:.2f}"
        rows.append([name, len(one["rows"]), runs, f"{one['held']:,}", one["epochs"], best])
    listed = table(header, rows, right=header[1:])
    hidden = toctree([f"{one['name']} <{one['name']}>" for one in studies], ":hidden:")
    return f"{FRONT}# What was tried\n\n{TRIED} Each study has a page.\n\n{listed}\n\n{hidden}\n"


def experiments_page(experiments: list[dict]) -> str:
    """logs/index.md: every experiment, with its accuracy and its curves."""
    text = "Each experiment has a page with its recipe and its seeds. Thin lines are seeds, thick ones their mean."
    curves = '<figure class="chart" data-chart="all-curves"></figure>'
    hidden = toctree([f"{one['name']}/index" for one in experiments], ":hidden:")
    return f"{FRONT}# Experiments\n\n{text}\n\n{accuracy_table(experiments, '../')}\n\n{curves}\n\n{hidden}\n"


def benchmark_page(found: dict) -> str:
    """logs/benchmarks/index.md."""
    log, chart = link(found["log"], "../../" + found["log"]), '<figure class="chart" data-chart="benchmark"></figure>'
    measured = files.read_json(ROOT / found["log"], measurements.Benchmark)
    listed = f"{measurements.tried_table(measured.rows)}\n\n{measurements.note(measured, list(measured.rows))}"
    numbers = f"<summary>All measurements</summary>\n\n{listed}\n\n"
    shown = f'{COMPARED}\n\n{chart}\n\n{log}\n\n<details class="numbers">{numbers}</details>'
    return f"{FRONT}# How fast is the course?\n\n{shown}\n"


def result_pages(found: dict) -> Iterator[tuple[str, str]]:
    """(path below the pages' source, Markdown) of all that is written from results.json."""
    experiments, studied = found["experiments"], {one["name"] for one in found["studies"]}
    for one in experiments:
        yield f"{one['page']}index.md", experiment_page(one, one["name"] in studied)
    for one in found["studies"]:
        yield f"logs/trials/{one['name']}.md", study_page(one)
    yield "logs/index.md", experiments_page(experiments)
    yield "logs/trials/index.md", studies_page(found["studies"])
    yield "logs/benchmarks/index.md", benchmark_page(found["benchmark"])
    for kind in ("image", "voxels"):
        yield f"tables/{kind}.md", accuracy_table([one for one in experiments if one["kind"] == kind])
    yield "tables/field.md", field_table(found["field"])


# ---- the other pages


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def reachable(match: re.Match) -> str:
    """A link to a file of the repository, as the site has it: logs and weights as they are, modules as their page."""
    text, target = match.groups()
    if target.endswith(".ipynb"):
        return link(Markup(text), target.removesuffix(".ipynb") + ".html")
    module = re.fullmatch(r"((?:\.\./)+)((?:utils|tools)/[\w/]+)\.py", target)
    if module:
        return f"[{text}](../api/{module[2].replace('/', '.')}.md)"
    if re.match(r"(\.\./)+(logs|saved_dict)/.", target):
        is_folder = not Path(target).suffix
        return link(Markup(text), target.rstrip("/") + "/" * is_folder)
    inside = re.sub(r"^(\.\./)+", "", target)
    return f"{text} (`{inside}`)"


def prose(text: str) -> str:
    """A notebook's Markdown without pictures from elsewhere, and with links that lead somewhere."""
    return LINK.sub(reachable, BADGE.sub(r"[Open in Colab](\1)", text))


def described(cell, heading: str) -> str:
    """Alternative texts for a cell's pictures, between them `BESIDE`: the notebook's own text for each, else the
    heading above it."""
    pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return BESIDE.join(output.metadata.get("image/png", {}).get("alt") or f"{heading}: a figure" for output in pictures)


def notebook(path: Path, is_solution: bool) -> str:
    """A notebook as the site shows it: the setup cell folded, solutions folded, every picture with an alternative
    text."""
    colab.read(path)  # raises an error for a notebook without title and setup cell
    book = report.read_notebook(path)
    heading, up = path.stem, "../" * (1 + is_solution)
    links = [f'<a href="{path.name}" download>Download this notebook</a>']
    links += [f'<a href="{up}live/index.html">Draw a digit</a>']
    logged = [one.name for one in EXPERIMENTS.values() if one.notebook == path.stem and records.published(one)]
    if logged:
        links.append("logs: " + ", ".join(f'<a href="{up}logs/{name}/index.html">{name}</a>' for name in logged))
    book.cells[0].source += "\n\n" + " · ".join(links)
    for number, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            cell.source = prose(cell.source)
            heading = next(iter(re.findall(r"^#+ (.*)", cell.source, re.MULTILINE)), heading)
            continue
        settings = cell.metadata.setdefault("mystnb", {})
        settings["image"] = {"alt": described(cell, heading)}
        fold, prompt = "hide-cell", "A part of the solution"
        if number == 1:
            fold, prompt = "hide-input", "The cell that finds the course, the same in every notebook"
        if number == 1 or is_solution:
            cell.metadata.setdefault("tags", []).append(fold)
            settings["code_prompt_show"] = settings["code_prompt_hide"] = prompt
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = prose(output.data["text/markdown"])
    return nbformat.writes(book) + "\n"


def toctree(names: list[str], option: str = ":maxdepth: 1") -> str:
    return "\n".join(["```{toctree}", option, "", *names, "```"])


def write_index(source: Path, folder: str, listed: str) -> None:
    """The page that lists a folder: its text in site/pages/, then the list."""
    write(source / folder / "index.md", f"{(PAGES / f'{folder}.md').read_text(encoding='utf-8')}\n{listed}\n")


def notebooks(source: Path) -> None:
    """Stage all notebooks with a page that lists them."""
    paths, solutions = (sorted((ROOT / "notebooks").glob(names)) for names in ("*.ipynb", "solutions/*.ipynb"))
    for path in [*paths, *solutions]:
        write(source / path.relative_to(ROOT), notebook(path, path in solutions))
    answers = "## Solutions\n\nTry the exercises first. Open an answer to read it."
    trees = toctree([path.stem for path in paths]), toctree([f"solutions/{path.stem}" for path in solutions])
    write_index(source, "notebooks", f"{trees[0]}\n\n{answers}\n\n{trees[1]}")


def docs(source: Path) -> None:
    """Stage the pages of docs/ with the pictures that they show, and a page that lists them."""
    paths = sorted((ROOT / "docs").glob("*.md"))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for picture in PICTURE.findall(text):
            (source / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / picture, source / picture)
        write(source / "docs" / path.name, prose(text))
    write_index(source, "docs", toctree([path.stem for path in paths]))


def reference(source: Path) -> None:
    """One page for each module; its first line is the module's own first sentence."""
    names, rows = [], []
    for path in sorted([*(ROOT / "utils").rglob("[!_]*.py"), *(ROOT / "tools").rglob("[!_]*.py")]):
        names.append(name := ".".join(path.relative_to(ROOT).with_suffix("").parts))
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        says = " ".join(text.partition("\n\n")[0].split())
        rows.append([Markup(f"[{name}]({name}.md)"), Markup(says.replace("|", "\\|"))])
        automodule = f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```"
        write(source / "api" / f"{name}.md", f"# {name}\n\n{automodule}\n")
    write_index(source, "api", f"{table(['module', 'subject'], rows)}\n\n{toctree(names, ':hidden:')}")


def lessons() -> str:
    """The landing page's list of lessons: part by part, each with its question."""
    lines = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        number = path.stem.partition("_")[0]
        if number in colab.PARTS:
            lines += ["", f"**{colab.PARTS[number]}**", ""]
        lines.append(f"- [{number} · {colab.title(path)}](notebooks/{path.stem}.ipynb)")
    return "\n".join(lines)


def highlights(experiments: list[dict]) -> str:
    """The landing page's six results, as HTML: each links to its log."""
    by_name, cards = {one["name"]: one for one in experiments}, []
    for name, what, value in HIGHLIGHTS:
        one = by_name[name]
        text = f"{what}: {name}, {value(one)}, mean of {len(one['runs'])} seeds"
        cards.append(f'<a href="{one["page"]}index.html"><strong>{shown_spread(one["test"])} %</strong>{text}</a>')
    return f'<div class="cards results">{"".join(cards)}</div>'


def stage(source: Path, found: dict) -> None:
    """Write the whole source of the pages to `source`; what is no longer part of it goes. found: results()."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(PAGES, source, ignore=shutil.ignore_patterns("notebooks.md", "docs.md", "api.md"))
    notebooks(source)
    docs(source)
    reference(source)
    for name, text in result_pages(found):
        write(source / name, text)
    facts = {"experiments": len(found["experiments"]), "runs": sum(len(one["runs"]) for one in found["experiments"])}
    facts |= {"lessons": lessons(), "highlights": highlights(found["experiments"])}
    write(source / "facts.json", json.dumps(facts))
    for name in (RECORDING, STILL):
        shutil.copyfile(ROOT / "pngs" / name, source / "static" / name)
