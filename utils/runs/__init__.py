"""An experiment and a seed → files: run it, continue it, read it, and load its trained network."""

from .execution import Result, fit, give_up, load, run, save
from .job import Job, resolve
from .pretrained import Preprocess, load_pretrained

__all__ = ["Job", "Preprocess", "Result", "fit", "give_up", "load", "load_pretrained", "resolve", "run", "save"]
