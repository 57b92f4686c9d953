"""MNIST image → point cloud → rotated, noisy copy → 16³ voxel grid, by the recipe of the published 3D-MNIST.

python -m utils.voxels build    rebuild data/3d-mnist/full_dataset_vectors.h5 from MNIST

A digit is a body six pixels deep: every pixel with ink is a box, sampled on the faces that nothing covers. The upright copies equal the
published ones; of the rotated ones the published random seed is unknown, so they agree in distribution only.
"""

import argparse
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from utils import ROOT, CourseError

SIDE = 16  # voxels
TRAIN, TEST = 5000, 1000  # digits: the first of each half of MNIST
FILE = Path("3d-mnist", "full_dataset_vectors.h5")
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (row, column) of the pixels that may cover a box's four sides


def _faces() -> list[np.ndarray]:
    """The sampled faces of a box around 0, in the generator's order of points: front, back, and the sides of NEIGHBOURS; (P, 3) each."""
    wide, deep = np.linspace(-0.5, 0.5, 5), np.linspace(-3, 3, 30)
    axes = [(wide, wide, 3), (wide, wide, -3), (-0.5, wide, deep), (0.5, wide, deep), (wide, -0.5, deep), (wide, 0.5, deep)]
    return [np.array(np.meshgrid(*face)).T.reshape(-1, 3) for face in axes]


FACES = _faces()
# BOXES[pattern]: a box of which bit k of the pattern says whether side k is open
BOXES = [np.concatenate([*FACES[:2], *(FACES[2 + k] for k in range(4) if pattern >> k & 1)]) for pattern in range(16)]
POINTS = np.array([len(box) for box in BOXES])


def _pixels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column (of the image with a margin of one pixel) and pattern of open sides of every pixel with ink."""
    ink = np.pad(image > 0, 1)
    rows, columns = np.nonzero(ink)
    open_sides = sum((~ink[rows + down, columns + right]).astype(np.int64) << k for k, (down, right) in enumerate(NEIGHBOURS))
    return rows, columns, open_sides


def cloud(image: np.ndarray) -> np.ndarray:
    """The upright point cloud of a (28, 28) uint8 image with ink: (P, 3) float64, mean 0, largest extent 1.

    To the last bit what the published generator computes, since many points lie on a boundary of two voxels: the same
    operations in the same order, the mean summed point by point, and a quarter turn whose cosine is 6e-17.
    """
    rows, columns, open_sides = _pixels(image)
    points, repeats = np.concatenate([BOXES[pattern] for pattern in open_sides]), POINTS[open_sides]
    points[:, 0] += np.repeat(rows, repeats)
    points[:, 1] += np.repeat(columns, repeats)
    low = np.array([rows.min() - 0.5, columns.min() - 0.5, -3.0])
    extent = np.array([rows.max() + 0.5, columns.max() + 0.5, 3.0]) - low
    longest = extent.argmax()
    points = (points - low[longest]) / extent[longest]
    points -= points.mean(0)
    return _rotate(np.asfortranarray(points), _about_y(90.0))


def _about_y(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """The (3, 3) matrix Rz @ Ry @ Rx of three angles in degrees, to be multiplied from the right: points @ matrix."""
    (cx, sx), (cz, sz) = ((np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))) for angle in (x, z))
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return about_z @ _about_y(y) @ about_x


def _rotate(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """points @ matrix, by additions in a fixed order: a matrix product's last bit depends on the machine."""
    x, y, z = points.T
    return np.stack([x * matrix[0, k] + y * matrix[1, k] + z * matrix[2, k] for k in range(3)]).T


