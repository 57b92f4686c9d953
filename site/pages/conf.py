"""Sphinx's settings. The folder it reads is written by tools.site.pages.py."""

import html
import json
import re
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.images import get_image_size

from tools.site.pages import BESIDE

project = "Small CNNs for MNIST"
author = "the authors of this course"
copyright = "the authors of this course, MIT"
html_title = project
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_math_renderer = "mathml"
exclude_patterns = ["tables"]
templates_path = ["templates"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "gfm"
myst_enable_extensions = [
    "substitution",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "html_image",
    "dollarmath",
    "amsmath",
]
myst_substitutions = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]

# what only some commands need may be missing where the pages are built
autodoc_mock_imports = [
    name for name in ("dask", "distributed", "optuna", "onnxruntime", "visualtorch") if find_spec(name) is None
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_favicon = "static/icon.svg"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/course.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', Arial, sans-serif"
)
html_theme_options = {
    "light_css_variables": {
        "font-stack": FONT,
        "color-brand-primary": "#2a5db0",
        "color-brand-content": "#2a5db0",
        "color-brand-visited": "#2a5db0",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8ab4ff",
        "color-brand-content": "#8ab4ff",
        "color-brand-visited": "#8ab4ff",
    },
}


def as_written(app, what, name, thing, options, lines):
    """Docstrings are plain text: indented blocks are shown verbatim, and in the rest only backticks are markup."""
    text = "" if lines[:1] and lines[0].startswith("Alias for field number") else "\n".join(lines)
    shown = []
    for block in re.split(r"\n\s*\n", text):
        if re.search(r"^ {4,}", block, re.MULTILINE) or ("→" in block and "\n  " in block):
            shown.append("::\n\n" + "\n".join(f"   {line}" for line in block.splitlines()))
        else:
            parts = re.split(r"(`+)(.+?)\1", " ".join(block.split()))
            plain = [re.sub(r"([*_|\\])", r"\\\1", parts[0])]
            for code, after in zip(parts[2::3], parts[3::3], strict=True):
                plain += [f"``{code}``", re.sub(r"([*_|\\])", r"\\\1", after)]
            shown.append("\\ ".join(part for part in plain if part))
    lines[:] = [*"\n\n".join(shown).splitlines(), ""]


NO_SCRIPT = "<noscript>The charts need JavaScript. The tables hold their numbers.</noscript>"


def for_everybody(app, page, template, context, tree):
    """Add descriptions of pages, and names and keyboard access for scrolling and folding parts."""
    for paragraph in tree.findall(nodes.paragraph) if tree else ():
        text = html.escape(" ".join(paragraph.astext().split())[:200])
        context["metatags"] += (
            f'<meta name="description" content="{text}"><meta property="og:description" content="{text}">'
        )
        break
    if "body" in context:
        body = context["body"].replace("<pre>", '<pre tabindex="0">').replace(' aria-label="Toggle hidden content"', "")
        body = body.replace('<figure class="chart"', NO_SCRIPT + '<figure class="chart"', 1)
        context["body"] = body.replace('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper')


def each_its_own_text(app, doctree):
    """MyST-NB gives all pictures of a cell one alternative text; tools.site.pages.py has put those of all into it."""
    for cell in doctree.findall(lambda node: "cell_output" in getattr(node, "attributes", {}).get("classes", ())):
        pictures = list(cell.findall(nodes.image))
        for picture, text in zip(pictures, pictures[0]["alt"].split(BESIDE) if pictures else (), strict=True):
            picture["alt"] = text


def loaded_when_reached(app, doctree):
    """Pictures load when the reader scrolls to them; until then, their size reserves the space."""
    for picture in doctree.findall(nodes.image):
        width, height = get_image_size(app.srcdir / picture["uri"])
        picture.attributes |= {"loading": "lazy", "width": str(width), "height": str(height)}


# what docutils does not know by the name that the notebooks use
SPELLED = ((r"\\(big{1,2}|Big{1,2})(?![a-zA-Z])", r"\\\1l"), (r"\\dots(?![a-z])", r"\\ldots"), ("°", r"\\text{°}"))


def mathml(translator, node):
    """A formula as MathML, which browsers draw. One that can't be converted is a warning, which ends the build."""
    text, is_block = node.astext(), isinstance(node, nodes.math_block)
    for pattern, other in SPELLED:
        text = re.sub(pattern, other, text)
    try:
        formula = tex2mathml(text, as_block=is_block)
    except (MathError, IndexError) as error:
        logging.getLogger(__name__).warning("the formula %r can't be shown: %s", text, error, location=node)
        formula = ""
    translator.body.append(f'<div class="formula" tabindex="0">{formula}</div>\n' if is_block else formula)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("doctree-read", each_its_own_text)
    app.connect("doctree-read", loaded_when_reached)
    app.connect("html-page-context", for_everybody)
    app.connect("autodoc-process-docstring", as_written)
