"""Voxel grids drawn anew from their digits, a whole batch at a time, on its device: utils.data.voxels in torch."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .voxels import FACES, NEIGHBOURS, SIDE


def fresh_grids(
    images: Tensor,
    rotated: Tensor,
    generator: torch.Generator,
    rotate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shard: slice = slice(None),
) -> Tensor:
    """New grids of digits: upright ones, and rotated and noisy ones like voxels.rotated where `rotated` is set.

    images: (N, 28, 28) uint8, each with ink; rotated: (N,) bool; generator: on their device. rotate, shear (± degrees)
    and scale (± fraction, each axis on its own): the digit is first deformed in its own plane, uniformly. shard: the
    grids to return; numbers are drawn for all N. Returns (n, 1, 16, 16, 16) float32 in [0, 1].
    """
    few = 32 if images.device.type == "cpu" else 256  # solids that fit into a core's cache, or enough for a GPU
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
    """Equal parts of N solids: front and back of every pixel with ink, or one of its four sides if it is open."""

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


def _fresh(
    images: Tensor, noisy: bool, generator: torch.Generator, deform: tuple[float, float, float], mine: Tensor
) -> Tensor:
    """(n, 4096) grids of the chunk's images that are `mine`; numbers are drawn for all images.

    Mean, extent and spread follow from the pixels, so a matrix and an offset per solid turn its points when made.
    """
    device, parts = images.device, _parts(images)
    plane = _in_plane(len(images), generator, *deform)[mine]
    angles = torch.randn(len(images), 3, device=device, generator=generator)[mine]
    noise = [
        torch.rand(len(part.digit), *part.shape.shape, device=device, generator=generator) if noisy else None
        for part in parts
    ]
    if not mine.all():
        noise = [numbers[mine[part.digit]] if noisy else None for numbers, part in zip(noise, parts, strict=True)]
        parts = _parts(images[mine])
    if not len(angles):
        return torch.empty(0, SIDE**3, device=device)
    mean, covariance = _moments(parts, len(angles))
    angles = angles * torch.tensor([90.0, 90.0, 180.0], device=device).deg2rad() * float(noisy)
    turn = _upright_then(angles).mT @ plane / _extent(parts[0], plane)
    deviation = (turn @ covariance * turn).sum(2, keepdim=True).sqrt()  # along each axis
    reach = deviation / 4 * float(noisy)
    offset = -turn @ mean - reach
    clouds = [_cloud(part, turn, offset, 2 * reach, numbers) for part, numbers in zip(parts, noise, strict=True)]
    return _count(parts, clouds, len(angles))


def _moments(parts: list[_Part], n: int) -> tuple[Tensor, Tensor]:
    """Mean (n, 3, 1) and covariance (n, 3, 3) of the points of n solids; sums of whole numbers are exact."""
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
    """(n, 1, 1): the largest extent along an axis of n solids, deformed by (n, 3, 3) `plane`."""
    low, high = _ends([front], [_apply(plane, front)[:, :, None]], len(plane))
    return (high - low + 2 * (plane.abs() @ front.shape.amax(1))).amax(1)[:, None, None]


def _apply(matrix: Tensor, part: _Part) -> Tensor:
    """(Q, 3): the places of a part's pixels, each multiplied by its solid's matrix of (n, 3, 3)."""
    return (matrix[part.digit] @ part.at[:, :, None]).squeeze(2)


def _ends(parts: list[_Part], clouds: list[Tensor], n: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest point of n solids along each axis: (n, 3) each."""
    digit = torch.cat([part.digit for part in parts])[:, None].expand(-1, 3)

    def end(least: list[Tensor], reduce: str) -> Tensor:
        zeros = torch.zeros(n, 3, device=digit.device)
        return zeros.scatter_reduce_(0, digit, torch.cat(least), reduce, include_self=False)

    return end([points.amin(2) for points in clouds], "amin"), end([points.amax(2) for points in clouds], "amax")


def _cloud(part: _Part, turn: Tensor, offset: Tensor, reach: Tensor, noise: Tensor | None) -> Tensor:
    """(Q, 3, P): a part's points, each turned and moved with its solid, and by noise · reach."""
    points = (turn @ part.shape)[part.digit]
    points += (_apply(turn, part) + offset.squeeze(2)[part.digit])[:, :, None]
    return points if noise is None else points.addcmul_(noise, reach[part.digit])


def _count(parts: list[_Part], clouds: list[Tensor], n: int) -> Tensor:
    """(n, 4096): points in each voxel of the smallest cube around a solid, relative to the largest count."""
    low, high = _ends(parts, clouds, n)
    scale = SIDE / ((high - low).amax(1, keepdim=True) + 0.002)  # a margin of 0.001 at both ends, as in voxels.voxelize
    shift = SIDE / 2 - (low + high) / 2 * scale
    grids = torch.zeros(n * SIDE**3, device=low.device)
    for (digit, *_), points in zip(parts, clouds, strict=True):
        x, y, z = points.mul_(scale[digit][:, :, None]).add_(shift[digit][:, :, None]).floor_().unbind(1)
        first = (digit * SIDE**3)[:, None]  # of a solid's voxels; whole numbers are exact in float32
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
    """(N, 3) angles in radians → (N, 3, 3): the quarter turn to upright, then Rz @ Ry @ Rx."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().T, angles.sin().T
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)

    def matrix(*values: Tensor) -> Tensor:
        return torch.stack(values, 1).view(-1, 3, 3)

    about_x = matrix(one, zero, zero, zero, cx, sx, zero, -sx, cx)
    about_y = matrix(cy, zero, -sy, zero, one, zero, sy, zero, cy)
    about_z = matrix(cz, sz, zero, -sz, cz, zero, zero, zero, one)
    upright = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]], device=angles.device)
    return upright @ about_z @ about_y @ about_x
