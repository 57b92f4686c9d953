"""What was tried against what the course does: other arithmetic, a compiler, several seeds in one network."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from tools.work import BEST, BN, CPU, MEASURED, SPRINT, Row, Side, network
from utils import models
from utils.data.datasets import Dataset
from utils.training import cpu
from utils.training.loops import fit, normalise
from utils.training.steps import make_optimizer, make_scheduler


def hundred(data: Dataset, step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], parameters: list) -> MEASURED:
    """100 training batches of bn_augmentation without its augmentation, by plain SGD; step: images and labels → loss."""
    optimizer = torch.optim.SGD(parameters, BN.lr, fused=True)
    images, labels = data.train[: 102 * BN.batch_size].tensors
    images = normalise(images, data.mean, data.std)
    start = time.perf_counter()
    for number, part in enumerate(zip(images.split(BN.batch_size), labels.split(BN.batch_size), strict=True)):
        if number == 2:  # the first two compile
            start = time.perf_counter()
        optimizer.zero_grad()
        step(*part).backward()
        optimizer.step()
    return {"seconds": time.perf_counter() - start}


def one_network(data: Dataset, wrap: Callable = lambda model: model, bf16: bool = False) -> MEASURED:
    plain = network(BN)
    model = wrap(plain)

    def step(images, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return F.cross_entropy(model(images).float(), labels)

    return hundred(data, step, list(plain.parameters()))


def grouped(data: Dataset, seeds: int = 5) -> MEASURED:
    """Several networks as one whose convolutions have one group per seed."""
    layers: list[nn.Module] = []
    for layer in models.build(BN.model):
        if isinstance(layer, nn.Conv2d):
            into, out = seeds * layer.in_channels, seeds * layer.out_channels
            layers.append(nn.Conv2d(into, out, layer.kernel_size, padding=layer.padding, groups=seeds, bias=False))
        elif isinstance(layer, nn.BatchNorm2d):
            layers.append(nn.BatchNorm2d(seeds * layer.num_features))
        elif isinstance(layer, nn.Linear):
            layers.append(nn.Conv2d(seeds * 4, seeds * 10, 7, groups=seeds))  # of 4×7×7 each, not flattened
        elif not isinstance(layer, nn.Flatten):
            layers.append(layer)
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def step(images, labels):
        logits = model(images.expand(-1, seeds, -1, -1)).view(-1, 10)
        return seeds * F.cross_entropy(logits, labels.repeat_interleave(seeds))

    return hundred(data, step, list(model.parameters()))


def vmapped(data: Dataset, seeds: int = 5) -> MEASURED:
    """Several networks by torch.func.vmap over their stacked parameters."""
    networks = [models.build(BN.model) for _ in range(seeds)]
    for module in (module for one in networks for module in one.modules()):
        if isinstance(module, nn.ReLU):
            module.inplace = False
    parameters, buffers = torch.func.stack_module_state(networks)

    def losses(parameters, buffers, images, labels):
        return F.cross_entropy(torch.func.functional_call(networks[0], (parameters, buffers), (images,)), labels)

    every = torch.func.vmap(losses, in_dims=(0, 0, None, None), randomness="different")
    return hundred(data, lambda images, labels: every(parameters, buffers, images, labels).sum(), list(parameters.values()))


def fifty_batches(data: Dataset, bfloat16: bool) -> MEASURED:
    """The last 50 batches of 100 of frontier_best, with all that its training does."""
    recipe = replace(BEST, bfloat16=bfloat16, images=50 * BEST.batch_size, epochs=2)
    history = fit(network(recipe), replace(data, test=data.test[: BEST.batch_size]), recipe, echo=False)
    return {"seconds": history[-1]["seconds"]}


def tried(work: Callable[[Dataset], MEASURED]) -> Side:
    return Side(lambda data, _seed: work(data), tuned=True)


class HalfSizeFirst(nn.Module):
    """sprint's network, whose first training batches, as many as `steps`, are images of half the size; they need no pool."""

    def __init__(self, network: nn.Sequential, steps: int):
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = self.training and self.steps > 0
        self.steps -= half
        if half:
            images = F.pad(F.avg_pool2d(images, 2), (3, 3, 3, 3))
        for layer in self.network:
            if not (half and isinstance(layer, nn.MaxPool2d)):
                images = layer(images)
        return images


