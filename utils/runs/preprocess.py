"""What a network of the course takes: pictures, arrays and tensors of white digits on black → its normalized input."""

import os
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import CourseError
from ..data import photo
from ..data.augment import scaled
from ..training.loops import normalize


@dataclass(frozen=True)
class Preprocess:
    """What a network of the course was trained to see: pictures of white digits on black, 28×28, → its normalized
    input.

    Call it with a picture (a path or a PIL image of any mode), a NumPy array, a tensor, or a list of them. Arrays and
    tensors are (28, 28), (N, 28, 28) or (N, 1, 28, 28): uint8 from 0 to 255, or floats from 0 to 1. Returns (N, 1, 28,
    28) float32, on the device of a tensor. A network of voxels takes grids (16, 16, 16), (N, 16, 16, 16) or (N, 1, 16,
    16, 16) of densities, floats from 0 to 1, and returns (N, 1, 16, 16, 16). Raises CourseError for another size, type
    or range: utils.data.photo.read cuts out and resizes.
    """

    mean: float
    std: float
    kind: str = "images"

    def __call__(self, images) -> Tensor:
        shape = (16,) * 3 if self.kind == "voxels" else (28,) * 2
        if isinstance(images, list | tuple):
            if not images:
                raise CourseError("the list of images is empty: expected one or more")
            batch = torch.cat([self._batch(_tensor(image), shape) for image in images])
        else:
            batch = self._batch(_tensor(images), shape)
        if self.kind == "images" and not torch.compiler.is_compiling():  # an export follows no values
            warn_of_paper(batch)
        return normalize(batch, self.mean, self.std).float()

    def _batch(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Images or grids → (N, 1, *shape), floats from 0 to 1. Raises CourseError."""
        if not images.is_floating_point() and not (self.kind == "images" and images.dtype == torch.uint8):
            expected = (
                "torch.uint8, 0 (black) to 255, or floats from 0 to 1"
                if self.kind == "images"
                else "floats, densities from 0 to 1"
            )
            raise CourseError(
                f"{'grids' if self.kind == 'voxels' else 'images'} are {images.dtype}: expected {expected}"
            )
        batch = images.unsqueeze(0) if images.ndim == len(shape) else images
        batch = batch.unsqueeze(1) if batch.ndim == len(shape) + 1 else batch
        if batch.shape[1:] != (1, *shape):
            size = ", ".join(map(str, shape))
            raise CourseError(
                f"images are {tuple(images.shape)}: expected ({size}), (N, {size}) or (N, 1, {size}); resize them first"
            )
        if self.kind == "images" and images.dtype == torch.uint8:
            return scaled(batch)
        if torch.compiler.is_compiling() or not batch.numel():
            return batch
        low, high = batch.min().item(), batch.max().item()
        if not 0 <= low <= high <= 1:  # not a number fails, too
            raise CourseError(
                f"values are {low:g} to {high:g}: expected floats from 0 (black) to 1, or uint8 from 0 to 255"
            )
        return batch


def _tensor(images) -> Tensor:
    """A path, a PIL image, an array or a tensor → a tensor. Raises CourseError."""
    if isinstance(images, Tensor):
        return images
    if isinstance(images, str | os.PathLike | Image.Image):
        return torch.from_numpy(photo.tones(images))
    values = np.asarray(images)
    if values.dtype.kind not in "uif":
        raise CourseError(
            f"images are {type(images).__name__} of {values.dtype}: expected a picture, an array or a tensor of numbers"
        )
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
    native = values.dtype.newbyteorder("=")
    if native.kind == "u" and native.itemsize > 1:
        native = np.dtype(np.int64)
    return torch.from_numpy(np.array(values, native, order="C"))  # a copy: an array may be read-only, or a flipped view


def warn_of_paper(images: Tensor) -> None:
    """Warn where most of (N, 1, 28, 28) images (0 to 1) have a bright edge: dark ink on paper, which no network has
    seen."""
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], 2).flatten(1)
    if (edge.median(1).values > 0.5).float().mean() > 0.5:
        warnings.warn(
            "the background is bright: expected white digits on black. utils.data.photo.read makes them of photographs",
            stacklevel=3,
        )
