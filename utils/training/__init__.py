"""The training loop and the test loop, the optimizer and its schedule, CPU settings, and several processes."""

from .loops import Row, Score, evaluate, fit, normalize, predict
from .steps import make_optimizer, make_scheduler

__all__ = ["Row", "Score", "evaluate", "fit", "make_optimizer", "make_scheduler", "normalize", "predict"]
