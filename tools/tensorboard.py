"""TensorBoard event files of a run: `python train.py NAME --tensorboard`, then `tensorboard --logdir
runs/tensorboard`."""

from collections.abc import Callable

from utils import CourseError
from utils.experiments import Experiment
from utils.runs import records
from utils.training import ddp
from utils.training.loops import Row


def follow(experiment: Experiment, seed: int) -> Callable[[list[Row]], None]:
    """A function that takes a run's rows so far and writes those that it has not written yet, replacing an earlier
    run's event files.

    Of several processes only the first writes. Raises CourseError where the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise CourseError(f"{error.name} is not installed: python -m pip install -r requirements-extra.txt") from error
    folder = records.own_root() / "tensorboard" / f"{experiment.key}_seed{seed}"
    writer, written = None, 0

    def write(history: list[Row]) -> None:
        nonlocal writer, written
        if ddp.rank():
            return
        if writer is None:
            for earlier in folder.glob("events.out.tfevents.*"):
                earlier.unlink()
            writer = SummaryWriter(str(folder))
        for row in history[written:]:
            for part in ("train", "valid", "test"):
                if f"{part}_loss" in row:
                    writer.add_scalar(f"loss/{part}", row[f"{part}_loss"], row["epoch"])
                    writer.add_scalar(f"accuracy/{part}", row[f"{part}_correct"] / row[f"{part}_total"], row["epoch"])
            writer.add_scalar("learning rate", row["lr"], row["epoch"])
        written = len(history)
        writer.flush()

    return write
