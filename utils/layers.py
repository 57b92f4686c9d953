"""The few layers that PyTorch lacks: a residual sum, and the inputs of voxel networks."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ZERO = 0.01  # a smaller component of a unit vector does not decide its sign
ALIGNED = 0.003  # of the variance: covariance with x up to here means that a principal axis is x, so a solid is upright
TURNS = 4


class Residual(nn.Module):
    """shortcut(x) + layers(x) (He et al. 2016, "Deep residual learning for image recognition").

    shortcut: brings x to the shape of the sum; by default x itself.
    """

    def __init__(self, *layers: nn.Module, shortcut: nn.Module | None = None):
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.shortcut = shortcut or nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) → the shape that layers and shortcut agree on."""
        return self.shortcut(features) + self.body(features)


class Oranges(nn.Module):
    """(N, 1, …) densities in [0, 1] → (N, 3, …) red, green and blue of matplotlib's map of that name. No parameters."""

    def __init__(self):
        from matplotlib import colormaps  # half a second to import, and only this network needs it

        super().__init__()
        colors = torch.from_numpy(colormaps["Oranges"](np.arange(256))[:, :3].T.copy()).float()
        self.register_buffer("colors", colors, persistent=False)

    def forward(self, grids: Tensor) -> Tensor:
        step = (grids.squeeze(1) * 256).long().clamp_(0, 255)  # as matplotlib does it
        return torch.stack([color[step] for color in self.colors], 1)


class PrincipalAxisView(nn.Module):
    """(N, 1, 16, 16, 16) densities in [0, 1] → (N, 4, 24, 24): each solid as seen along its shortest principal axis.
    No parameters.

    The smallest rotation that brings this axis to x keeps an upright solid upright. The solid is sampled (trilinearly)
    on a grid that fits its size, ±2 root mean square radii across and ±2 standard deviations deep. Pairs of depths are
    averaged into four slices, and the square root brightens faint voxels. roll: degrees by which the view is turned in
    its own plane. turned: outside training, a rotated solid is shown in all four quarter turns, and an upright one four
    times: (4N, 4, 24, 24), for MeanOfTurns.
    """

    def __init__(self, roll: float = 0.0, turned: bool = False):
        super().__init__()
        self.turned = turned
        # on the CPU: on the meta device arange imports sympy
        place = (torch.arange(16, device="cpu") - 7.5) / 8  # of a voxel's center, as grid_sample counts
        z, y, x = torch.meshgrid(place, place, place, indexing="ij")
        across, deep = ((torch.arange(n, device="cpu") * 2 + 1) / n - 1 for n in (24, 8))
        rows, columns, depth = torch.meshgrid(across, across, deep, indexing="ij")
        centers = torch.stack([x, y, z], -1).view(-1, 3)
        self.register_buffer("centers", centers, persistent=False)  # (4096, 3)
        self.register_buffer("products", (centers[:, :, None] * centers[:, None]).view(-1, 9), persistent=False)
        cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
        # (24·24·8, 3); a digit's rows run down, z runs up
        places = torch.stack([depth, cos * columns + sin * rows, sin * columns - cos * rows], -1).view(-1, 3)
        self.register_buffer("places", 2 * places, persistent=False)

    def moments(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, 3) and covariance (N, 3, 3) of the densities; x, y and z from −1 to 1."""
        density = grids.flatten(1)
        density = density / density.sum(1, keepdim=True).clamp(min=1e-6)
        middle = density @ self.centers
        return middle, (density @ self.products).view(-1, 3, 3) - middle[:, :, None] * middle[:, None]

    def forward(self, grids: Tensor) -> Tensor:
        middle, covariance = self.moments(grids)
        axis = smallest_principal_axis(covariance)
        variance = ((axis[:, None] @ covariance).squeeze(1) * axis).sum(1)  # along the axis
        thickness = variance.clamp(min=1e-6)
        width = covariance.diagonal(dim1=1, dim2=2).sum(1) - thickness
        frame = smallest_rotation(axis) * torch.stack([thickness, width, width], 1).sqrt()[:, :, None]
        points = (self.places @ frame + middle[:, None]).view(-1, 24, 24, 8, 3)
        seen = F.grid_sample(grids, points, align_corners=False).view(-1, 24, 24, 4, 2).mean(-1)
        view = seen.clamp(min=0).sqrt().permute(0, 3, 1, 2)
        if self.training or not self.turned:
            return view
        with_x = covariance[:, 0, 1:].norm(dim=1) / covariance.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-6)
        upright = (with_x < ALIGNED)[:, None, None, None]
        turns = [torch.where(upright, view, view.rot90(quarters, (2, 3))) for quarters in range(TURNS)]
        return torch.stack(turns, 1).flatten(0, 1)


class MeanOfTurns(nn.Module):
    """(4N, 10) logits, of four views of each solid → (N, 10) logarithms of the mean probabilities; in training, logits
    as they are. No parameters.
    """

    def forward(self, logits: Tensor) -> Tensor:
        if self.training:
            return logits
        return logits.log_softmax(1).view(-1, TURNS, logits.shape[1]).logsumexp(1) - math.log(TURNS)


def smallest_principal_axis(covariance: Tensor) -> Tensor:
    """(N, 3, 3) covariances → (N, 3) unit eigenvectors of the smallest eigenvalues; the first of x, y and z beyond
    ±ZERO is positive.

    The adjugate has the same eigenvectors, with the largest eigenvalue here; repeated squaring leaves only that one.
    The sign must not depend on rounding: an upright 1 is narrower than it is deep, so its shortest axis has almost no x
    component, about 1e-9 of either sign, which would mirror the view at random.
    """
    a, b, c = covariance.unbind(1)
    power = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    for _ in range(12):
        power = power / power.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None]
        power = power @ power
    strongest = power.diagonal(dim1=1, dim2=2).argmax(1)
    axis = F.normalize(power.gather(1, strongest[:, None, None].expand(-1, 1, 3)).squeeze(1))
    x, y, z = axis.unbind(1)
    decides = torch.where(x.abs() > ZERO, x, torch.where(y.abs() > ZERO, y, z))
    return torch.where(decides[:, None] < 0, -axis, axis)


def smallest_rotation(axis: Tensor) -> Tensor:
    """(N, 3) unit vectors with x > −1 → (N, 3, 3): the axes after the smallest rotation of x to the vector."""
    x, y, z = axis.unbind(1)
    part = 1 / (1 + x)
    second = torch.stack([-y, 1 - y * y * part, -y * z * part], 1)
    third = torch.stack([-z, -y * z * part, 1 - z * z * part], 1)
    return torch.stack([axis, second, third], 1)
