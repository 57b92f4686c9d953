"""What a number depends on besides recipe, seed and data: device, threads, versions, commit, and sources."""

import hashlib
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .. import ROOT
from ..training import devices

# the modules that a training run goes through; the others can change without a bit of the result changing
DECIDING = ("files", "models", "layers", "data/datasets", "data/voxels", "data/fresh_voxels", "data/augment")
DECIDING += tuple(sorted(f"training/{path.stem}" for path in (ROOT / "utils" / "training").glob("*.py")))
DECIDING += ("runs/job", "runs/execution")


@dataclass(frozen=True)
class Environment:
    """Where a run ran. threads: of one process; processes: that trained together; no_bfloat16: the recipe wants it, but
    the device lacks it, so it was float32; tf32: whether CUDA could round float32 to TF32 (None: not CUDA, or not
    recorded)."""

    device: str
    threads: int
    processes: int
    platform: str
    python: str
    torch: str
    numpy: str
    no_bfloat16: bool = field(default=False, kw_only=True)
    tf32: bool | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Code:
    """What ran. commit: with "+changes" if a deciding source differed, "unknown" outside git; sources: their digest."""

    commit: str
    sources: str

    @property
    def committed(self) -> bool:
        """Whether the deciding sources are those of a commit."""
        return self.commit != "unknown" and not self.commit.endswith("+changes")


@dataclass(frozen=True)
class Continued:
    """A continuation: after how many epochs, by which code, and where. None: not recorded."""

    after_epoch: int
    code: Code | None
    environment: Environment | None


def environment(device: torch.device, processes: int = 1, wants_bfloat16: bool = False) -> Environment:
    """This process's environment, for a training on `device` by a recipe that wants bfloat16 or not."""
    cuda = device.type == "cuda"
    return Environment(
        device=torch.cuda.get_device_name(device) if cuda else f"{device.type.upper()}, {processor()}",
        threads=torch.get_num_threads(),
        processes=processes,
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=np.__version__,
        no_bfloat16=wants_bfloat16 and not devices.has_bfloat16(device),
        tf32=(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32) if cuda else None,
    )


def processor() -> str:
    """The processor's name, with family and model if Linux tells them (rented machines hide much of a name)."""
    with suppress(OSError, KeyError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
        found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
        return f"{found['model name']} (family {found['cpu family']}, model {found['model']})"
    return platform.processor() or platform.machine()


@lru_cache
def code() -> Code:
    """The code when this is first called: before training, so that later changes don't count as what ran."""
    paths = [f"utils/{name}.py" for name in DECIDING]
    sources = hashlib.sha256(b"\0".join((ROOT / path).read_bytes() for path in paths)).hexdigest()[:16]
    try:
        _git("ls-files", "--error-unmatch", "--", *paths)
        changed = _git("status", "--porcelain", "--", *paths, "utils/experiments.py")
        return Code(_git("rev-parse", "HEAD") + ("+changes" if changed else ""), sources)
    except (OSError, subprocess.CalledProcessError):  # no git, no clone, or a clone that git does not trust
        return Code("unknown", sources)


def _git(*argv: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *argv]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.strip()


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
