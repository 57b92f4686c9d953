"""Files, complete or not at all: atomic writes, typed JSON, JSON lines, IDX, tensors."""

import errno
import gzip
import io
import math
import os
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from glob import escape
from pathlib import Path
from typing import BinaryIO, TypeVar
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


def display_path(path: Path) -> str:
    """A path as a reader types it: relative to the repository if it is inside."""
    return printable(str(path.relative_to(workspace.root) if path.is_relative_to(workspace.root) else path))


def shorten(text: object, most: int = 200) -> str:
    """A text from outside, safe to print (see printable) and shortened in the middle."""
    line = printable(str(text))
    return line if len(line) <= most else f"{line[: most // 2]}…{line[-most // 2 :]}"


@contextmanager
def replacing(path: Path, before_rename: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A temporary path next to `path` to write to. It replaces `path` after the block, or is deleted if the block or
    `before_rename` fails.

    Raises CourseError if the folder can't be written; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{escape(path.name)}.*.new"):
            delete_abandoned(left)
        with temporary.open("xb") if fcntl else nullcontext() as mark:  # Windows can't rename an open file
            with suppress(AttributeError, OSError):  # no locks here
                fcntl.flock(mark, fcntl.LOCK_EX)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            before_rename()
            temporary.replace(path)
    except OSError as error:
        full, reason = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), error.strerror or error
        todo = f"{'Free some space' if full else 'Make the folder writable'} and run again."
        text = f"{display_path(path)} could not be written ({reason}); the old file is untouched. {todo}"
        raise CourseError(text) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def delete_abandoned(temporary: Path) -> bool:
    """Delete a temporary file unless a living process locks it, also in another container. Returns whether it did."""
    try:
        with temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink(missing_ok=True)
    except (AttributeError, OSError):  # no locks here, or locked
        return False
    return True


def write(path: Path, content: bytes, before_rename: Callable[[], None] = lambda: None) -> None:
    """Write a complete file or none; before_rename may raise to prevent it. Raises CourseError like `replacing`."""
    with replacing(path, before_rename) as temporary:
        temporary.write_bytes(content)


def require_writable(*folders: Path) -> None:
    """Raise CourseError if one of the folders can't be written."""
    for folder in folders:
        write(folder / ".writable", b"")
        (folder / ".writable").unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Whether a path exists. Raises CourseError if the system doesn't say: a closed folder, a long name."""
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        todo = "Change its permissions, or those of the folders above it."
        todo = "Use a shorter one." if error.errno == errno.ENAMETOOLONG else todo
        text = f"{_short(path)} can't be looked at ({error.strerror}): expected a readable path. {todo}"
        raise CourseError(text) from error
    except ValueError:  # a zero byte
        return False
    return True


def _short(path: Path) -> str:
    return shorten(display_path(path), 400)


