"""Logs, sidecars, studies and benchmarks → results.json, which every chart reads, and the Markdown of the pages that stand around them."""

import csv
import html
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from utils.report.tables import table

NOT_SHOWN = ("name", "model", "data")  # fields of a recipe that stand elsewhere on its page
SHORTENED = ("valid", "epochs")  # fields in which a trial differs from what it is tried for


def read(path: Path, otherwise=None):
    """The content of a JSON file; `otherwise` where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() or otherwise is None else otherwise


def percent(score: dict, part: str = "") -> float:
    """Accuracy in %: of {correct, total}, or of an epoch's {test_correct, test_total}."""
    first = f"{part}_" if part else ""
    return round(100 * float(score[f"{first}correct"]) / float(score[f"{first}total"]), 4)


def spread(values: list[float]) -> dict:
    """Mean and standard deviation (of a sample; none for a single value) with the number of values."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "sd": sd, "n": len(values)}


def parts_of(facts: dict) -> dict:
    """The scores of the test half's parts, where a sidecar has some: older ones have them beside the others."""
    return facts.get("parts") or {part: facts[part] for part in ("upright", "rotated") if part in facts}


def is_voxels(facts: dict) -> bool:
    return facts["data"]["name"].startswith("mnist3d")


def run(facts: dict, log: Path, root: Path) -> dict:
    """One seed: what it reached and its curves."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = [part for part in ("train", "valid", "test") if f"{part}_correct" in rows[0]]
    watched = parts[-1]
    best = max(rows, key=lambda row: percent(row, watched))
    kept = next((row for row in rows if int(row["epoch"]) == facts.get("kept_epoch")), rows[-1])
    return {
        "seed": facts["seed"],
        "log": log.relative_to(root).as_posix(),
        "test": percent(kept, "test") if "test_correct" in kept else percent(facts["test"]),  # as utils/report/tables.py takes it
        "train": percent(kept, "train"),
        "best": {"part": watched, "percent": percent(best, watched), "epoch": int(best["epoch"])},
        "kept": int(kept["epoch"]),
        "seconds": facts["seconds"],
        "device": facts["environment"]["device"],
        "threads": facts["environment"].get("threads"),
        "parts": {part: percent(score) for part, score in parts_of(facts).items()},
        "curves": {part: [percent(row, part) for row in rows] for part in parts},
        "losses": {part: [float(row[f"{part}_loss"]) for row in rows] for part in parts},
    }


def experiment(folder: Path, root: Path, figures: dict, references: dict) -> dict | None:
    """All seeds of an experiment that share the recipe of its first; None where nothing is logged."""
    logs = sorted(folder.glob("seed*.csv"), key=lambda path: int(path.stem[4:]))
    if not logs:
        return None
    facts = [read(log.with_suffix(".json")) for log in logs]
    recipe = facts[0]["recipe"]
    same = [all(one["recipe"].get(key, value) == value for key, value in recipe.items()) for one in facts]
    runs = [run(one, log, root) for one, log, is_same in zip(facts, logs, same, strict=True) if is_same]
    weights = read(root / "saved_dict" / f"{folder.name}.json", {})
    found = {
        "name": folder.name,
        "kind": "voxels" if is_voxels(facts[0]) else "image",
        "page": f"{folder.relative_to(root).as_posix()}/",
        "model": recipe["model"],
        "data": recipe["data"],
        "parameters": facts[0]["parameters"],
        "epochs": facts[0]["epochs"],
        "stopped": bool(recipe.get("patience")),
        "recipe": recipe,
        "weights": {"file": f"saved_dict/{folder.name}.pth", **{key: weights[key] for key in ("sha256", "bytes")}} if weights else None,
        **{key: spread([one[key] for one in runs]) for key in ("test", "train", "seconds")},
        "runs": runs,
    }
    figure = figures.get(folder.name)
    if figure:
        found["reported"] = {**references.get(figure["reference"], {}), **figure}
    return found


def said(fields: dict) -> str:
    return ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in fields.items())


def study(path: Path, root: Path) -> dict:
    """A study: each recipe that was tried to its end, with its seeds' accuracies on held-out images. The one that was published for the
    experiment (in as many epochs as were tried) or else the best is given by all that varies, the others by what differs from it.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    trials = [trial for trial in map(json.loads, filter(str.strip, lines)) if not trial.get("pruned")]
    recipes = [trial["recipe"] for trial in trials]
    varied = [key for key in recipes[0] if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1] if recipes else []
    published = read(root / "logs" / path.stem / "seed0.json", {}).get("recipe")
    tried: dict[str, dict[int, float]] = {}
    for trial in trials:  # of a repeated seed the last run counts
        tried.setdefault(json.dumps({key: trial["recipe"].get(key) for key in varied}), {})[trial["seed"]] = percent(trial["valid"])
    rows = [
        {"recipe": json.loads(recipe), **spread(list(seeds.values())), "values": list(seeds.values())} for recipe, seeds in tried.items()
    ]
    rows.sort(key=lambda row: -row["mean"])
    for row in rows:
        row["kept"] = bool(published) and all(published.get(key) == value for key, value in row["recipe"].items() if key not in SHORTENED)
    middle = next((row for row in rows if row["kept"]), rows[0] if rows else None)
    for row in rows:
        differs = {key: value for key, value in row["recipe"].items() if value != middle["recipe"][key]}
        row["what"] = said(differs) if differs else f"{'kept' if row['kept'] else 'best'}: {said(row['recipe']) or 'the recipe as it is'}"
    held, epochs = ([recipe[key] for recipe in recipes] for key in ("valid", "epochs"))
    return {"name": path.stem, "log": path.relative_to(root).as_posix(), "held": max(held), "epochs": max(epochs), "rows": rows}


