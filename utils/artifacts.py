"""Where results live, how they get there whole or not at all, and how a reader loads them again.

Below a root (the repository for what is published, runs/ for a reader's own, a temporary folder for smoke runs):
    saved_dict/NAME.pth, NAME.json      state dict of seed 0 and its sidecar (NAME_seedK for other seeds, never published)
    logs/NAME/seedK.csv, seedK.json     one row an epoch; the facts of that run
    unfinished/NAME_seedK_RECIPE.pt     checkpoint of a run that is not finished (always below runs/ or the temporary folder)
"""

import csv
import errno
import hashlib
import io
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utils import ROOT, CourseError, closest, models, smoke
from utils.loops import normalise

COLUMNS = {"epoch": "d", "lr": ".6g", "train_loss": ".6f", "train_correct": "d", "train_total": "d"}
COLUMNS |= {"valid_loss": ".6f", "valid_correct": "d", "valid_total": "d", "test_loss": ".6f", "test_correct": "d", "test_total": "d"}
COLUMNS |= {"seconds": ".2f"}


@lru_cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="mnist-course-", ignore_cleanup_errors=True)


def own_root() -> Path:
    """The root of everything that is not published: runs/, or in a smoke run a folder that goes when the process ends."""
    return Path(_temporary().name) if smoke() else ROOT / "runs"


def weights_path(root: Path, name: str, seed: int = 0) -> Path:
    return root / "saved_dict" / (f"{name}.pth" if seed == 0 else f"{name}_seed{seed}.pth")


def log_path(root: Path, name: str, seed: int) -> Path:
    return root / "logs" / name / f"seed{seed}.csv"


def checkpoint_path(root: Path, recipe: dict, seed: int) -> Path:
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    return root / "unfinished" / f"{recipe['name']}_seed{seed}_{digest}.pt"


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside it first, then renamed. Raises CourseError where the folder can't take it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        todo = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Make the folder writable"
        raise CourseError(
            f"{path} could not be written ({error.strerror}); what was there before is untouched. {todo} and run again."
        ) from error


def to_bytes(content) -> bytes:
    """torch.save into memory: equal tensors give equal bytes, whatever the file is called."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def write_json(path: Path, facts: dict) -> None:
    write(path, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict:
    """A sidecar's facts. Raises CourseError, naming the file, if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CourseError(
            f"{path} is missing: no number counts without it. Train it with train.py, or check out the file again."
        ) from error
    except ValueError as error:
        raise CourseError(f"{path} is not JSON ({error}): check out the file again.") from error


def require_writable(*folders: Path) -> None:
    """Raise CourseError now, not after the training, if one of the folders can't be written."""
    for folder in folders:
        write(folder / ".writable", b"")
        (folder / ".writable").unlink(missing_ok=True)


def write_log(path: Path, history: list[dict]) -> None:
    """One row an epoch, in the order of COLUMNS; only the columns that the rows have."""
    table = io.StringIO()
    columns = [column for column in COLUMNS if column in history[0]]
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([format(row[column], COLUMNS[column]) for column in columns] for row in history)
    write(path, table.getvalue().encode())


def read_log(path: Path) -> list[dict]:
    """The rows that write_log wrote, counts as int, the rest as float. Raises CourseError naming file and line if damaged."""
    if not path.is_file():
        raise CourseError(f"{path} is missing: this run has not been logged. Train it with train.py, or check out the file again.")
    rows = []
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            try:
                rows.append({column: int(value) if COLUMNS[column] == "d" else float(value) for column, value in row.items()})
            except (KeyError, ValueError, TypeError) as error:
                raise CourseError(f"{path}, line {line}: found {row}, expected numbers in the columns {', '.join(COLUMNS)}.") from error
    return rows


