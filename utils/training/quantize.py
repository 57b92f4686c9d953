"""Weights of few levels, rounded during training so that the network learns to work with them.

Every weight is a whole number of its tensor's steps. The gradient ignores the rounding: the straight-through estimator
(Bengio et al. 2013). A step is a fixed share of the weights' root mean square, the one that rounds normally distributed
weights with the least error. S. K. Esser et al. 2020, "Learned step size quantization", learn the steps too; at the
high rates of these recipes learned steps diverged. PyTorch's own quantization and torchao round to 8 bits, or linear
layers only.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
VECTOR_LEVELS = 64  # of biases, and of what a batch norm multiplies by and adds: 6 bits


class Rounded(nn.Module):
    """A parametrization: weights → the nearest of `levels` multiples of a step, as many below 0 as above."""

    def __init__(self, levels: int):
        super().__init__()
        self.most = (levels - 1) // 2
        normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(10_000) + 0.5) / 10_000)
        self.share = weight_grid(normal, levels)[0].item()

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            step = self.share * weight.square().mean().sqrt().clamp(min=1e-12)
            added = (weight / step).round().clamp(-self.most, self.most) * step - weight
        return weight + added


def levels_of(model: nn.Module, levels: int) -> list[tuple[nn.Module, int]]:
    """Each convolution and linear layer once, however often it is used, and its number of levels: two bits more in the
    first and last, which are small and sensitive."""
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear))]
    return [(layer, 4 * levels + 3 if layer in (layers[0], layers[-1]) else levels) for layer in layers]


def begin(model: nn.Module, levels: int) -> None:
    """From now on round every weight of a convolution or linear layer, in place; with levels = 0 none."""
    for layer, own in levels_of(model, levels) if levels else ():
        parametrize.register_parametrization(layer, "weight", Rounded(own))


def end(model: nn.Module, levels: int) -> nn.Module:
    """Leave plain layers, in place, whose numbers a file of few bits can hold (see weight_grid and vector_grid). Batch
    norms become what they compute in eval mode: mean 0, variance 1, weight and bias the factor and summand. Works
    without `begin`, too; does nothing if levels = 0."""
    with torch.no_grad():
        for layer in model.modules() if levels else ():
            if parametrize.is_parametrized(layer):
                release(layer)
            if isinstance(layer, NORMS):
                fold(layer)
        for layer, own in levels_of(model, levels) if levels else ():
            step, whole = weight_grid(layer.weight, own)
            layer.weight.copy_(step * whole)
        for vector in (parameter for parameter in model.parameters() if levels and parameter.ndim == 1):
            low, step, whole = vector_grid(vector)
            vector.copy_(low + step * whole)
    return model


def ended(model: nn.Module, levels: int) -> nn.Module:
    """The result of `end` for a network that stays as it is."""
    return end(copy.deepcopy(model), levels)


def release(layer: nn.Module) -> None:
    """Make the layer plain, with its rounded weights. PyTorch's own way would change the class, which copies share."""
    weight = layer.weight.detach()
    layer.__class__ = type(layer).__base__
    del layer.parametrizations
    layer.weight = nn.Parameter(weight)


def fold(norm: nn.Module) -> None:
    """Make a batch norm's factor and summand in eval mode its weight and bias. A channel that is always the same gets
    the factor 0: its own, up to 316, would leave the other channels' factors few of the levels."""
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    factor[norm.running_var < norm.eps] = 0
    norm.bias.sub_(norm.running_mean * factor)
    norm.weight.copy_(factor)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)


def weight_grid(weight: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """The step of the least squared error that float16 holds, and the nearest whole number of steps to each weight.

    Weights on such a grid keep it, because every whole number of steps of the largest weight is tried.
    """
    most, largest = (levels - 1) // 2, weight.abs().max()
    shares = torch.cat([torch.arange(1, most + 1), torch.linspace(most, 4 * most, 200)]).to(weight.device)
    steps = (largest / shares).half().float().clamp(min=2.0**-24)  # the smallest number that float16 holds

    def whole(step: Tensor) -> Tensor:
        return (weight / step).round().clamp(-most, most)

    step = min(steps, key=lambda step: (step * whole(step) - weight).square().sum().item())
    return step, whole(step)


def vector_grid(vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The lowest value and step of VECTOR_LEVELS values that span a vector, in float16, and its numbers in steps."""
    low = vector.min().half().float()
    step = ((vector.max() - low) / (VECTOR_LEVELS - 1)).half().float().clamp(min=2.0**-24)
    return low, step, ((vector - low) / step).round().clamp(0, VECTOR_LEVELS - 1)
