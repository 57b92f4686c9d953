"""All networks of the course. The end of each line gives the output shape and the receptive field (RF).

To add a network, add a public function above MODELS that is annotated to return an nn.Module, or such a class. MODELS
then lists it.
"""

import ast
import copy
import hashlib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from . import CourseError, closest
from .files import shorten
from .layers import MeanOfTurns, Oranges, PrincipalAxisView, Residual


def base(dropout: float = 0.0, batch_norm: bool = False) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 7,034 parameters; ``dropout`` > 0 adds a dropout layer before each pool.

    batch_norm: adds batch norm between each 3×3 convolution and its ReLU.
    """
    drop = [nn.Dropout(dropout)] if dropout else []

    def norm(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels)] if batch_norm else []

    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),  # 8×28×28  RF 3
        *norm(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),  # 8×28×28  RF 5
        *norm(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),  # 8×28×28  RF 7
        *norm(8),
        nn.ReLU(inplace=True),
        *drop,
        nn.MaxPool2d(2),  # 8×14×14  RF 8
        nn.Conv2d(8, 4, 1, bias=False),  # 4×14×14  RF 8
        nn.Conv2d(4, 8, 3, padding=1, bias=False),  # 8×14×14  RF 12
        *norm(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),  # 16×14×14  RF 16
        *norm(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),  # 16×14×14  RF 20
        *norm(16),
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
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),  # 8×28×28  RF 5
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),  # 16×28×28  RF 7
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.MaxPool2d(2),  # 16×14×14  RF 8
        nn.Conv2d(16, 4, 1, bias=False),  # 4×14×14  RF 8
        nn.Conv2d(4, 8, 3, padding=1, bias=False),  # 8×14×14  RF 12
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),  # 16×14×14  RF 16
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),  # 16×14×14  RF 20
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.MaxPool2d(2),  # 16×7×7  RF 22
        nn.Conv2d(16, 4, 1, bias=False),  # 4×7×7  RF 22
        nn.Flatten(),
        nn.Linear(196, 10),
    )


def under_20k(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 19,602 parameters; 1×1 convolutions narrow the maps."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),  # 32×26×26  RF 3
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(32),
        nn.Conv2d(32, 32, 3),  # 32×24×24  RF 5
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),  # 32×12×12  RF 6
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(32, 8, 1),  # 8×12×12  RF 6
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 32, 5),  # 32×8×8  RF 14
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),  # 32×4×4  RF 16
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(32, 16, 1),  # 16×4×4  RF 16
        nn.BatchNorm2d(16),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def _unit(into: int, out: int, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    """What the family of mnist_medium is made of: 3×3 convolution, ReLU, batch norm."""
    return [nn.Conv2d(into, out, 3, stride, padding, bias=False), nn.ReLU(inplace=True), nn.BatchNorm2d(out)]


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
    """(N, 1, 28, 28) → (N, 10) logits in 4,464 parameters: mnist_small, at a quarter of the side by the fifth layer."""
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
    """(N, 1, 28, 28) → (N, 10) logits in 785,210 parameters, nearly all in the first linear layer."""
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


def _conv_bn_relu(into: int, out: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, ReLU."""
    conv = nn.Conv2d(into, out, kernel, stride, padding, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


def sprint(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 33,914 parameters, built to need little time rather than little memory.

    The first convolution takes steps of two pixels, so the rest works on a quarter of them. Channels come in multiples
    of 16, a vector register's width. The pool before batch norm and ReLU leaves them a quarter of the work.
    """
    return nn.Sequential(
        nn.ZeroPad2d(-2),  # 1×24×24: cut off the margin, which is almost empty in MNIST
        *_conv_bn_relu(1, 16, 5, stride=2, padding=0),  # 16×10×10  RF 5
        nn.Conv2d(16, 32, 3, bias=False),  # 32×8×8  RF 9
        nn.MaxPool2d(2),  # 32×4×4  RF 11
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        *_conv_bn_relu(32, 64),  # 64×4×4  RF 19
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )


def voxel_reference(dropout: float = 0.25, colored: bool = True) -> nn.Sequential:
    """(N, 1, 16, 16, 16) densities → (N, 10) logits in 4,279,082 parameters; ``dropout`` is used twice."""
    return nn.Sequential(
        *([Oranges()] if colored else []),  # the reference's input: 3×16×16×16
        nn.Conv3d(3 if colored else 1, 8, 3, padding=1),  # 8×16×16×16  RF 3
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
    return voxel_reference(dropout, colored=False)


def _head(
    width: int, dropout: float, position_weighted: bool, side: int = 7, pool: type[nn.Module] = nn.AdaptiveAvgPool2d
) -> list[nn.Module]:
    """(N, width, side, side) → (N, 10) logits: a linear layer on each map's average (or another pool), or on its sum
    with a weight for each row and each column.

    Chen et al. 2018, "MobileFaceNets", weigh each place of a map, which takes the square of the side instead of twice.
    """
    pooled = pool(1)
    if position_weighted:
        sizes = (side, 1), (1, side)
        pooled = nn.Sequential(*(nn.Conv2d(width, width, size, groups=width, bias=False) for size in sizes))
    return [pooled, nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, 10)]


def voxel_best(dropout: float = 0.0, position_weighted: bool = False, turned: bool = False) -> nn.Sequential:
    """(N, 1, 16, 16, 16) densities → (N, 10) logits: a 2D CNN on the principal view of each solid.

    The receptive field is in pixels of that view. position_weighted: see _head. turned: outside training, the mean of
    four answers to a rotated solid, one for each quarter turn of its view.
    """
    return nn.Sequential(
        PrincipalAxisView(turned=turned),  # 4×24×24
        *_conv_bn_relu(4, 32),  # 32×24×24  RF 3
        *_conv_bn_relu(32, 32),  # 32×24×24  RF 5
        nn.MaxPool2d(2),  # 32×12×12  RF 6
        *_conv_bn_relu(32, 64),  # 64×12×12  RF 10
        *_conv_bn_relu(64, 64),  # 64×12×12  RF 14
        nn.MaxPool2d(2),  # 64×6×6  RF 16
        *_conv_bn_relu(64, 128),  # 128×6×6  RF 24
        *_conv_bn_relu(128, 128),  # 128×6×6  RF 32
        *_head(128, dropout, position_weighted, side=6),
        *([MeanOfTurns()] if turned else []),
    )


def _separable(into: int, out: int, kernel: int = 3) -> list[nn.Module]:
    """A convolution in two cheap parts (Chollet 2017, "Xception"): per channel, then across channels."""
    per_channel = nn.Conv2d(into, into, kernel, padding=kernel // 2, groups=into, bias=False)
    return [per_channel, nn.Conv2d(into, out, 1, bias=False)]


def _used_again(repeats: int, width: int, kernel: int = 3) -> nn.Sequential:
    """A residual separable convolution, used several times with the same weights and different batch norms."""
    shared = _separable(width, width, kernel)
    uses = [(Residual(*shared, nn.BatchNorm2d(width)), nn.ReLU(inplace=True)) for _ in range(repeats)]
    return nn.Sequential(*(layer for use in uses for layer in use))


def separable(
    dropout: float = 0.0, stem: int = 8, width: int = 24, repeats: int = 1, position_weighted: bool = False
) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 3,170 parameters: depthwise-separable blocks, three of them residual.

    repeats: how often each residual block is used, with the same weights. position_weighted: see _head.
    """
    return nn.Sequential(
        nn.Conv2d(1, stem, 3, padding=1, bias=False),  # 8×28×28  RF 3
        nn.MaxPool2d(2),  # 8×14×14  RF 4
        nn.BatchNorm2d(stem),  # behind the pool, which leaves it a quarter to do
        nn.ReLU(inplace=True),
        nn.Sequential(*_separable(stem, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),  # 24×14×14  RF 8
        _used_again(repeats, width),  # 24×14×14  RF 12
        _used_again(repeats, width),  # 24×14×14  RF 16
        nn.MaxPool2d(2),  # 24×7×7  RF 18
        _used_again(repeats, width),  # 24×7×7  RF 26
        *_head(width, dropout, position_weighted),
    )


def recurrent(
    dropout: float = 0.0, width: int = 16, repeats: int = 3, kernel: int = 3, position_weighted: bool = False
) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 938 parameters: one separable convolution, used repeatedly.

    repeats: uses before, and again after, the second pool. The weights are shared, but each use has its own batch norm.
    """
    uses = _used_again(2 * repeats, width, kernel)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),  # 16×28×28  RF 3
        nn.MaxPool2d(2),  # 16×14×14  RF 4
        nn.BatchNorm2d(width),  # behind the pool, which leaves it a quarter to do
        nn.ReLU(inplace=True),
        uses[: 2 * repeats],  # 16×14×14  RF 16
        nn.MaxPool2d(2),  # 16×7×7  RF 18
        uses[2 * repeats :],  # 16×7×7  RF 42
        *_head(width, dropout, position_weighted),
    )


def residual(dropout: float = 0.0, width: int = 32, position_weighted: bool = False) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 170,218 parameters: four residual blocks (He et al. 2016).

    position_weighted: instead of each map's maximum, a sum with a weight for each row and each column.
    """

    def block(into: int, out: int) -> list[nn.Module]:
        shortcut = None if into == out else nn.Conv2d(into, out, 1, bias=False)
        return [
            Residual(*_conv_bn_relu(into, out), *_conv_bn_relu(out, out)[:2], shortcut=shortcut),
            nn.ReLU(inplace=True),
        ]

    return nn.Sequential(
        *_conv_bn_relu(1, width, 5, stride=2, padding=2),  # 32×14×14  RF 5
        nn.Sequential(*block(width, width), *block(width, width)),  # 32×14×14  RF 21
        nn.MaxPool2d(2),  # 32×7×7  RF 23
        nn.Sequential(*block(width, 2 * width), *block(2 * width, 2 * width)),  # 64×7×7  RF 55
        *_head(2 * width, dropout, position_weighted, pool=nn.AdaptiveMaxPool2d),
    )


def unpadded(dropout: float = 0.0, width: int = 16, step: int = 8, depth: int = 10, kernel: int = 3) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits in 309,802 parameters: no padding, stride or pool; each convolution cuts a rim.

    width: maps of the first; step: added for each further one. After An et al. 2020, "An ensemble of simple
    convolutional neural network models for MNIST digit recognition", with kernels of 3 (32 maps, 16 more each), 5 (32,
    32 more) and 7.
    """
    widths = [1] + [width + step * number for number in range(depth)]
    return nn.Sequential(
        nn.Sequential(
            *[layer for sizes in pairwise(widths) for layer in _conv_bn_relu(*sizes, kernel, padding=0)]
        ),  # 88×8×8  RF 21
        nn.Flatten(),  # 5632
        nn.Dropout(dropout),
        nn.Linear(widths[-1] * (28 - (kernel - 1) * depth) ** 2, 10),
    )


def _is_network(found: object) -> bool:
    returned = inspect.signature(found).return_annotation if inspect.isfunction(found) else found
    ours = getattr(found, "__module__", "") == __name__ and not found.__name__.startswith("_")
    return ours and inspect.isclass(returned) and issubclass(returned, nn.Module)


MODELS: dict[str, Callable[..., nn.Module]] = {
    name: found for name, found in tuple(globals().items()) if _is_network(found)
}


MOST, LARGEST = 8, 20_000_000  # the largest argument (times its default) and network (parameters)


def parse(model: str) -> tuple[str, dict]:
    """ "separable(width=24)" → "separable", {"width": 24}. Raises CourseError for an unknown network or argument, and
    for a value of another type, or outside 1 to MOST times its default."""
    expected = "expected a network's name, with its arguments by name if any: separable(width=24)"
    try:
        call = ast.parse(model.strip(), mode="eval").body
        name = call.func.id if isinstance(call, ast.Call) else call.id
        words, positional = getattr(call, "keywords", []), getattr(call, "args", [])
        arguments = {word.arg: ast.literal_eval(word.value) for word in words}
    except (SyntaxError, AttributeError, ValueError, TypeError, MemoryError, RecursionError):
        raise CourseError(f"model = {shorten(model)!r}: {expected}") from None
    if name not in MODELS:
        raise CourseError(f"no network is called {name!r}: expected {closest(name, MODELS)}")
    known = dict(inspect.signature(MODELS[name]).parameters)
    known.pop("dropout", None)
    if positional or len(arguments) < len(words) or not arguments.keys() <= known.keys():
        takes = ", ".join(f"{word}=…" for word in known) or "no arguments"
        raise CourseError(f"model = {model!r}: {name} takes {takes}")
    for word, value in arguments.items():
        kind, usual = known[word].annotation, known[word].default
        if type(value) is not kind or (kind is int and not 1 <= value <= MOST * usual):
            expected = f"1 to {MOST * usual}" if kind is int else f"a {kind.__name__}"
            raise CourseError(f"model = {model!r}: {word} = {shorten(value, 40)}, expected {expected}")
    return name, arguments


def build(model: str, dropout: float = 0.0) -> nn.Module:
    """A new network by its name in MODELS, perhaps with arguments, and random weights from the global generator.

    Raises CourseError for an unknown network, and for arguments whose network doesn't accept a digit.
    """
    name, arguments = parse(model)
    if not arguments:
        return MODELS[name](dropout)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without weights
            with torch.device("meta"):
                numbers = count_parameters(MODELS[name](dropout, **arguments))
            if numbers > LARGEST:
                raise ValueError(f"it has {numbers:,} parameters, expected at most {LARGEST:,}")
            network = MODELS[name](dropout, **arguments)
        require_an_answer(network)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CourseError(f"model = {model!r} can't be built: {shorten(error)}. Try other arguments.") from error
    return network


@torch.no_grad()
def require_an_answer(network: nn.Module, shape: tuple[int, ...] | None = None) -> None:
    """Raise ValueError, or what a layer of PyTorch raises, unless a network turns a digit into ten numbers, without
    drawing random numbers. shape: of the digit, without N. A network on PyTorch's meta device is not tried, which would
    take seconds."""
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    try:
        answer = network.eval()(torch.zeros(1, *(shape or input_shape(network))))
    except (AttributeError, LookupError, AssertionError) as error:  # of a reader's own layer
        raise ValueError(f"it raises {type(error).__name__}: {error}") from error
    network.train()
    found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if found != (1, 10):
        raise ValueError(f"its answer is {found}, expected (1, 10)")


def with_random_weights(network: nn.Module) -> nn.Module:
    """A copy on the CPU with new weights from the global generator, as when it was built.

    A parameter of a module without reset_parameters() keeps its value.
    """
    again = copy.deepcopy(network).to("cpu").train()
    for module in again.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return again


def difference(network: nn.Module, published: nn.Module) -> str:
    """The first difference between two networks with the same weights, or "": state-dict keys, shapes, then the outputs
    for eight random inputs, in training and in eval mode. Draws no number from the global generator.

    Raises what a layer raises for an input that does not fit.
    """
    found, expected = ({k: tuple(v.shape) for k, v in one.state_dict().items()} for one in (network, published))
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            return f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'no such entry')}"
    twins = [copy.deepcopy(one).to("cpu") for one in (network, published)]
    twins[0].load_state_dict(twins[1].state_dict())
    images = torch.rand(8, *input_shape(published), generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        outputs = []
        for twin in twins:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)
                answer, state = twin.train(training)(images), twin.state_dict()
                outputs.append([answer, *(state[name] for name in expected)])
        if outputs[0][0].shape != outputs[1][0].shape or not all(map(torch.allclose, *outputs)):
            return f"its outputs {'in training' if training else 'in eval mode'} differ, with the same weights"
    return ""


def digest(network: nn.Module) -> str:
    """Eight letters that identify a network's structure: layers and settings, the path of the data, also through a
    reader's own layers if it can be traced, and tensors' shapes.

    Raises ValueError for a network whose path depends on its input's values.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    try:
        path = _Tracer(into_own=True).trace(network)
    except (ValueError, TypeError, RuntimeError):  # a layer that depends on its input's values
        path = _Tracer().trace(network)
    return hashlib.sha256(f"{network}\n{path}\n{shapes}".encode()).hexdigest()[:8]


class _Tracer(fx.Tracer):
    """Looks into all modules with layers inside; into_own: and into those of neither PyTorch nor the course."""

    def __init__(self, into_own: bool = False):
        super().__init__()
        self.into_own = into_own

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        own = not type(module).__module__.startswith(("torch.nn", Residual.__module__))
        return not any(module.children()) and not (self.into_own and own)


def graph(model: nn.Module) -> list[fx.Node]:
    """Every step of the data through a network, in order."""
    return list(_Tracer().trace(model).nodes)


SPATIAL = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Conv3d, nn.MaxPool3d)


def probabilities(model: nn.Module, outputs: Tensor) -> Tensor:
    """A network's (N, 10) outputs as probabilities, whether its last layer is a softmax or not."""
    return outputs if isinstance(layers(model)[-1], nn.Softmax) else outputs.softmax(1)


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers without layers inside, in the order of the data, once for each use."""
    return [layer for node in graph(model) if (layer := layer_of(model, node))]


def layer_of(model: nn.Module, node: fx.Node) -> nn.Module | None:
    """The layer that a step of graph(model) calls; None for an input, a sum or an output."""
    return model.get_submodule(node.target) if node.op == "call_module" else None


def input_shape(model: nn.Module) -> tuple[int, ...]:
    """The input of a network of the course, without N: (1, 16, 16, 16) grids or (1, 28, 28) images."""
    volumes = isinstance(next(iter(layers(model)), None), (Oranges, PrincipalAxisView, nn.Conv3d))
    return (1, 16, 16, 16) if volumes else (1, 28, 28)


def takes(model: nn.Module) -> str:
    """The kind of data that a network of the course reads: images or voxels."""
    return "images" if len(input_shape(model)) == 3 else "voxels"


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_folded(model: nn.Module) -> int:
    """Parameters after folding each batch norm into the convolution before it, as for deployment.

    Scales vanish in the convolution's weights and shifts become its bias, unless it is used more than once.
    """
    uses, saved = Counter(layers(model)), 0
    for node in graph(model):
        norm = layer_of(model, node)
        layer = layer_of(model, node.args[0]) if isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)) else None
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)) and uses[layer] == 1:
            saved += norm.num_features * (1 if layer.bias is None else 2)
    return count_parameters(model) - saved


def receptive_field(model: nn.Module) -> int:
    """Longer side, in input pixels, of what a place before the first Flatten or Linear sees; the widest branch counts.

    By arithmetic over the layers that convolve or pool, in the order of the data: r ← r + (k − 1)·d·j, j ← j·s
    (Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning").
    """
    seen: dict[fx.Node, tuple[tuple[int, ...], int]] = {}  # side along each axis, and jump, of each value
    widest = 1
    for node in graph(model):
        before = [seen[value] for value in node.all_input_nodes if value in seen] or [((1, 1, 1), 1)]
        fields, jumps = zip(*before, strict=True)
        field, jump = tuple(map(max, zip(*fields, strict=True))), max(jumps)
        layer = layer_of(model, node)
        if isinstance(layer, (nn.Flatten, nn.Linear)):
            break
        if isinstance(layer, SPATIAL):
            sizes = layer.kernel_size, layer.stride, getattr(layer, "dilation", 1)
            kernel, stride, gap = (size if isinstance(size, tuple) else (size,) * 3 for size in sizes)
            field = tuple(r + (k - 1) * d * jump for r, k, d in zip(field, kernel, gap, strict=False))
            jump *= max(stride)
        seen[node], widest = (field, jump), max(widest, *field)
    return widest
