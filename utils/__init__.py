"""The course's library: imports point downward only (see README, Layout)."""

import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository


@dataclass
class Workspace:
    """The folder that holds what is published: logs/, saved_dict/ and references.json. Tests give it another one."""

    root: Path = ROOT


workspace = Workspace()


class CourseError(RuntimeError):
    """Something the reader can fix; the message says what was found, what was expected and what to do."""


class Interrupted(CourseError):
    """Ctrl-C or SIGTERM: no further run is to be begun. history: the rows of the epochs that are safe on disk."""

    def __init__(self, message: str, history: Iterable[dict[str, float]] = ()):
        super().__init__(message)
        self.history = list(history)


def switch(name: str) -> bool:
    """Whether an environment variable is on: 1, true, yes or on; 0, false, no, off, empty and unset are off, in any case of letters.

    Raises CourseError for any other value.
    """
    value = os.environ.get(name, "").strip().lower()
    if value not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise CourseError(f"{name} = {os.environ[name]!r}: expected 1, true, yes or on, or else 0, false, no or off")
    return value in ("1", "true", "yes", "on")


def smoke() -> bool:
    """Whether COURSE_SMOKE asks for a smoke run: a few hundred images, one epoch, results to a temporary folder."""
    return switch("COURSE_SMOKE")


def folder_setting(name: str) -> Path | None:
    """The folder that an environment variable names, with ~ expanded; None if it is empty or unset. Raises CourseError for ~nobody."""
    try:
        return Path(os.environ[name]).expanduser() if os.environ.get(name) else None
    except RuntimeError:
        raise CourseError(f"{name} = {os.environ[name]!r}: ~ stands for no home folder here, expected a path") from None


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
