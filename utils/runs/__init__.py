"""An experiment and a seed → files: run it, continue it, read it, and load its trained network."""

from .pretrained import Preprocess, load_pretrained
from .runs import Result, run

__all__ = ["Preprocess", "Result", "load_pretrained", "run"]
