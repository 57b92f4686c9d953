"""Whole-batch augmentation on the batch's device: deformed images, and fresh voxel grids (utils.data.fresh_voxels)."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..experiments import Recipe
from .fresh_voxels import fresh_grids

WHOLE = slice(None)
Augment = Callable[[Tensor, Tensor, slice], Tensor]  # images, rows, and the shard to return → float images or grids


def scaled(images: Tensor) -> Tensor:
    """uint8 0…255 → float32 0…1; floats are that already."""
    return images if images.is_floating_point() else images.float().div_(255)


def augmentation(recipe: Recipe, generator: torch.Generator) -> Augment:
    """A recipe's augmentation: augment(images, rows, shard) → the network's input, before normalization.

    images: the whole batch as stored; rows: its places in the training set; shard: the images to return. Numbers are
    drawn from `generator`, on the images' device, for the whole batch, so several processes deform as one does.
    """
    deform = {"rotate": recipe.rotate, "scale": recipe.scale, "shear": recipe.shear}

    def draw(images: Tensor, rows: Tensor, shard: slice = WHOLE) -> Tensor:
        if recipe.elastic:
            images = smooth_displacement(images, generator, recipe.elastic)
        rotated = rows % 2 == 1  # rows 2i are upright
        return fresh_grids(images.squeeze(1), rotated, generator, **deform, shard=shard)

    def augment(images: Tensor, rows: Tensor, shard: slice = WHOLE) -> Tensor:
        images, part = scaled(images[shard]), {"shard": shard, "whole": len(rows)}
        images = affine(images, generator, shift=recipe.shift, **deform, **part)
        images = elastic(images, generator, recipe.elastic, **part)
        images = vary_stroke_width(images, generator, recipe.stroke, **part)
        return erase_square(images, generator, recipe.erase, **part)

    return draw if recipe.fresh else augment


def affine(
    images: Tensor,
    generator: torch.Generator,
    rotate: float = 0.0,
    shift: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shard: slice = WHOLE,
    whole: int | None = None,
) -> Tensor:
    """Rotate, shift, scale and shear each image at random, by one bilinear resampling (outside is 0).

    images: (N, C, H, W) float. rotate and shear: ± degrees if H = W; shift: ± pixels along each axis; scale: ± fraction
    of the size; all uniform and independent per image, from `generator` (on the images' device). shard, whole: the
    images are that part of a batch of `whole` images, and get the numbers that they would get in it. Returns a new
    (N, C, H, W) tensor; with all four at 0 the images themselves, without drawing numbers.
    """
    if not (rotate or shift or scale or shear):
        return images
    n, _, height, width = images.shape
    numbers = torch.rand(5, whole or n, device=images.device, generator=generator)[:, shard] * 2 - 1
    angle = numbers[0] * math.radians(rotate)
    size = 1 + numbers[1] * scale
    slant = torch.tan(numbers[2] * math.radians(shear))
    # the inverse map, as grid_sample needs it, in units of half the image
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    move_x, move_y = numbers[3] * 2 * shift / width, numbers[4] * 2 * shift / height
    theta = torch.stack([cos, cos * slant - sin, move_x, sin, sin * slant + cos, move_y], 1).view(2 * n, 3)
    # F.affine_grid as one matrix product, some twenty times as fast on a CPU
    grid = (theta @ _pixels(height, width, images.device)).view(n, 2, height, width).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


def elastic(
    images: Tensor, generator: torch.Generator, strength: float, shard: slice = WHOLE, whole: int | None = None
) -> Tensor:
    """Displace the pixels of each image by a smooth random field (Simard et al. 2003), by one bilinear resampling.

    images: (N, C, H, W) float. strength: standard deviation of the field in pixels at its knots, one for every seven
    pixels; between them it is cubic. With strength 0 returns the images themselves. The rest as in `affine`.
    """
    if not strength:
        return images
    n, _, height, width = images.shape
    knots = (2, -(-height // 7) + 1, -(-width // 7) + 1)
    numbers = torch.randn(whole or n, *knots, device=images.device, generator=generator)[shard] * strength
    field = F.interpolate(numbers, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    still = _pixels(height, width, images.device)[:2].T.view(1, height, width, 2)
    return F.grid_sample(images, still + field * _pixel(height, width, images.device), align_corners=False)


def vary_stroke_width(
    images: Tensor, generator: torch.Generator, strength: float, shard: slice = WHOLE, whole: int | None = None
) -> Tensor:
    """Thicken or thin the strokes of each image, up to `strength` of the way to the brightest or the darkest of 3×3
    pixels (after Castro et al. 2019, "Morpho-MNIST"). The rest as in `elastic`."""
    if not strength:
        return images
    numbers = torch.rand(whole or len(images), device=images.device, generator=generator)[shard]
    part = (numbers * 2 - 1).view(-1, 1, 1, 1)
    sign = part.sign()  # the minimum is minus the maximum of the negatives
    return images.lerp(sign * F.max_pool2d(sign * images, 3, stride=1, padding=1), part.abs() * strength)


def erase_square(
    images: Tensor, generator: torch.Generator, side: float, shard: slice = WHOLE, whole: int | None = None
) -> Tensor:
    """Blacken a square of `side` pixels at a uniformly drawn place of each image, which may reach over its edge
    (DeVries & Taylor 2017, "Cutout"). The rest as in `elastic`."""
    if not side:
        return images
    height, width = images.shape[2:]
    middle = torch.rand(2, whole or len(images), 1, device=images.device, generator=generator)[:, shard] * 2 - 1
    x, y, _ = _pixels(height, width, images.device)
    hole = ((x - middle[0]).abs() < side / width) & ((y - middle[1]).abs() < side / height)
    return images.masked_fill(hole.view(-1, 1, height, width), 0.0)


def smooth_displacement(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """`elastic` for (N, 1, H, W) uint8 digits that become solids: 1 for ink, 0 elsewhere.

    Keeps the number of pixels with ink (the brightest), because every pixel of a resampled rim would become a box.
    """
    count = (images > 0).flatten(1).sum(1, keepdim=True)
    values = elastic(scaled(images), generator, strength).flatten(1)
    least = values.sort(1, descending=True).values.gather(1, (count - 1).clamp_(min=0))
    return ((values >= least) & (values > 0)).to(torch.uint8).view_as(images)


@lru_cache
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """(3, height·width): x, y and 1 of every pixel's center, in units of half the image, 0 in its middle."""
    x, y = ((torch.arange(side, device=device) * 2 + 1) / side - 1 for side in (width, height))
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten(), torch.ones_like(rows).flatten()])


@lru_cache
def _pixel(height: int, width: int, device: torch.device) -> Tensor:
    """(2,): a pixel's width and height in units of half the image."""
    return torch.tensor([2 / width, 2 / height], device=device)