def benchmark(root: Path) -> dict | None:
    """The published measurements: seconds of each side of each comparison."""
    path = root / "logs" / "benchmarks" / "cpu.json"
    if not path.is_file():
        return None
    found = read(path)
    usual, later = found["environment"], found.get("later", {})
    rows = [
        {
            "what": what,
            "side": side,
            "seconds": sorted(one["seconds"] for one in times),
            "accuracy": times[0].get("accuracy"),
            "on": later.get(what, usual)["device"],
        }
        for what, sides in found["rows"].items()
        for side, times in sides.items()
    ]
    return {"log": path.relative_to(root).as_posix(), "rows": rows}


def results(root: Path, commit: str) -> dict:
    """Everything that the charts show."""
    sources = read(root / "references.json", {})
    figures, references = sources.get("figures", {}), sources.get("references", {})
    folders = sorted(path for path in (root / "logs").iterdir() if path.is_dir())
    found = [experiment(folder, root, figures, references) for folder in folders]
    return {
        "commit": commit,
        "experiments": [one for one in found if one],
        "studies": [study(path, root) for path in sorted((root / "logs" / "trials").glob("*.jsonl"))],
        "field": sources.get("field", []),
        "benchmark": benchmark(root),
    }


def link(text: str, address: str) -> str:
    """A link as HTML: to a file of the site, which Sphinx does not know."""
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'


def shown(value: dict) -> str:
    """Mean ± standard deviation of accuracies."""
    return f"{value['mean']:.2f}" + (f" ± {value['sd']:.2f}" if value["sd"] is not None else "")


def accuracy_table(experiments: list[dict], up: str = "") -> str:
    """Accuracy, parameters and seconds of every experiment, the reference's figure beside them where it has one. up: from page to root."""
    reported = any("reported" in one for one in experiments)
    header = ["experiment", "test, %", "seeds", "parameters", "seconds", *["reported"] * reported]
    rows = []
    for one in sorted(experiments, key=lambda one: -one["test"]["mean"]):
        figure = one.get("reported", {})
        source = link(f"{figure['test']:g}", figure["address"]) if figure.get("address") else figure.get("test") or "–"
        cells = [link(one["name"], up + one["page"]), shown(one["test"]), one["test"]["n"], f"{one['parameters']:,}"]
        rows.append([*cells, f"{one['seconds']['mean']:,.0f}", *[source] * reported])
    return table(header, rows, right=tuple(header[1:]))


def seeds_table(one: dict, up: str = "") -> str:
    """Every seed of an experiment with its log."""
    parts = [part for part in ("upright", "rotated") if one["runs"][0]["parts"]]
    header = ["seed", "test, %", *parts, "train, %", "best epoch", "seconds", "log"]
    rows = []
    for seed in one["runs"]:
        best = f"{seed['best']['percent']:.2f} in {seed['best']['epoch']}" + (" (held out)" if seed["best"]["part"] == "valid" else "")
        logs = " ".join(link(text, up + seed["log"].replace(".csv", text)) for text in (".csv", ".json"))
        numbers = [f"{seed['test']:.2f}", *(f"{seed['parts'][part]:.2f}" for part in parts), f"{seed['train']:.2f}"]
        rows.append([seed["seed"], *numbers, best, f"{seed['seconds']:,.0f}", logs])
    return table(header, rows, right=tuple(header[1:-1]))


def field_table(field: list[dict]) -> str:
    rows = [
        [f"{one['parameters']:,}", f"{one['accuracy']:g}", "yes" if one["selected_on_test"] else "no", one["conditions"]] for one in field
    ]
    return table(["parameters", "test, %", "chosen on the test set", "conditions"], rows, right=("parameters", "test, %"))


