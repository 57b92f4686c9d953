"""The device that a network trains on: the first one that works."""

from functools import lru_cache
from itertools import pairwise

import torch
from torch.nn import functional as F

from .. import CourseError
from . import ddp


def pick_device(name: str = "auto", kind: str = "images") -> torch.device:
    """The named device, or for "auto" the first of CUDA, MPS and CPU that works. Raises CourseError if it is missing.

    kind: of the inputs, "images" or "voxels". On CUDA, float32 is not rounded to TF32. Of several processes, each gets
    its own GPU, or all get the CPU.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if ddp.world_size() > 1:
        name = ddp.device_name(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [key for key in there if there[key]]
    if name == "auto":
        return _first_that_works(tuple(available), kind)
    key, _, number = name.partition(":")
    most = {"cuda": torch.cuda.device_count()}.get(key, 1)
    if key not in available or (number and not (number.isdecimal() and int(number) < most)) or name.endswith(":"):
        raise CourseError(f"device {name!r} is not available: expected auto or one of {', '.join(available)}")
    reason = failure(torch.device(name), kind)
    if reason:
        raise CourseError(f"device {name!r} can't be used ({reason}): choose --device cpu")
    return torch.device(name)


@lru_cache  # a process tries each device once
def _first_that_works(names: tuple[str, ...], kind: str) -> torch.device:
    for name, following in pairwise(names):
        reason = failure(torch.device(name), kind)
        if not reason:
            return torch.device(name)
        print(f"{name.upper()} can't be used ({reason}): {following.upper()} is next")
    return torch.device("cpu")


def failure(device: torch.device, kind: str = "images") -> str:
    """Why a listed device can't be used, in one line; "" if a small operation works on it."""
    if device.type == "cpu":
        return ""
    dims = 3 if kind == "voxels" else 2
    try:
        image, grid = torch.ones(1, 1, *[2] * dims, device=device), torch.zeros(1, *[2] * dims, dims, device=device)
        F.grid_sample(image, grid, align_corners=False).sum().item()  # MPS before torch 2.9 lacks voxels
    except (RuntimeError, AssertionError) as error:
        todo = "; voxels need torch 2.9 or newer there" if device.type == "mps" and kind == "voxels" else ""
        return str(error).strip().partition("\n")[0][:160] + todo
    return ""
