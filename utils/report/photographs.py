"""How well photographs are read: the measurements of tools.photographs, and their table."""

from dataclasses import dataclass

from .. import ROOT, files
from ..runs import facts
from . import tables

PATH = ROOT / "logs" / "benchmarks" / "photographs.json"
KINDS = ("plain page", "hard shadow", "tight crop", "form cell", "circle", "double frame", "screenshot border")
KINDS += ("part of a frame", "frame that touches the digit", "circle that crosses the digit")


@dataclass(frozen=True)
class Kind:
    """Photographs of one kind: how many, how many were read correctly, rejected with a message, and read as another
    digit."""

    n: int
    correct: int
    rejected: int
    wrong: int

    def __post_init__(self):
        if (
            min(self.correct, self.rejected, self.wrong) < 0
            or self.correct + self.rejected + self.wrong != self.n
            or not self.n
        ):
            raise ValueError(
                f"{self.correct} + {self.rejected} + {self.wrong} of {self.n}: expected parts of one or more photographs"
            )


@dataclass(frozen=True)
class Photographs:
    network: str
    kinds: dict[str, Kind]
    code: facts.Code
    environment: facts.Environment
    finished: str


def section() -> str:
    """The table of docs/photographs.md."""
    if not PATH.exists():
        return f"Not measured yet: `{files.display_path(PATH)}` does not exist (`python -m tools.photographs`)."
    found = files.read_json(PATH, Photographs, "`python -m tools.photographs` writes it.")
    rows = [
        [name, one.n, *(f"{100 * part / one.n:.1f}" for part in (one.correct, one.rejected, one.wrong))]
        for name, one in found.kinds.items()
    ]
    table = tables.table(
        ["photographs", "n", "correct %", "rejected %", "wrong %"], rows, right="n correct % rejected % wrong %"
    )
    where = tables.escape(f"torch {found.environment.torch}, {found.finished[:10]}")
    return f"{table}\n\n{tables.escape(found.network)}, test images of MNIST on generated pages, {where}."
