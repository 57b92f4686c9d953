"""What the page's "Train" tab reaches, and in which time, in each engine that is installed: Node, Chromium, Firefox.

python -m tools.site.train_in_tab [--seeds 5]    write logs/benchmarks/train_in_tab.json; make site comes first

The engines take turns on the same machine; measure on an idle one. The SHA-256 is that of the state dict that the tab
offers for download, so equal hashes mean equal weights.
"""

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import torch

from tools import command, measurements
from tools.site.__main__ import SOURCE, program
from tools.site.server import SITE, Handler, Server
from utils import CourseError, files
from utils.runs import facts

CHROMIUM, FIREFOX = ("chromium", "chromium-browser", "google-chrome"), ("firefox-esr", "firefox")
PAGE = '<!doctype html><meta charset="utf-8"><script type="module" src="measure.mjs"></script>'
LIMIT = 600  # seconds for one training, however busy the machine is


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


def measure(seeds: int) -> list[dict]:
    """A training from each seed in each engine; the engines take turns. Raises CourseError if one gives no answer."""
    runs = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "pages"
        for name in ("live", "train"):
            shutil.copytree(SITE / name, folder / name)
        shutil.copyfile(SOURCE / "train" / "measure.mjs", folder / "measure.mjs")
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        with Server(0, folder, Results) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            for seed in range(seeds):
                (folder / "seeds.json").write_text(json.dumps([seed]), encoding="utf-8")
                for argv in engines(folder, Path(tempfile.mkdtemp(dir=temporary))):
                    runs.append(train_once([*argv, f"http://127.0.0.1:{running.server_port}/"], seed))
            running.shutdown()
    return runs


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.site.train_in_tab", description=__doc__)
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
