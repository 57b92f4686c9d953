"""Name → tensors: MNIST and its siblings through torchvision, scikit-learn's digits where there is no network."""

import hashlib
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils import ROOT, CourseError, smoke, voxels


class Split(NamedTuple):
    """images: (N, 1, 28, 28) uint8, or voxel grids (N, 1, 16, 16, 16) float32 in [0, 1]; labels: (N,) int64."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def __getitem__(self, rows) -> "Split":
        return Split(self.images[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set as whole tensors, with the facts that a log quotes."""

    name: str  # what it is, not what was asked for: "digits" when they stand in
    train: Split
    test: Split
    mean: float  # of all training pixels scaled to 0…1, and their standard deviation; 0 and 1 for voxels, which are not normalised
    std: float
    fingerprint: str  # SHA-256 over shapes and bytes of the four whole tensors
    classes: tuple[str, ...]
    whole: bool = True  # False for the few hundred images of a smoke run
    valid: Split | None = None
    source: str = ""  # of voxels: published, fetched or rebuilt
    digits: Tensor | None = None  # of voxels: (N, 28, 28) uint8, from which training rows 2i and 2i + 1 come

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data on `device`."""
        valid = self.valid and self.valid.to(device)
        return replace(self, train=self.train.to(device), test=self.test.to(device), valid=valid)

    def hold_out(self, n: int) -> "Dataset":
        """Move `n` training images to `valid`: the last n of a permutation pinned for all time (NumPy's RandomState 0).

        Of voxels the two rows of a digit stay together, and their order stays upright, rotated.
        """
        group = 1 if self.digits is None else 2
        if not 0 < n < len(self.train) or n % group:
            even = "even, " * (group == 2)
            raise CourseError(f"valid = {n}: expected {even}1 to {len(self.train) - 1}, {self.name} has {len(self.train)} training images")
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(self.train) // group))
        rows = (order[:, None] * group + torch.arange(group)).flatten()
        digits = self.digits if self.digits is None else self.digits[order[: -n // group]]
        valid = self.train[rows[-n:]]
        if valid.images.shape[1:] != self.test.images.shape[1:]:  # still digits, of which grids are drawn
            valid = Split(_grids(voxels.pairs(valid.images[::2, 0].numpy(), (0, 0))), valid.labels)
        return replace(self, train=self.train[rows[:-n]], valid=valid, digits=digits)

    def undrawn(self) -> "Dataset":
        """Voxels: the same with each training row as the (1, 28, 28) image of its digit, for grids to be drawn from anew."""
        return replace(self, train=Split(self.digits.repeat_interleave(2, 0).unsqueeze(1), self.train.labels))


@dataclass(frozen=True)
class Source:
    """Where torchvision keeps a set of MNIST's shape: its class, and the names of the IDX files below `folder`/raw."""

    torchvision_class: str
    prefixes: tuple[str, str] = ("train-", "t10k-")
    labels: str = "labels-idx1-ubyte"
    options: dict = field(default_factory=dict)
    classes: tuple[str, ...] = tuple("0123456789")
    fix: Callable[[Tensor], Tensor] = lambda images: images

    def files(self, root: Path) -> list[Path]:
        raw = root / self.torchvision_class / "raw"
        return [raw / (prefix + kind) for prefix in self.prefixes for kind in ("images-idx3-ubyte", self.labels)]

    def download(self, root: Path) -> None:
        from torchvision import datasets  # a second to import, and only a download needs it

        for train in (True, False):
            getattr(datasets, self.torchvision_class)(str(root), train=train, download=True, **self.options)


SOURCES = {
    "mnist": Source("MNIST"),
    "fashion_mnist": Source(
        "FashionMNIST",
        classes=("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "kmnist": Source("KMNIST", classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
    "qmnist": Source("QMNIST", prefixes=("qmnist-train-", "qmnist-test-"), labels="labels-idx2-int"),
    "emnist_digits": Source(
        "EMNIST",
        prefixes=("emnist-digits-train-", "emnist-digits-test-"),
        options={"split": "digits"},
        fix=lambda images: images.transpose(-1, -2),  # EMNIST's files hold columns first
    ),
}
NAMES = (*SOURCES, "digits", "mnist3d", "mnist3d_all")
# The true files, as torchvision's MD5 sums and this digest of the tensors agree, and the voxels that are rebuilt from them: only these
# may be published.
PUBLISHABLE = {
    "mnist": "c73256ed0c099d8f4da98399f1de1b778e19be962b1cdc2fdd96f03db696429d",
    "mnist3d": "68ebaa89f4b546db4be9045541e3309258c75eb98f3358c989f4a917f30484d4",
    "mnist3d_all": "8f1289f6916ea793ec0a670dff23a647ef38c6055cfc6f76a5dcd1a7579e1253",
}


def load(name: str = "mnist") -> Dataset:
    """Load a data set by name (one of NAMES): from $COURSE_DATA (a relative one starts at the
    repository's root) or data/, else downloaded into data/.

    Where neither is possible, says so in one line and returns scikit-learn's 1,797 handwritten digits under their own
    name. In a smoke run only the first few hundred images are kept.

    Raises CourseError for an unknown name, or for a file that is damaged or does not fit the others.
    """
    if name not in NAMES:
        raise CourseError(f"no data set is called {name!r}: expected one of {', '.join(NAMES)}")
    if name.startswith("mnist3d"):
        return _voxels(whole_mnist=name == "mnist3d_all")
    parts = _digits() if name == "digits" else _idx(name)
    if parts is None:
        name, parts = "digits", _digits()
    classes = SOURCES[name].classes if name in SOURCES else tuple("0123456789")
    train, test = parts
    counts = sum(torch.bincount(part.flatten(), minlength=256) for part in train.images.split(CHUNK)).double() / train.images.numel()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum()
    std = (counts * (values - mean) ** 2).sum().sqrt()
    data = Dataset(name, train, test, round(mean.item(), 6), round(std.item(), 6), _fingerprint(*train, *test), classes)
    if smoke():
        data = replace(data, train=train[:512], test=test[:256], whole=False)
    return data


def _voxels(whole_mnist: bool = False) -> Dataset:
    """3D-MNIST: the published file where it lies in a data folder or kagglehub can fetch it, else rebuilt from MNIST and kept.

    whole_mnist: instead of its training rows the images of all of MNIST's training digits, two rows each, undrawn.
    """
    mnist = load("mnist")
    # a smoke run's few are not worth a file
    rows, source = (voxels.build(*_first(mnist, 192, 64)), "rebuilt") if smoke() else _voxel_rows(mnist)
    train, test = (
        Split(_grids(grids), torch.from_numpy(labels)) for grids, labels in ((rows.X_train, rows.y_train), (rows.X_test, rows.y_test))
    )
    name, digits = f"{mnist.name}3d", mnist.train.images[: len(train) // 2, 0]  # voxels of the digits that stand in say so
    if whole_mnist:
        name, digits = f"{name}_all", mnist.train.images[:, 0]
        train = Split(digits.repeat_interleave(2, 0).unsqueeze(1), mnist.train.labels.repeat_interleave(2))
    fingerprint = _fingerprint(*train, *test)
    return Dataset(name, train, test, 0.0, 1.0, fingerprint, mnist.classes, not smoke(), source=source, digits=digits)


def _grids(rows: np.ndarray) -> Tensor:
    """(N, 4096) → (N, 1, 16, 16, 16)."""
    return torch.from_numpy(rows).view(-1, 1, voxels.SIDE, voxels.SIDE, voxels.SIDE)


def _voxel_rows(mnist: Dataset) -> tuple[voxels.Rows, str]:
    """The rows of full_dataset_vectors.h5 and where they are from. A rebuilt file is cached in data/."""
    cache = ROOT / "data" / voxels.FILE
    for path in [root / file for root in _folders() for file in (voxels.FILE, voxels.FILE.name)]:
        if path.is_file():
            rows, facts = voxels.read(path)
            if facts.get("mnist", mnist.fingerprint) == mnist.fingerprint:  # else it was rebuilt from other digits
                return rows, "rebuilt" if facts else "published"
    if mnist.name != "mnist":  # of digits that stand in nothing is kept
        return voxels.build(*_first(mnist, voxels.TRAIN, voxels.TEST), echo=True), "rebuilt"
    fetched = _from_kaggle()
    return (voxels.read(fetched)[0], "fetched") if fetched else (build_voxels(cache, mnist), "rebuilt")


def _from_kaggle() -> Path | None:
    """full_dataset_vectors.h5 by kagglehub; None where that is not installed, or (said in one line) can't fetch it."""
    try:
        import kagglehub
    except ImportError:
        return None
    try:
        return Path(kagglehub.dataset_download("daavoo/3d-mnist", path=voxels.FILE.name))
    except Exception as error:  # network, login or service: kagglehub raises errors of several libraries
        print(f"3D-MNIST could not be fetched by kagglehub ({' '.join(str(error).split())[:120]}): rebuilding it", file=sys.stderr)
        return None


def build_voxels(path: Path, mnist: Dataset | None = None) -> voxels.Rows:
    """Rebuild full_dataset_vectors.h5 from MNIST at `path`, with a progress bar."""
    mnist = mnist or load("mnist")
    rows = voxels.build(*_first(mnist, voxels.TRAIN, voxels.TEST), echo=True)
    voxels.write(path, rows, {"rebuilt by": "utils.voxels", "mnist": mnist.fingerprint, "seed": 0})
    return rows


def _first(mnist: Dataset, train: int, test: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images (N, 28, 28) and labels (N,) of the first digits of both halves."""
    return [(split.images[:count, 0].numpy(), split.labels[:count].numpy()) for split, count in ((mnist.train, train), (mnist.test, test))]


def _folders() -> list[Path]:
    """Where data may lie: $COURSE_DATA if it is set, then data/."""
    return [ROOT / folder for folder in (os.environ.get("COURSE_DATA"), "data") if folder]


def _idx(name: str) -> tuple[Split, Split] | None:
    """The two halves of a torchvision set from the first folder that holds all its files; None if there is no way to get it."""
    source = SOURCES[name]
    roots = _folders()
    root = next((root for root in roots if all(file.is_file() for file in source.files(root))), None)
    if root is None:
        root, timeout = roots[-1], socket.getdefaulttimeout()
        try:
            socket.setdefaulttimeout(20)  # torchvision sets none: a silent network would hang
            source.download(root)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            print(
                f"{name} is neither in {' nor in '.join(map(shown, roots))}, and could not be downloaded ({reason}). "
                f"To fix it, put {', '.join(file.name for file in source.files(root))} into "
                f"{shown(source.files(root)[0].parent)}, or set COURSE_DATA to the folder that holds "
                f"{source.torchvision_class}/raw. Going on with scikit-learn's 1,797 handwritten digits; nothing can be published.",
                file=sys.stderr,
            )
            return None
        finally:
            socket.setdefaulttimeout(timeout)
    train_images, train_labels, test_images, test_labels = (read_idx(file) for file in source.files(root))
    halves = []
    for images, labels, file in (
        (train_images, train_labels, source.files(root)[0]),
        (test_images, test_labels, source.files(root)[2]),
    ):
        labels = labels.reshape(len(labels), -1)[:, 0].long()  # QMNIST's rows hold the class first
        if len(images) != len(labels):
            raise CourseError(
                f"{shown(file)} holds {len(images)} images, but its labels file {len(labels)} labels: expected as many. {ANEW}"
            )
        if images.shape[1:] != (28, 28) or not 0 <= labels.min() <= labels.max() <= 9:
            raise CourseError(
                f"{shown(file)}: expected 28×28 images with labels 0 to 9, found {tuple(images.shape[1:])} "
                f"and labels {labels.min()} to {labels.max()}. {ANEW}"
            )
        halves.append(Split(source.fix(images.unsqueeze(1)), labels))
    return tuple(halves)


ANEW = "Delete both files and run again to have them downloaded anew."
IDX_TYPES = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}


CHUNK = 10_000  # images; what is summed or hashed at a time, so that a mapped set is never in memory whole


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of uint8 or int32 with up to three axes, or map it if it is larger than memory_bound().

    Raises CourseError if header and size disagree.

    Format: two zero bytes, type, number of axes, each axis as a big-endian uint32, then the values.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 3:
            raise CourseError(
                f"{shown(path)} is not an IDX file: it starts with {head[:4].hex(' ') or 'nothing'}, expected 00 00 08 and 01 to 03. {ANEW}"
            )
        dtype, start = IDX_TYPES[head[2]], 4 + 4 * head[3]
        shape = tuple(np.frombuffer(head, ">u4", head[3], 4).tolist())
        expected = start + int(np.prod(shape)) * dtype.itemsize
        if size != expected:
            raise CourseError(
                f"{shown(path)} is {size:,} bytes, but its header ({' × '.join(map(str, shape))}) says {expected:,}: it is damaged. {ANEW}"
            )
        if size > memory_bound():
            return torch.from_numpy(np.memmap(path, dtype, "c", start, shape))  # "c": the file itself is never written to
        file.seek(start)
        values = np.fromfile(file, dtype).reshape(shape)
    return torch.from_numpy(values.astype(dtype.newbyteorder("="), copy=False))


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 or int32 tensor of up to three axes as the IDX file that read_idx reads."""
    kind = {torch.uint8: 0x08, torch.int32: 0x0C}[values.dtype]
    with path.open("wb") as file:
        file.write(struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape))
        values.contiguous().numpy().astype(IDX_TYPES[kind]).tofile(file)


def memory_bound() -> float:
    """Bytes above which a file of images is not read but mapped: COURSE_MEMORY_GB, by default no bound."""
    bound = os.environ.get("COURSE_MEMORY_GB") or "inf"
    try:
        return float(bound) * 1e9
    except ValueError:
        raise CourseError(f"COURSE_MEMORY_GB = {bound!r}: expected a number of gigabytes") from None


def _digits() -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits (UCI Optical Recognition, 8×8, 0…16), resized to 28×28; the last 360 are the test half."""
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
        for part in tensor.split(CHUNK):
            digest.update(part.contiguous().numpy())
    return digest.hexdigest()


def shown(path: Path) -> str:
    """A path as a reader would type it: relative to the repository where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
