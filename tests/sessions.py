"""What Colab and GitHub answer to the setup cell of a notebook, on this machine."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

REPO = "someone/course"
GITHUB = f"https://github.com/{REPO}"


def git(*arguments, **options) -> None:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *identity, *map(str, arguments)], check=True, capture_output=True, **options)


def environment(origin: Path) -> dict[str, str]:
    """The variables of a machine to which GITHUB is the repository `origin`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COURSE_", "GIT_", "PYTHON"))}
    redirect = {"GIT_CONFIG_KEY_0": f"url.file://{origin}.insteadOf", "GIT_CONFIG_VALUE_0": GITHUB}
    return kept | {"GIT_CONFIG_COUNT": "1", "no_proxy": "127.0.0.1"} | redirect


@contextmanager
def colab() -> Iterator[SimpleNamespace]:
    """Colab's sessions API: the attribute `paths` says what is open, and `variables` where it is served."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps([{"path": path} for path in served.paths]).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        variables = {"COLAB_JUPYTER_IP": "127.0.0.1", "KMP_TARGET_PORT": str(running.server_port)}
        served = SimpleNamespace(paths=[], variables=variables)
        yield served
        running.shutdown()
