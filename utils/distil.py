"""Learning from a committee: networks that are trained first, on the same images, and whose answers are learned beside the labels.

G. Hinton, O. Vinyals and J. Dean 2015, "Distilling the knowledge in a neural network": what a network takes a 7 for, if not for a 7, says
more than the label does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import models
from .data.datasets import Dataset
from .experiments import Recipe
from .training import cpu
from .training.loops import fit

TEMPERATURE = 3.0  # divides all logits, so that answers that are nearly 0 count


class Committee(nn.Module):
    """Trained networks that answer together: the mean of their logits. They learn nothing more."""

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) float32 as the members are fed → (N, 10) logits."""
        return torch.stack([member(images) for member in self.members]).mean(0)

    def loss(self, images: Tensor, logits: Tensor) -> Tensor:
        """How far a student's logits (N, 10) for these images lie from the committee's: the Kullback-Leibler divergence of the softened
        answers, times the square of the temperature, by which softening shrinks its gradient."""
        with torch.no_grad():
            taught = self(images)
        learned, taught = (F.log_softmax(answers / TEMPERATURE, 1) for answers in (logits, taught))
        return F.kl_div(learned, taught, log_target=True, reduction="batchmean") * TEMPERATURE**2


def train(recipe: Recipe, teacher: Recipe, data: Dataset, seed: int) -> Committee:
    """The committee of a student of `recipe` and `seed`: recipe.teachers networks of the recipe `teacher`, on the student's images and
    device, each with a seed of its own. The global random state is as it was when this returns."""
    device, members = data.train.images.device, []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for number in range(recipe.teachers):
            own = seed * recipe.teachers + number  # no two students share a teacher
            torch.manual_seed(own)
            model = cpu.prepare(models.build(teacher.model, teacher.dropout), device)
            fit(model, data, teacher, own, echo=False)
            members.append(model)
    return Committee(members)
