"""Every network of the course, written as its own table: output shape and receptive field (RF) at each line's end."""

from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from utils import CourseError
from utils.layers import BatchNorm2d


def base(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 7,034 parameters; ``dropout`` > 0 adds a dropout layer before each pool."""
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),  # 8×28×28  RF 3
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),  # 8×28×28  RF 5
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),  # 8×28×28  RF 7
        nn.ReLU(inplace=True),
        *drop,
        nn.MaxPool2d(2),  # 8×14×14  RF 8
        nn.Conv2d(8, 4, 1, bias=False),  # 4×14×14  RF 8
        nn.Conv2d(4, 8, 3, padding=1, bias=False),  # 8×14×14  RF 12
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),  # 16×14×14  RF 16
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),  # 16×14×14  RF 20
        nn.ReLU(inplace=True),
        *drop,
        nn.MaxPool2d(2),  # 16×7×7  RF 22
        nn.Conv2d(16, 4, 1, bias=False),  # 4×7×7  RF 22
        nn.Flatten(),
        nn.Linear(196, 10),
    )


def bn_augmentation(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 7,786 parameters; batch norm after every 3×3 convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),  # 8×28×28  RF 3
        BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),  # 8×28×28  RF 5
        BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),  # 16×28×28  RF 7
        BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.MaxPool2d(2),  # 16×14×14  RF 8
        nn.Conv2d(16, 4, 1, bias=False),  # 4×14×14  RF 8
        nn.Conv2d(4, 8, 3, padding=1, bias=False),  # 8×14×14  RF 12
        BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),  # 16×14×14  RF 16
        BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),  # 16×14×14  RF 20
        BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.MaxPool2d(2),  # 16×7×7  RF 22
        nn.Conv2d(16, 4, 1, bias=False),  # 4×7×7  RF 22
        nn.Flatten(),
        nn.Linear(196, 10),
    )


def sprint(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 33,914 parameters, built to need little time rather than little memory.

    The first convolution takes steps of two pixels, so all that follows works on a quarter of them; channels come in
    multiples of 16, a vector register's width; the pool stands before batch norm and ReLU, which leaves them a quarter to do.
    """
    return nn.Sequential(
        nn.ZeroPad2d(-2),  # 1×24×24: cut off the margin, which is empty in MNIST
        nn.Conv2d(1, 16, 5, stride=2, bias=False),  # 16×10×10  RF 5
        BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, bias=False),  # 32×8×8  RF 9
        nn.MaxPool2d(2),  # 32×4×4  RF 11
        BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),  # 64×4×4  RF 19
        BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )


MODELS: dict[str, Callable[..., nn.Module]] = {"base": base, "bn_augmentation": bn_augmentation, "sprint": sprint}


def build(name: str, dropout: float = 0.0) -> nn.Module:
    """A new network by its name in MODELS, with random weights from the global generator."""
    if name not in MODELS:
        close = get_close_matches(name, MODELS, 3, 0.4) or sorted(MODELS)
        raise CourseError(f"no network is called {name!r}: expected {' or '.join(close)}")
    return MODELS[name](dropout)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def receptive_field(model: nn.Module) -> int:
    """Side, in input pixels, of what one output position before the first Flatten or Linear can see.

    By arithmetic over convolutions and poolings in the order of model.modules(): r ← r + (k − 1)·j, j ← j·s
    (Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning").
    """
    field, jump = 1, 1
    for layer in model.modules():
        if isinstance(layer, (nn.Flatten, nn.Linear)):
            break
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            kernel, stride = (size[0] if isinstance(size, tuple) else size for size in (layer.kernel_size, layer.stride))
            field += (kernel - 1) * jump
            jump *= stride
    return field