def require_regular_file(path: Path, todo: str) -> None:
    """Raise CourseError for a pipe or a device, which has no end, and for a broken link."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise CourseError(f"{display_path(path)} is a link to nothing: expected a file. {todo}") from None
        return
    except (OSError, ValueError):  # reading reports other problems
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise CourseError(f"{display_path(path)} is a pipe, a device or a socket: expected a file. {todo}")


def read(path: Path, todo: str = "Check out the file again.", most: int = TEXT) -> bytes:
    """A file's bytes. Raises CourseError if it is missing, unreadable, above `most` bytes, or a Git LFS pointer."""
    require_regular_file(path, todo)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            content = file.read() if size <= most else b""
    except FileNotFoundError:
        raise CourseError(f"{display_path(path)} is missing. {todo}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        todo = "Change its permissions and run again." if isinstance(error, PermissionError) else todo
        raise CourseError(f"{_short(path)} can't be read ({reason}): expected a readable file. {todo}") from error
    if size > most:
        raise CourseError(f"{display_path(path)} is {size:,} bytes: expected at most {most:,}. {todo}")
    if content.startswith(b"version https://git-lfs"):
        todo = "expected the file itself: run `git lfs pull`."
        raise CourseError(f"{display_path(path)} is only a Git LFS pointer, {todo}")
    return content


def write_json(path: Path, value: object, before_rename: Callable[[], None] = lambda: None) -> None:
    """Write a dataclass, or plain containers, as indented JSON (see without_defaults)."""
    write(path, msgspec.json.format(msgspec.json.encode(without_defaults(value)), indent=2) + b"\n", before_rename)


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
        if not _is_of_numbers_in_range(plain):
            raise CourseError(f"{where}: found a whole number of more than 63 bits, expected none. {todo}")
        value = msgspec.convert(plain, kind)
        extra = _unknown(plain, msgspec.to_builtins(value))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CourseError(f"{where}: {' '.join(str(error).split())[:200]}. {todo}") from error
    if extra:
        raise CourseError(f"{where}: found the unknown field `{extra[:200]}`, expected none of that name. {todo}")
    return value


def _is_of_numbers_in_range(plain: object) -> bool:
    """Whether every whole number fits into 63 bits and a sign."""
    if isinstance(plain, dict | list):
        return all(map(_is_of_numbers_in_range, plain.values() if isinstance(plain, dict) else plain))
    return not isinstance(plain, int) or abs(plain) < 2**63


def _unknown(plain: object, known: object, path: str = "$") -> str:
    """The path of the first field that the dataclass does not have; "" if there is none."""
    if isinstance(plain, dict) and isinstance(known, dict):
        for key, value in plain.items():
            found = f"{path}.{key}" if key not in known else _unknown(value, known[key], f"{path}.{key}")
            if found:
                return found
    if isinstance(plain, list) and isinstance(known, list):
        return next(filter(None, map(_unknown, plain, known, [f"{path}[…]"] * len(plain))), "")
    return ""


def append_line(path: Path, value: object) -> None:
    """Add a line of JSON to a file, after removing a last line that was cut off. Processes may append side by side.

    Raises CourseError if the file can't be written; the old lines are then untouched.
    """
    line = msgspec.json.encode(without_defaults(value)) + b"\n"
    todo = "Make room, or the folder writable, and run again."
    require_regular_file(path, "Delete it and run again.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            file.seek(0)
            before = file.read()
            kept = b"".join(_whole_lines(before))
            end = b"\n" if kept and not kept.endswith(b"\n") else b""
            file.truncate(len(kept))
            try:
                _write_all(file, end + line)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(len(kept))  # no part of a line stays
                raise
    except OSError as error:
        text = f"{_short(path)} could not be written ({error.strerror}): its last line is missing. {todo}"
        raise CourseError(text) from error


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Write everything: one call may write only a part, and the next call then raises the reason."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _whole_lines(content: bytes) -> Iterator[bytes]:
    """The lines of a JSON lines file with their ends, without a last line that was cut off."""
    end = content.rfind(b"\n") + 1
    yield from io.BytesIO(content[:end])
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        msgspec.json.decode(content[end:])  # fails if the closing bracket is missing
        yield content[end:]


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """The lines of a JSON lines file, without one that was cut off; [] if there is no file. Raises CourseError."""
    if not exists(path):
        return []
    lines = enumerate(_whole_lines(read(path)), 1)
    return [decode(line, kind, f"{display_path(path)}, line {number}") for number, line in lines if line.strip()]


def load_safely(path: Path, content: bytes, todo: str) -> dict:
    """torch.load of tensors and plain containers only, from a file that is not larger unpacked. Raises CourseError."""
    cause = None
    try:
        wrong = _archive_problem(content)
        found = wrong or torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:  # its own message explains how to load unsafely
        wrong, cause = "it holds more than tensors, numbers and text", error
    except Exception as error:  # a damaged file can raise any exception
        wrong, cause = f"it is damaged ({type(error).__name__})", error
    if wrong:
        what = f"{display_path(path)} was rejected by the safe loader: {wrong}"
        raise CourseError(f"{what}, expected what torch.save writes of tensors. {todo}") from cause
    return found


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
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _idx_values(path, file)
    except (OSError, EOFError, zlib.error) as error:
        cause, denied = getattr(error, "strerror", None) or error, isinstance(error, PermissionError)
        todo = "Change its permissions and run again." if denied else AGAIN
        raise CourseError(f"{_short(path)} can't be read ({cause}): expected an IDX file. {todo}") from error


def _idx_values(path: Path, file: BinaryIO) -> Tensor:
    """The values of an opened IDX file. Raises CourseError."""
    name, zipped, most = display_path(path), path.suffix == ".gz", memory_bound()
    dtype, start, shape = _idx_header(name, file.read(16))
    size = start + math.prod(shape) * dtype.itemsize
    if size > TENSORS and (zipped or most == math.inf):
        todo = "With COURSE_MEMORY_GB=0.4 larger files are mapped, if they are not zipped."
        raise CourseError(f"{name} says it is {size:,} bytes: expected at most {TENSORS:,}. {todo}")
    found = size if zipped else path.stat().st_size
    if found == size > most and not zipped:
        return torch.from_numpy(np.memmap(path, dtype, "c", start, shape))  # "c": the file itself is never written to
    content = np.empty(size - start, np.uint8) if found == size else None
    if content is not None:
        file.seek(start)
        found = start + _fill(content, file) + len(file.read(1))
    if found != size:
        axes = " × ".join(map(str, shape))
        raise CourseError(f"{name} is {found:,} bytes, but its header ({axes}) says {size:,}. {AGAIN}")
    return torch.from_numpy(content.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False))


def _fill(content: np.ndarray, file: BinaryIO) -> int:
    """Read bytes into a uint8 array, a part at a time, so that they are in memory once; returns how many there were."""
    done = 0
    while count := file.readinto(memoryview(content)[done : done + 2**20]):
        done += count
    return done


def _idx_header(name: str, head: bytes) -> tuple[np.dtype, int, tuple[int, ...]]:
    """Type, offset and shape of an IDX file's values. Raises CourseError."""
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 3:
        found = head[:4].hex(" ") or "nothing"
        raise CourseError(f"{name} is not an IDX file: it starts with {found}, expected 00 00 08 01 to 03. {AGAIN}")
    start = 4 + 4 * head[3]
    if len(head) < start:
        where = f"ends within its header, after {len(head)} bytes"
        raise CourseError(f"{name} {where}: expected {start} and the values. {AGAIN}")
    shape = struct.unpack_from(f">{head[3]}I", head, 4)
    if 0 in shape:
        axes = " × ".join(map(str, shape))
        raise CourseError(f"{name} holds nothing ({axes}): expected images or labels. {AGAIN}")
    return IDX_TYPES[head[2]], start, shape


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 or int32 tensor of up to three axes as the IDX file that read_idx reads."""
    kind = {torch.uint8: 0x08, torch.int32: 0x0C}[values.dtype]
    head = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    write(path, head + values.contiguous().numpy().astype(IDX_TYPES[kind]).tobytes())
