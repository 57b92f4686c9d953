"""The parts of a training step, as the recipe says: loss, optimizer and schedule."""

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from ..experiments import Recipe
from . import cpu


def cross_entropies(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy, plain and with smoothed labels: both results of F.cross_entropy to the last bit."""
    log_p = F.log_softmax(logits, 1)
    plain = F.nll_loss(log_p, targets)
    return plain, (1 - smoothing) * plain - log_p.sum(1).mean() * (smoothing / logits.shape[1]) if smoothing else plain


def forward(network: nn.Module, recipe: Recipe, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network as training calls it: (N, C, ...) float32 → float32 logits. With recipe.bfloat16, its convolutions
    and linear layers multiply in torch.bfloat16 if the device has it; the weights stay float32. COURSE_COMPILE=1
    compiles it (torch.compile, with CUDA graphs), which changes the bits."""
    if os.environ.get("COURSE_COMPILE") == "1":
        network = torch.compile(network, mode="reduce-overhead")
    if not (recipe.bfloat16 and cpu.has_bfloat16(device)):
        return network

    def autocast(seen: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(seen).float()

    return autocast


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; one fused kernel for all parameters if the device has it."""
    parameters = list(model.parameters())
    fused = parameters[0].device.type in ("cpu", "cuda")
    common = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if not recipe.decay_vectors:
        vectors = [parameter for parameter in parameters if parameter.ndim < 2]
        matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
        parameters = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    if recipe.optimizer in ("sgd", "heavy_ball"):
        nesterov = recipe.optimizer == "sgd" and recipe.momentum > 0
        return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=nesterov, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](parameters, **common)


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> lr_scheduler.LRScheduler:
    """The recipe's learning rate; `steps`: batches per epoch."""
    if recipe.schedule == "one_cycle":
        total, warmup = steps * recipe.epochs, recipe.warmup
        if warmup * total == 1:  # a warmup of length 0, by which it would be divided
            warmup *= 1 - 1e-12
        shape = {"pct_start": warmup, "cycle_momentum": False, "div_factor": 10, "final_div_factor": 100}
        return lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=total, **shape)
    if recipe.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    drops = [(recipe.drop_at - 1) * steps] if recipe.schedule == "step" else []
    return lr_scheduler.MultiStepLR(optimizer, drops)
