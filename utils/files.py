"""Files, complete or not at all: atomic writes, typed JSON, JSON lines, IDX, tensors."""

import errno
import gzip
import io
import math
import os
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from glob import escape
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import msgspec
import numpy as np
import torch
from torch import Tensor

from . import CourseError, printable, workspace

try:
    import fcntl
except ImportError:  # not a POSIX system: no locks
    fcntl = None

T = TypeVar("T")
# bytes of the largest files that are read: text, tensors (weights, checkpoints, data), JSON, the pickle of an archive
TEXT, TENSORS, JSON, PICKLE = 16 * 2**20, 400 * 2**20, 2 * 2**20, 2**20
ABANDONED = 3600  # seconds without a change after which a temporary file is that of a killed process


def shorten(text: object, most: int = 200) -> str:
    """A text from outside, safe to print (see printable) and shortened in the middle."""
    line = printable(str(text))
    return line if len(line) <= most else f"{line[: most // 2]}…{line[-most // 2 :]}"


def one_line(text: object, most: int = 200) -> str:
    """A message of others, such as an error's, in one line of single spaces, and shortened."""
    return shorten(" ".join(str(text).split()), most)


def display_path(path: Path) -> str:
    """A path as a reader types it: relative to the repository if it is inside."""
    return shorten(path.relative_to(workspace.root) if path.is_relative_to(workspace.root) else path, 400)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` to write to; it replaces `path` after the block, or is deleted if that fails.

    Raises CourseError if the folder can't be written; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{escape(path.name)}.*.new"):
            with suppress(OSError):  # another process was faster
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _unwritten(path: Path, error: OSError) -> CourseError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    todo = f"{'Free some space' if full else 'Make the folder writable'} and run again."
    reason = error.strerror or error
    return CourseError(f"{display_path(path)} could not be written ({reason}); the old file is untouched. {todo}")


def write(path: Path, content: bytes) -> None:
    """Write a complete file or none. Raises CourseError like `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def exists(path: Path) -> bool:
    """Whether a path exists. Raises CourseError if the system doesn't say: a closed folder, a long name."""
    try:
        return path.exists()
    except OSError as error:
        raise _unreadable(path, error, "Use another path.") from error


def require_regular_file(path: Path, todo: str) -> None:
    """Raise CourseError for what is no file: a folder, or a pipe, which has no end."""
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113  these raise no error
        raise CourseError(f"{display_path(path)} is no regular file: expected one. {todo}")


