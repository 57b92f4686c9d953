"""What test_ddp.py trains in one process (imported) and in two (`torchrun … two_processes.py FOLDER`)."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tiny import NETWORKS
from torch import nn

from tools import train as train_py
from utils import CourseError, files, models, runs
from utils.data import datasets, voxels
from utils.experiments import EXPERIMENTS, Experiment, Recipe
from utils.runs import execution, records
from utils.training import ddp, loops

# 239 images: the last batch of each epoch holds a single one, so the second process gets none
DIGITS = {"data": "digits", "images": 239, "epochs": 2, "batch_size": 119, "rotate": 10.0, "shift": 2.0, "scale": 0.1}
PLAIN = Experiment("plain", replace(EXPERIMENTS["base"].recipe, **DIGITS), "")
# batches of 58, so that both processes have grids of their own; the last holds 36
FRESH = Recipe("tiny_voxels", data="mnist3d", fresh=True, epochs=2, batch_size=58, schedule="one_cycle", average=0.9)
VOXELS = Experiment("voxels", replace(FRESH, rotate=5.0, scale=0.1, shear=6.0), "")
CASES = {
    "float64": PLAIN.with_recipe(epochs=1),
    "voxels_float64": VOXELS,
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


def few_digits(name: str) -> datasets.Dataset:
    """The fallback digits; under the name of voxels the bodies of the first 96 of them, and of 16 more to test."""
    digits = real_load("digits")
    if name == "digits":
        return digits
    images, labels = digits.train.images, digits.train.labels.repeat_interleave(2)
    rows = torch.from_numpy(voxels.pairs(images[:112, 0].numpy(), (0,))).view(-1, 1, 16, 16, 16)
    train, test = datasets.Split(rows[:192], labels[:192]), datasets.Split(rows[192:], labels[192:224])
    solids = replace(digits, name=name, kind="voxels", train=train, test=test, mean=0.0, std=1.0)
    return replace(solids, originals=images[:96, 0])


def train(experiment: Experiment, root: Path, float64: bool = False, **options) -> dict:
    """The state dict after a run."""
    build = models.build
    if float64:
        models.build = lambda *arguments: Float64(build(*arguments))
    before = models.MODELS, datasets.load
    models.MODELS, datasets.load = models.MODELS | NETWORKS, few_digits
    try:
        return runs.run(experiment, 0, "cpu", folder=root, echo=False, **options).model.state_dict()
    finally:
        models.build = build
        models.MODELS, datasets.load = before


def rejections(action) -> list[str]:
    """What each process's CourseError says; it ends only if none of them hangs."""
    try:
        action()
        return ddp.gather("went on")
    except CourseError as error:
        return ddp.gather(str(error))


def interrupt(history) -> None:
    raise KeyboardInterrupt


def reject_checkpoints(path: Path, content: bytes, before_rename=None) -> None:
    if path.suffix == ".pt":
        raise CourseError("no space left")
    real_write(path, content)


real_write, real_load, real_shard, real_augmentation = files.write, datasets.load, ddp.shard, loops.augmentation


def numbers_of_the_shard_alone(recipe: Recipe, generator: torch.Generator):
    """As if each process drew for its own images only."""
    augment = real_augmentation(recipe, generator)
    return lambda images, rows, shard: augment(images[shard], rows[shard])


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
    loops.augmentation = numbers_of_the_shard_alone
    weights["numbers apart"] = train(CASES["voxels_float64"], folder / "apart", True)
    loops.augmentation = real_augmentation

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
