"""What a refusal is: one line, exit status 2 or the exception that is documented, and not a file changed."""

import hashlib
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tools import command
from utils import CourseError


def digests(*folders: Path) -> dict[str, str]:
    """Every file, folder and link below the folders, with a digest of its content."""
    found = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else str(path.readlink() if path.is_symlink() else "").encode()
        found[str(path)] = hashlib.sha256(content).hexdigest()
    return found


def rejected(action, *folders: Path) -> str:
    """The one line with which action() is refused, while nothing below the folders changes."""
    before = digests(*folders)
    with pytest.raises(CourseError) as refusal:
        action()
    message = str(refusal.value)
    assert message and "\n" not in message and len(message) < 1500
    assert digests(*folders) == before
    return message


def rejected_command(name: str, action, argv: list[str], *folders: Path) -> str:
    """The one line on standard error with which a command ends, with exit status 2, while nothing below the folders
    changes."""
    before, message = digests(*folders), io.StringIO()
    with redirect_stderr(message), redirect_stdout(io.StringIO()):
        try:
            status = command.run(name, action, argv)
        except SystemExit as stop:  # of the parser
            status = stop.code
    line = message.getvalue()
    assert status == 2 and line.startswith(f"{name}: ") and line.endswith("\n") and line.count("\n") == 1, line
    assert len(line) < 1500 and "Traceback" not in line
    assert digests(*folders) == before
    return line