def rotated(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy of a cloud turned by angles x, y ~ N(0, 90°) and z ~ N(0, 180°), every point moved by up to a quarter of the standard
    deviation along each axis, uniformly. points: (P, 3) float64; returns the same."""
    turned = _rotate(points, rotation(*random.normal(0, (90, 90, 180))))
    noise = random.uniform(-0.25, 0.25, turned.shape[::-1]).T
    return turned + noise * turned.std(0)


def voxelise(points: np.ndarray) -> np.ndarray:
    """Points in each voxel of the smallest cube around a (P, 3) cloud, divided by the largest count: (4096,) float64, x fastest."""
    low, high = points.min(0) - 0.001, points.max(0) + 0.001
    extent = high - low
    margin = (extent.max() - extent) / 2
    low, high = low - margin, high + margin
    index = 0
    for axis in range(3):
        edges = np.linspace(low[axis], high[axis], SIDE + 1)
        index = index + (np.searchsorted(edges, points[:, axis]) - 1) * SIDE**axis
    counts = np.bincount(index, minlength=SIDE**3)
    return counts / counts.max()


def pair(image: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """The two rows of a digit, upright and rotated: (2, 4096) float32. The rotation depends on `seed` alone."""
    points = cloud(image)
    return np.stack([voxelise(points), voxelise(rotated(points, np.random.default_rng(seed)))]).astype(np.float32)


def pairs(images: np.ndarray, seed: tuple[int, ...], echo: bool = False) -> np.ndarray:
    """Rows of (N, 28, 28) images, row 2i upright and row 2i + 1 rotated: (2N, 4096) float32. The same for any number of threads."""
    rows = np.empty((2 * len(images), SIDE**3), np.float32)

    def fill(i: int) -> None:
        rows[2 * i : 2 * i + 2] = pair(images[i], (*seed, i))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in tqdm(threads.map(fill, range(len(images))), "clouds", len(images), disable=not echo, mininterval=0.5, unit="digit"):
            pass
    return rows


class Rows(NamedTuple):
    """The four datasets of full_dataset_vectors.h5: (N, 4096) float32 in [0, 1] and (N,) int64; row 2i + 1 is row 2i rotated."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def build(train: tuple, test: tuple, seed: int = 0, echo: bool = False) -> Rows:
    """The rows of MNIST's halves. train, test: (N, 28, 28) uint8 images and (N,) labels each."""
    halves = []
    for half, (images, labels) in enumerate((train, test)):
        halves += [pairs(np.asarray(images), (seed, half), echo), np.repeat(np.asarray(labels, np.int64), 2)]
    return Rows(*halves)


def write(path: Path, rows: Rows, facts: dict[str, str | int]) -> None:
    """Write full_dataset_vectors.h5 whole or not at all; `facts` become the file's attributes, by which a rebuilt file is known.

    Raises CourseError where it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()  # of a build that was killed
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(beside, "w") as file:
            file.attrs.update(facts)
            for name, values in rows._asdict().items():
                packed = (
                    {"chunks": (min(100, len(values)), SIDE**3), "compression": "gzip", "compression_opts": 1} if values.ndim == 2 else {}
                )
                file.create_dataset(name, data=values, **packed)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise CourseError(
            f"{path} could not be written ({error}); what was there before is untouched. Free some space, try again."
        ) from error


def read(path: Path) -> tuple[Rows, dict]:
    """The four datasets of full_dataset_vectors.h5, published or rebuilt, and the file's attributes (none if it is the published one).

    Raises CourseError, naming the file, for one that is not HDF5 or is cut off, for a missing dataset, a wrong shape, values
    outside [0, 1] or not finite, and labels outside 0…9.
    """

    def refuse(found: str, expected: str) -> None:
        raise CourseError(f"{path}: {found}, expected {expected}. Delete it and run again to have it rebuilt, or download it anew.")

    try:
        with h5py.File(path, "r") as file:
            facts = dict(file.attrs)
            missing = [name for name in Rows._fields if name not in file]
            if missing:
                refuse(f"found {', '.join(file) or 'nothing'} in it", f"the datasets {', '.join(Rows._fields)} (no {', '.join(missing)})")
            found = {name: file[name][:] for name in Rows._fields}
    except OSError as error:
        refuse(f"can't be read as HDF5 ({' '.join(str(error).split())[:120]})", "a whole HDF5 file")
    for half in ("train", "test"):
        grids, labels = found[f"X_{half}"], found[f"y_{half}"]
        if grids.ndim != 2 or grids.shape[1] != SIDE**3 or not len(grids) or labels.shape != grids.shape[:1] or len(grids) % 2:
            refuse(f"X_{half} is {grids.shape} and y_{half} {labels.shape}", f"(2N, {SIDE**3}) and (2N,)")
        if not (grids.min() >= 0 and grids.max() <= 1):  # NaN is neither
            refuse(f"X_{half} holds values from {grids.min()} to {grids.max()}", "densities from 0 to 1")
        if not (labels.min() >= 0 and labels.max() <= 9):
            refuse(f"y_{half} holds labels from {labels.min()} to {labels.max()}", "0 to 9")
    return Rows(*(values.astype(np.float32 if values.ndim == 2 else np.int64, copy=False) for values in found.values())), facts


def draw(images: Tensor, turned: Tensor, random: torch.Generator, rotate: float = 0.0, scale: float = 0.0, shear: float = 0.0) -> Tensor:
    """Fresh grids of digits: upright ones, and where `turned` rotated and noisy ones by the law of `rotated`: (N, 1, 16, 16, 16) float32.

    images: (N, 28, 28) uint8, each with ink; turned: (N,) bool; random: a generator on their device. rotate, shear (± degrees) and
    scale (± fraction, each axis on its own): the digit itself is first turned, slanted and stretched in its own plane, uniformly.
    """
    few = 8 if images.device.type == "cpu" else 256  # as many clouds as a core's cache holds, or enough for a GPU
    grids = torch.empty(len(images), SIDE**3, device=images.device)
    for noisy in (False, True):
        for rows in (turned == noisy).nonzero().squeeze(1).split(few):
            if len(rows):
                grids[rows] = _draw(images[rows], noisy, random, (rotate, scale, shear))
    return grids.view(-1, 1, SIDE, SIDE, SIDE)


def _draw(images: Tensor, noisy: bool, random: torch.Generator, deform: tuple[float, float, float]) -> Tensor:
    points, lengths = _clouds(images)
    device = images.device
    place = torch.arange(int(lengths.max()), device=device)
    real = place < lengths[:, None]  # (N, P): clouds are of different lengths; what is not real repeats the last point
    index = lengths.cumsum(0)[:, None] - lengths[:, None] + torch.minimum(place, lengths[:, None] - 1)
    points = points.index_select(1, index.flatten()).view(3, len(images), -1).transpose(0, 1)  # (N, 3, P)
    if any(deform):
        points = _in_plane(len(images), random, *deform) @ points
    points = points / (points.amax(2) - points.amin(2)).amax(1)[:, None, None]
    count = lengths[:, None, None]
    points -= (points * real[:, None]).sum(2, keepdim=True) / count
    angles = torch.tensor([90.0, 90.0, 180.0], device=device).deg2rad() * noisy
    points = _upright_then(torch.randn(len(images), 3, device=device, generator=random) * angles).transpose(1, 2) @ points
    if noisy:
        spread = ((points.square() * real[:, None]).sum(2, keepdim=True) / count).sqrt()  # their mean is 0
        points += torch.rand(points.shape, device=device, generator=random).sub_(0.5).mul_(0.5 * spread)
        points = torch.where(real[:, None], points, points[..., :1])
    low, high = points.amin(2, keepdim=True) - 0.001, points.amax(2, keepdim=True) + 0.001
    side = (high - low).amax(1, keepdim=True)
    cells = points.sub_((low + high) / 2).div_(side / SIDE).add_(SIDE / 2).long().clamp_(0, SIDE - 1)
    flat = cells[:, 0] + SIDE * (cells[:, 1] + SIDE * cells[:, 2])
    grids = torch.zeros(len(images), SIDE**3, device=device).scatter_add_(1, flat, real.float())
    return grids / grids.amax(1, keepdim=True)


def _clouds(images: Tensor) -> tuple[Tensor, Tensor]:
    """Points of (N, 28, 28) images as rows, columns and depths in pixels, (3, all points) float32, and how many each has: (N,) int64."""
    ink, device = F.pad(images > 0, (1, 1, 1, 1)), images.device
    digit, rows, columns = ink.nonzero(as_tuple=True)
    pattern = sum((~ink[digit, rows + down, columns + right]).long() << k for k, (down, right) in enumerate(NEIGHBOURS))
    boxes, most = _boxes(device)
    count = torch.as_tensor(POINTS, device=device)[pattern]
    before = count.cumsum(0) - count
    index = torch.repeat_interleave(pattern * most - before, count)
    points = boxes.index_select(1, index.add_(torch.arange(len(index), device=device)))
    points[:2] += torch.repeat_interleave(torch.stack([rows, columns]).float(), count, dim=1)
    return points, torch.zeros(len(images), dtype=torch.int64, device=device).index_add_(0, digit, count)


@lru_cache
def _boxes(device: torch.device) -> tuple[Tensor, int]:
    """All BOXES in a row as (3, 16 · most) float32, each with room for `most` points."""
    most = int(POINTS.max())
    padded = [np.pad(box, ((0, most - len(box)), (0, 0))) for box in BOXES]
    return torch.from_numpy(np.concatenate(padded).T.astype(np.float32)).to(device), most


def _in_plane(n: int, random: torch.Generator, rotate: float, scale: float, shear: float) -> Tensor:
    """(n, 3, 3) matrices to multiply from the left: stretch rows and columns, slant, turn; the depth stays."""
    draw = torch.rand(4, n, device=random.device, generator=random) * 2 - 1
    angle, slant = draw[0] * math.radians(rotate), torch.tan(draw[1] * math.radians(shear))
    high, wide = 1 + draw[2] * scale, 1 + draw[3] * scale
    matrix = torch.zeros(n, 3, 3, device=random.device)
    matrix[:, 0, 0], matrix[:, 0, 1] = high * angle.cos(), wide * (angle.sin() + slant * angle.cos())
    matrix[:, 1, 0], matrix[:, 1, 1] = -high * angle.sin(), wide * (angle.cos() - slant * angle.sin())
    matrix[:, 2, 2] = 1
    return matrix


def _upright_then(angles: Tensor) -> Tensor:
    """(N, 3) angles x, y, z in radians → (N, 3, 3): the quarter turn to upright, then Rz @ Ry @ Rx, to multiply from the right."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().T, angles.sin().T
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)

    def matrix(*values: Tensor) -> Tensor:
        return torch.stack(values, 1).view(-1, 3, 3)

    about_x = matrix(one, zero, zero, zero, cx, sx, zero, -sx, cx)
    about_y = matrix(cy, zero, -sy, zero, one, zero, sy, zero, cy)
    about_z = matrix(cz, sz, zero, -sz, cz, zero, zero, zero, one)
    upright = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]], device=angles.device)
    return upright @ about_z @ about_y @ about_x


def main(words: list[str]) -> None:
    from utils import data  # the floor above, which reads what this writes

    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m utils.voxels", description=__doc__, formatter_class=layout)
    parser.add_argument("what", choices=["build"])
    parser.parse_args(words)
    path = ROOT / "data" / FILE
    rows = data.build_voxels(path)
    print(f"{data.shown(path)}: " + ", ".join(f"{name} {values.shape}" for name, values in rows._asdict().items()))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CourseError as error:
        sys.exit(f"voxels: {error}")
