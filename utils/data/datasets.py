"""Name → tensors: MNIST and its siblings from their files, or scikit-learn's digits if no source responds."""

import hashlib
import sys
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ROOT, CourseError, folder_setting, smoke
from ..experiments import KINDS
from ..files import AGAIN, display_path, exists, read_idx
from . import sources, voxels
from .sources import SOURCES


@dataclass(frozen=True, eq=False)
class Split:
    """images: (N, 1, 28, 28) uint8, or voxel grids (N, 1, 16, 16, 16) float32 in [0, 1]; labels: (N,) int64.

    split[:100] is a Split of 100 rows; split[0] is one image and its label, as a DataLoader expects.
    """

    images: Tensor
    labels: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """As of torch's TensorDataset: images, labels = split.tensors."""
        return self.images, self.labels

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def __getitem__(self, rows) -> "Split | tuple[Tensor, Tensor]":
        chosen = self.images[rows], self.labels[rows]
        return chosen if isinstance(rows, Integral) else Split(*chosen)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set as whole tensors, with the facts that a log quotes."""

    name: str  # of these data: "digits" if they replace others
    kind: str  # images or voxels
    train: Split
    test: Split
    mean: float  # of all training pixels, scaled to 0…1; 0 for voxels, which are not normalized
    std: float  # of the same pixels; 1 for voxels
    fingerprint: str  # SHA-256 over shapes and bytes of the four whole tensors, floats rounded to five decimals
    classes: tuple[str, ...]
    whole: bool = True  # False for the few hundred images of a smoke run
    valid: Split | None = None
    originals: Tensor | None = None  # of voxels: (N, 28, 28) uint8, the digits of training rows 2i and 2i + 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.test.images.shape[1:])

    @property
    def parts(self) -> dict[str, Split]:
        """Parts of the test half with scores of their own: the upright and the rotated rows of voxels."""
        return {"upright": self.test[::2], "rotated": self.test[1::2]} if self.kind == "voxels" else {}

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data on `device`."""
        valid = self.valid and self.valid.to(device)
        return replace(self, train=self.train.to(device), test=self.test.to(device), valid=valid)

    def hold_out(self, n: int) -> "Dataset":
        """Move `n` training images to `valid`: the last n of a fixed permutation (NumPy's RandomState 0).

        The two rows of a digit's voxels stay together, upright before rotated. Raises CourseError for an impossible n.
        """
        group = 2 if self.kind == "voxels" else 1
        if not isinstance(n, Integral) or not 0 < n < len(self.train) or n % group:
            expected = f"{'even, ' if group == 2 else ''}1 to {len(self.train) - 1}"
            raise CourseError(f"valid = {n!r}: expected {expected}, {self.name} has {len(self.train)} training images")
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(self.train) // group))
        rows = (order[:, None] * group + torch.arange(group)).flatten()
        originals = self.originals if self.originals is None else self.originals[order[: -n // group]]
        valid = self.train[rows[-n:]]
        if valid.images.shape[1:] != self.input_shape:  # digits, not drawn yet
            valid = Split(_grids(voxels.pairs(valid.images[::2, 0].numpy(), (0, 0))), valid.labels)
        return replace(self, train=self.train[rows[:-n]], valid=valid, originals=originals)

    def undrawn(self) -> "Dataset":
        """Voxels with images of digits as training rows, to draw grids from. Raises CourseError without digits."""
        if self.originals is None:
            todo = "so no grids can be drawn anew: expected mnist3d"
            raise CourseError(f"the digits behind {self.name} are not known, {todo}")
        return replace(self, train=Split(self.originals.repeat_interleave(2, 0).unsqueeze(1), self.train.labels))


CHUNK = 10_000  # images that are summed or hashed at once: a mapped set is never in memory as a whole
NAMES = (*SOURCES, "digits", *KINDS)
# the real files, which torchvision's MD5 sums confirm, and the voxels rebuilt from them: only these can be published
PUBLISHABLE = {
    "mnist": "c73256ed0c099d8f4da98399f1de1b778e19be962b1cdc2fdd96f03db696429d",
    "mnist3d": "6c99941ceee1c6b8582ec04403757a910556126fe534ff8d56c59725164a2bb6",
    "mnist3d_all": "bb3f77e7fee5155e99d1c977367086f8bd9d86d8b9a2be994d3cbb97da553ae8",
}


def load(name: str = "mnist") -> Dataset:
    """Load a data set by name (one of NAMES) from $COURSE_DATA (relative to the repository) or data/, or download it to
    data/. mnist3d and mnist3d_all are rebuilt from MNIST and kept in data/; mnist3d_published is used in place.

    If this is impossible, prints so and returns scikit-learn's 1,797 digits under their own name. A smoke run keeps the
    first few hundred images. Files that differ from MNIST's are used, with a message. Raises CourseError for an unknown
    name, or a damaged file.
    """
    if name not in NAMES:
        raise CourseError(f"no data set is called {name!r}: expected one of {', '.join(NAMES)}")
    if name in KINDS:
        return _voxels(name)
    halves = None if name == "digits" else _idx(name)
    if halves is None:
        name, halves = "digits", _fallback_digits()
    train, test = halves
    counts = sum(torch.bincount(chunk.flatten(), minlength=256) for chunk in train.images.split(CHUNK))
    shares, values = counts.double() / train.images.numel(), torch.arange(256, dtype=torch.float64) / 255
    mean = (shares * values).sum()
    std = (shares * (values - mean) ** 2).sum().sqrt()
    pixels, fingerprint = (round(mean.item(), 6), round(std.item(), 6)), _fingerprint(*train.tensors, *test.tensors)
    classes = SOURCES[name].classes if name in SOURCES else tuple("0123456789")
    data = Dataset(name, "images", train, test, *pixels, fingerprint, classes)
    if PUBLISHABLE.get(name, fingerprint) != fingerprint:
        found = f"{name} in {' or '.join(map(display_path, folders()))} is not what is known by that name"
        print(f"{found}, so nothing on it can be published.", file=sys.stderr)
    if not smoke():
        return data
    train, test = train[:512], test[:256]
    return replace(data, train=train, test=test, fingerprint=_fingerprint(*train.tensors, *test.tensors), whole=False)


def _voxels(name: str) -> Dataset:
    """3D-MNIST, rebuilt or as published; the training half of mnist3d_all is all of MNIST's, two undrawn rows each."""
    whole, classes, originals = not smoke(), tuple("0123456789"), None
    if name == "mnist3d_published":
        rows = _published_rows()
    else:
        mnist = load("mnist")
        name, classes = name.replace("mnist", mnist.name), mnist.classes  # names fallback digits
        rows = _rebuilt_rows(mnist) if whole else voxels.build(*_first(mnist, 192, 64))
        originals = mnist.train.images[: len(rows.y_train) // 2, 0]
    train = Split(_grids(rows.X_train), torch.from_numpy(rows.y_train))
    test = Split(_grids(rows.X_test), torch.from_numpy(rows.y_test))
    if name.endswith("_all"):
        originals = mnist.train.images[:, 0]
        train = Split(originals.repeat_interleave(2, 0).unsqueeze(1), mnist.train.labels.repeat_interleave(2))
    if originals is None and not whole:
        train, test = train[:384], test[:128]
    fingerprint = _fingerprint(*train.tensors, *test.tensors)
    return Dataset(name, "voxels", train, test, 0.0, 1.0, fingerprint, classes, whole, originals=originals)


def _grids(rows: np.ndarray) -> Tensor:
    """(N, 4096) → (N, 1, 16, 16, 16)."""
    return torch.from_numpy(rows).view(-1, 1, voxels.SIDE, voxels.SIDE, voxels.SIDE)


def _rebuilt_rows(mnist: Dataset) -> voxels.Rows:
    """The rows of MNIST's digits, read from data/ if built from the same digits before, else built and kept there.

    If the file can't be written, prints so and goes on.
    """
    for folder in folders():
        path = folder / voxels.REBUILT
        if exists(path):
            rows, facts = voxels.read(path)
            if facts.get("mnist") == mnist.fingerprint:
                return rows
    rows = voxels.build(*_first(mnist, voxels.TRAIN, voxels.TEST), echo=True)
    if mnist.name == "mnist":  # not for fallback digits
        try:
            voxels.write(ROOT / "data" / voxels.REBUILT, rows, {"mnist": mnist.fingerprint, "seed": 0})
        except CourseError as error:
            print(f"{error} Going on without it.", file=sys.stderr)
    return rows


def _published_rows() -> voxels.Rows:
    """The rows of the published full_dataset_vectors.h5 in a data folder. Raises CourseError if it is missing."""
    paths = [folder / file for folder in folders() for file in (voxels.PUBLISHED, voxels.PUBLISHED.name)]
    found = next(filter(exists, paths), None)
    if found is None:
        expected = f"expected kaggle.com/daavoo/3d-mnist's file at {display_path(paths[-2])}"
        todo = "mnist3d is the same data rebuilt from MNIST, and needs no file."
        raise CourseError(f"mnist3d_published was not found: {expected}. {todo}")
    return voxels.read(found)[0]


def _first(mnist: Dataset, train: int, test: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images (N, 28, 28) and labels (N,) of the first digits of both halves."""
    halves = ((mnist.train, train), (mnist.test, test))
    return [(split.images[:count, 0].numpy(), split.labels[:count].numpy()) for split, count in halves]


def folders() -> list[Path]:
    """The folders of data: $COURSE_DATA if it is set, then data/."""
    return list(dict.fromkeys([ROOT / (folder_setting("COURSE_DATA") or "data"), ROOT / "data"]))


def _locate(name: str) -> list[Path] | None:
    """The four files of a set from the first folder with all of them, else downloaded into data/; or None."""
    source, roots = SOURCES[name], folders()
    found = next(filter(None, map(source.find, roots)), None) or sources.download(name, roots[-1])
    if found is None:
        wanted = source.files(roots[-1])
        print(
            f"{name} is neither in {' nor in '.join(map(display_path, roots))}, and no source responded. To fix it, "
            f"put {', '.join(file.name for file in wanted)} (or each with .gz) into {display_path(wanted[0].parent)}, "
            f"or set COURSE_DATA to the folder of {source.torchvision_class}/raw. Going on with scikit-learn's 1,797 "
            "handwritten digits as a stand-in: their results are compared with nothing, and nothing can be published.",
            file=sys.stderr,
        )
    return found


def _idx(name: str) -> tuple[Split, Split] | None:
    """The two halves of a set from its files; None without files. Raises CourseError for files that don't fit."""
    source, paths = SOURCES[name], _locate(name)
    if paths is None:
        return None
    halves, tensors = [], list(map(read_idx, paths))
    for images, labels, path in ((*tensors[:2], paths[0]), (*tensors[2:], paths[2])):
        labels = labels.reshape(len(labels), -1)[:, 0].long()  # QMNIST: the class comes first
        found = f"{len(images)} images of {tuple(images.shape[1:])} {images.dtype}, {len(labels)} labels"
        good = images.shape == (len(labels), 28, 28) and images.dtype == torch.uint8
        if not (good and len(labels) and 0 <= labels.min() <= labels.max() <= 9):
            expected = "as many images of 28×28 bytes as labels, all of them 0 to 9"
            raise CourseError(f"{display_path(path)} and its labels: found {found}, expected {expected}. {AGAIN}")
        images = images.transpose(1, 2) if source.columns_first else images
        halves.append(Split(images.unsqueeze(1), labels))
    return tuple(halves)


def _fallback_digits() -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits (8×8, 0…16), resized to 28×28; the last 360 are the test half."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16)
    images = F.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False).round().to(torch.uint8)
    both = Split(images, torch.from_numpy(bunch.target).long())
    return both[:-360], both[-360:]


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        for chunk in tensor.split(CHUNK):
            chunk = (chunk * 1e5).round().int() if chunk.is_floating_point() else chunk
            digest.update(chunk.contiguous().numpy())
    return digest.hexdigest()
