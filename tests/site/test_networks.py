"""The networks of the live page: every block does what networks.json says, by the weights that stand beside it."""

import json
from functools import lru_cache

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tools.site import __main__ as tool
from tools.site import networks
from utils import ROOT
from utils.experiments import EXPERIMENTS

FOLDER = tool.SITE / "networks"
NETWORKS = json.loads((FOLDER / "networks.json").read_text(encoding="utf-8"))["networks"]


@lru_cache(maxsize=1)
def session_of(name: str, sha256: str) -> onnxruntime.InferenceSession:
    """A published network whose activations are outputs."""
    model = networks.exported(name, sha256, tool.WORK / "networks")
    networks.opened(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def outputs(one: dict, images: np.ndarray) -> dict[str, Tensor]:
    found = session_of(one["name"], one["state_dict"]["sha256"]).run(one["outputs"], {one["input"]["name"]: images})
    return dict(zip(one["outputs"], map(torch.from_numpy, found), strict=True))


def some(one: dict) -> np.ndarray:
    """Four test digits, or four clouds that are wide, high and thin along x."""
    if one["kind"] == "image":
        return np.fromfile(FOLDER / "digits.bin", "u1").reshape(-1, *one["input"]["shape"])[:4]
    grids = np.random.default_rng(0).random((4, *one["input"]["shape"]), dtype=np.float32)
    grids[..., :6] = grids[..., 10:] = 0
    return grids


def does(block: dict, before: Tensor, other: Tensor | None, weights: np.ndarray) -> Tensor:
    """What a block makes of the map before it, and of the one that it adds, by PyTorch."""

    def tensor(name: str) -> Tensor | None:
        place = block.get(name)
        end = place and place["offset"] + int(np.prod(place["shape"]))
        return place and torch.from_numpy(weights[place["offset"] : end].reshape(place["shape"]))

    kernel, bias, stride, padding = tensor("kernel"), tensor("bias"), block.get("stride"), block.get("padding")
    return {
        "conv": lambda x: F.conv2d(x, kernel, bias, stride, padding, groups=block["groups"]),
        "pool": lambda x: F.max_pool2d(x, block["kernel_size"], stride, padding),
        "norm": lambda x: x * tensor("scale")[:, None, None] + tensor("shift")[:, None, None],
        "linear": lambda x: F.linear(x.flatten(1), kernel, bias),
        "add": lambda x: x + other,
        "softmax": lambda x: x.softmax(1),
        "relu": F.relu,
        "flatten": lambda x: x.flatten(1),
        "mean": lambda x: x.mean((2, 3), keepdim=True),
        "max": lambda x: x.amax((2, 3), keepdim=True),
    }[block["kind"]](before)


def test_every_published_network_of_images_is_on_the_page():
    published = {path.stem for path in (ROOT / "saved_dict").glob("*.json")} & EXPERIMENTS.keys()
    of_images = {one["name"] for one in NETWORKS if one["kind"] == "image" and one["blocks"]}
    assert of_images == {name for name in published if EXPERIMENTS[name].recipe.kind == "images"}
    assert {one["name"] for one in NETWORKS if one["first"]} == {*networks.FIRST}
    assert {one["name"] for one in NETWORKS if one["kind"] == "voxels"} == {*networks.VOXELS}


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one["name"])
def test_blocks_do_what_is_said(one):
    found = outputs(one, some(one))
    weights = np.fromfile(FOLDER / one["weights"]["file"], "<f4")
    for block in one["blocks"][1:]:
        assert list(found[block["output"]].shape[1:]) == block["shape"]
        made = does(block, found[block["from"]], found.get(block.get("and")), weights)
        torch.testing.assert_close(made, found[block["output"]], rtol=1e-4, atol=1e-4)
    if one["axis"]:  # the shortest principal axis: x, of bodies that are thin along x
        assert found["axis"].norm(dim=1).numpy() == pytest.approx(1, abs=1e-5) and found["axis"][:, 0].abs().min() > 0.9


@pytest.mark.parametrize("one", NETWORKS[:4], ids=lambda one: one["name"])
def test_fields_are_what_a_pixel_sees(one):
    """Ink outside its field changes nothing of an output pixel; ink inside does, somewhere."""
    image = some(one)[:1]
    before = outputs(one, image)
    for block in [block for block in one["blocks"][1:] if block["field"] and len(block["shape"]) == 3][:8]:
        field, middle = block["field"], [side // 2 for side in block["shape"][1:]]
        first = [field["start"][k] + middle[k] * field["jump"] + one["blocks"][0]["crop"] for k in range(2)]
        seen = (..., *(slice(max(0, at), at + size) for at, size in zip(first, field["size"], strict=True)))
        outside = 255 - image
        outside[seen] = image[seen]
        after, was = outputs(one, outside)[block["output"]], before[block["output"]]
        torch.testing.assert_close(after[(..., *middle)], was[(..., *middle)], rtol=1e-4, atol=1e-4)
        assert not torch.equal(after, was)
