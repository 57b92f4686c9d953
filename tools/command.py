"""What all commands share: an error is one line, and Ctrl-C or SIGTERM ends them in order.

Each command imports this module first. In a library or a notebook, the import changes nothing.
"""

import argparse
import builtins
import errno
import importlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from utils import ROOT, CourseError, Interrupted, printable, smoke

HIDDEN = argparse.SUPPRESS  # the help of an internal flag
MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # exit statuses, as shells expect them
# errors of a disk or of permissions, and not of the course
ENVIRONMENT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class Parser(argparse.ArgumentParser):
    """Shows a docstring as it is written, and raises CourseError for a mistake."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise CourseError(f"{message} (--help shows what it takes)")


def need(module: str) -> object:
    """A module of requirements-extra.txt. Raises CourseError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CourseError(f"{error.name} is not installed: python -m pip install -r requirements-extra.txt") from error


def interactive() -> bool:
    """Whether this process is a notebook, IPython (%run) or IDLE, which continues after the command."""
    return "ipykernel" in sys.modules or hasattr(builtins, "__IPYTHON__") or "idlelib.run" in sys.modules


def run(
    name: str, action: Callable[[list[str]], object], argv: list[str], speaks: Callable[[], bool] = lambda: True
) -> int:
    """Run action(argv) and return its exit status: its number, else 0; 2 for a CourseError, which is printed as one
    line. speaks: whether this process prints it."""
    message, status = "", 0
    try:
        smoke()  # a value that is neither on nor off ends here
        returned = action(argv)
        print(end="", flush=True)
        status = returned if isinstance(returned, int) else 0
    except (Interrupted, KeyboardInterrupt) as stop:
        message, status = str(stop) or "interrupted", INTERRUPTED
    except CourseError as error:
        message, status = str(error), MISTAKE
    except BrokenPipeError:  # the reader of `| head` has seen enough
        _silence()
        status = BROKEN_PIPE
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            raise
        message, status = str(error), MISTAKE
        _silence()  # it may be standard output that is full
    if message and speaks():
        print(f"{name}: {printable(message)}", file=sys.stderr)
    return status


def _silence() -> None:
    with suppress(OSError):  # a notebook's stream has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(name: str, action: Callable[[list[str]], object]) -> None:
    """Run a command with the arguments of its command line, and exit."""
    finish(run(name, action, sys.argv[1:]))


def finish(status: int) -> None:
    """Exit if the status is not 0; a notebook has shown the message, and goes on."""
    if status and not interactive():
        sys.exit(status)


def _last_words(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """One line for an interrupt during imports, and for a missing package."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and str(error.name).split(".")[0] not in ("utils", "tools"):
        print(f"{error.name} is not installed for {sys.executable}. {_installation()}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _installation() -> str:
    """How to run a command with the packages that it needs."""
    python = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.is_file() and Path(sys.prefix) != python.parent.parent:
        return f"Run the same command with {python}."
    return f"Install the course's packages: {sys.executable} -m pip install -r requirements.txt (README, Installation)."


def _wait_passively_among_others() -> None:
    """Let OpenMP's threads sleep while they wait, if Linux has another running process, three times in a row.

    On an idle machine spinning is faster. Otherwise it may keep the awaited thread from running. No bit depends on it.
    OpenMP reads this when torch loads it.
    """
    if "torch" in sys.modules or os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        return
    with suppress(OSError):
        for _ in range(3):
            running = re.search(r"procs_running (\d+)", Path("/proc/stat").read_text())
            if running is None or int(running[1]) <= 1:
                return
            time.sleep(0.001)
        os.environ["OMP_WAIT_POLICY"] = "passive"


started = getattr(sys.modules["__main__"], "__file__", None)  # a notebook or an interpreter has none
if started and not interactive() and ROOT in Path(started).resolve().parents:
    _wait_passively_among_others()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.excepthook = _last_words
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal can't show is escaped
