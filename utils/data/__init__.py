"""Name → tensors: MNIST and its relatives, voxels, augmentation, photographs."""

from .datasets import NAMES, Dataset, Split, load

__all__ = ["NAMES", "Dataset", "Split", "load"]
