"""MNIST image → point cloud → rotated, noisy copy → 16³ voxel grid, by the recipe of the published 3D-MNIST.

A digit is a solid six pixels deep: every pixel with ink is a box, sampled on its uncovered faces. The upright copies
equal the published ones; for the rotated ones the published random seed is unknown, so they agree in distribution only.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from .. import CourseError, files

SIDE = 16  # voxels
TRAIN, TEST = 5000, 1000  # digits: the first of each half of MNIST
PUBLISHED = Path("3d-mnist", "full_dataset_vectors.h5")
REBUILT = Path("3d-mnist", "rebuilt.h5")
DAMAGED = "Delete it and run again to have it rebuilt, or download it anew."
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (row, column) of the pixels that may cover a box's four sides


def _faces() -> list[np.ndarray]:
    """The sampled faces of a box around 0: front, back, and the sides of NEIGHBOURS; (P, 3) each."""
    wide, deep = np.linspace(-0.5, 0.5, 5), np.linspace(-3, 3, 30)
    axes = [(wide, wide, 3), (wide, wide, -3), (-0.5, wide, deep), (0.5, wide, deep)]
    axes += [(wide, -0.5, deep), (wide, 0.5, deep)]
    return [np.array(np.meshgrid(*face)).T.reshape(-1, 3) for face in axes]


FACES = _faces()
# BOXES[pattern]: a box whose side k is open if bit k of the pattern is set
BOXES = [np.concatenate([*FACES[:2], *(FACES[2 + k] for k in range(4) if pattern >> k & 1)]) for pattern in range(16)]
POINTS = np.array([len(box) for box in BOXES])


def _pixels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column (with a margin of one pixel) and pattern of open sides of every pixel with ink."""
    ink = np.pad(image > 0, 1)
    rows, columns = np.nonzero(ink)
    is_open = [~ink[rows + down, columns + right] for down, right in NEIGHBOURS]
    return rows, columns, sum(side.astype(np.int64) << k for k, side in enumerate(is_open))


def cloud(image: np.ndarray) -> np.ndarray:
    """The upright point cloud of a (28, 28) uint8 image with ink: (P, 3) float64, mean 0, largest extent 1.

    It equals the published generator's to the last bit, because many points lie on a boundary of two voxels: the same
    operations in the same order, the mean summed point by point, and a quarter turn whose cosine is 6e-17. Raises
    CourseError for an image without ink.
    """
    rows, columns, open_sides = _pixels(image)
    if not len(rows):
        raise CourseError("an image without ink has no solid: expected at least one pixel above 0")
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
    """The (3, 3) matrix Rz @ Ry @ Rx of three angles in degrees, to multiply from the right: points @ matrix."""
    (cx, sx), (cz, sz) = ((np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))) for angle in (x, z))
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return about_z @ _about_y(y) @ about_x


