"""What becomes of a notebook on its way to the site."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.site import __main__ as tool
from tools.site import pages
from tools.site.__main__ import SITE
from utils.experiments import EXPERIMENTS
from utils.runs import records

BADGE = "[![Open in Colab](https://elsewhere.org/badge.svg)](https://colab.elsewhere.org/notebook)"
LINKS = "See [its log](../logs/base) and [the loop](../utils/training/loops.py) and [this](../LICENSE)."


def test_links_lead_somewhere_pictures_say_what_they_show_and_setup_and_solutions_are_folded(tmp_path):
    """A picture's text is what its author wrote; without it, where the picture stands."""
    path, data = tmp_path / "01_try.ipynb", {"image/png": "iVBORw0KGgo="}
    picture = new_output("display_data", data=data, metadata={"image/png": {"alt": "Ten curves"}})
    title, setup = new_markdown_cell(f"{BADGE}\n\n# 01 · Try\n\n{LINKS}"), new_code_cell("# Setup: finds the course")
    plot = new_code_cell("plots.feature_maps(model)", outputs=[picture, new_output("display_data", data=data)])
    nbformat.write(new_notebook(cells=[title, setup, new_markdown_cell("## Results"), plot]), path)
    for is_solution, tags in ((True, ["hide-cell"]), (False, None)):
        cells = nbformat.reads(pages.notebook(path, is_solution), as_version=4).cells
        assert [cell.metadata.get("tags") for cell in cells] == [None, ["hide-input"], None, tags]
    title, _, _, plot = cells
    assert "badge.svg" not in title.source
    assert "[Open in Colab](https://colab.elsewhere.org/notebook)" in title.source
    assert '<a href="../logs/base/">its log</a>' in title.source and "this (`LICENSE`)" in title.source
    assert "[the loop](../api/utils.training.loops.md)" in title.source
    assert plot.metadata["mystnb"]["image"]["alt"] == f"Ten curves{pages.BESIDE}Results: a figure"


def test_lessons_and_logs_link_to_each_other():
    published = [one for one in EXPERIMENTS.values() if one.notebook and records.published(one)]
    assert len(published) > 20
    for one in published:
        lesson, log = f"notebooks/{one.notebook}.html", f"logs/{one.name}/index.html"
        assert f'href="../{log}"' in (SITE / lesson).read_text(encoding="utf-8")
        assert f'href="../../{lesson}"' in (SITE / log).read_text(encoding="utf-8")


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    pages.write(tmp_path / "other.html", '<p id="there">')
    pages.write(tmp_path / "index.html", '<a href="other.html#there"></a><a href="https://elsewhere.org">')
    assert tool.broken_links(tmp_path) == []
    wrong = ("gone.html", "other.html#gone", "../secret.html", "/other.html", "javascript:alert(1)")
    text = "".join(f'<a href="{address}"></a>' for address in wrong)
    pages.write(tmp_path / "index.html", f'{text}<script src="https://elsewhere.org/x.js"></script>')
    assert len(tool.broken_links(tmp_path)) == len(wrong) + 1
