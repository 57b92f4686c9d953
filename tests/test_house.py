"""The house keeps its order: imports point downward, modules and functions fit in a head, and no measured number is typed by hand."""

import ast
import io
import re
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nbformat
import pytest

from utils import ROOT

UTILS = sorted((ROOT / "utils").glob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))
SOURCES = [*UTILS, *TOOLS, ROOT / "train.py", ROOT / "hubconf.py"]
LONG = {"models.py", "experiments.py"}  # as many networks and recipes as there are
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(source: str, package: str = "utils") -> set[str]:
    """The modules that a source imports from a package, at its top, in its functions or for type checkers; "" is the package itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix(package).lstrip(".") for alias in node.names if alias.name.split(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found |= {alias.name for alias in node.names} if node.module is None else {node.module}
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            modules = {path.stem for path in (ROOT / package).glob("*.py")}
            found |= {alias.name if alias.name in modules else "" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == package:
            found.add(node.module.removeprefix(f"{package}."))
    return found


def require_downward(sources: dict[str, str]) -> list[str]:
    """An order in which every module comes after what it imports. Raises CycleError where there is none."""
    return list(TopologicalSorter({module: imported(source) - {""} for module, source in sources.items()}).static_order())


def test_imports_point_downward_only():
    sources = {path.stem: path.read_text() for path in UTILS if path.stem != "__init__"}
    order = require_downward(sources)
    assert set(order) == set(sources)
    stands = order.index
    for lower, upper in (
        ("files", "records"),
        ("experiments", "data"),
        ("models", "plans"),
        ("cpu", "runs"),
        ("loops", "runs"),
        ("records", "tables"),
    ):
        assert stands(lower) < stands(upper)
    assert not imported((ROOT / "utils" / "__init__.py").read_text()), "utils itself stands below all of its modules"


@pytest.mark.parametrize("line", ["from utils import runs", "import utils.runs.runs", "def late():\n    from utils.runs import run"])
def test_an_import_that_points_upward_is_noticed(line):
    sources = {path.stem: path.read_text() for path in UTILS if path.stem != "__init__"}
    sources["files"] += f"\n{line}\n"
    with pytest.raises(CycleError):
        require_downward(sources)


@pytest.mark.parametrize("path", UTILS, ids=name)
def test_no_module_of_utils_imports_one_of_tools(path):
    source = path.read_text()
    assert not imported(source, "tools") and not imported(source, "train")
    assert imported(source + "\nfrom tools import report", "tools") == {"report"}


def test_a_network_knows_nothing_of_speed():
    for module in ("models", "layers"):
        assert "cpu" not in imported((ROOT / "utils" / f"{module}.py").read_text())


def long_functions(source: str) -> list[str]:
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in functions
        if node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    ]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_modules_fit_in_a_head_and_functions_on_a_screen(path):
    source = path.read_text()
    assert path.name in LONG or source.count("\n") <= MOST_LINES
    assert long_functions(source) == []


def test_a_long_function_is_noticed():
    assert long_functions("def f():\n" + "    pass\n" * MOST_LINES_OF_A_FUNCTION) == ["f: 61 lines"]


# ---- numbers

MEASURED = {
    "an accuracy": re.compile(r"(?<![\d.,])9\d\.\d\d?(?![\d.])(?!°)"),
    "a time": re.compile(r"(?<![\d.,])\d+(\.\d+)? ?(s|seconds?|min|minutes?|h|hours?)\b(?! each (may|at most))"),
}
TARGETS = re.compile(r"(9\d(\.\d)?(, | and ))*9\d(\.\d)? ?%")  # what is aimed at, not what was measured: 99 %, 99.4 %, 99.5 %


def typed(text: str) -> list[str]:
    """Accuracies and times that stand in a text; what a link is called, such as a paper's title, is its source's own."""
    aimed = TARGETS.sub("", re.sub(r"\[[^\]]*\]\(http[^)]*\)", "", text))
    return [found[0] for pattern in MEASURED.values() for found in pattern.finditer(aimed)]


def message(source: str) -> str:
    """Comments and docstrings of a Python source."""
    tree = ast.parse(source)
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, holders)]
    comments = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT]
    return "\n".join(texts + comments)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_accuracy_and_no_time_is_typed_in_comments_and_docstrings(path):
    assert typed(message(path.read_text())) == []


NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9a-z]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_no_accuracy_and_no_time_is_typed_in_a_notebook(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    comments = [line.split("#", 1)[1] for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines() if "# " in line]
    assert typed("\n".join(prose + comments)) == []


def test_no_accuracy_and_no_time_is_typed_in_readme():
    """Outside the sections that are written from the logs, and outside code and what it prints, which a test runs."""
    text = (ROOT / "README.md").read_text()
    prose = re.sub(r"<!-- ([\w ]+): written by .*?<!-- end of \1 -->|```.*?```", "", text, flags=re.DOTALL)
    assert len(prose) < len(text) and typed(prose) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("it reached 98.74", ["98.74"]),
        ("98.54 ± 0.27 %", ["98.54"]),
        ("that gave 99.5 in the end", ["99.5"]),
        ("needs 8 minutes", ["8 minutes"]),
        ("99, 99.4 and 99.5 %", []),
        ("took 3.2 s", ["3.2 s"]),
        ("99.4 % in the least time, 99 % first, then 99.5 %", []),
        ("torch 2.6, numpy 1.26, lr 0.04104, 95 of 100, ±90.0°", []),
        ("[94 % in 3.29 seconds](https://example.org)", []),
        ("7,634 parameters, version 99.1.2", []),
    ],
)
def test_a_typed_number_is_noticed_and_a_target_is_not(text, found):
    assert typed(text) == found
