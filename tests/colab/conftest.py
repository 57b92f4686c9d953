"""A machine of Colab's, as a click on a badge finds it: an empty folder, google.colab, a server that knows where the
notebook comes from, and packages that are missing. Only the address on GitHub leads to a copy of this checkout
instead."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from utils import ROOT

REPO = "someone/course"
DRIVE = "def mount(path):\n    print('mounted', path)\n"


def git(*arguments, **options) -> None:
    subprocess.run(["git", *map(str, arguments)], check=True, capture_output=True, **options)


@pytest.fixture(scope="session")
def origin(tmp_path_factory) -> Path:
    """A repository that holds this checkout's files as they are now, committed or not, and serves parts of itself as
    GitHub does."""
    bare = tmp_path_factory.mktemp("github") / "course.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", bare)
    settings = {"core.bare": "false", "core.compression": "1", "user.name": "someone", "user.email": "a@example.org"}
    settings |= {"uploadpack.allowFilter": "true", "uploadpack.allowAnySHA1InWant": "true"}
    for name, value in settings.items():
        git("-C", bare, "config", name, value)
    tree = ["--git-dir", bare, "--work-tree", ROOT]
    git(*tree, "add", "--all", cwd=ROOT)
    git(*tree, "commit", "--quiet", "--message=all", cwd=ROOT)
    return bare


@pytest.fixture(scope="session")
def server():
    """Colab's sessions API; its attribute `path` says which notebook is open."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = quote(f"https://github.com/{REPO}/blob/main/{served.path}", safe="")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps([{"path": f"fileId={name}", "name": "notebook.ipynb"}]).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        served = SimpleNamespace(port=running.server_port, path="")
        yield served
        running.shutdown()


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
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COURSE_", "GIT_", "PYTHON"))}
    return kept | {
        "PYTHONPATH": f"{stub}{os.pathsep}{packages}",
        "PIP_TARGET": str(packages),
        "COLAB_JUPYTER_IP": "127.0.0.1",
        "KMP_TARGET_PORT": str(server.port),
        "no_proxy": "127.0.0.1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{origin}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{REPO}",
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