def read_checkpoint(path: Path) -> dict | None:
    """The content of a checkpoint; None where there is none. Raises CourseError if it can't be read."""
    if not path.is_file():
        return None
    return _load_safely(path, path.read_bytes(), "delete it to start this run anew")


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], dict]:
    """A state dict and the facts of its sidecar. Nothing is unpickled but tensors.

    Raises CourseError for a missing file, a hash that is not the sidecar's, or a file that the safe loader refuses.
    """
    sidecar = path.with_suffix(".json")
    if not path.is_file():
        raise CourseError(f"{path} is missing: it has not been trained here. Train it with train.py, or check out the file again.")
    facts, content = read_json(sidecar), path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != facts["sha256"]:
        raise CourseError(
            f"{path} has the SHA-256 {found[:12]}…, but its sidecar says {facts['sha256'][:12]}…: "
            "it is not the file that was tested. Check it out again."
        )
    return _load_safely(path, content, "check it out again"), facts


def _load_safely(path: Path, content: bytes, todo: str) -> dict:
    """torch.load that builds nothing but tensors and plain containers."""
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged pickle raises whatever its bytes make it raise
        raise CourseError(f"{path} is refused by the safe loader ({' '.join(str(error).split())[:160]}): {todo}") from error


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """The network of a state dict with its weights, in eval mode, and the facts of its sidecar. Raises like read_state_dict."""
    state, facts = read_state_dict(path)
    model = models.build(facts["model"], facts["recipe"]["dropout"])
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CourseError(f"{path} does not fit the network {facts['model']}: {' '.join(str(error).split())[:200]}") from error
    return model.eval(), facts


@dataclass(frozen=True)
class Preprocess:
    """What a network of the course was trained to see: pictures of white digits on black, 28×28, → its normalised input.

    Call it with a PIL image, a NumPy array or a tensor: (28, 28), (N, 28, 28) or (N, 1, 28, 28), uint8 0…255 (a PIL image of
    another mode is converted to grey). Returns (N, 1, 28, 28) float32, on the device of a tensor. Of a voxel network: grids
    (16, 16, 16), (N, 16, 16, 16) or (N, 1, 16, 16, 16) of densities, float 0…1; returns (N, 1, 16, 16, 16). Raises CourseError
    for another size or dtype: how to cut out and resize a picture is not for a network's normalisation to decide.
    """

    mean: float
    std: float
    voxels: bool = False

    def __call__(self, images) -> Tensor:
        if hasattr(images, "convert"):  # a PIL image
            images = np.array(images.convert("L"))
        images = torch.as_tensor(images)
        if self.voxels and not images.is_floating_point():
            raise CourseError(f"grids are {images.dtype}: expected floats, densities from 0 to 1 (utils.voxels makes them of images)")
        if not self.voxels and images.dtype != torch.uint8:
            raise CourseError(f"images are {images.dtype}: expected torch.uint8, 0 (black) to 255; normalising is done here")
        shape = (16,) * 3 if self.voxels else (28,) * 2
        batch = images.unsqueeze(0) if images.ndim == len(shape) else images
        batch = batch.unsqueeze(1) if batch.ndim == len(shape) + 1 else batch
        if batch.shape[1:] != (1, *shape):
            size = ", ".join(map(str, shape))
            raise CourseError(f"images are {tuple(images.shape)}: expected ({size}), (N, {size}) or (N, 1, {size}); resize them first")
        return normalise(batch, self.mean, self.std).float()


def load_pretrained(name: str) -> tuple[nn.Module, Preprocess]:
    """The published network `name` in eval mode, and its preprocessing: model(preprocess(image)).argmax(1) are labels.

    Raises CourseError for a name that is not published, and like read_state_dict.
    """
    published = [path.stem for path in (ROOT / "saved_dict").glob("*.pth")]
    if name not in published:
        raise CourseError(f"no published network is called {name!r}: expected {closest(name, published)}")
    model, facts = load_model(weights_path(ROOT, name))
    return model, Preprocess(**facts["normalisation"], voxels=facts["data"]["name"].startswith("mnist3d"))
