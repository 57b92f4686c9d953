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
from utils.voxels import FACES, NEIGHBOURS, SIDE

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
            images = bent(images, generator, recipe.elastic)
        return fresh_grids(images.squeeze(1), rows % 2 == 1, generator, **deform, shard=shard)  # rows 2i are upright, rows 2i + 1 rotated

    if recipe.fresh:
        return draw

    def augment(images: Tensor, rows: Tensor, shard: slice = WHOLE) -> Tensor:
        images, whole = scaled(images[shard]), len(rows)
        images = affine(images, generator, shift=recipe.shift, **deform, shard=shard, whole=whole)
        images = elastic(images, generator, recipe.elastic, shard=shard, whole=whole)
        images = stroked(images, generator, recipe.stroke, shard=shard, whole=whole)
        return erased(images, generator, recipe.erase, shard=shard, whole=whole)

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
    angle, size = numbers[0] * math.radians(rotate), 1 + numbers[1] * scale
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


def stroked(images: Tensor, generator: torch.Generator, strength: float, shard: slice = WHOLE, whole: int | None = None) -> Tensor:
    """Thicken or thin the strokes of each image, up to `strength` of the way to a pen that is two pixels wider or thinner: to the brightest
    or the darkest of 3×3 pixels (after Castro et al. 2019, "Morpho-MNIST"). The rest as of `elastic`."""
    if not strength:
        return images
    part = (torch.rand(whole or len(images), device=images.device, generator=generator)[shard] * 2 - 1).view(-1, 1, 1, 1)
    sign = part.sign()  # the darkest of some is minus the brightest of their opposites
    return images.lerp(sign * F.max_pool2d(sign * images, 3, stride=1, padding=1), part.abs() * strength)


def erased(images: Tensor, generator: torch.Generator, side: float, shard: slice = WHOLE, whole: int | None = None) -> Tensor:
    """Blacken a square of `side` pixels at a uniformly drawn place of each image, which may reach over its edge (DeVries & Taylor 2017,
    "Cutout"). The rest as of `elastic`."""
    if not side:
        return images
    height, width = images.shape[2:]
    middle = torch.rand(2, whole or len(images), 1, device=images.device, generator=generator)[:, shard] * 2 - 1
    x, y, _ = _pixels(height, width, images.device)
    hole = ((x - middle[0]).abs() < side / width) & ((y - middle[1]).abs() < side / height)
    return images.masked_fill(hole.view(-1, 1, height, width), 0.0)


def bent(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """`elastic` for (N, 1, H, W) uint8 digits that become bodies: 1 where there is ink, 0 elsewhere.

    As many pixels have ink as before, the brightest ones: resampling gives a stroke a rim, and every pixel above 0 would be a box.
    """
    count = (images > 0).flatten(1).sum(1, keepdim=True)
    values = elastic(scaled(images), generator, strength).flatten(1)
    least = values.sort(1, descending=True).values.gather(1, (count - 1).clamp_(min=0))
    return ((values >= least) & (values > 0)).to(torch.uint8).view_as(images)


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
    few = 32 if images.device.type == "cpu" else 256  # as many bodies as a core's cache holds, or enough for a GPU
    wanted = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    wanted[shard] = True
    grids = torch.empty(len(images), SIDE**3, device=images.device)
    for noisy in (False, True):
        for rows in (rotated == noisy).nonzero().squeeze(1).split(few):
            if len(rows):
                mine = wanted[rows]
                grids[rows[mine]] = _fresh(images[rows], noisy, generator, (rotate, scale, shear), mine)
    return grids[shard].view(-1, 1, SIDE, SIDE, SIDE)


class _Part(NamedTuple):
    """What has one shape in N bodies: the front and back of every pixel with ink, or one of the four sides of those whose side is open."""

    digit: Tensor  # (Q,) int64: whose pixel
    at: Tensor  # (Q, 3) float32: its row, column and depth 0, in pixels
    shape: Tensor  # (3, P) float32: the points around each of them


def _parts(images: Tensor) -> list[_Part]:
    ink, parts = images > 0, []
    padded, (height, width) = F.pad(ink, (1, 1, 1, 1)), images.shape[1:]
    covered = [padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] for down, right in NEIGHBOURS]
    for seen, shape in zip((ink, *(ink & ~side for side in covered)), _shapes(images.device), strict=True):
        digit, row, column = seen.nonzero(as_tuple=True)
        parts.append(_Part(digit, torch.stack([row, column, torch.zeros_like(row)], 1).float(), shape))
    return parts


@lru_cache
def _shapes(device: torch.device) -> list[Tensor]:
    """(3, P) float32 each: the front and back of a box around 0, and its four sides."""
    return [torch.from_numpy(face.T.astype(np.float32)).to(device) for face in (np.concatenate(FACES[:2]), *FACES[2:])]


