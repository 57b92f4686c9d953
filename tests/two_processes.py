"""What test_distributed.py trains in one process (imported) and in two (`torchrun two_processes.py FOLDER`)."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from utils import CourseError, artifacts, data, distributed, models, runs
from utils.experiments import EXPERIMENTS, Experiment

# 1,437 training images: the last batch of each epoch holds a single one, so the second process gets none
PLAIN = replace(EXPERIMENTS["base"], name="plain", data="digits", epochs=2, batch_size=359, rotate=10.0, shift=2.0, scale=0.1)
CASES = {
    "float64": replace(PLAIN, epochs=1),
    "float32": replace(PLAIN, optimizer="sgd"),
    "batch_norm": replace(PLAIN, model="bn_augmentation", optimizer="sgd"),
}
DROPOUT = replace(PLAIN, dropout=0.1)


class Float64(nn.Module):
    """A network that computes in float64, where two orders of adding up the same numbers can't be told from each other."""

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
        return runs.run(experiment, 0, "cpu", root=root, echo=False, **options).model.state_dict()
    finally:
        models.build = build


def refusals(action) -> list[str]:
    """What each process's CourseError says; it ends only if none of them hangs."""
    try:
        action()
        return distributed.gather("went on")
    except CourseError as error:
        return distributed.gather(str(error))


def interrupt(history) -> None:
    raise KeyboardInterrupt


def refuse_checkpoints(path: Path, content: bytes) -> None:
    if path.suffix == ".pt":
        raise CourseError("no space left")
    real_write(path, content)


real_write, real_load, real_share = artifacts.write, data.load, distributed.share


def main(folder: Path) -> None:
    lead, found, weights = distributed.rank() == 0, {}, {}
    for name, experiment in CASES.items():
        weights[name] = train(experiment, folder / name, name == "float64")
    states = [artifacts.to_bytes(state) for state in distributed.gather(weights["batch_norm"])]
    found["all hold the same statistics"] = states[0] == states[1]

    distributed.share = lambda n: (real_share(n)[0], 1.0)  # the mean of the means, as if all shares were equal
    weights["unweighted"] = train(CASES["float64"], folder / "unweighted", True)
    distributed.share = real_share

    weights["uninterrupted"] = train(DROPOUT, folder / "uninterrupted")
    for name in ("continued", "forgotten"):
        found[name] = refusals(lambda name=name: train(DROPOUT, folder / name, after_epoch=interrupt))
        if lead and name == "forgotten":
            [path] = (folder / name / "unfinished").glob("*.pt")
            content = artifacts.read_checkpoint(path)
            content["training"]["others"] = []
            artifacts.write(path, artifacts.to_bytes(content))
        weights[name] = train(DROPOUT, folder / name)

    if lead:
        (folder / "file").write_text("not a folder")
        artifacts.write = refuse_checkpoints
    found["no folder"] = refusals(lambda: train(PLAIN, folder / "file"))
    found["full disk"] = refusals(lambda: train(PLAIN, folder / "full"))
    artifacts.write = real_write
    if not lead:
        runs.datasets.load = lambda name: real_load(name).hold_out(1)
    found["other data"] = refusals(lambda: train(PLAIN, folder / "other"))
    if lead:
        (folder / "found.json").write_text(json.dumps(found))
        torch.save(weights, folder / "weights.pt")


if __name__ == "__main__":
    with distributed.joined():
        main(Path(sys.argv[1]))
