"""Imports point downward only, and what reads measurements never imports what measures."""

import ast
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from utils import ROOT

LAYERS = ("utils", "utils.files", "utils.experiments utils.models utils.layers utils.data", "utils.training")
LAYERS += ("utils.runs", "utils.report", "tools", "train")
READERS = ("report", "measurements", "verify", "site")


def modules() -> dict[str, Path]:
    paths = [*(ROOT / "utils").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "train.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


def imported(name: str, source: str) -> set[str]:
    """The course's modules that a module's source imports, at its top or in its functions."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = [f"{module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else module for name in names}
    return {module for module in found if module in MODULES} - {name}


def layer(name: str) -> int:
    """The place of a module's layer, counted from below."""
    prefixes = [(prefix, place) for place, group in enumerate(LAYERS) for prefix in group.split()]
    return max((len(prefix), place) for prefix, place in prefixes if f"{name}.".startswith(f"{prefix}."))[1]


def upward(sources: dict[str, str]) -> list[str]:
    """Imports that point to a higher layer, and reading that imports measuring; CycleError for a cycle."""
    arrows = {name: imported(name, source) for name, source in sources.items()}
    # a package's own module imports its parts, and their import runs it first: that is no cycle
    parts = {name: {one for one in found if not name.startswith(f"{one}.")} for name, found in arrows.items()}
    TopologicalSorter(parts).prepare()
    readers = tuple(f"tools.{reader}" for reader in READERS)
    wrong = [(a, b) for a in arrows for b in arrows[a] if layer(b) > layer(a)]
    wrong += [(a, b) for a in arrows if a.startswith(readers) for b in arrows[a] if b.startswith("tools.speed")]
    return [f"{a} imports {b}" for a, b in wrong]


def sources() -> dict[str, str]:
    return {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}


def test_imports_point_downward_only():
    assert upward(sources()) == []
    assert imported("utils", MODULES["utils"].read_text(encoding="utf-8")) == set()


def test_an_import_that_points_upward_is_noticed():
    for module, line in (
        ("utils.data.voxels", "def late():\n    from ..training import loops"),
        ("utils.runs.records", "from tools import report"),
        ("tools.measurements", "from tools.speed import measure"),
    ):
        changed = sources()
        changed[module] += f"\n{line}\n"
        with suppress(CycleError):
            assert upward(changed)
