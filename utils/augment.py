"""Whole-batch augmentation, on whatever device the batch lies."""

import math

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
    theta = torch.stack([cos, cos * slant - sin, move_x, sin, sin * slant + cos, move_y], 1).view(n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
