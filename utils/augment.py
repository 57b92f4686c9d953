"""Whole-batch augmentation, on whatever device the batch lies: images deformed, voxel grids drawn anew."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.experiments import Recipe
from utils.voxels import BOXES, NEIGHBOURS, POINTS, SIDE

WHOLE = slice(None)
Augment = Callable[[Tensor, Tensor, slice], Tensor]  # a batch's images and rows, and which of them to return → float images or grids


def scaled(images: Tensor) -> Tensor:
    """uint8 0…255 → float32 0…1; floats are that already."""
    return images if images.is_floating_point() else images.float().div_(255)


def augmentation(recipe: Recipe, generator: torch.Generator) -> Augment:
    """What a recipe does to a batch, in one call: augment(images, rows, shard) → what the network sees of it, before it is normalised.

    images: the whole batch as it is stored; rows: its places in the training set; shard: which of its images are wanted. Numbers are
    drawn from `generator`, on the images' device, for the whole batch, whatever the shard: several processes deform as one does.
    """
    deform = {"rotate": recipe.rotate, "scale": recipe.scale, "shear": recipe.shear}

    def draw(images: Tensor, rows: Tensor, shard: slice = WHOLE) -> Tensor:
        if recipe.elastic:
            images = elastic(scaled(images), generator, recipe.elastic).mul(255).round().to(torch.uint8)
        return fresh_grids(images.squeeze(1), rows % 2 == 1, generator, **deform, shard=shard)  # rows 2i are upright, rows 2i + 1 rotated

    if recipe.fresh:
        return draw

    def augment(images: Tensor, rows: Tensor, shard: slice = WHOLE) -> Tensor:
        images, whole = scaled(images[shard]), len(rows)
        images = affine(images, generator, shift=recipe.shift, **deform, shard=shard, whole=whole)
        return elastic(images, generator, recipe.elastic, shard=shard, whole=whole)

    return augment


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

    images: (N, C, H, W) float. rotate and shear: ± degrees; shift: ± pixels along each axis; scale: ± fraction of the
    size; every one uniform and independent per image, drawn from `generator` (which lives on the device of images).
    shard, whole: the images are that part of a batch of `whole` images, and get the numbers that they would get in it.
    Returns a new (N, C, H, W) float tensor; with all four at 0 the images themselves, and no random number is drawn.
    """
    if not (rotate or shift or scale or shear):
        return images
    n, _, height, width = images.shape
    numbers = torch.rand(5, whole or n, device=images.device, generator=generator)[:, shard] * 2 - 1
    angle = numbers[0] * math.radians(rotate)
    size = 1 + numbers[1] * scale
    slant = torch.tan(numbers[2] * math.radians(shear))
    # grid_sample asks where each output pixel comes from, so this is the inverse map, in units of half the image
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    move_x, move_y = numbers[3] * 2 * shift / width, numbers[4] * 2 * shift / height
    theta = torch.stack([cos, cos * slant - sin, move_x, sin, sin * slant + cos, move_y], 1).view(2 * n, 3)
    # one matrix product with every output pixel's (x, y, 1): what F.affine_grid does, some twenty times as fast on a CPU
    grid = (theta @ _pixels(height, width, images.device)).view(n, 2, height, width).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


