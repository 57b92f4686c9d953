"""The device that a network trains on: the first one that works."""

from functools import lru_cache
from itertools import pairwise

import torch
from torch.nn import functional as F

from .. import CourseError
from . import ddp


def pick_device(name: str = "auto", kind: str = "images") -> torch.device:
    """ "auto" → the first of CUDA, MPS and CPU that works; else the device of that name. Raises CourseError if it is
    not there or fails.

    kind: of what the network sees, "images" or "voxels". On CUDA, float32 is not rounded to TF32.
    Where several processes train together, each gets a GPU of its machine for itself, or all of them the CPU.
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


@lru_cache  # a process tries each device once, and prints once what failed
def _first_that_works(names: tuple[str, ...], kind: str) -> torch.device:
    for name, following in pairwise(names):
        reason = failure(torch.device(name), kind)
        if not reason:
            return torch.device(name)
        print(f"{name.upper()} can't be used ({reason}): {following.upper()} is next")
    return torch.device("cpu")


def failure(device: torch.device, kind: str = "images") -> str:
    """Why a device that PyTorch lists can't be used, in one line: one small operation is tried on it. "" if it
    works."""
    if device.type == "cpu":
        return ""
    dims = 3 if kind == "voxels" else 2
    try:
        images, grid = torch.ones(1, 1, *[2] * dims, device=device), torch.zeros(1, *[2] * dims, dims, device=device)
        F.grid_sample(
            images, grid, align_corners=False
        ).sum().item()  # an MPS of torch before 2.9 has it in two dimensions only
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0][:160]
        return (
            f"{reason}; voxels need torch 2.9 or newer there" if device.type == "mps" and kind == "voxels" else reason
        )
    return ""
