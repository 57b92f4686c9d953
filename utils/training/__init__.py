"""The training loop and the test loop, the optimizer and its schedule, CPU settings, and several processes."""

from .loops import Row, Score, evaluate, fit, make_optimizer, make_scheduler, normalize, predict

__all__ = ["Row", "Score", "evaluate", "fit", "make_optimizer", "make_scheduler", "normalize", "predict"]
