"""The server of `make serve` and of the tests: static files, packed as a project page does, to this machine only."""

import functools
import gzip
import http.server
import io
import socket
import threading
from pathlib import Path

from utils import ROOT, CourseError

SITE = ROOT / "_site"
# what browsers require, independent of this machine's registry; logs are shown, not downloaded
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
TYPES |= {".json": "application/json", ".svg": "image/svg+xml", ".wasm": "application/wasm"}
TYPES |= {".csv": "text/plain; charset=utf-8", ".jsonl": "text/plain; charset=utf-8"}
PACKED = {*TYPES, ".onnx", ".bin"}
HOSTS = {"127.0.0.1", "localhost"}  # a page elsewhere whose name leads to this machine sends its own name
CONNECTIONS, PATIENCE = 32, 10  # at once; seconds that a client may be silent


@functools.lru_cache(maxsize=256)
def packed(path: Path, _changed: int) -> bytes:
    return gzip.compress(path.read_bytes(), 6)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files below a folder, packed. No folder is listed, and no link is followed out of it."""

    extensions_map = TYPES
    timeout = PATIENCE

    def list_directory(self, _path: str) -> None:
        self.send_error(404, "File not found")

    def send_head(self):
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in HOSTS:
            return self.send_error(421, "Misdirected Request")
        path = Path(self.translate_path(self.path))
        if path.is_dir() and self.path.split("?")[0].endswith("/"):
            path /= "index.html"
        if not path.resolve().is_relative_to(Path(self.directory).resolve()):
            return self.send_error(404, "File not found")
        accepts = "gzip" in self.headers.get("Accept-Encoding", "")
        if not accepts or path.suffix not in PACKED or not path.is_file():
            return super().send_head()
        content = packed(path, path.stat().st_mtime_ns)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
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

    def __init__(self, port: int, folder: Path, handler: type[Handler] = Handler):
        self.free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(("127.0.0.1", port), functools.partial(handler, directory=str(folder)))

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


def server(port: int = 0, folder: Path = SITE) -> Server:
    """A server of a folder on this machine only; port 0 takes a free one. Raises CourseError for a port that can't be
    had."""
    try:
        return Server(port, folder)
    except (OSError, OverflowError) as error:
        raise CourseError(f"port {port} can't be had ({error}): expected a free one, such as --port 8001") from error


def serve(port: int) -> None:
    if not (SITE / "index.html").is_file():
        raise CourseError("_site/ is not built: python -m tools.site")
    with server(port) as running:
        print(f"http://127.0.0.1:{running.server_port}/   Ctrl-C ends it", flush=True)
        running.serve_forever()
