"""The device that a network trains on, and what makes training faster there: kept memory, memory layout, bfloat16, a
batch norm that two threads of a CPU can share.

`prepare` changes a plain network before training; the trained weights return to a plain one.
"""

import ctypes
import platform
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import CourseError
from . import ddp

CACHE_LINE = 64  # bytes


def pick_device(name: str = "auto", kind: str = "images") -> torch.device:
    """The named device, or for "auto" the first of CUDA, MPS and CPU that works. Raises CourseError if it is missing.

    kind: of the inputs, "images" or "voxels". On CUDA, float32 is not rounded to TF32. Of several processes, each gets
    its own GPU, or all get the CPU.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if ddp.world_size() > 1:
        name = ddp.device_name(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    available = [key for key, count in counts.items() if count]
    if name == "auto":
        return _first_that_works(tuple(available), kind)
    if name not in available + [f"{key}:{number}" for key in available for number in range(counts[key])]:
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


def keep_memory() -> None:
    """Keep freed memory (on Linux): otherwise every batch of 1,024 causes page faults again."""
    if platform.system() == "Linux":
        with suppress(OSError, AttributeError):  # not glibc: nothing to tune
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-4, 0)  # M_MMAP_MAX: no allocation of its own mapping
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back in between


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies torch.bfloat16 in hardware; elsewhere it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()


def layout(model: nn.Module) -> torch.memory_format:
    """The memory layout in which a network trains fastest, on GPUs too: channels last, in two or three dimensions; the
    usual one for a network with kernels of both."""
    kernels = {parameter.ndim for parameter in model.parameters()} & {4, 5}
    if kernels == {4, 5}:
        return torch.preserve_format
    return torch.channels_last_3d if kernels == {5} else torch.channels_last


def prepare(model: nn.Module, device: torch.device) -> nn.Module:
    """The network on `device`, in place, in its fastest layout; on a CPU with FewChannels and LastReLU if they help."""
    if device.type == "cpu":
        layers = [layer for layer in model.modules() if not isinstance(layer, (nn.Dropout, nn.Sequential))]
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            usual = type(layer) is nn.BatchNorm2d and layer.affine and layer.track_running_stats
            if usual and layer.num_features * 4 < CACHE_LINE:
                layer.__class__ = FewChannels
            elif type(layer) is nn.ReLU and type(following) is nn.Flatten:
                layer.__class__ = LastReLU
    return model.to(device, memory_format=layout(model))


class FewChannels(nn.BatchNorm2d):
    """nn.BatchNorm2d with the same parameters, state dict and results (to rounding), faster for few channels on a CPU.

    In channels-last layout PyTorch's CPU kernel keeps one row of per-channel sums per thread. With fewer than 16
    float32 channels, two rows share a cache line, and two threads are slower than one. In this case, training computes
    the same formula as whole-tensor reductions; otherwise this *is* nn.BatchNorm2d.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W), normalized over N, H and W in training, by the running statistics in eval."""
        few = features.shape[1] * features.element_size() < CACHE_LINE and self.momentum is not None
        last = features.is_contiguous(memory_format=torch.channels_last)
        if not (self.training and few and last and features.device.type == "cpu" and features.dtype == torch.float32):
            return super().forward(features)
        normalized, mean, var = _FewChannels.apply(features, self.weight, self.bias, self.eps)
        count = features.numel() // features.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        return normalized


class LastReLU(nn.ReLU):
    """nn.ReLU, to the last bit, before nn.Flatten: a gradient in the features' memory layout is much faster."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        positive = super().forward(features)
        if positive.requires_grad and positive.is_contiguous(memory_format=torch.channels_last):
            positive.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        return positive


class _FewChannels(torch.autograd.Function):
    """Batch normalization (Ioffe & Szegedy 2015) of a channels-last tensor, seen as (N·H·W, C) rows."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows = _rows(features)
        mean = rows.mean(0)
        var = (rows.square().mean(0) - mean.square()).clamp_(min=0)
        inverse = torch.rsqrt(var + eps)
        scale = weight * inverse
        normalized = torch.empty_like(features)
        torch.addcmul(bias - mean * scale, rows, scale, out=_rows(normalized))
        ctx.save_for_backward(features, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, var)
        return normalized, mean, var

    @staticmethod
    def backward(ctx, gradient: Tensor, _mean: Tensor, _var: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        rows, upstream = _rows(features), _rows(gradient)
        bias_gradient = upstream.sum(0)
        weight_gradient = ((upstream * rows).sum(0) - mean * bias_gradient) * inverse
        # weight·inverse·(g − mean(g) − x̂·mean(g·x̂)), multiplied out to one factor for g, one for x and a constant
        factor = weight * inverse
        slope = -factor * inverse * weight_gradient / len(rows)
        constant = -factor * bias_gradient / len(rows) - slope * mean
        feature_gradient = torch.empty_like(gradient)
        torch.addcmul(constant, rows, slope, out=_rows(feature_gradient)).addcmul_(upstream, factor)
        return feature_gradient, weight_gradient, bias_gradient, None


def _rows(features: Tensor) -> Tensor:
    """(N, C, H, W) in channels-last layout → its (N·H·W, C) view."""
    return features.permute(0, 2, 3, 1).view(-1, features.shape[1])
