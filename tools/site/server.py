"""The server of `make serve` and of the tests: _site/ as a project page sends it, to this machine only."""

import functools
import gzip
import http.server
import io
import socket
import threading
from pathlib import Path

from utils import ROOT, CourseError

SITE = ROOT / "_site"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
TYPES |= {".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png", ".wasm": "application/wasm"}
TYPES |= dict.fromkeys((".csv", ".jsonl"), "text/plain; charset=utf-8")
TYPES |= dict.fromkeys((".onnx", ".bin", ".pth"), "application/octet-stream")
PACKED = {".html", ".css", ".js", ".mjs", ".json", ".jsonl", ".svg", ".csv", ".wasm", ".onnx", ".bin"}
HOSTS = {"127.0.0.1", "localhost"}  # a page elsewhere whose name leads to this machine sends its own name
CONNECTIONS, PATIENCE = 32, 10  # at once; seconds that a client may be silent


@functools.lru_cache(maxsize=256)
def packed(path: str, _changed: int) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 6)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files below `prefix`, packed, with the types that browsers require, independent of this machine's registry."""

    extensions_map = TYPES
    prefix = "/"
    timeout = PATIENCE

    def translate_path(self, path: str) -> str:
        inside = "/" + path[len(self.prefix) :] if path.startswith(self.prefix) else "/nothing-here"
        return super().translate_path(inside)

    def send_head(self):
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in HOSTS:
            return self.send_error(421, "Misdirected Request")
        try:
            return self._send_file()
        except (OSError, ValueError):  # a name that no file can have
            return self.send_error(404, "File not found")

    def _send_file(self):
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() and self.path.split("?")[0].endswith("/") else path
        if path.resolve() != Path(self.directory).resolve() / path.relative_to(self.directory):
            return self.send_error(404, "File not found")  # a link
        if not path.is_file():
            return (
                super().send_head()
                if path.is_dir() and not self.path.endswith("/")
                else self.send_error(404, "File not found")
            )
        if path.suffix not in PACKED or "gzip" not in self.headers.get("Accept-Encoding", ""):
            return super().send_head()
        content = packed(str(path), path.stat().st_mtime_ns)
        self.send_response(200)
        for header in (
            ("Content-Type", self.guess_type(path)),
            ("Content-Encoding", "gzip"),
            ("Content-Length", str(len(content))),
        ):
            self.send_header(*header)
        self.end_headers()
        return io.BytesIO(content)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # ask again each time: a page just built is the page shown
        super().end_headers()

    def log_message(self, *_words) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """At most CONNECTIONS at once: the next one waits until another ends."""

    request_queue_size = CONNECTIONS

    def __init__(self, *argv):
        self.free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(*argv)

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        self.free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, _request: socket.socket, _client_address: tuple) -> None:
        """A client that went away is no news."""


def server(port: int = 0, prefix: str = "/", folder: Path = SITE) -> Server:
    """A server of a built site on this machine only; port 0 takes a free one. Raises CourseError for a port that can't
    be had."""
    handler = type("Handler", (Handler,), {"prefix": prefix})
    try:
        return Server(("127.0.0.1", port), functools.partial(handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "it is out of range"
        raise CourseError(
            f"port {port} can't be had ({why}): expected a free one from 0 to 65535, such as --port 8001"
        ) from error


def serve(port: int) -> None:
    if not (SITE / "index.html").is_file():
        raise CourseError("_site/ is not built: python -m tools.site")
    with server(port) as running:
        print(f"http://127.0.0.1:{running.server_port}/   Ctrl-C ends it", flush=True)
        running.serve_forever()
