"""The source that Sphinx reads: site/pages/, docs/, the notebooks with their outputs, a page for each module and
experiment."""

import ast
import json
import re
import shutil
from pathlib import Path

import nbformat

from tools import colab, report
from tools.site import results
from utils import ROOT
from utils.experiments import EXPERIMENTS
from utils.report.tables import Markup, table
from utils.runs import records

PAGES = ROOT / "site" / "pages"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./(?:\.\./)*[^)\s#]+)\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(\.\./(pngs/[^)\s]+)\)")
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
BESIDE = " ¶ "  # MyST-NB knows one text for all pictures of a cell; conf.py parts them again
RECORDING, STILL = "live.webp", "live.png"  # tests/site/test_recording.py makes them


def size(one: dict) -> str:
    return f"{one['parameters']:,} parameters"


def file_size(one: dict) -> str:
    return f"{(ROOT / one['weights']['file']).with_suffix('.bin').stat().st_size:,} bytes"


HIGHLIGHTS = (  # experiment, what it stands for, and what it took
    ("frontier_best", "Best network", size),
    ("frontier_99_5", "A small network", size),
    ("frontier_99", "A very small network", size),
    ("bytes_99_5", "A network in one QR code", file_size),
    ("sprint", "Trained on two CPU cores", lambda one: f"{one['seconds']['mean']:.1f} seconds"),
    ("voxel_frontier", "Solids in 3D, half of them rotated", size),
)
BOOTSTRAP = "finds the course"  # in the first line of the cell that every notebook shares


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def reachable(match: re.Match) -> str:
    """A link to a file of the repository, as the site has it: logs and weights as they are, modules as their page."""
    text, target = match.groups()
    if target.endswith(".ipynb"):
        return results.link(Markup(text), target.removesuffix(".ipynb") + ".html")
    module = re.fullmatch(r"((?:\.\./)+)((?:utils|tools)/[\w/]+)\.py", target)
    if module:
        return f"[{text}](../api/{module[2].replace('/', '.')}.md)"
    if re.match(r"(\.\./)+(logs|saved_dict)/.", target):
        is_folder = not Path(target).suffix
        return results.link(Markup(text), target.rstrip("/") + "/" * is_folder)
    return f"{text} (`{re.sub(r'^(../)+', '', target)}`)"


def prose(text: str) -> str:
    """A notebook's Markdown without pictures from elsewhere, and with links that lead somewhere."""
    return LINK.sub(reachable, BADGE.sub(r"[Open in Colab](\1)", text))


def described(cell, heading: str) -> str:
    """Alternative texts for a cell's pictures, between them `BESIDE`: the notebook's own text for each, else the
    heading above it."""
    pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return BESIDE.join(output.metadata.get("image/png", {}).get("alt") or f"{heading}: a figure" for output in pictures)


def notebook(path: Path, is_solution: bool) -> str:
    """A notebook as the site shows it: the bootstrap cell folded, solutions folded, every picture with an alternative
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
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = prose(cell.source)
            heading = next(iter(re.findall(r"^#+ (.*)", cell.source, re.MULTILINE)), heading)
            continue
        is_bootstrap = BOOTSTRAP in cell.source.partition("\n")[0].lower()
        settings = cell.metadata.setdefault("mystnb", {})
        settings["image"] = {"alt": described(cell, heading)}
        fold, prompt = "hide-cell", "A part of the solution"
        if is_bootstrap:
            fold, prompt = "hide-input", "The cell that finds the course, the same in every notebook"
        if is_bootstrap or is_solution:
            cell.metadata.setdefault("tags", []).append(fold)
            settings["code_prompt_show"] = settings["code_prompt_hide"] = prompt
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = prose(output.data["text/markdown"])
    return nbformat.writes(book) + "\n"


def toctree(names: list[str], option: str = ":maxdepth: 1") -> str:
    return "\n".join(["```{toctree}", option, "", *names, "```"])


def notebooks(source: Path) -> int:
    """Stage all notebooks with a page that lists them. Returns how many there are."""
    folder = ROOT / "notebooks"
    paths = sorted(folder.glob("*.ipynb"))
    solutions = sorted(folder.glob("solutions/*.ipynb"))
    for path in [*paths, *solutions]:
        write(source / path.relative_to(ROOT), notebook(path, path in solutions))
    listed = toctree([path.stem for path in paths])
    if solutions:
        listed += "\n\n## Solutions\n\nTry the exercises first. The answers are folded.\n\n"
        listed += toctree([f"solutions/{path.stem}" for path in solutions])
    write(source / "notebooks" / "index.md", f"{(PAGES / 'notebooks.md').read_text(encoding='utf-8')}\n{listed}\n")
    return len(paths)


def docs(source: Path) -> None:
    """Stage the pages of docs/ with the pictures that they show, and a page that lists them."""
    paths = sorted((ROOT / "docs").glob("*.md"))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for picture in PICTURE.findall(text):
            (source / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / picture, source / picture)
        write(source / "docs" / path.name, prose(text))
    listed = toctree([path.stem for path in paths])
    write(source / "docs" / "index.md", f"{(PAGES / 'docs.md').read_text(encoding='utf-8')}\n{listed}\n")


def reference(source: Path) -> None:
    """One page for each module; its first line is the module's own first sentence."""
    rows = []
    for path in sorted([*(ROOT / "utils").rglob("[!_]*.py"), *(ROOT / "tools").rglob("[!_]*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        says = " ".join(text.partition("\n\n")[0].split())
        rows.append((name, says))
        automodule = f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```"
        write(source / "api" / f"{name}.md", f"# {name}\n\n{automodule}\n")
    cells = [[Markup(f"[{name}]({name}.md)"), Markup(says.replace("|", "\\|"))] for name, says in rows]
    listed = table(["module", "subject"], cells)
    hidden = toctree([name for name, _ in rows], ":hidden:")
    write(source / "api" / "index.md", f"{(PAGES / 'api.md').read_text(encoding='utf-8')}\n{listed}\n\n{hidden}\n")


def stage(source: Path, found: dict) -> None:
    """Write the whole source of the pages to `source`; what is no longer part of it goes."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(PAGES, source)
    for name in ("notebooks", "docs", "api"):
        (source / f"{name}.md").unlink()
    count = notebooks(source)
    docs(source)
    reference(source)
    for name, text in results.pages(found):
        write(source / name, text)
    listed = toctree([f"{one['name']}/index" for one in found["experiments"]], ":hidden:")
    compared = results.accuracy_table(found["experiments"], "../")
    text = "Each experiment has a page with its recipe and its seeds. Thin lines are seeds, thick ones their mean."
    curves = '<figure class="chart" data-chart="all-curves"></figure>'
    page = f"{results.FRONT}# Experiments\n\n{text}\n\n{compared}\n\n{curves}\n\n{listed}\n"
    write(source / "logs" / "index.md", page)
    runs = sum(len(one["runs"]) for one in found["experiments"])
    facts = {"notebooks": count, "experiments": len(found["experiments"]), "runs": runs, "lessons": lessons()}
    write(source / "facts.json", json.dumps(facts | {"highlights": highlights(found["experiments"])}))
    for name in (RECORDING, STILL):
        shutil.copyfile(ROOT / "pngs" / name, source / "static" / name)


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
        if name in by_name:
            one = by_name[name]
            test = results.shown_spread(one["test"])
            text = f"{what}: {name}, {value(one)}, mean of {len(one['runs'])} seeds"
            cards.append(f'<a href="{one["page"]}index.html"><strong>{test} %</strong>{text}</a>')
    return f'<div class="cards results">{"".join(cards)}</div>'