def study_table(one: dict) -> str:
    rows = [[row["what"], shown(row), row["n"]] for row in one["rows"]]
    return table(["recipe, or what differs from it", "held-out images, %", "seeds"], rows, right=("held-out images, %", "seeds"))


def benchmark_table(found: dict) -> str:
    rows = []
    for row in found["rows"]:
        times = row["seconds"]
        between = f"{times[0]:.2f} to {times[-1]:.2f}" if len(times) > 1 else "–"
        reached = f"{row['accuracy']:.2f}" if row["accuracy"] else "–"
        rows.append([row["what"], row["side"], f"{statistics.median(times):.2f}", between, len(times), reached, row["on"]])
    header = ["what", "how", "median, s", "smallest to largest", "n", "reached, %", "on"]
    return table(header, rows, right=("median, s", "n", "reached, %"))


def experiment_page(one: dict) -> str:
    """logs/NAME/index.md: what the repository holds about one experiment."""
    images = one["recipe"].get("images")
    facts = [f"**{shown(one['test'])} %** on the test set ({one['test']['n']} seeds)", f"{one['parameters']:,} parameters"]
    facts += [f"data `{one['data']}`", f"{one['epochs']} × {images:,} images" if images else f"{one['epochs']} epochs"]
    if one["stopped"]:
        facts.append("the epoch that is best on held-out training images; the test set is looked at once")
    lines = ["---", "hide-toc: true", "---", f"# {one['name']}", "", " · ".join(facts), ""]
    if "reported" in one:
        figure = one["reported"]
        name = link(figure["name"], figure["address"]) if figure.get("address") else html.escape(figure.get("name", "its reference"))
        note = f" ({html.escape(figure['note'])})" if figure.get("note") else ""
        lines += [f"Reported: {figure['test']:g} %{note}. {name}, {html.escape(figure.get('where', ''))}.", ""]
    if one["weights"]:
        size = f"{one['weights']['bytes'] / 1024:,.0f} KB"
        lines += [f"State dict of the first seed: {link(one['name'] + '.pth', '../../' + one['weights']['file'])} ({size})  "]
        lines += [f"SHA-256 <code class='hash'>{one['weights']['sha256']}</code>", ""]
    for what, title in (("curves", "Accuracy by epoch"), ("losses", "Loss by epoch")):
        lines += [f"## {title}", "", f'<figure class="chart" data-chart="{what}" data-experiment="{one["name"]}"></figure>', ""]
    recipe = [[f"`{key}`", f"`{value}`"] for key, value in one["recipe"].items() if key not in NOT_SHOWN]
    lines += ["## Seeds", "", seeds_table(one, "../../"), "", "## Recipe", "", table(["field", "value"], recipe), ""]
    return "\n".join(lines)


def studies(found: dict, up: str = "", heading: str = "###") -> str:
    """Every study: its chart, its table, its file."""
    chart = '<figure class="chart" data-chart="study" data-study="{}"></figure>'
    parts = [
        [
            f"{heading} {one['name']}",
            f"Held-out images: {one['held']:,}; epochs: {one['epochs']}.",
            chart.format(one["name"]),
            study_table(one),
            link("all trials", up + one["log"]),
        ]
        for one in found["studies"]
    ]
    return "\n\n".join(part for one in parts for part in one) or "No study is published yet."


def pages(found: dict) -> Iterator[tuple[str, str]]:
    """(path below the pages' source, Markdown) of all that is written from results.json."""
    for one in found["experiments"]:
        yield f"{one['page']}index.md", experiment_page(one)
    for kind in ("image", "voxels"):
        yield f"tables/{kind}.md", accuracy_table([one for one in found["experiments"] if one["kind"] == kind])
    yield "tables/field.md", field_table(found["field"]) if found["field"] else "No figure of others is listed yet."
    seeds = [f"### {one['name']}\n\n{seeds_table(one)}" for one in found["experiments"]]
    yield "tables/seeds.md", "\n\n".join(seeds)
    yield "tables/studies.md", studies(found)
    speed = found["benchmark"]
    measured = benchmark_table(speed) if speed else "No benchmark is published yet."
    yield "tables/benchmark.md", measured
    front = "---\nhide-toc: true\norphan: true\n---\n"
    yield "logs/trials/index.md", f"{front}# Studies\n\n{studies(found, '../../', '##')}\n"
    files = f'<figure class="chart" data-chart="benchmark"></figure>\n\n{link(speed["log"], "../../" + speed["log"])}\n\n' if speed else ""
    yield "logs/benchmarks/index.md", f"{front}# Benchmarks\n\n{files}{measured}\n"
