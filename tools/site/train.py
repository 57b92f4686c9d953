"""What the page's "Train" tab runs: sprint.c as WebAssembly, and MNIST's digits in few bytes.

train/sprint.wasm     site/train/sprint.c, compiled with zig
train/*.packed        digits, compressed with gzip: first the label of each, then its pixels, 24×24 of 16 gray levels,
two in a byte
train/train.json      their sizes and SHA-256, and the mean and standard deviation of all training pixels
"""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from utils import ROOT, CourseError
from utils.data import datasets
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS

SOURCE = ROOT / "site" / "train" / "sprint.c"
IMAGES = EXPERIMENTS["sprint"].recipe.images
MARGIN, LEVELS = 2, 16  # pixels that the network leaves out on each side; gray levels
# -ffp-contract=off: no multiplication is fused with an addition, which would round differently
FLAGS = ("--target=wasm32-freestanding", "-O3", "-msimd128", "-ffp-contract=off", "-nostdlib", "-Wl,--no-entry", "-s")
EXPORTED = ("-fvisibility=default", "-Wl,--export-dynamic")  # what is not static
WARNINGS = ("-Wall", "-Wextra", "-Werror")


def compile_network(path: Path) -> None:
    """Compile sprint.c to WebAssembly. Raises CourseError without ziglang, and for code that zig rejects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *FLAGS, *EXPORTED, *WARNINGS, "-o", str(path), str(SOURCE)],
        capture_output=True,
        text=True,
        errors="replace",
    )
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
    facts = {"data": data.name if data.whole else f"a part of {data.name}", "mean": data.mean, "std": data.std}
    if data.name == "mnist" and data.whole:
        for name, split in (("train", data.train[:IMAGES]), ("test", data.test)):
            content = gzip.compress(pack(split), 9, mtime=0)
            (folder / f"{name}.packed").write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            facts[name] = {"file": f"{name}.packed", "images": len(split), "bytes": len(content), "sha256": sha256}
    (folder / "train.json").write_text(json.dumps(facts), encoding="utf-8")
    return facts
