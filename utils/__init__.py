"""The course's library: imports point downward only (see README, Layout)."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository


class CourseError(RuntimeError):
    """Something the reader can fix; the message says what was found, what was expected and what to do."""


def smoke() -> bool:
    """Whether COURSE_SMOKE asks for a smoke run: a few hundred images, one epoch, results to a temporary folder."""
    return os.environ.get("COURSE_SMOKE", "0") not in ("", "0")