def elastic(images: Tensor, generator: torch.Generator, strength: float, shard: slice = WHOLE, whole: int | None = None) -> Tensor:
    """Displace the pixels of each image by a smooth random field (Simard et al. 2003), by one bilinear resampling.

    images: (N, C, H, W) float. strength: standard deviation of the field in pixels, at its coarse knots, one for every seven pixels;
    between them it is cubic. generator, shard, whole: as of `affine`. With strength 0 returns the images themselves.
    """
    if not strength:
        return images
    n, _, height, width = images.shape
    knots = (2, -(-height // 7) + 1, -(-width // 7) + 1)
    numbers = torch.randn(whole or n, *knots, device=images.device, generator=generator)[shard] * strength
    field = F.interpolate(numbers, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    still = _pixels(height, width, images.device)[:2].T.view(1, height, width, 2)
    return F.grid_sample(images, still + field * _pixel(height, width, images.device), align_corners=False)


@lru_cache
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """(3, height·width): x, y and 1 of every pixel's centre, x and y in units of half the image, 0 in its middle."""
    x, y = ((torch.arange(side, device=device) * 2 + 1) / side - 1 for side in (width, height))
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten(), torch.ones_like(rows).flatten()])


@lru_cache
def _pixel(height: int, width: int, device: torch.device) -> Tensor:
    """(2,): a pixel's width and height in units of half the image."""
    return torch.tensor([2 / width, 2 / height], device=device)


def fresh_grids(
    images: Tensor,
    rotated: Tensor,
    generator: torch.Generator,
    rotate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shard: slice = WHOLE,
) -> Tensor:
    """New grids of digits: upright ones, and where `rotated` is set rotated and noisy ones by the law of voxels.rotated.

    images: (N, 28, 28) uint8, each with ink; rotated: (N,) bool; generator: on their device. rotate, shear (± degrees) and
    scale (± fraction, each axis on its own): the digit itself is first deformed in its own plane, uniformly.
    shard: which of the N grids to return; the numbers are drawn for all. Returns (n, 1, 16, 16, 16) float32 in [0, 1].
    """
    few = 8 if images.device.type == "cpu" else 256  # as many clouds as a core's cache holds, or enough for a GPU
    wanted = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    wanted[shard] = True
    grids = torch.empty(len(images), SIDE**3, device=images.device)
    for noisy in (False, True):
        for rows in (rotated == noisy).nonzero().squeeze(1).split(few):
            if len(rows):
                mine = wanted[rows]
                grids[rows[mine]] = _fresh(images[rows], noisy, generator, (rotate, scale, shear), mine)
    return grids[shard].view(-1, 1, SIDE, SIDE, SIDE)


def _fresh(images: Tensor, noisy: bool, generator: torch.Generator, deform: tuple[float, float, float], mine: Tensor) -> Tensor:
    """(n, 4096) grids of those of a chunk's images that are `mine`; all numbers are drawn, those of the others go unused."""
    device, ink = images.device, _ink(images)
    most = int(ink.lengths.max())
    plane = _in_plane(len(images), generator, *deform)[mine] if any(deform) else None
    angles = torch.randn(len(images), 3, device=device, generator=generator)[mine]
    noise = torch.rand(len(images), 3, most, device=device, generator=generator)[mine] if noisy else None
    if not mine.all():
        ink = _ink(images[mine])
    if not len(ink.lengths):
        return torch.empty(0, SIDE**3, device=device)
    points = _clouds(ink, most)
    if plane is not None:
        points = plane @ points
    points = points.div_((points.amax(2) - points.amin(2)).amax(1)[:, None, None])
    count = ink.lengths[:, None, None]
    real = torch.arange(most, device=device) < count  # (n, 1, P): clouds are of different lengths
    counted = real.float()
    points -= (points * counted).sum(2, keepdim=True) / count
    angles = angles * torch.tensor([90.0, 90.0, 180.0], device=device).deg2rad() * float(noisy)
    points = _upright_then(angles).transpose(1, 2) @ points
    if noisy:
        spread = (points.square().mul_(counted).sum(2, keepdim=True) / count).sqrt()  # their mean is 0
        points += noise.sub_(0.5).mul_(0.5 * spread)
        points = torch.where(real, points, points[..., :1])
    low, high = points.amin(2, keepdim=True) - 0.001, points.amax(2, keepdim=True) + 0.001
    side = (high - low).amax(1, keepdim=True)
    x, y, z = points.sub_((low + high) / 2).div_(side / SIDE).add_(SIDE / 2).clamp_(0, SIDE - 1).floor_().unbind(1)
    flat = z.mul_(SIDE).add_(y).mul_(SIDE).add_(x).long()  # whole numbers: exact in float32, and quicker than in int64
    grids = torch.zeros(len(points), SIDE**3, device=device).scatter_add_(1, flat, counted.squeeze(1))
    return grids / grids.amax(1, keepdim=True)


class _Ink(NamedTuple):
    """Every pixel with ink of (N, 28, 28) images, all int64. lengths: (N,), how many points the cloud of each image has; its last pixel
    is at `last`."""

    rows: Tensor  # of the image with a margin of one pixel
    columns: Tensor
    pattern: Tensor  # of open sides, as in voxels.BOXES
    count: Tensor  # points of its box
    last: Tensor
    lengths: Tensor


def _ink(images: Tensor) -> _Ink:
    ink = F.pad(images > 0, (1, 1, 1, 1))
    is_open, patterns = (~ink).long(), torch.zeros(images.shape, dtype=torch.int64, device=images.device)
    height, width = images.shape[1:]
    for k, (down, right) in enumerate(NEIGHBOURS):
        patterns += is_open[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] << k
    digit, rows, columns = (images > 0).nonzero(as_tuple=True)
    pattern = patterns[digit, rows, columns]
    count = _boxes(images.device)[2][pattern]
    lengths, pixels = torch.zeros(2, len(images), dtype=torch.int64, device=images.device)
    lengths.index_add_(0, digit, count)
    pixels.index_add_(0, digit, torch.ones_like(digit))
    return _Ink(rows + 1, columns + 1, pattern, count, pixels.cumsum(0) - 1, lengths)


def _clouds(ink: _Ink, most: int) -> Tensor:
    """(N, 3, most) float32: the points of each digit as rows, columns and depths in pixels; its last one is repeated to the end."""
    boxes, room, _ = _boxes(ink.rows.device)
    repeats = ink.count.index_add(0, ink.last, most - ink.lengths)
    pixel = torch.repeat_interleave(repeats)
    first = ink.pattern * room
    place = torch.arange(len(pixel), device=pixel.device).add_((first - repeats.cumsum(0) + repeats).index_select(0, pixel))
    points = boxes.index_select(1, torch.minimum(place, (first + ink.count - 1).index_select(0, pixel)))
    points[:2] += torch.stack([ink.rows, ink.columns]).float().index_select(1, pixel)
    return points.view(3, -1, most).transpose(0, 1)


@lru_cache
def _boxes(device: torch.device) -> tuple[Tensor, int, Tensor]:
    """All BOXES in a row as (3, 16 · most) float32, each with room for `most` points; `most`; and how many points each has."""
    most = int(POINTS.max())
    padded = [np.pad(box, ((0, most - len(box)), (0, 0))) for box in BOXES]
    return torch.from_numpy(np.concatenate(padded).T.astype(np.float32)).to(device), most, torch.as_tensor(POINTS, device=device)


def _in_plane(n: int, generator: torch.Generator, rotate: float, scale: float, shear: float) -> Tensor:
    """(n, 3, 3) matrices to multiply from the left: scale rows and columns, shear, rotate; the depth stays."""
    numbers = torch.rand(4, n, device=generator.device, generator=generator) * 2 - 1
    angle, slant = numbers[0] * math.radians(rotate), torch.tan(numbers[1] * math.radians(shear))
    high, wide = 1 + numbers[2] * scale, 1 + numbers[3] * scale
    matrix = torch.zeros(n, 3, 3, device=generator.device)
    matrix[:, 0, 0], matrix[:, 0, 1] = high * angle.cos(), wide * (angle.sin() + slant * angle.cos())
    matrix[:, 1, 0], matrix[:, 1, 1] = -high * angle.sin(), wide * (angle.cos() - slant * angle.sin())
    matrix[:, 2, 2] = 1
    return matrix


def _upright_then(angles: Tensor) -> Tensor:
    """(N, 3) angles x, y, z in radians → (N, 3, 3): the quarter turn to upright, then Rz @ Ry @ Rx, to multiply from the right."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().T, angles.sin().T
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)

    def matrix(*values: Tensor) -> Tensor:
        return torch.stack(values, 1).view(-1, 3, 3)

    about_x = matrix(one, zero, zero, zero, cx, sx, zero, -sx, cx)
    about_y = matrix(cy, zero, -sy, zero, one, zero, sy, zero, cy)
    about_z = matrix(cz, sz, zero, -sz, cz, zero, zero, zero, one)
    upright = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]], device=angles.device)
    return upright @ about_z @ about_y @ about_x
