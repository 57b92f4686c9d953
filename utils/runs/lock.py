"""One process at a time: a second one reads who the first one is, and a dead process holds no lock."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from .. import CourseError, files
from ..files import display_path
from . import facts


class AlreadyRunning(CourseError):
    """Another process holds the lock; the message names it."""


@contextmanager
def locked(path: Path, title: str) -> Iterator[None]:
    """Hold the operating system's lock on `path` while the block runs. It ends with its process, however that ends.

    title: what is locked, such as "base, seed 0". A second file names the holder. Raises AlreadyRunning if a living
    process holds the lock, CourseError if its files can't be written.
    """
    holder = path.with_suffix(".holder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path).acquire(timeout=0)
    except filelock.Timeout:
        who = "another process"
        with suppress(CourseError, UnicodeDecodeError):
            who = files.shorten(files.read(holder).decode())
        holds = f"{title}, is already running: {who} holds {display_path(path)}"
        raise AlreadyRunning(f"{holds}. Wait until it ends, or end it.") from None
    except OSError as error:
        what = f"{display_path(path)} could not be written ({error.strerror or error})"
        todo = "Make the folder writable; your own runs go elsewhere if COURSE_RUNS names another folder."
        raise CourseError(f"{what}. {todo}") from error
    with lock:
        files.write(holder, f"process {os.getpid()} on {platform.node()} since {facts.now()}".encode())
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink()
                path.unlink()
