"""Imports point downward only, and what reads measurements never imports what measures."""

import ast
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name

from utils import ROOT

LAYERS = ("utils", "utils.files", "utils.experiments utils.models utils.layers utils.data", "utils.training")
LAYERS += ("utils.runs", "utils.report", "tools", "train")
READERS = ("tools.report", "tools.measurements", "tools.verify", "tools.site")
PATHS = [*(ROOT / "utils").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "train.py"]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in PATHS}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}


def imported(name: str, source: str) -> set[str]:
    """The course's modules that a module's source imports, at its top or in its functions."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else module for name in names}
    return (found & MODULES.keys()) - {name}


def layer(name: str) -> int:
    """The place of a module's layer, counted from below."""
    prefixes = [(prefix, place) for place, group in enumerate(LAYERS) for prefix in group.split()]
    return max((len(prefix), place) for prefix, place in prefixes if f"{name}.".startswith(f"{prefix}."))[1]


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """Imports that point to a higher layer, and reading that imports measuring; CycleError for a cycle."""
    # a package's own module imports its parts, and their import runs it first: that is no cycle
    TopologicalSorter(
        {name: {one for one in found if not name.startswith(f"{one}.")} for name, found in arrows.items()}
    ).prepare()
    measures = lambda a, b: a.startswith(READERS) and b.startswith("tools.speed")  # noqa: E731
    return [f"{a} imports {b}" for a in arrows for b in arrows[a] if layer(b) > layer(a) or measures(a, b)]


def test_imports_point_downward_only_and_one_that_points_upward_is_noticed():
    arrows = {name: imported(name, source) for name, source in SOURCES.items()}
    assert upward(arrows) == [] and not arrows["utils"]
    for name, line in (
        ("utils.data.voxels", "def late():\n    from ..training import loops"),
        ("utils.runs.records", "from tools import report"),
        ("tools.measurements", "from tools.speed import measure"),
    ):
        with suppress(CycleError):
            assert upward(arrows | {name: imported(name, f"{SOURCES[name]}\n{line}\n")})
