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
CASES = {
    "float64": PLAIN.with_recipe(epochs=1),
    "float32": PLAIN.with_recipe(optimizer="sgd"),
    "batch_norm": PLAIN.with_recipe(model="bn_augmentation", optimizer="sgd"),
}
DROPOUT = PLAIN.with_recipe(dropout=0.1)


class Float64(nn.Module):
    """A network that computes in float64, where the order of a sum does not matter."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.double()

    def forward(self, images):
        return self.model(images.double())


def train(experiment: Experiment, root: Path, float64: bool = False, **options) -> dict:
    """The state dict after a run."""
    build = models.build
    if float64:
        models.build = lambda *arguments: Float64(build(*arguments))
    try:
        return runs.run(experiment, 0, "cpu", folder=root, echo=False, **options).model.state_dict()
    finally:
        models.build = build


def rejections(action) -> list[str]:
    """What each process's CourseError says; it ends only if none of them hangs."""
    try:
        action()
        return ddp.gather("went on")
    except CourseError as error:
        return ddp.gather(str(error))


def interrupt(history) -> None:
    raise KeyboardInterrupt


def reject_checkpoints(path: Path, content: bytes) -> None:
    if path.suffix == ".pt":
        raise CourseError("no space left")
    real_write(path, content)


real_write, real_shard = files.write, ddp.shard


def main(folder: Path) -> None:
    train_py.main(["base", "--data", "digits", "--batch-size", "100", "--epochs", "1"])
    first, found, weights = ddp.rank() == 0, {}, {}
    for name, experiment in CASES.items():
        weights[name] = train(experiment, folder / name, name.endswith("float64"))
    states = [files.to_bytes(state) for state in ddp.gather(weights["batch_norm"])]
    found["all hold the same statistics"] = states[0] == states[1]

    ddp.shard = lambda n: (real_shard(n)[0], 1.0)  # the mean of the means, as if all shards were equal
    weights["unweighted"] = train(CASES["float64"], folder / "unweighted", True)
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
        (folder / "file").write_text("not a folder")
        files.write = reject_checkpoints
    found["no folder"] = rejections(lambda: train(PLAIN, folder / "file"))
    found["full disk"] = rejections(lambda: train(PLAIN, folder / "full"))
    files.write = real_write
    if not first:
        prepare_data = execution.prepare_data
        execution.prepare_data = lambda experiment: prepare_data(experiment).hold_out(1)
    found["other data"] = rejections(lambda: train(PLAIN, folder / "other data"))
    if first:
        (folder / "found.json").write_text(json.dumps(found))
        torch.save(weights, folder / "weights.pt")


if __name__ == "__main__":
    with ddp.process_group():
        main(Path(sys.argv[1]))
