"""A machine of Colab's, as a click on a badge finds it: an empty folder, google.colab, a server that knows where the
notebook comes from, and packages that are missing. Only the address on GitHub leads to a copy of this checkout
instead."""

import os
import sys
from pathlib import Path

import pytest
import sessions
from sessions import git

from utils import ROOT

DRIVE = "def mount(path):\n    print('mounted', path)\n"


@pytest.fixture(scope="session")
def origin(tmp_path_factory) -> Path:
    """A repository that holds this checkout's files as they are now, committed or not, and serves parts of itself as
    GitHub does."""
    bare = tmp_path_factory.mktemp("github") / "course.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", bare)
    settings = {"core.bare": "false", "core.compression": "1"}
    settings |= {"uploadpack.allowFilter": "true", "uploadpack.allowAnySHA1InWant": "true"}
    for name, value in settings.items():
        git("-C", bare, "config", name, value)
    tree = ["--git-dir", bare, "--work-tree", ROOT]
    git(*tree, "add", "--all", cwd=ROOT)
    git(*tree, "commit", "--quiet", "--message=all", cwd=ROOT)
    return bare


@pytest.fixture(scope="session")
def server():
    with sessions.colab() as served:
        yield served


@pytest.fixture(scope="session")
def environment(origin, server, tmp_path_factory) -> dict[str, str]:
    """The variables of the machine. What the setup cell installs goes to a folder of this session's, so that it has to
    install it."""
    machine = tmp_path_factory.mktemp("machine")
    packages, stub = machine / "packages", machine / "stub"
    (stub / "google" / "colab").mkdir(parents=True)
    (stub / "google" / "colab" / "__init__.py").touch()
    (stub / "google" / "colab" / "drive.py").write_text(DRIVE)
    packages.mkdir()
    return sessions.environment(origin) | {
        **server.variables,
        "PYTHONPATH": f"{stub}{os.pathsep}{packages}",
        "PIP_TARGET": str(packages),
        "OMP_NUM_THREADS": "1",
        "COURSE_SMOKE": "1",
        # what is downloaded once need not be again
        "COURSE_DATA": str((ROOT / os.environ.get("COURSE_DATA", "data")).resolve()),
    }


@pytest.fixture(scope="session")
def python() -> str:
    """The kernel's interpreter: that of `make test-colab`, else this one, where the whole image was installed."""
    made = ROOT / ".venv-colab" / "bin" / "python"
    return str(made) if made.exists() else sys.executable
