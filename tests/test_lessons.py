"""A lesson has its form: a question, a card, operations by hand, a network to edit, checked claims, an end."""

import re

import nbformat
import pytest
import torch
from torch import nn

from utils import ROOT, layers, models

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_of(cells) -> list[str]:
    """The sources of a lesson's code cells, without the setup cell."""
    return [cell.source for cell in [*cells[:1], *cells[2:]] if cell.cell_type == "code"]


def form_problems(cells) -> list[str]:
    """What a lesson lacks of its form."""
    prose, code = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"), "\n".join(code_of(cells))
    imported = re.findall(r"^from utils\S* import (.*)", code, re.MULTILINE)
    words = len(re.sub(r"```.*?```|\$\$.*?\$\$|\]\([^)]*\)|<[^>]*>", "", prose, flags=re.DOTALL).split())
    ending = prose.partition("\n## Remember\n")[2]
    remember, _, quiz = ending.partition("\n## Quiz\n")
    quiz, _, exercises = quiz.partition("\n## Exercises\n")
    found = {
        "the title asks one question": cells[0].source.splitlines()[0].count("?") == 1,
        "the fourth cell is the card": cells[3].source.count("notebook.card(") == 1,
        "a cell defines the network, and a line checks it": "network = nn.Sequential(" in code
        and "notebook.check_network(network, " in code,
        "runs.run trains that network": "network=network" in code,
        "a claim is checked": "notebook.claim(" in code,
        "an operation equals PyTorch's": "equal to PyTorch's:" in code,
        "at most five imports from utils": len(", ".join(imported).split(", ")) <= 5,
        "code fits in 88 columns": max(map(len, code.splitlines())) <= 88,
        f"500 to 1,300 words, not {words}": 500 <= words <= 1300,
        "three lines to remember": len(re.findall("^- ", remember, re.MULTILINE)) == 3,
        "three questions with folded answers": quiz.count("<details>") == quiz.count("</details>") == 3,
        "exercises": "**Exercise 2.**" in exercises and "(solutions/" in exercises,
    }
    return [name for name, holds in found.items() if not holds]


LESSONS = [path for path in NOTEBOOKS if "notebook.card(" in path.read_text(encoding="utf-8")]


def test_a_lesson_has_its_form_and_what_it_lacks_is_noticed():
    for path in LESSONS:
        assert form_problems(nbformat.read(path, as_version=4).cells) == [], path.name
    moving = [path.name[:2] for path in LESSONS if "notebook.explore(" in path.read_text(encoding="utf-8")]
    assert {"01", "04", "14", "15"} <= set(moving)  # kernels, augmentation, rotation, threshold and temperature
    cells = nbformat.read(LESSONS[0], as_version=4).cells
    for cell in cells:
        cell.source = cell.source.replace("<details>", "").replace("network=network", "")
    assert form_problems(cells) == ["runs.run trains that network", "three questions with folded answers"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_comments_of_the_network_in_a_cell_state_its_shapes_and_receptive_fields(path):
    sources = code_of(nbformat.read(path, as_version=4).cells)
    source = next(code for code in sources if "network = nn.Sequential(" in code)
    definition = source[: source.index("\n)", source.index("network = ")) + 2]
    found, checked = vars(layers) | {"nn": nn}, 0
    exec(definition, found)
    for name, body in re.findall(r"^(\w+) = nn\.Sequential\(\n(.*?)\n\)", definition, re.MULTILINE | re.DOTALL):
        lines = [line for line in body.splitlines() if re.match(r"    \S", line)] if " RF " in body else []
        features = torch.zeros(1, *models.input_shape(found["network"]))
        for number, (layer, line) in enumerate(zip(found[name].eval() if lines else [], lines, strict=True), 1):
            features = layer(features)
            comment = re.search(r"# ([\d×]+)  RF (\d+)", line)
            if comment:
                shape, field = "×".join(map(str, features.shape[1:])), models.receptive_field(found[name][:number])
                assert comment.groups() == (shape, str(field)), line
                checked += 1
    assert checked >= min(8, sum(isinstance(layer, models.SPATIAL) for layer in found["network"].modules())) > 0


def test_each_lesson_links_to_its_neighbors_by_their_titles():
    first = {path: nbformat.read(path, as_version=4).cells[0].source for path in NOTEBOOKS}
    titles = [re.match(r"# (\d\d · [^:]*): ", source)[1] for source in first.values()]
    links = [f"[{title}]({path.name})" for title, path in zip(titles, NOTEBOOKS, strict=True)]
    for path, title, before, after in zip(NOTEBOOKS, titles, ["", *links], [*links[1:], ""], strict=False):
        assert f"Previous: {before}" in first[path] or not before, path.name
        assert f"Next: {after}" in first[path] or not after, path.name
        solution = nbformat.read(path.parent / "solutions" / path.name, as_version=4).cells[0].source
        assert solution.startswith(f"# Solutions to {title}")
