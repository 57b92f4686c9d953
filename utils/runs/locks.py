"""One process at a time: a lock file says who holds it, and a holder that died does not keep it."""

import os
import platform
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec

from .. import files, CourseError
from . import facts
from ..files import shown

BEAT, DEAD = 5.0, 60.0  # seconds: between two signs of life, and without one until a holder counts as dead


class Held(CourseError):
    """Another process is at it; the message says which."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. token: tells one holding from the next by the same process."""

    pid: int
    host: str
    since: str
    token: str


class Lock:
    """A file that one process at a time can make, also on a disk that several machines share: there a system's own locks may reach no
    further than one machine. While it is held, a thread gives signs of life (the file's time of change).

    A holder is dead if its process is gone, which can be seen on its own machine, or if it gave no sign of life for DEAD seconds, by the
    clock of the disk. Its lock is taken over. Should it have slept only, it finds that out (see require) before it writes.

        with Lock(path, "what it is about") as lock:
            lock.acquire()
    """

    def __init__(self, path: Path, title: str):
        self.path, self.title = path, title
        self.content = b""  # of the file, while held
        self.released = threading.Event()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def acquire(self) -> None:
        """Hold it from now on. Raises Held if another living process does, CourseError where the file can't be written."""
        files.refuse_special(self.path, "Delete it and run again.")
        content = msgspec.json.encode(Holder(os.getpid(), platform.node(), facts.now(), uuid4().hex))
        try:
            while not self._make(content):
                self._remove_if_dead()
        except OSError as error:
            raise CourseError(f"{shown(self.path)} could not be written ({error.strerror}): make room, or the folder writable.") from error
        self.content, self.released = content, threading.Event()
        threading.Thread(target=self._beat, args=(self.released,), daemon=True).start()

    def require(self) -> None:
        """Raise CourseError if another process took the lock over meanwhile: to be called before anything is written."""
        if self._read() != self.content:
            raise CourseError(
                f"{self.title} was taken over by another process while this one gave no sign of life: it ends, and wrote nothing since. "
                "The same command continues it once the other has ended."
            )

    def release(self) -> None:
        """Let others hold it; nothing if it is not held."""
        self.released.set()
        if self.content and self._read() == self.content:
            with suppress(OSError):
                self.path.unlink()
        self.content = b""

    def _make(self, content: bytes) -> bool:
        """Whether the file could be made; False if it is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return True

    def _read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except OSError:
            return None

    def _remove_if_dead(self) -> None:
        """Put the lock of a dead holder out of the way. Raises Held if it lives."""
        content = self._read()
        with suppress(FileNotFoundError):  # released at this moment
            with tempfile.TemporaryFile(dir=self.path.parent) as probe:  # the disk's clock, not this machine's
                silent = os.fstat(probe.fileno()).st_mtime - self.path.stat().st_mtime
            who = "a process that only begins"  # or was killed before it could say more
            with suppress(msgspec.MsgspecError):
                holder = msgspec.json.decode(content or b"", type=Holder)
                who = f"process {holder.pid} on {holder.host} since {holder.since}"
                if holder.host == platform.node() and not files.is_running(str(holder.pid)):
                    silent = DEAD
            if silent < DEAD:
                raise Held(f"{self.title} is being worked on by {who}: wait until it ends, or end it. ({shown(self.path)} says so.)")
            aside = self.path.with_name(f".{self.path.name}.{uuid4().hex}")
            self.path.rename(aside)  # of several processes that find it dead, one alone can
            if aside.read_bytes() == content:
                aside.unlink()
            else:
                aside.rename(self.path)  # another was quicker, and this is its lock

    def _beat(self, released: threading.Event) -> None:
        while not released.wait(BEAT) and self._read() in (self.content, None):  # None: a network disk that does not answer at the moment
            with suppress(OSError):
                os.utime(self.path)
