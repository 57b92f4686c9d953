"""One training by several processes (torchrun): the rank of this one, and the points at which they communicate.

Without torchrun there is one process, every function here is the identity, and no process group exists.

Several processes compute the same as one: each draws the same order and the same augmentation numbers for the
whole batch, takes its shard of the images, and DistributedDataParallel averages the gradients. The weights differ from
those of one process by the rounding of sums that are added in another order: 1e-14 in float64, however long it trains.
Over a run in float32 rounding grows, as it does between two machines: Adam divides by the root of squared gradients
that are all but 0 at first, and turns a last digit into steps of up to the learning rate. More than rounding differs
only with one of these two:

- Batch norm. Each process normalizes by the mean and variance of its own shard, so the statistics are those of
  batch / processes images: noisier, and gradients differ from one process's from the first step on. The running
  averages that evaluation uses are process 0's (the others receive them), so they see a shard of the images too.
  SyncBatchNorm would take the statistics over all shards, but exists for CUDA only, and a recipe should not mean two
  things on two devices. The smaller the shard, the larger the difference.
- Dropout. It draws from each process's global generator (seed + rank), so the masks are others, as with another seed.
"""

import gc
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from .. import CourseError

T = TypeVar("T")


@contextmanager
def process_group() -> Iterator[None]:
    """The process group for as long as the block lasts, if torchrun started this process: gloo for CPU tensors, NCCL
    for CUDA's.

    Standard output of every process but 0 goes nowhere; standard error stays, for what goes wrong in one process alone.
    """
    if not launched():
        yield
        return
    gpu = torch.cuda.is_available() and local_rank() < torch.cuda.device_count()
    if gpu:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(sys.stdout if rank() == 0 else nowhere):
            yield
    except (
        CourseError,
        SystemExit,
    ):  # all end so; after another error this would wait for a process that is still at work
        leave()
        raise
    leave()


def leave() -> None:
    dist.destroy_process_group()
    # networks that were trained hold on to gloo's threads, and one that outlives the interpreter aborts the process
    gc.collect()


def launched() -> bool:
    """Whether torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def rank() -> int:
    """This process's number; 0 writes and prints."""
    return dist.get_rank() if world_size() > 1 else 0


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(value: T) -> list[T]:
    """Every process's value (anything that can be pickled), in order of rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def raise_together(action: Callable[[], T]) -> T:
    """This process's action(). A CourseError of any process is raised in all of them, so that none waits for one that
    has ended."""
    if world_size() == 1:
        return action()
    result = error = None
    try:
        result = action()
    except CourseError as raised:
        error = raised
    for raised in gather(error):
        if raised:
            raise raised
    return result


def on_rank0(action: Callable[[], T]) -> T:
    """Process 0's action(), run there alone and given to all; its CourseError is raised in all."""
    result = [raise_together(lambda: action() if rank() == 0 else None)]
    if world_size() > 1:
        dist.broadcast_object_list(result)
    return result[0]


def first_process_first(action: Callable[[], T]) -> T:
    """This process's action(): first in the first process of every machine, which may download, then in the others,
    which find it done."""
    first, result = local_rank() == 0, None
    for turn in (True, False) if world_size() > 1 else (True,):
        # the others would only repeat on standard error what the first has said
        with nullcontext() if first else redirect_stderr(io.StringIO()):
            result = raise_together(action if first == turn else lambda found=result: found)
    return result


def require_same(facts: dict) -> None:
    """Raise CourseError in all processes if one of them holds other facts (recipe, data, device) than process 0."""
    everyone = gather(facts)
    for number, other in enumerate(everyone):
        for key, value in everyone[0].items():
            if other[key] != value:
                raise CourseError(
                    f"process {number} has {key} = {other[key]}, process 0 has {value}: "
                    "start every machine with the same command, code and data"
                )


def device_name(name: str) -> str:
    """The device of this process among several: "cpu" or its own GPU, "cuda:N". Raises CourseError if its machine has
    too few GPUs."""
    if name not in ("auto", "cuda", "cpu"):
        raise CourseError(f"device {name!r} can't be used by several processes: expected auto, cuda or cpu")
    gpus, here = torch.cuda.device_count(), local_rank()
    if name == "cpu" or (name == "auto" and not gpus):
        return "cpu"
    if here >= gpus:
        raise CourseError(
            f"more processes here than GPUs ({gpus}): expected one GPU each; lower --nproc-per-node, or use --device cpu"
        )
    return f"cuda:{here}"


def random_state() -> dict:
    """Every global random state of this process that training draws from."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def shard(n: int) -> tuple[slice, float]:
    """Which of a batch's n images are this process's, and the factor of its mean loss: averaged over the processes,
    these make the mean over the batch. A process that gets none takes the first image at factor 0, for it must meet the
    others in backward()."""
    part = slice(rank(), n, world_size())
    images = len(range(n)[part])
    return (part, images * world_size() / n) if images else (slice(0, 1), 0.0)


def wrap(model: nn.Module) -> nn.Module:
    """The network to train with: its backward() averages the gradients over the processes; the network itself if there
    is one only."""
    return nn.parallel.DistributedDataParallel(model) if world_size() > 1 else model


def reduce_epoch(model: nn.Module, *sums: Tensor) -> None:
    """In place: add up `sums` over the processes, and give all of them the buffers (running statistics) of process
    0."""
    if world_size() > 1:
        for value in sums:
            dist.all_reduce(value)
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
