"""What the page's "Train" tab reaches, and in which time, in each engine that is installed: Node, Chromium, Firefox.

python -m tools.site.train_in_tab [--seeds 5]    write logs/benchmarks/train_in_tab.json; make site comes first

The engines take turns on the same machine; measure on an idle one. The SHA-256 is that of the state dict that the tab
offers for download, so equal hashes mean equal weights.
"""

import contextlib
import functools
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
from tools.site.__main__ import CHROMIUM, FIREFOX, SOURCE, installed, program
from tools.site.server import SITE, Handler, Server
from utils import CourseError, files
from utils.runs import facts

PAGE = '<!doctype html><meta charset="utf-8"><script type="module" src="measure.mjs"></script>'
LIMIT = 600  # seconds for one training, however busy the machine is


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
        shutil.copyfile(SOURCE / "train" / "measure.mjs", folder / "measure.mjs")
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
                        raise CourseError(
                            f"{argv[0]}: no result after {LIMIT} s, expected one for seed {seed}"
                        ) from None
                    finally:
                        process.terminate()
                        process.wait()
                    print(
                        "{engine}, seed {seed}: {correct} of {total} in {seconds:.1f} s, {sha256:.12}…".format(
                            **runs[-1]
                        )
                    )
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
