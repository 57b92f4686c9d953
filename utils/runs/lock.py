"""One process at a time: a second one reads who the first one is, and a dead process holds no lock."""

import os
import platform
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import filelock
import msgspec

from .. import CourseError, files
from ..files import display_path
from . import facts

BEAT, SILENT = 5.0, 60.0  # seconds between signs of life, and without one until another machine's holder is dead


class AlreadyRunning(CourseError):
    """Another process holds the lock; the message names it."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. token: unique for each time that the lock is held."""

    pid: int
    host: str
    since: str
    token: str


class Lock:
    """`with Lock(path, "base, seed 0"):` holds the lock while the block runs.

    The operating system's lock on `path` ends with its process. It may not reach beyond one machine, so a second file
    names the holder and gets a new modification time every BEAT seconds. On a shared disk, a holder on another machine
    counts as dead after SILENT seconds without one, by the disk's clock. If it was only suspended, `require` stops it
    before it writes.
    """

    def __init__(self, path: Path, title: str):
        self.path, self.title = path, title
        self.holder_path = path.with_suffix(".holder")
        self.content = b""  # of the holder file, while held
        self._lock = filelock.FileLock(path, timeout=0)
        self._released = threading.Event()

    def __getstate__(self) -> tuple[Path, str]:
        """A copy in another process holds nothing."""
        return self.path, self.title

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state)

    def __enter__(self) -> "Lock":
        """Raise AlreadyRunning if a living process holds it, CourseError if its files can't be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.require_regular_file(self.path, f"Delete {display_path(self.path)}.")
            self._lock.acquire()
            self._require_no_other_machine()
            content = msgspec.json.encode(Holder(os.getpid(), platform.node(), facts.now(), uuid4().hex))
            files.write(self.holder_path, content)
        except filelock.Timeout:
            raise AlreadyRunning(self._occupied(self._holder())) from None
        except (OSError, CourseError) as error:
            self._lock.release()
            if isinstance(error, CourseError):
                raise
            what = f"{display_path(self.path)} could not be locked ({error.strerror or error})"
            raise CourseError(f"{what}: make room, or the folder writable.") from error
        self.content, self._released = content, threading.Event()
        threading.Thread(target=self._beat, args=(self._released, content), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._released.set()
        if self.content and self._read() == self.content:
            with suppress(OSError):  # if another process locks the file now and a third creates it, `require` notices
                self.holder_path.unlink()
                self.path.unlink()
        self.content = b""
        self._lock.release()

    def require(self) -> None:
        """Raise CourseError if another process took the lock over: call it immediately before each rename."""
        if self._read() != self.content:
            what = f"{self.title} was taken over by another process while this one gave no sign of life"
            todo = "the same command continues it once the other has ended."
            raise CourseError(f"{what}. This one ends and has written nothing since; {todo}")

    def _read(self) -> bytes | None:
        with suppress(OSError, CourseError):
            return files.read(self.holder_path, most=files.JSON)
        return None

    def _holder(self) -> Holder | None:
        with suppress(msgspec.MsgspecError):
            return msgspec.json.decode(self._read() or b"", type=Holder)
        return None

    def _occupied(self, holder: Holder | None) -> str:
        who = "another process"
        if holder:
            who = files.shorten(f"process {holder.pid} on {holder.host} since {holder.since}")
        return f"{self.title} is already running: {who} holds {display_path(self.path)}. Wait until it ends, or end it."

    def _require_no_other_machine(self) -> None:
        """Raise AlreadyRunning if a holder on another machine gave a sign of life recently."""
        holder = self._holder()
        if holder is None or holder.host == platform.node():
            return
        with tempfile.TemporaryFile(dir=self.path.parent) as probe:  # the disk's clock, not this machine's
            silent = os.fstat(probe.fileno()).st_mtime - self.holder_path.stat().st_mtime
        if silent < SILENT:
            raise AlreadyRunning(self._occupied(holder))

    def _beat(self, released: threading.Event, content: bytes) -> None:
        """Signs of life until released, or until the lock is another's; a failed read is tried again."""
        while not released.wait(BEAT) and self._read() in (content, None):
            with suppress(OSError):
                os.utime(self.holder_path)
