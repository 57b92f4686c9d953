"""Layers that PyTorch does not have: a batch norm that two CPU threads can share, and what comes before a voxel network."""

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor, nn

CACHE_LINE = 64  # bytes


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d: the same parameters, buffers, state dict and results (to rounding), faster for few channels on a CPU.

    In channels-last layout PyTorch's CPU kernel keeps one row of per-channel sums a thread. With fewer than 16 float32
    channels two rows lie in one cache line, the cores take it from each other at every addition, and two threads are
    slower than one. There, in training, the same formula runs as whole-tensor reductions instead; everywhere else this
    *is* nn.BatchNorm2d.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W), normalised over N, H and W of the batch in training, by the running statistics in eval."""
        few = features.shape[1] * features.element_size() < CACHE_LINE
        last = features.is_contiguous(memory_format=torch.channels_last)
        if not (self.training and few and last and features.device.type == "cpu" and features.dtype == torch.float32):
            return super().forward(features)
        normalised, mean, var = _FewChannels.apply(features, self.weight, self.bias, self.eps)
        count = features.numel() // features.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        return normalised


class _FewChannels(torch.autograd.Function):
    """Batch normalisation (Ioffe & Szegedy 2015) of a channels-last tensor, seen as (N·H·W, C) rows."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows = _rows(features)
        mean = rows.mean(0)
        var = (rows.square().mean(0) - mean.square()).clamp_(min=0)
        inverse = torch.rsqrt(var + eps)
        scale = weight * inverse
        normalised = torch.empty_like(features)
        torch.addcmul(bias - mean * scale, rows, scale, out=_rows(normalised))
        ctx.save_for_backward(features, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, var)
        return normalised, mean, var

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


class Oranges(nn.Module):
    """(N, 1, …) densities in [0, 1] → (N, 3, …) red, green and blue of matplotlib's map of that name, in [0, 1]. No parameters."""

    def __init__(self):
        super().__init__()
        colours = torch.from_numpy(colormaps["Oranges"](np.arange(256))[:, :3].T.copy()).float()
        self.register_buffer("colours", colours, persistent=False)

    def forward(self, grids: Tensor) -> Tensor:
        step = (grids.squeeze(1) * 256).long().clamp_(0, 255)  # as matplotlib does it
        return torch.stack([colour[step] for colour in self.colours], 1)
