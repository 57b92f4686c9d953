"""What all commands have in common: what goes wrong is one line, and who is told to end does so in order.

Imported by each command before what takes its time to import: from then on Ctrl-C and SIGTERM end it in one line, with exit status
130 and 143, and a character that the terminal lacks is shown by its number. A library or a notebook that imports it changes nothing.
"""

import argparse
import builtins
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from utils import ROOT, CourseError, Interrupted, smoke

HIDDEN = argparse.SUPPRESS  # the help of a flag that is none of the reader's business
MISTAKE, BROKEN_PIPE = 2, 141  # exit statuses, as shells expect them
_received = signal.SIGINT  # the signal that interrupted last


class Parser(argparse.ArgumentParser):
    """A command line's parser that shows a docstring as it is written, and raises CourseError for a mistake."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise CourseError(f"{message} (--help shows what it takes)")


def interactive() -> bool:
    """Whether this process is a notebook, IPython (%run) or IDLE, which goes on when the command is over."""
    return "ipykernel" in sys.modules or hasattr(builtins, "__IPYTHON__") or "idlelib.run" in sys.modules


def run(name: str, action: Callable[[list[str]], object], words: list[str], speaks: Callable[[], bool] = lambda: True) -> int:
    """The exit status of a command: the number that action(words) returns, else 0; 2 for a CourseError, whose line is printed.

    speaks: whether this process is to print it. The error itself is gone when this returns, with all that it would keep alive.
    """
    said, status = "", 0
    try:
        smoke()  # a value that is neither on nor off ends here
        returned = action(words)
        status = returned if isinstance(returned, int) else 0
        sys.stdout.flush()
    except Interrupted as stop:
        said, status = str(stop), 128 + _received
    except CourseError as error:
        said, status = str(error), MISTAKE
    except KeyboardInterrupt:
        said, status = "interrupted", 128 + _received
    except BrokenPipeError:  # the reader of `| head` has seen enough
        with suppress(OSError):  # a notebook's stream has no descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    if said and speaks():
        print(f"{name}: {said}", file=sys.stderr)
    return status


def main(name: str, action: Callable[[list[str]], object]) -> None:
    """Run a command with the words of its command line, and exit."""
    status = run(name, action, sys.argv[1:])
    if not interactive():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # there is nothing left to interrupt
    finish(status)


def finish(status: int) -> None:
    """Exit unless all went well; a notebook, which has seen the message, goes on without a traceback."""
    if status and not interactive():
        sys.exit(status)


def _interrupt(number: int, _frame: object) -> NoReturn:
    global _received
    _received = number
    raise KeyboardInterrupt


def _last_words(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """One line for a command that is interrupted while it still imports, or when it is over, and for a package that is missing."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in ("utils", "tools"):
        print(f"{error.name} is not installed for {sys.executable}. {_installation()}", file=sys.stderr)
        return
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(128 + _received)


def _installation() -> str:
    """How to run a command with the packages that it needs."""
    python = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.is_file() and Path(sys.prefix) != python.parent.parent:
        return f"Run the same command with {python}."
    return f"Install the course's packages: {sys.executable} -m pip install -r requirements.txt (README, Installation)."


def _begin() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this: without a stand-in, the next file would take its number
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  until the end
        getattr(sys, name).reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell that ignores it for a background job means it
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.excepthook = _last_words


started = getattr(sys.modules["__main__"], "__file__", None)  # a notebook or an interpreter has none
if started and not interactive() and ROOT in Path(started).resolve().parents:
    _begin()
