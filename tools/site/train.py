"""What the page's "Train" tab runs, and what it reaches, in which time, in each engine that is installed.

python -m tools.site.train [--seeds 5]    write logs/benchmarks/train_in_tab.json; make site comes first

train/sprint.wasm     site/train/sprint.c, compiled with zig
train/*.packed        digits, compressed with gzip: labels, then pixels, 24×24 of 16 gray levels, two in a byte
train/train.json      their sizes and SHA-256, and the mean and standard deviation of all training pixels

The engines (Node, Chromium, Firefox) take turns on the same machine; measure on an idle one. The measured SHA-256 is
that of the state dict that the tab offers for download, so equal hashes mean equal weights.
"""

import contextlib
import functools
import gzip
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch

from tools import command, measurements
from tools.site.server import CHROMIUM, FIREFOX, SITE, Handler, Server, installed, program
from utils import ROOT, CourseError, files
from utils.data import datasets
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.runs import facts

SOURCES = ROOT / "site" / "train"
IMAGES = EXPERIMENTS["sprint"].recipe.images
MARGIN, LEVELS = 2, 16  # pixels that the network leaves out on each side; gray levels
# -ffp-contract=off: no multiplication is fused with an addition, which would round differently
FLAGS = ("--target=wasm32-freestanding", "-O3", "-msimd128", "-ffp-contract=off", "-nostdlib", "-Wl,--no-entry", "-s")
FLAGS += ("-fvisibility=default", "-Wl,--export-dynamic")  # what is not static is exported
FLAGS += ("-Wall", "-Wextra", "-Werror")
PAGE = '<!doctype html><meta charset="utf-8"><script type="module" src="measure.mjs"></script>'
REACHED = "{engine}, seed {seed}: {correct} of {total} in {seconds:.1f} s, {sha256:.12}…"
LIMIT = 600  # seconds for one training, however busy the machine is


def compile_network(path: Path) -> None:
    """Compile sprint.c to WebAssembly. Raises CourseError without ziglang, and for code that zig rejects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    zig = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(path), str(SOURCES / "sprint.c")]
    found = subprocess.run(zig, capture_output=True, text=True, errors="replace")
    if found.returncode:
        missing = "No module named ziglang" in found.stderr
        todo = f"install it: {sys.executable} -m pip install -r requirements-site.txt" if missing else "see above"
        raise CourseError(f"{found.stderr.strip()}\nsprint.c could not be compiled by ziglang: {todo}")


def pack(split: Split) -> bytes:
    """Labels, then images without their margin, each pixel rounded to one of 16 levels, two in a byte: the first in the
    upper four bits."""
    inside = slice(MARGIN, 28 - MARGIN)
    pixels = split.images[:, 0, inside, inside].flatten(1).numpy().astype(np.uint16)
    step = 255 // (LEVELS - 1)
    levels = ((pixels + step // 2) // step).astype(np.uint8)
    return split.labels.numpy().astype(np.uint8).tobytes() + (levels[:, ::2] << 4 | levels[:, 1::2]).tobytes()


def write(folder: Path) -> dict:
    """Everything under train/. Without the real MNIST, train.json says so and there are no digits. Returns its
    content."""
    compile_network(folder / "sprint.wasm")
    data = datasets.load("mnist")
    found = {"data": data.name if data.whole else f"a part of {data.name}", "mean": data.mean, "std": data.std}
    if data.name == "mnist" and data.whole:
        for name, split in (("train", data.train[:IMAGES]), ("test", data.test)):
            content = gzip.compress(pack(split), 9, mtime=0)
            (folder / f"{name}.packed").write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            found[name] = {"file": f"{name}.packed", "images": len(split), "bytes": len(content), "sha256": sha256}
    (folder / "train.json").write_text(json.dumps(found), encoding="utf-8")
    return found


# ---- what the tab reaches


class Results(Handler):
    """Serves the pages' files, and puts what is sent to it into a queue."""

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()


@contextlib.contextmanager
def serving(folder: Path, results: queue.Queue):
    """The address of a folder as long as the block lasts."""
    handler = type("Handler", (Results,), {"results": results})
    with Server(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def engines(folder: Path, profile: Path) -> list[list[str]]:
    """The commands that open an address, which is to be appended."""
    found = [[*program("node"), str(folder / "measure.mjs")]]
    chromium, firefox = installed(CHROMIUM), installed(FIREFOX)
    if chromium:
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        found.append([chromium, "--headless", *["--no-sandbox"] * is_root, f"--user-data-dir={profile / 'chromium'}"])
    if firefox:
        (profile / "firefox").mkdir()
        found.append([firefox, "--headless", "--no-remote", "--profile", str(profile / "firefox")])
    return found


def measure(seeds: int) -> list[dict]:
    """A training from each seed in each engine; the engines take turns. Raises CourseError if one gives no answer."""
    runs, results = [], queue.Queue()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "pages"
        for name in ("live", "train"):
            shutil.copytree(SITE / name, folder / name)
        shutil.copyfile(SOURCES / "measure.mjs", folder / "measure.mjs")
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        with serving(folder, results) as address:
            for seed in range(seeds):
                (folder / "seeds.json").write_text(json.dumps([seed]), encoding="utf-8")
                profile = Path(tempfile.mkdtemp(dir=temporary))
                for argv in engines(folder, profile):
                    process = subprocess.Popen([*argv, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    try:
                        runs.append(results.get(timeout=LIMIT))
                    except queue.Empty:
                        what = f"{argv[0]}: no result after {LIMIT} s, expected one for seed {seed}"
                        raise CourseError(what) from None
                    finally:
                        process.terminate()
                        process.wait()
                    print(REACHED.format(**runs[-1]))
    return runs


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.site.train", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(argv)
    path = SITE / "train" / "train.json"
    digits = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "train" not in digits:
        raise CourseError("_site/ has no digits to train on: build it with all of MNIST (make site)")
    sizes = {name: (SITE / "train" / name).stat().st_size for name in ("sprint.wasm", "train.packed", "test.packed")}
    busy = {"load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, "cores": os.cpu_count()}
    found = {"images": digits["train"]["images"], "bytes": sizes, **busy, "runs": measure(options.seeds)}
    source = {"environment": facts.environment(torch.device("cpu")), "finished": facts.now()}
    target = measurements.path("train_in_tab")
    files.write_json(target, found | source)
    print(f"{files.display_path(target)}: {len(found['runs'])} trainings")


if __name__ == "__main__":
    command.main("train_in_tab", main)
