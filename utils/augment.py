"""Whole-batch augmentation, on whatever device the batch lies."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


def affine(
    images: Tensor,
    generator: torch.Generator,
    rotate: float = 0.0,
    shift: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    part: slice = slice(None),
    whole: int | None = None,
) -> Tensor:
    """Turn, move, resize and slant each image at random, by one bilinear resampling (outside is 0).

    images: (N, C, H, W) float. rotate and shear: ± degrees; shift: ± pixels along each axis; scale: ± fraction of the
    size; every one uniform and independent per image, drawn from `generator` (which lives on the device of images).
    part, whole: the images are that part of a batch of `whole` images, and get the numbers that they would get in it.
    Returns a new (N, C, H, W) float tensor; with all four at 0 the images themselves, and no random number is drawn.
    """
    if not (rotate or shift or scale or shear):
        return images
    n, _, height, width = images.shape
    draw = torch.rand(5, whole or n, device=images.device, generator=generator)[:, part] * 2 - 1
    angle = draw[0] * math.radians(rotate)
    size = 1 + draw[1] * scale
    slant = torch.tan(draw[2] * math.radians(shear))
    # grid_sample asks where each output pixel comes from, so this is the inverse map, in units of half the image
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    move_x, move_y = draw[3] * 2 * shift / width, draw[4] * 2 * shift / height
    theta = torch.stack([cos, cos * slant - sin, move_x, sin, sin * slant + cos, move_y], 1).view(2 * n, 3)
    # one matrix product with every output pixel's (x, y, 1): what F.affine_grid does, some twenty times as fast on a CPU
    grid = (theta @ _pixels(height, width, images.device)).view(n, 2, height, width).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


@lru_cache
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """(3, height·width): x, y and 1 of every pixel's centre, x and y in units of half the image, 0 in its middle."""
    x, y = ((torch.arange(side, device=device) * 2 + 1) / side - 1 for side in (width, height))
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten(), torch.ones_like(rows).flatten()])
