"""The course's library: imports point downward only."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository


@dataclass
class Workspace:
    """The folder that holds what is published: logs/, saved_dict/ and references.json. Tests give it another one."""

    root: Path = ROOT


workspace = Workspace()


def printable(text: str) -> str:
    """Text with escaped control characters, such as a terminal's escape sequences in a file's name."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


class CourseError(RuntimeError):
    """A problem that the reader can fix. The message states what was found, what was expected and what to do."""

    def __str__(self) -> str:
        return printable(super().__str__())


class Interrupted(CourseError):
    """Ctrl-C or SIGTERM: no further run begins."""


def switch(name: str) -> bool:
    """Whether an environment variable is on: 1, true, yes or on, or off: 0, false, no, off, empty or unset.

    Raises CourseError for any other value.
    """
    value = os.environ.get(name, "").strip().lower()
    if value not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        found = os.environ[name][:80]
        raise CourseError(f"{name} = {found!r}: expected 1, true, yes or on, or else 0, false, no or off")
    return value in ("1", "true", "yes", "on")


def smoke() -> bool:
    """Whether COURSE_SMOKE requests a smoke run: a few hundred images, one epoch, results in a temporary folder."""
    return switch("COURSE_SMOKE")


def folder_setting(name: str) -> Path | None:
    """The folder that an environment variable names, with ~ expanded, or None."""
    return Path(os.environ[name]).expanduser() if os.environ.get(name) else None


def closest(name: str, known: Iterable[str]) -> str:
    """The known names nearest to a mistyped one, or all of them if none is near: "this or that"."""
    known = sorted(known)
    return " or ".join(get_close_matches(name, known, 3, 0.4) or known)