def _rotate(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """points @ matrix, by additions in a fixed order: the last bit of a matrix product depends on the machine."""
    x, y, z = points.T
    return np.stack([x * matrix[0, k] + y * matrix[1, k] + z * matrix[2, k] for k in range(3)]).T


def rotated(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy of a cloud, rotated by angles x, y ~ N(0, 90°) and z ~ N(0, 180°), every point moved uniformly by up to a
    quarter of the standard deviation along each axis. points: (P, 3) float64; returns the same."""
    turned = _rotate(points, rotation(*random.normal(0, (90, 90, 180))))
    noise = random.uniform(-0.25, 0.25, turned.shape[::-1]).T
    return turned + noise * turned.std(0)


def voxelize(points: np.ndarray) -> np.ndarray:
    """Points in each voxel of the smallest cube around a (P, 3) cloud, relative to the largest count: (4096,)."""
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
    return np.stack([voxelize(points), voxelize(rotated(points, np.random.default_rng(seed)))]).astype(np.float32)


def pairs(images: np.ndarray, seed: tuple[int, ...], echo: bool = False) -> np.ndarray:
    """Rows of (N, 28, 28) images, row 2i upright and 2i + 1 rotated: (2N, 4096) float32, for any number of threads."""
    rows = np.empty((2 * len(images), SIDE**3), np.float32)

    def fill(i: int) -> None:
        rows[2 * i : 2 * i + 2] = pair(images[i], (*seed, i))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        done, how = threads.map(fill, range(len(images))), {"disable": not echo, "mininterval": 0.5, "unit": "digit"}
        for _ in tqdm(done, "clouds", len(images), **how):
            pass
    return rows


class Rows(NamedTuple):
    """The datasets of full_dataset_vectors.h5: (N, 4096) float32 in [0, 1] and (N,) int64, upright and rotated."""

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
    """Write rows in the form of full_dataset_vectors.h5, with `facts` as the file's attributes. Raises CourseError."""
    import h5py  # few runs need it

    whole = io.BytesIO()  # on a full disk HDF5 would abort the process
    with h5py.File(whole, "w") as file:
        file.attrs.update(facts)
        for name, values in rows._asdict().items():
            packed = {"chunks": (min(100, len(values)), SIDE**3), "compression": "gzip", "compression_opts": 1}
            file.create_dataset(name, data=values, **(packed if values.ndim == 2 else {}))
    files.write(path, whole.getvalue())


def read(path: Path) -> tuple[Rows, dict[str, str]]:
    """The four datasets of a file like full_dataset_vectors.h5, and the file's attributes.

    Raises CourseError for a damaged file, a missing dataset, a wrong type or shape, or values out of range.
    """
    import h5py

    files.require_regular_file(path, DAMAGED)
    what = files.display_path(path)
    try:
        with h5py.File(path, "r") as file:
            for values in (file[name] for name in Rows._fields):  # before anything is read
                stored, said = values.id.get_storage_size(), values.nbytes
                if said > files.TENSORS or stored * 2000 < said or values.external:  # gzip packs zeros 1,000 times
                    found = f"{said:,} bytes, and {stored:,} are stored in this file"
                    raise ValueError(
                        f"{values.name} says {found}, expected at most {files.TENSORS:,}, all in this file"
                    )
            rows = Rows(*(file[name][:] for name in Rows._fields))
            # one text each: thousands of texts can share the bytes of one
            single = [name for name in ("mnist", "seed") if name in file.attrs and not file.attrs.get_id(name).shape]
            facts = {name: str(file.attrs[name]) for name in single}
    except BlockingIOError as error:
        raise CourseError(f"{what} is open in another program. Close it there and run again.") from error
    except PermissionError as error:
        raise CourseError(f"{what} can't be read. Change its permissions and run again.") from error
    except Exception as error:  # damaged bytes can raise anything
        expected = f"expected an HDF5 file with {', '.join(Rows._fields)}"
        raise CourseError(f"{what}: {files.shorten(error)}, {expected}. {DAMAGED}") from error
    for grids, labels in (rows[:2], rows[2:]):
        shapes = grids.shape == (len(labels), SIDE**3) and labels.shape == (len(labels),)
        numbers = grids.dtype.kind in "fiu" and labels.dtype.kind in "fiu"
        good = shapes and numbers and len(labels) and len(labels) % 2 == 0
        if not (good and 0 <= grids.min() <= grids.max() <= 1 and 0 <= labels.min() <= labels.max() <= 9):
            found = f"{grids.dtype} {grids.shape} and {labels.dtype} {labels.shape}"
            expected = f"two rows for each digit: (2N, {SIDE**3}) densities from 0 to 1, (2N,) labels from 0 to 9"
            raise CourseError(f"{what}: found {found}, expected {expected}. {DAMAGED}")
    types = (np.float32, np.int64, np.float32, np.int64)
    return Rows(*(values.astype(kind, copy=False) for values, kind in zip(rows, types, strict=True))), facts
