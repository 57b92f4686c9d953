"""The networks of the live page: every block does what networks.json says, by the weights that stand beside it."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tools import site as tool

FOLDER = tool.SITE / "networks"
NETWORKS = json.loads((FOLDER / "networks.json").read_text(encoding="utf-8"))["networks"]


def outputs(one: dict, images: np.ndarray) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(FOLDER / one["onnx"]["file"], providers=["CPUExecutionProvider"])
    found = session.run(one["outputs"], {one["input"]["name"]: images})
    return dict(zip(one["outputs"], map(torch.from_numpy, found), strict=True))


def some(one: dict) -> np.ndarray:
    """Four test digits, or four clouds that are wide, high and thin along x."""
    if one["kind"] == "image":
        return np.fromfile(FOLDER / "digits.bin", "u1").reshape(-1, *one["input"]["shape"])[:4]
    grids = np.random.default_rng(0).random((4, *one["input"]["shape"]), dtype=np.float32)
    grids[..., :6] = grids[..., 10:] = 0
    return grids


def does(block: dict, before: Tensor, weights: np.ndarray) -> Tensor:
    """What a block makes of the map before it, by PyTorch."""

    def tensor(name: str) -> Tensor | None:
        place = block.get(name)
        end = place and place["offset"] + int(np.prod(place["shape"]))
        return place and torch.from_numpy(weights[place["offset"] : end].reshape(place["shape"]))

    if block["kind"] == "conv":
        return F.conv2d(before, tensor("kernel"), tensor("bias"), block["stride"], block["padding"])
    if block["kind"] == "pool":
        return F.max_pool2d(before, block["kernel_size"], block["stride"], block["padding"])
    if block["kind"] == "norm":
        return before * tensor("scale")[:, None, None] + tensor("shift")[:, None, None]
    if block["kind"] == "linear":
        return F.linear(before.flatten(1), tensor("kernel"), tensor("bias"))
    return {"relu": F.relu, "mean": lambda x: x.mean((2, 3), keepdim=True), "flatten": lambda x: x.flatten(1)}[block["kind"]](before)


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one["name"])
def test_blocks_do_what_is_said(one):
    found = outputs(one, some(one))
    weights = np.fromfile(FOLDER / one["weights"]["file"], "<f4")
    for block in one["blocks"][1:]:
        assert list(found[block["output"]].shape[1:]) == block["shape"]
        torch.testing.assert_close(does(block, found[block["from"]], weights), found[block["output"]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("one", [one for one in NETWORKS if one["kind"] == "image"], ids=lambda one: one["name"])
def test_fields_are_what_a_pixel_sees(one):
    """Ink outside its field changes nothing of an output pixel; ink inside does, somewhere."""
    image = np.fromfile(FOLDER / "digits.bin", "u1").reshape(-1, *one["input"]["shape"])[:1]
    blocks = [block for block in one["blocks"] if block["field"] and block["kind"] != "input" and len(block["shape"]) == 3]
    crop, before = one["blocks"][0]["crop"], outputs(one, image)
    for block in blocks[:8]:
        pixel, field = block["shape"][1] // 2, block["field"]
        first = max(0, field["start"] + pixel * field["jump"] + crop)
        seen = slice(first, field["start"] + pixel * field["jump"] + field["size"] + crop)
        outside = 255 - image
        outside[..., seen, seen] = image[..., seen, seen]
        after = outputs(one, outside)
        there = (..., pixel, pixel)
        torch.testing.assert_close(after[block["output"]][there], before[block["output"]][there], rtol=1e-4, atol=1e-4)
        assert not torch.equal(after[block["output"]], before[block["output"]])


@pytest.mark.parametrize("one", [one for one in NETWORKS if one["axis"]], ids=lambda one: one["name"])
def test_axis_is_the_thinnest_direction(one):
    axis = outputs(one, some(one))["axis"]
    assert axis.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert axis[:, 0].abs().min() > 0.9  # x, of bodies that are thin along x


def test_digits_come_with_their_labels():
    facts = json.loads((FOLDER / "digits.json").read_text(encoding="utf-8"))
    assert (FOLDER / "digits.bin").stat().st_size == facts["count"] * 28 * 28
    assert sorted(set(facts["labels"])) == list(range(10))
    base = next(one for one in NETWORKS if one["name"] == "base")
    images = np.fromfile(FOLDER / "digits.bin", "u1").reshape(-1, 1, 28, 28)
    right = outputs(base, images)["logits"].argmax(1) == torch.tensor(facts["labels"])
    assert right.float().mean() > 0.8  # the digits that stand in for MNIST are harder