def half_size_first() -> nn.Module:
    """The network of sprint, for a third of its steps at half the size."""
    return HalfSizeFirst(network(SPRINT), SPRINT.images // SPRINT.batch_size // 3)


def narrow() -> nn.Module:
    """The network of sprint with half as many channels in its first layer."""
    model = models.build(SPRINT.model)
    model[1], model[2], model[4] = nn.Conv2d(1, 8, 5, stride=2, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 32, 3, bias=False)
    return cpu.prepare(model, CPU)


def held_out(data: Dataset, seed: int, build: Callable[[], nn.Module] = lambda: network(SPRINT), **changes) -> MEASURED:
    """A training of sprint with another network or recipe: its seconds, and its accuracy on held-out images."""
    part = data.hold_out(len(data.train) // 6)
    history = fit(build(), part, replace(SPRINT, **changes), seed, echo=False)
    return {"seconds": history[-1]["seconds"], "accuracy": 100 * history[-1]["valid_correct"] / history[-1]["valid_total"]}


def gathered(data: Dataset, size: int) -> MEASURED:
    """The images of an epoch of sprint, in a random order, `size` at a time, as its network sees them: seconds."""
    order = torch.randperm(len(data.train))[: SPRINT.images]
    start = time.perf_counter()
    for rows in order.split(size):
        for batch in data.train.images.index_select(0, rows).split(SPRINT.batch_size):
            normalise(batch, data.mean, data.std)
    return {"seconds": time.perf_counter() - start}


def stepped(fused: bool) -> MEASURED:
    """The steps of sprint's optimizer and of its schedule in an epoch, without gradients' computation: seconds."""
    model, steps = network(SPRINT), SPRINT.images // SPRINT.batch_size
    optimizer = make_optimizer(model, SPRINT)
    for group in optimizer.param_groups:
        group["fused"], group["foreach"] = fused, not fused
    scheduler = make_scheduler(optimizer, SPRINT, steps)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return {"seconds": time.perf_counter() - start}


# what was tried; the first side is what the course does
TRIED = {
    "100 batches of bn_augmentation": Row(
        {
            "float32": tried(one_network),
            "bfloat16 autocast": tried(lambda data: one_network(data, bf16=True)),
            "torch.compile": tried(lambda data: one_network(data, torch.compile)),
        }
    ),
    "50 batches of frontier_best": Row(
        {
            "bfloat16": tried(lambda data: fifty_batches(data, bfloat16=True)),
            "float32": tried(lambda data: fifty_batches(data, bfloat16=False)),
        }
    ),
    "100 batches of bn_augmentation, five seeds": Row(
        {
            "one after another": tried(lambda data: {"seconds": sum(one_network(data)["seconds"] for _ in range(5))}),
            "grouped convolutions": tried(grouped),
            "torch.func.vmap": tried(vmapped),
        }
    ),
    "the images of an epoch of sprint": Row(
        {
            "batch by batch": tried(lambda data: gathered(data, SPRINT.batch_size)),
            "gathered all at once": tried(lambda data: gathered(data, SPRINT.images)),
        }
    ),
    "the optimizer's steps in an epoch of sprint": Row(
        {
            "one fused kernel": tried(lambda _data: stepped(fused=True)),
            "a kernel for each operation": tried(lambda _data: stepped(fused=False)),
        }
    ),
    "sprint on held-out images": Row(
        {
            name: Side(lambda data, seed, changes=changes: held_out(data, seed, **changes))
            for name, changes in {
                "as it is": {},
                "all images": {"images": 0},
                "all images, batches of 192, lr 0.4": {"images": 0, "batch_size": 192, "lr": 0.4},
                "24,000 images": {"images": 24_000},
                "batches of 64, lr 0.2": {"batch_size": 64, "lr": 0.2},
                "batches of 256, lr 0.5": {"batch_size": 256, "lr": 0.5},
                "a third of the batches at half size": {"build": half_size_first},
                "8 channels in the first layer": {"build": narrow},
            }.items()
        }
    ),
}
