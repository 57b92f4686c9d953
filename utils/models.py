"""Every network of the course, written as its own table: output shape and receptive field (RF) at each line's end."""

from collections.abc import Callable

import torch
from torch import nn

from utils import CourseError, closest
from utils.layers import BatchNorm2d, FaceOn, Oranges


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


def under_20k(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 19,602 parameters; 1×1 convolutions narrow the maps before the costly layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),  # 32×26×26  RF 3
        nn.ReLU(inplace=True),
        BatchNorm2d(32),
        nn.Conv2d(32, 32, 3),  # 32×24×24  RF 5
        BatchNorm2d(32),
        nn.MaxPool2d(2),  # 32×12×12  RF 6
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(32, 8, 1),  # 8×12×12  RF 6
        nn.ReLU(inplace=True),
        BatchNorm2d(8),
        nn.Conv2d(8, 32, 5),  # 32×8×8  RF 14
        BatchNorm2d(32),
        nn.MaxPool2d(2),  # 32×4×4  RF 16
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(32, 16, 1),  # 16×4×4  RF 16
        BatchNorm2d(16),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def _unit(into: int, out: int, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    """What the family of mnist_medium is made of: 3×3 convolution, ReLU, batch norm."""
    return [nn.Conv2d(into, out, 3, stride, padding, bias=False), nn.ReLU(inplace=True), BatchNorm2d(out)]


def mnist_medium(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 7,632 parameters: three blocks of convolutions, global average pooling."""
    return nn.Sequential(
        *_unit(1, 8),  # 8×28×28  RF 3
        nn.Dropout(dropout),
        *_unit(8, 8),  # 8×28×28  RF 5
        nn.MaxPool2d(2),  # 8×14×14  RF 6
        nn.Dropout(dropout),
        nn.Conv2d(8, 8, 1),  # 8×14×14  RF 6
        *_unit(8, 8),  # 8×14×14  RF 10
        nn.Dropout(dropout),
        *_unit(8, 16),  # 16×14×14  RF 14
        nn.MaxPool2d(2),  # 16×7×7  RF 16
        nn.Dropout(dropout),
        nn.Conv2d(16, 16, 1),  # 16×7×7  RF 16
        *_unit(16, 16, padding=0),  # 16×5×5  RF 24
        nn.Dropout(dropout),
        *_unit(16, 16, padding=0),  # 16×3×3  RF 32
        nn.MaxPool2d(2),  # 16×1×1  RF 36
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(16, 10, 1, bias=False),  # 10×1×1  RF 36
        nn.Flatten(),
    )


def mnist_small(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 5,616 parameters: two blocks, global average pooling."""
    return nn.Sequential(
        *_unit(1, 8),  # 8×28×28  RF 3
        nn.Dropout(dropout),
        *_unit(8, 8),  # 8×28×28  RF 5
        nn.Dropout(dropout),
        *_unit(8, 8),  # 8×28×28  RF 7
        nn.MaxPool2d(2),  # 8×14×14  RF 8
        nn.Dropout(dropout),
        nn.Conv2d(8, 8, 1),  # 8×14×14  RF 8
        *_unit(8, 8),  # 8×14×14  RF 12
        nn.Dropout(dropout),
        *_unit(8, 16),  # 16×14×14  RF 16
        nn.Dropout(dropout),
        *_unit(16, 16, stride=2),  # 16×7×7  RF 20
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(16, 10, 1, bias=False),  # 10×1×1  RF 20
        nn.Flatten(),
    )


def mnist_ultrasmall(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 4,464 parameters: as mnist_small, but at a quarter of the side by the fifth layer."""
    return nn.Sequential(
        *_unit(1, 8),  # 8×28×28  RF 3
        nn.Dropout(dropout),
        *_unit(8, 8),  # 8×28×28  RF 5
        nn.Dropout(dropout),
        *_unit(8, 8),  # 8×28×28  RF 7
        nn.Dropout(dropout),
        *_unit(8, 8, stride=2),  # 8×14×14  RF 9
        nn.MaxPool2d(2),  # 8×7×7  RF 11
        nn.Dropout(dropout),
        nn.Conv2d(8, 8, 1),  # 8×7×7  RF 11
        *_unit(8, 8),  # 8×7×7  RF 19
        nn.Dropout(dropout),
        *_unit(8, 8),  # 8×7×7  RF 27
        nn.Dropout(dropout),
        *_unit(8, 16, stride=2),  # 16×4×4  RF 35
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(16, 10, 1, bias=False),  # 10×1×1  RF 35
        nn.Flatten(),
    )


def small_cnn_logits(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 785,210 parameters, nearly all in the first linear layer; ``dropout`` > 0 stands before it."""
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        nn.Conv2d(1, 10, 3, padding=1),  # 10×28×28  RF 3
        nn.ReLU(inplace=True),
        nn.Flatten(),
        *drop,
        nn.Linear(7840, 100),
        nn.ReLU(inplace=True),
        nn.Linear(100, 10),
    )


def medium_cnn_logits(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 1,571,030 parameters; ``dropout`` > 0 stands before the first linear layer."""
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        nn.Conv2d(1, 10, 3, padding=1),  # 10×28×28  RF 3
        nn.ReLU(inplace=True),
        nn.Conv2d(10, 20, 3, padding=1),  # 20×28×28  RF 5
        nn.ReLU(inplace=True),
        nn.Flatten(),
        *drop,
        nn.Linear(15680, 100),
        nn.ReLU(inplace=True),
        nn.Linear(100, 10),
    )


def small_cnn(dropout: float = 0.0) -> nn.Sequential:
    """small_cnn_logits with the reference's softmax: (N, 10) probabilities, which its loss takes for logits."""
    return small_cnn_logits(dropout).append(nn.Softmax(1))


def medium_cnn(dropout: float = 0.0) -> nn.Sequential:
    """medium_cnn_logits with the reference's softmax: (N, 10) probabilities, which its loss takes for logits."""
    return medium_cnn_logits(dropout).append(nn.Softmax(1))


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


def voxel_reference(dropout: float = 0.25, coloured: bool = True) -> nn.Sequential:
    """(N, 1, 16, 16, 16) densities → (N, 10) logits in 4,279,082 parameters, coloured first; twice ``dropout`` before the last layer."""
    return nn.Sequential(
        *[Oranges()] * coloured,  # the reference's input: 3×16×16×16
        nn.Conv3d(3 if coloured else 1, 8, 3, padding=1),  # 8×16×16×16  RF 3
        nn.Conv3d(8, 16, 3, padding=1),  # 16×16×16×16  RF 5
        nn.ReLU(inplace=True),
        nn.BatchNorm3d(16),
        nn.MaxPool3d(2),  # 16×8×8×8  RF 6
        nn.Conv3d(16, 32, 3, padding=1),  # 32×8×8×8  RF 10
        nn.Conv3d(32, 64, 3, padding=1),  # 64×8×8×8  RF 14
        nn.ReLU(inplace=True),
        nn.BatchNorm3d(64),
        nn.MaxPool3d(2),  # 64×4×4×4  RF 16
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(4096, 1024),
        nn.ReLU(inplace=True),
        nn.Dropout(2 * dropout),
        nn.Linear(1024, 10),
    )


def voxel_density(dropout: float = 0.25) -> nn.Sequential:
    """voxel_reference on the densities as they are: (N, 1, 16, 16, 16) → (N, 10) logits in 4,278,650 parameters."""
    return voxel_reference(dropout, coloured=False)


def _views(into: int, out: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """What voxel_best is made of: convolution, batch norm, ReLU."""
    return [nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), BatchNorm2d(out), nn.ReLU(inplace=True)]


def voxel_best(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 16, 16, 16) densities → (N, 10) logits: each body turned face-on first, so two dimensions are enough.

    The receptive field is counted in pixels of that view.
    """
    return nn.Sequential(
        FaceOn(),  # 4×24×24
        *_views(4, 32),  # 32×24×24  RF 3
        *_views(32, 32),  # 32×24×24  RF 5
        nn.MaxPool2d(2),  # 32×12×12  RF 6
        *_views(32, 64),  # 64×12×12  RF 10
        *_views(64, 64),  # 64×12×12  RF 14
        nn.MaxPool2d(2),  # 64×6×6  RF 16
        *_views(64, 128),  # 128×6×6  RF 24
        *_views(128, 128),  # 128×6×6  RF 32
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, 10),
    )


NETWORKS = (base, bn_augmentation, under_20k, mnist_medium, mnist_small, mnist_ultrasmall)
NETWORKS += (small_cnn, medium_cnn, small_cnn_logits, medium_cnn_logits, sprint)
NETWORKS += (voxel_reference, voxel_density, voxel_best)
MODELS: dict[str, Callable[..., nn.Module]] = {network.__name__: network for network in NETWORKS}


def build(name: str, dropout: float = 0.0) -> nn.Module:
    """A new network by its name in MODELS, with random weights from the global generator."""
    if name not in MODELS:
        raise CourseError(f"no network is called {name!r}: expected {closest(name, MODELS)}")
    return MODELS[name](dropout)


def memory_format(model: nn.Module) -> torch.memory_format:
    """The layout in which a network trains fastest: channels last, in two or three dimensions."""
    volumes = any(isinstance(layer, nn.Conv3d) for layer in model.modules())
    return torch.channels_last_3d if volumes else torch.channels_last


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
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.Conv3d, nn.MaxPool3d)):
            kernel, stride = (size[0] if isinstance(size, tuple) else size for size in (layer.kernel_size, layer.stride))
            field += (kernel - 1) * jump
            jump *= stride
    return field
