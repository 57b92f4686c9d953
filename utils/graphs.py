"""A training step as one CUDA graph: a small network's step is many short kernels, and most of its time goes into launching them.

The first steps run as usual: they compile kernels and make the optimizer's state. Then one step is captured, and every further one of the
same size is a replay of it, which does the same arithmetic on what its buffers hold then: the same seed gives the same bits either way.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from . import switch
from .experiments import Recipe
from .training import ddp

USUAL_STEPS = 3  # before one is captured


def apply(recipe: Recipe, device: torch.device) -> bool:
    """Whether a recipe's step is to be captured: where COURSE_GRAPHS is 1 (no GPU has shown yet that it helps), on CUDA, in one process,
    and with nothing in it that waits for a number of the device's, as drawing clouds of different lengths does."""
    wanted = switch("COURSE_GRAPHS")
    return wanted and device.type == "cuda" and ddp.world_size() == 1 and not recipe.fresh


class Graphed:
    """step(rows), the same work at every call: as usual first, then as a replay of one captured graph.

    step: takes the rows of a batch, (N,) int64 on the device, and returns a tensor; whatever else it changes must keep its place in memory.
    optimizer: the one that steps in it; generators: from which it draws, besides the global one.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, generators: list[torch.Generator]):
        self.step, self.optimizer, self.generators = step, optimizer, generators
        self.rates: list[Tensor] = []  # of each group of parameters, on the device: a graph would repeat a plain number for ever
        self.usual_steps = USUAL_STEPS
        self.rows = torch.empty(0)  # which the graph reads
        self.replay: Callable[[], Tensor] | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        """step(rows). Where capturing fails, says so once and goes on as usual."""
        if not self.rates:
            self.rates = [torch.zeros((), device=rows.device) for _ in self.optimizer.param_groups]
            self.rows = rows.clone()
        with self._rates_on_device():
            if self.usual_steps > 0 or len(rows) != len(self.rows):  # an epoch's last batch is smaller
                self.usual_steps -= 1
                return self.step(rows)
            self.rows.copy_(rows)
            self.replay = self.replay or self._captured()
            return self.replay()

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """The optimizer's learning rates as tensors, for as long as the block lasts; the schedule goes on with numbers."""
        groups = self.optimizer.param_groups
        numbers = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate.fill_(group["lr"])
        try:
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number

    def _captured(self) -> Callable[[], Tensor]:
        """What does a step on self.rows: the replay of a graph, or the step itself."""
        adams = [group for group in self.optimizer.param_groups if "capturable" in group]
        for group in adams:
            group["capturable"] = True
        try:
            return capture(lambda: self.step(self.rows), self.generators)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            warnings.warn(f"a training step can't be captured as a CUDA graph ({reason}): going on without", stacklevel=2)
            return lambda: self.step(self.rows)
        finally:
            for group in adams:
                group["capturable"] = False


def capture(work: Callable[[], Tensor], generators: list[torch.Generator]) -> Callable[[], Tensor]:
    """Record work() without doing it; returns what does it, and fills the tensor that it returns anew each time."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
