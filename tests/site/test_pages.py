"""What becomes of a notebook on its way to the site."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.site import pages
from tools.site.server import SITE
from utils.experiments import EXPERIMENTS
from utils.runs import records

BADGE = "[![Open in Colab](https://elsewhere.org/badge.svg)](https://colab.elsewhere.org/notebook)"


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "01_try.ipynb"
    picture = new_output(
        "display_data", data={"image/png": "iVBORw0KGgo="}, metadata={"image/png": {"alt": "Ten curves"}}
    )
    untold = new_output("display_data", data={"image/png": "iVBORw0KGgo="})
    cells = [
        new_markdown_cell(
            f"{BADGE}\n\n# 01 · Try\n\n"
            "See [its log](../logs/base) and [the loop](../utils/training/loops.py) and [this](../LICENSE)."
        ),
        new_code_cell(f"# Setup: {pages.BOOTSTRAP}"),
        new_markdown_cell("## Results"),
        new_code_cell("plots.feature_maps(model)", outputs=[picture, untold]),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def staged(path, is_solution=False):
    return nbformat.reads(pages.notebook(path, is_solution), as_version=4).cells


def test_pictures_from_elsewhere_become_links(book):
    text = staged(book)[0].source
    assert "badge.svg" not in text and "[Open in Colab](https://colab.elsewhere.org/notebook)" in text


def test_links_lead_somewhere_on_the_site(book):
    text = staged(book)[0].source
    assert '<a href="../logs/base/">its log</a>' in text
    assert "[the loop](../api/utils.training.loops.md)" in text
    assert "this (`LICENSE`)" in text


def test_pictures_say_what_they_show(book):
    """What their author wrote, each its own; without it, where they stand."""
    assert staged(book)[3].metadata["mystnb"]["image"]["alt"] == f"Ten curves{pages.BESIDE}Results: a figure"


def test_solutions_are_folded_and_the_first_cell_always(book):
    assert [cell.metadata.get("tags") for cell in staged(book)] == [None, ["hide-input"], None, None]
    assert [cell.metadata.get("tags") for cell in staged(book, True)] == [None, ["hide-input"], None, ["hide-cell"]]


def test_a_page_of_docs_is_staged_with_its_pictures_and_links(tmp_path, monkeypatch):
    root, source = tmp_path / "course", tmp_path / "source"
    for folder in ("docs", "pngs"):
        (root / folder).mkdir(parents=True)
    (root / "docs" / "one.md").write_text(
        "# One\n\n![A curve](../pngs/curve.png) [log](../logs/base) [two](two.md#part) [code](../train.py)\n"
    )
    (root / "docs" / "two.md").write_text("# Two\n")
    (root / "pngs" / "curve.png").write_bytes(b"png")
    monkeypatch.setattr(pages, "ROOT", root)
    pages.docs(source)
    assert (source / "pngs" / "curve.png").read_bytes() == b"png"
    text = (source / "docs" / "one.md").read_text()
    assert "![A curve](../pngs/curve.png)" in text and '<a href="../logs/base/">log</a>' in text
    assert "[two](two.md#part)" in text and "code (`train.py`)" in text
    assert "\none\ntwo\n" in (source / "docs" / "index.md").read_text()


def test_lessons_and_logs_link_to_each_other():
    published = [one for one in EXPERIMENTS.values() if one.notebook and records.published(one)]
    assert len(published) > 20
    for one in published:
        lesson, log = f"notebooks/{one.notebook}.html", f"logs/{one.name}/index.html"
        assert f'href="../{log}"' in (SITE / lesson).read_text(encoding="utf-8")
        assert f'href="../../{lesson}"' in (SITE / log).read_text(encoding="utf-8")
