"""One process at a time: a second one reads who the first one is, and a dead process holds no lock."""

import os
import platform
from contextlib import suppress
from pathlib import Path

import filelock

from .. import CourseError, files
from ..files import display_path
from . import facts


class AlreadyRunning(CourseError):
    """Another process holds the lock; the message names it."""


class Lock:
    """`with Lock(path, "base, seed 0,"):` holds the operating system's lock on `path` while the block runs.

    The lock ends with its process, however that ends. A second file names the holder.
    """

    def __init__(self, path: Path, title: str):
        self.path, self.title, self.holder = path, title, path.with_suffix(".holder")
        self._lock = filelock.FileLock(path, timeout=0)

    def __enter__(self) -> "Lock":
        """Raise AlreadyRunning if a living process holds it, CourseError if its files can't be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            files.write(self.holder, f"process {os.getpid()} on {platform.node()} since {facts.now()}".encode())
        except filelock.Timeout:
            raise AlreadyRunning(
                f"{self.title} is already running: {self._who()} holds {display_path(self.path)}. "
                "Wait until it ends, or end it."
            ) from None
        except OSError as error:
            what = f"{display_path(self.path)} could not be written ({error.strerror or error})"
            todo = "Make the folder writable; your own runs go elsewhere if COURSE_RUNS names another folder."
            raise CourseError(f"{what}. {todo}") from error
        except CourseError:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                self.holder.unlink()
                self.path.unlink()
            self._lock.release()

    def _who(self) -> str:
        with suppress(CourseError, UnicodeDecodeError):
            return files.shorten(files.read(self.holder).decode())
        return "another process"
