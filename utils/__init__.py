"""The course's library: imports point downward only (see README, Layout)."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository


class CourseError(RuntimeError):
    """Something the reader can fix; the message says what was found, what was expected and what to do."""


class Interrupted(CourseError):
    """Ctrl-C or SIGTERM: no further run is to be begun. history: the rows of the epochs that are safe on disk."""

    def __init__(self, message: str, history: Iterable[dict[str, float]] = ()):
        super().__init__(message)
        self.history = list(history)


def smoke() -> bool:
    """Whether COURSE_SMOKE asks for a smoke run: a few hundred images, one epoch, results to a temporary folder."""
    return os.environ.get("COURSE_SMOKE", "0") not in ("", "0")


def closest(name: str, known: Iterable[str]) -> str:
    """The known names nearest to a mistyped one, or all of them if none is near: "this or that"."""
    known = sorted(known)
    return " or ".join(get_close_matches(name, known, 3, 0.4) or known)