def read(path: Path, todo: str = "Check out the file again.", most: int = TEXT) -> bytes:
    """A file's bytes. Raises CourseError if it is missing, unreadable, or above `most` bytes."""
    require_regular_file(path, todo)
    try:
        size = path.stat().st_size
        if size > most:
            raise CourseError(f"{display_path(path)} is {size:,} bytes: expected at most {most:,}. {todo}")
        return path.read_bytes()
    except FileNotFoundError:
        raise CourseError(f"{display_path(path)} is missing. {todo}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, todo) from error


def _unreadable(path: Path, error: Exception, todo: str) -> CourseError:
    todo = "Change its permissions, or those of the folders above it." if isinstance(error, PermissionError) else todo
    reason = getattr(error, "strerror", None) or error
    return CourseError(f"{display_path(path)} can't be read ({reason}): expected a readable file. {todo}")


def write_json(path: Path, value: object) -> None:
    """Write a dataclass, or plain containers, as indented JSON (see without_defaults)."""
    write(path, msgspec.json.format(msgspec.json.encode(without_defaults(value)), indent=2) + b"\n")


def without_defaults(value: object) -> object:
    """Dataclasses as dicts without fields that hold their defaults, so that fields can be added and removed later."""
    if isinstance(value, dict):
        return {key: without_defaults(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_defaults(item) for item in value]
    if not is_dataclass(value):
        return value
    found = {field: getattr(value, field.name) for field in fields(value)}
    return {field.name: without_defaults(item) for field, item in found.items() if item != _default(field)}


def _default(field: Field) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def read_json(path: Path, kind: type[T], todo: str = "Check out the file again.") -> T:
    """A JSON file as the dataclass `kind`. Raises CourseError like `decode`."""
    return decode(read(path, todo, JSON), kind, display_path(path), todo)


def decode(content: bytes, kind: type[T], where: str, todo: str = "Check out the file again.") -> T:
    """JSON as the dataclass `kind`, without unknown fields. Raises CourseError: `where`, the field, found, expected."""
    try:
        plain = msgspec.json.decode(content)
        if not _in_range(plain):
            raise CourseError(f"{where}: found a whole number of more than 63 bits, expected none. {todo}")
        value = msgspec.convert(plain, kind)
        extra = set(_fields(plain)) - set(_fields(msgspec.to_builtins(value)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise CourseError(f"{where}: {one_line(error)}. {todo}") from error
    if extra:
        found = shorten(min(extra))
        raise CourseError(f"{where}: found the unknown field `{found}`, expected none of that name. {todo}")
    return value


def _in_range(plain: object) -> bool:
    """Whether every whole number fits into 63 bits and a sign."""
    if isinstance(plain, dict | list):
        return all(map(_in_range, plain.values() if isinstance(plain, dict) else plain))
    return not isinstance(plain, int) or abs(plain) < 2**63


def _fields(plain: object, path: str = "$") -> Iterator[str]:
    """The path of each field in nested containers."""
    for key, value in plain.items() if isinstance(plain, dict) else ():
        yield f"{path}.{key}"
        yield from _fields(value, f"{path}.{key}")
    for value in plain if isinstance(plain, list | tuple) else ():
        yield from _fields(value, f"{path}[…]")


def append_line(path: Path, value: object) -> None:
    """Add a line of JSON to a file, in place of a last line that was cut off. Processes may append side by side.

    Raises CourseError if the file can't be written; the old lines are then untouched.
    """
    require_regular_file(path, "Delete it and run again.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            file.seek(0)
            kept = _whole_lines(file.read())
            file.truncate(len(kept))
            end = b"\n" if kept and not kept.endswith(b"\n") else b""
            file.write(end + msgspec.json.encode(without_defaults(value)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritten(path, error) from error


def _whole_lines(content: bytes) -> bytes:
    """The lines of a JSON lines file, without a last line that was cut off."""
    end = content.rfind(b"\n") + 1
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        msgspec.json.decode(content[end:])  # fails if the closing bracket is missing
        return content
    return content[:end]


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """The lines of a JSON lines file, without one that was cut off; [] if there is no file. Raises CourseError."""
    lines = _whole_lines(read(path)).split(b"\n") if exists(path) else []
    where = display_path(path)
    return [decode(line, kind, f"{where}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def load_safely(path: Path, content: bytes, todo: str) -> dict:
    """torch.load of tensors and plain containers only, from a file that is not larger unpacked. Raises CourseError."""
    cause = None
    try:
        wrong = _archive_problem(content)
        if not wrong:
            return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:  # its own message explains how to load unsafely
        wrong, cause = "it holds more than tensors, numbers and text", error
    except Exception as error:  # a damaged file can raise any exception
        wrong, cause = f"it is damaged ({type(error).__name__})", error
    what = f"{display_path(path)} was rejected by the safe loader: {wrong}"
    raise CourseError(f"{what}, expected what torch.save writes of tensors. {todo}") from cause


def _archive_problem(content: bytes) -> str:
    """Why a file of tensors is not unpacked; "" if it can be. torch.save compresses nothing."""
    if not content.startswith(b"PK\3\4"):
        return "it is no archive of PyTorch's"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        return "its members are compressed or encrypted"
    if sum(member.file_size for member in members) > len(content):
        return "its members are larger than the file"
    if any(member.file_size > PICKLE for member in members if member.filename.endswith(".pkl")):
        return f"its description of the tensors has more than {PICKLE:,} bytes"
    return ""


def to_bytes(content: object) -> bytes:
    """torch.save into memory: equal tensors give equal bytes, for any file name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


IDX_TYPES = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}
AGAIN = "Delete both files and run again to download them."


def memory_bound() -> float:
    """The size in bytes above which a file of images is mapped instead of read: COURSE_MEMORY_GB, or no bound."""
    bound = os.environ.get("COURSE_MEMORY_GB") or "inf"
    try:
        return float(bound) * 1e9
    except ValueError:
        raise CourseError(f"COURSE_MEMORY_GB = {bound!r}: expected a number of gigabytes") from None


def read_idx(path: Path) -> Tensor:
    """An IDX file of uint8 or int32 with up to three axes, perhaps gzipped (.gz); mapped if larger than memory_bound().

    Format: two zero bytes, type, number of axes, each axis as a big-endian uint32, then the values.
    Raises CourseError if it can't be read, or if header and size disagree.
    """
    require_regular_file(path, AGAIN)
    name, zipped = display_path(path), path.suffix == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            dtype, shape = _idx_header(name, file.read(16))
            start = 4 + 4 * len(shape)
            size, found = start + math.prod(shape) * dtype.itemsize, path.stat().st_size
            if not zipped and found == size > memory_bound():
                return torch.from_numpy(np.memmap(path, dtype, "c", start, shape))  # "c": the file is never written to
            if size > TENSORS and (zipped or memory_bound() == math.inf):
                todo = "With COURSE_MEMORY_GB=0.4 larger files are mapped, if they are not zipped."
                raise CourseError(f"{name} says it is {size:,} bytes: expected at most {TENSORS:,}. {todo}")
            file.seek(start)
            content = bytearray(file.read(size - start + 1) if zipped or found == size else b"")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error, AGAIN) from error
    found = start + len(content) if zipped else found
    if found != size:
        axes = " × ".join(map(str, shape))
        raise CourseError(f"{name} is {found:,} bytes, but its header ({axes}) says {size:,}. {AGAIN}")
    values = np.frombuffer(content, dtype).reshape(shape)
    return torch.from_numpy(values.astype(dtype.newbyteorder("="), copy=False))


def _idx_header(name: str, head: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of an IDX file's values. Raises CourseError."""
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 3:
        found = head[:4].hex(" ") or "nothing"
        raise CourseError(f"{name} is not an IDX file: it starts with {found}, expected 00 00 08 01 to 03. {AGAIN}")
    if len(head) < 4 + 4 * head[3]:
        expected = f"expected {4 + 4 * head[3]} and the values"
        raise CourseError(f"{name} ends within its header, after {len(head)} bytes: {expected}. {AGAIN}")
    shape = struct.unpack_from(f">{head[3]}I", head, 4)
    if 0 in shape:
        raise CourseError(f"{name} holds nothing ({' × '.join(map(str, shape))}): expected images or labels. {AGAIN}")
    return IDX_TYPES[head[2]], shape


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 or int32 tensor of up to three axes as the IDX file that read_idx reads."""
    kind = {torch.uint8: 0x08, torch.int32: 0x0C}[values.dtype]
    head = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    write(path, head + values.contiguous().numpy().astype(IDX_TYPES[kind]).tobytes())
