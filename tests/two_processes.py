"""What test_ddp.py trains in one process (imported) and in two (`torchrun … two_processes.py FOLDER`)."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from tools import train as train_py
from utils import CourseError, files, models, runs
from utils.experiments import EXPERIMENTS, Experiment
from utils.runs import execution, records
from utils.training import ddp

# 239 images: the last batch of each epoch holds a single one, so the second process gets none
DIGITS = {"data": "digits", "images": 239, "epochs": 2, "batch_size": 119, "rotate": 10.0, "shift": 2.0, "scale": 0.1}
PLAIN = Experiment("plain", replace(EXPERIMENTS["base"].recipe, **DIGITS), "")
BATCH_NORM = PLAIN.with_recipe(model="bn_augmentation", optimizer="sgd")
ONE_EPOCH = PLAIN.with_recipe(epochs=1)
DROPOUT = PLAIN.with_recipe(dropout=0.1)


real_build, real_shard, real_write = models.build, ddp.shard, records.write_checkpoint
prepare_data = execution.prepare_data


def build_in_float64(*arguments) -> nn.Module:
    """A network that computes in float64, where the order of a sum does not matter. In float32, Adam divides by the
    root of a squared gradient that is all but 0 at first, and rounding becomes steps of up to the learning rate."""
    model = real_build(*arguments).double()
    model.register_forward_pre_hook(lambda _, images: images[0].double())
    return model


def train(experiment: Experiment, root: Path, **options) -> dict:
    """The state dict after a run."""
    return runs.run(experiment, 0, "cpu", folder=root, echo=False, **options).model.state_dict()


def train_in_float64(root: Path) -> dict:
    models.build = build_in_float64
    try:
        return train(ONE_EPOCH, root)
    finally:
        models.build = real_build


def rejections(action) -> list[str]:
    """What each process's CourseError says; it ends only if none of them hangs."""
    try:
        action()
        return ddp.gather("went on")
    except CourseError as error:
        return ddp.gather(str(error))


def interrupt(history) -> None:
    raise KeyboardInterrupt


def full_disk(*_) -> None:
    raise CourseError("no space left")


def main(folder: Path) -> None:
    train_py.main(["base", "--data", "digits", "--batch-size", "100", "--epochs", "1"])
    first, found = ddp.rank() == 0, {}
    weights = {"float64": train_in_float64(folder / "float64")}
    states = [files.to_bytes(state) for state in ddp.gather(train(BATCH_NORM, folder / "batch_norm"))]
    found["all hold the same statistics"] = states[0] == states[1]

    ddp.shard = lambda n: (real_shard(n)[0], 1.0)  # the mean of the means, as if all shards were equal
    weights["unweighted"] = train_in_float64(folder / "unweighted")
    ddp.shard = real_shard

    weights["uninterrupted"] = train(DROPOUT, folder / "uninterrupted")
    for name in ("continued", "forgotten"):
        found[name] = rejections(partial(train, DROPOUT, folder / name, after_epoch=interrupt))
        if first and name == "forgotten":
            [path] = (folder / name / "unfinished").glob("*.pt")
            run_start, state = records.read_checkpoint(path)
            records.write_checkpoint(path, run_start, state | {"processes": state["processes"][:1]})
        weights[name] = train(DROPOUT, folder / name)

    if first:
        records.write_checkpoint = full_disk
    found["full disk"] = rejections(lambda: train(PLAIN, folder / "full"))
    records.write_checkpoint = real_write
    if not first:
        execution.prepare_data = lambda experiment: prepare_data(experiment).hold_out(1)
    found["other data"] = rejections(lambda: train(PLAIN, folder / "other data"))
    if first:
        (folder / "found.json").write_text(json.dumps(found))
        torch.save(weights, folder / "weights.pt")


if __name__ == "__main__":
    with ddp.process_group():
        main(Path(sys.argv[1]))
