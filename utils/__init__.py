"""The course's library: imports point downward only (see README, Layout)."""

import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository


def printable(text: str) -> str:
    """Text whose control characters, such as a terminal's escape sequences in a name from a file, are written by their numbers."""
    return "".join(mark if mark.isprintable() or mark == "\u00a0" else mark.encode("unicode_escape").decode() for mark in text)


class CourseError(RuntimeError):
    """Something the reader can fix; the message says what was found, what was expected and what to do."""

    def __str__(self) -> str:
        return printable(super().__str__())


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


def others_at_work() -> bool:
    """Whether Linux has a process running besides this one, three times in a row; elsewhere False."""
    with suppress(OSError):
        for _ in range(3):
            running = re.search(r"procs_running (\d+)", Path("/proc/stat").read_text())
            if running is None or int(running[1]) <= 1:
                return False
            time.sleep(0.001)
        return True
    return False


# OpenMP's threads spin while they wait for each other: the fastest way on an idle machine, a standstill where another process keeps the one
# that is waited for from running. There they sleep; no bit depends on it. OpenMP reads this when torch loads it, and what is set stays.
if "torch" not in sys.modules and not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} and others_at_work():
    os.environ["OMP_WAIT_POLICY"] = "passive"