def _fresh(images: Tensor, noisy: bool, generator: torch.Generator, deform: tuple[float, float, float], mine: Tensor) -> Tensor:
    """(n, 4096) grids of those of a chunk's images that are `mine`; all numbers are drawn, those of the others go unused.

    Middle, extent and spread of a body follow from its pixels, so one matrix and one offset a body turn the points as they are made.
    """
    device, parts = images.device, _parts(images)
    plane = _in_plane(len(images), generator, *deform)[mine]
    angles = torch.randn(len(images), 3, device=device, generator=generator)[mine]
    noise = [torch.rand(len(part.digit), *part.shape.shape, device=device, generator=generator) if noisy else None for part in parts]
    if not mine.all():
        noise = [numbers[mine[part.digit]] if noisy else None for numbers, part in zip(noise, parts, strict=True)]
        parts = _parts(images[mine])
    if not len(angles):
        return torch.empty(0, SIDE**3, device=device)
    mean, covariance = _moments(parts, len(angles))
    angles = angles * torch.tensor([90.0, 90.0, 180.0], device=device).deg2rad() * float(noisy)
    turn = _upright_then(angles).mT @ plane / _extent(parts[0], plane)
    reach = (turn @ covariance * turn).sum(2, keepdim=True).sqrt() / 4 * float(noisy)  # a quarter of the deviation along each axis
    offset = -turn @ mean - reach
    clouds = [_cloud(part, turn, offset, 2 * reach, numbers) for part, numbers in zip(parts, noise, strict=True)]
    return _count(parts, clouds, len(angles))


def _moments(parts: list[_Part], n: int) -> tuple[Tensor, Tensor]:
    """Mean (n, 3, 1) and covariance (n, 3, 3) of the points of n bodies, in pixels; the sums are of whole numbers, exact in any order."""
    sums = torch.zeros(n, 4, 4, device=parts[0].at.device)  # of (1, x, y, z)ᵀ(1, x, y, z)
    for digit, at, shape in parts:
        at, shape = F.pad(at, (1, 0), value=1.0), F.pad(shape, (0, 0, 1, 0))
        places = torch.zeros_like(sums).index_add_(0, digit, at[:, :, None] * at[:, None])
        across = places[:, :, :1] * shape.sum(1)
        sums += places * shape.shape[1] + across + across.mT + places[:, :1, :1] * (shape @ shape.T)
    sums = sums / sums[:, :1, :1]
    mean = sums[:, 1:, :1]
    return mean, sums[:, 1:, 1:] - mean @ mean.mT


def _extent(front: _Part, plane: Tensor) -> Tensor:
    """(n, 1, 1): the largest extent along an axis of n bodies deformed by (n, 3, 3) `plane`; the corners are on fronts and backs."""
    low, high = _ends([front], [_apply(plane, front)[:, :, None]], len(plane))
    return (high - low + 2 * (plane.abs() @ front.shape.amax(1))).amax(1)[:, None, None]


def _apply(matrix: Tensor, part: _Part) -> Tensor:
    """(Q, 3): the places of a part's pixels, each by its body's matrix of (n, 3, 3)."""
    return (matrix[part.digit] @ part.at[:, :, None]).squeeze(2)


def _ends(parts: list[_Part], clouds: list[Tensor], n: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest point of n bodies along each axis: (n, 3) each."""
    digit = torch.cat([part.digit for part in parts])[:, None].expand(-1, 3)

    def end(least: list[Tensor], reduce: str) -> Tensor:
        return torch.zeros(n, 3, device=digit.device).scatter_reduce_(0, digit, torch.cat(least), reduce, include_self=False)

    return end([points.amin(2) for points in clouds], "amin"), end([points.amax(2) for points in clouds], "amax")


def _cloud(part: _Part, turn: Tensor, offset: Tensor, reach: Tensor, noise: Tensor | None) -> Tensor:
    """(Q, 3, P): a part's points, each turned and moved with its body, and by noise · reach."""
    points = (turn @ part.shape)[part.digit]
    points += (_apply(turn, part) + offset.squeeze(2)[part.digit])[:, :, None]
    return points if noise is None else points.addcmul_(noise, reach[part.digit])


def _count(parts: list[_Part], clouds: list[Tensor], n: int) -> Tensor:
    """(n, 4096): points in each voxel of the smallest cube around a body, divided by the largest count; the clouds are used up."""
    low, high = _ends(parts, clouds, n)
    scale = SIDE / ((high - low).amax(1, keepdim=True) + 0.002)  # a margin of 0.001 at both ends, as in voxels.voxelise
    shift = SIDE / 2 - (low + high) / 2 * scale
    grids = torch.zeros(n * SIDE**3, device=low.device)
    for (digit, *_), points in zip(parts, clouds, strict=True):
        x, y, z = points.mul_(scale[digit][:, :, None]).add_(shift[digit][:, :, None]).floor_().unbind(1)
        first = (digit * SIDE**3)[:, None]  # of a body's voxels. Whole numbers: exact in float32, and quicker than in int64
        voxel = z.mul_(SIDE).add_(y).mul_(SIDE).add_(x).add_(first).long().flatten()
        grids.scatter_add_(0, voxel, torch.ones((), device=low.device).expand_as(voxel))
    grids = grids.view(n, -1)
    return grids / grids.amax(1, keepdim=True)


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
