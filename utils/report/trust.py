"""How far an accuracy can be trusted: intervals, comparisons, calibration, and what a shift or a blur does to it."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval, in %, of the accuracies that `correct` of `total` speak for (Wilson 1927, "Probable inference, the law of succession,
    and statistical inference"). Unlike p ± 2 standard errors it never leaves 0 to 100.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / total
    middle, half = p + z**2 / (2 * total), z * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    low, high = ((middle + side * half) / (1 + z**2 / total) for side in (-1, 1))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)


class Compared(NamedTuple):
    """Two networks on the same images: how many only the one, only the other gets right, and McNemar's p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Tensor, second: Tensor) -> Compared:
    """McNemar's exact test (McNemar 1947, "Note on the sampling error of the difference between correlated proportions").

    first, second: (N,) bool, whether each network is right. Images that both get right, or both wrong, say nothing of which is better; of
    the others each is a coin flip if neither is. p: how often fair coins would be at least as uneven.
    """
    one, other = int((first & ~second).sum()), int((~first & second).sum())
    flips = one + other
    tail = sum(math.comb(flips, k) for k in range(min(one, other) + 1))
    return Compared(one, other, min(1.0, 2 * tail / 2**flips))


class Reliability(NamedTuple):
    """Bins of equal width over the confidence: how many images fall in each, their mean confidence and their accuracy (nan where empty)."""

    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance between confidence and accuracy, each bin counting by its images."""
        return float((self.count * (self.confidence - self.accuracy).abs()).nansum() / self.count.sum())


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """How often a network is right at each level of confidence (Guo et al. 2017, "On calibration of modern neural networks").

    probabilities: (N, classes), rows summing to 1; labels: (N,).
    """
    confidence, predicted = probabilities.double().max(1)
    place = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)  # a bin holds its upper end

    def total(values: Tensor) -> Tensor:
        return torch.zeros(bins, dtype=torch.float64).index_add_(0, place, values.double())

    count = total(torch.ones(len(labels)))
    return Reliability(count, total(confidence) / count, total(predicted == labels) / count)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 that makes cross_entropy(logits / T, labels) least: above 1 it takes confidence away, below 1 it adds some; labels stay.

    logits: (N, classes); labels: (N,) of images that the network was not trained on. By thirds, for over 1/T the loss is convex.
    """
    low, high = 0.01, 100.0  # of 1/T
    for _ in range(80):
        third = (high / low) ** (1 / 3)
        left, right = low * third, high / third
        if F.cross_entropy(logits.double() * left, labels) < F.cross_entropy(logits.double() * right, labels):
            high = right
        else:
            low = left
    return 2 / (low + high)


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Rotated anticlockwise around the middle. Images here and below: (N, 1, H, W) float 0…1; what comes in from outside is 0."""
    angle = math.radians(degrees)
    return _resampled(images, [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])


def shifted(images: Tensor, pixels: float) -> Tensor:
    """Shifted to the right."""
    return _resampled(images, [[1, 0, -2 * pixels / images.shape[-1]], [0, 1, 0]])


def scaled(images: Tensor, factor: float) -> Tensor:
    """Scaled around the middle: above 1 the digit becomes larger."""
    return _resampled(images, [[1 / factor, 0, 0], [0, 1 / factor, 0]])


def _resampled(images: Tensor, inverse: list[list[float]]) -> Tensor:
    """By one bilinear resampling. inverse: where each output pixel comes from, in units of half the image."""
    theta = torch.tensor(inverse, dtype=images.dtype).expand(len(images), 2, 3)
    return F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)


def noisy(images: Tensor, deviation: float) -> Tensor:
    """Normal noise of this standard deviation on every pixel, the same at every call; cut off at 0 and 1."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * noise).clamp(0, 1)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Blurred by a Gaussian of this standard deviation in pixels."""
    if not deviation:
        return images
    radius = math.ceil(3 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    row = (weights / weights.sum()).view(1, 1, 1, -1)
    return F.conv2d(F.conv2d(images, row, padding=(0, radius)), row.transpose(2, 3), padding=(radius, 0))


def inverted(images: Tensor, share: float) -> Tensor:
    """Images blended with their inverse: share 0 leaves them unchanged, 0.5 gives plain gray, 1 inverts them."""
    return images * (1 - share) + (1 - images) * share


class Change(NamedTuple):
    """A change of images that leaves their labels what they are, and how much of it to try."""

    of: Callable[[Tensor, float], Tensor]
    strengths: tuple[float, ...]
    unit: str


CHANGES = {
    "rotated": Change(rotated, (-40, -25, -10, 0, 10, 25, 40), "degrees"),
    "shifted": Change(shifted, (-6, -4, -2, 0, 2, 4, 6), "pixels to the right"),
    "scaled": Change(scaled, (0.5, 0.7, 0.85, 1, 1.15, 1.3), "size"),
    "noise": Change(noisy, (0, 0.1, 0.2, 0.3, 0.45, 0.6), "standard deviation"),
    "blurred": Change(blurred, (0, 0.5, 1, 1.5, 2, 3), "standard deviation, pixels"),
    "inverted": Change(inverted, (0, 0.1, 0.2, 0.35, 0.65, 1), "share of the way"),
}
