"""One training by several processes (torchrun): this process's rank, and all communication.

Without torchrun there is one process, every function here is the identity, and no process group exists.

Several processes compute the same as one. Each draws the same order and the same augmentation numbers for the whole
batch and takes its shard of the images, and DistributedDataParallel averages the gradients. The weights differ from
those of one process by the rounding of sums, 1e-14 in float64. In float32 rounding grows over a run, as between two
machines. Two layers cause larger differences:

- Batch norm. Each process normalizes its own shard, so the statistics are those of batch / processes images, and
  gradients differ from the first step on. Evaluation uses process 0's running averages. SyncBatchNorm would use all
  shards, but it exists for CUDA only, and a recipe should mean the same on two devices.
- Dropout. It draws from each process's global generator (seed + rank), so the masks differ, as with another seed.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from .. import CourseError

T = TypeVar("T")


@contextmanager
def process_group() -> Iterator[None]:
    """The process group while the block runs, if torchrun started this process: gloo for CPU tensors, NCCL for CUDA's.

    Only process 0 writes to standard output.
    """
    if not launched():
        yield
        return
    gpu = torch.cuda.is_available() and local_rank() < torch.cuda.device_count()
    if gpu:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(sys.stdout if rank() == 0 else nowhere):
        yield
    # not after an error, which would wait for the other processes here
    dist.destroy_process_group()
    gc.collect()  # trained networks keep gloo's threads, and one that outlives the interpreter aborts the process


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
    """This process's action(). A CourseError of any process is raised in all, so that none waits for it."""
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
    """The result of action() in process 0, given to all; its CourseError is raised in all."""
    result = [raise_together(lambda: action() if rank() == 0 else None)]
    if world_size() > 1:
        dist.broadcast_object_list(result)
    return result[0]


def require_same(facts: dict) -> None:
    """Raise CourseError in all processes if one has other facts (data, sources, device) than process 0."""
    everyone = gather(facts)
    for number, other in enumerate(everyone):
        for key, value in everyone[0].items():
            if other[key] != value:
                differs = f"process {number} has {key} = {other[key]}, process 0 has {value}"
                raise CourseError(f"{differs}: start every machine with the same command, code and data")


def device_name(name: str) -> str:
    """This process's device among several: "cpu" or its own GPU, "cuda:N". Raises CourseError without enough GPUs."""
    gpus, here = torch.cuda.device_count(), local_rank()
    if name == "cpu" or (name == "auto" and not gpus):
        return "cpu"
    if name not in ("auto", "cuda") or here >= gpus:
        expected = "expected --device cpu, or cuda with a GPU for each process (--nproc-per-node)"
        raise CourseError(f"device {name!r} can't be used by several processes on {gpus} GPUs: {expected}")
    return f"cuda:{here}"


def random_state() -> dict:
    """The global random states of this process, on the CPU and on CUDA."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def shard(n: int) -> tuple[slice, float]:
    """This process's part of a batch of n images, and the factor of its mean loss; averaged over the processes, the
    products are the batch's mean. A process without images takes the first one at factor 0, because backward() waits
    for all."""
    part = slice(rank(), n, world_size())
    images = len(range(n)[part])
    return (part, images * world_size() / n) if images else (slice(0, 1), 0.0)


def wrap(model: nn.Module) -> nn.Module:
    """The network to train with, whose backward() averages the gradients over the processes."""
    return nn.parallel.DistributedDataParallel(model) if world_size() > 1 else model


def reduce_epoch(model: nn.Module, *sums: Tensor) -> None:
    """In place: add up `sums` over the processes, and give all of them process 0's buffers (running statistics)."""
    if world_size() > 1:
        for value in sums:
            dist.all_reduce(value)
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
