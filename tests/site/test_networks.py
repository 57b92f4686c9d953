"""The networks of the live page: every block does what networks.json says, by the weights that stand beside it."""

import json
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from tools import export
from tools.site import __main__ as tool
from tools.site import networks
from utils import ROOT, models
from utils.experiments import EXPERIMENTS
from utils.runs import pretrained

FOLDER = tool.SITE / "networks"
NETWORKS = json.loads((FOLDER / "networks.json").read_text(encoding="utf-8"))["networks"]


@lru_cache(maxsize=1)
def session_of(name: str, sha256: str) -> onnxruntime.InferenceSession:
    """A published network whose activations are outputs."""
    model = networks.exported(name, sha256, tool.WORK / "networks")
    networks.opened(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def outputs(one: dict, images: np.ndarray) -> dict[str, Tensor]:
    session = session_of(one["name"], one["state_dict"]["sha256"])
    found = session.run(one["outputs"], {one["input"]["name"]: images})
    return dict(zip(one["outputs"], map(torch.from_numpy, found), strict=True))


def some(one: dict) -> np.ndarray:
    """Four test digits, or four clouds that are wide, high and thin along x."""
    if one["kind"] == "image":
        return np.fromfile(FOLDER / "digits.bin", "u1").reshape(-1, *one["input"]["shape"])[:4]
    grids = np.random.default_rng(0).random((4, *one["input"]["shape"]), dtype=np.float32)
    grids[..., :6] = grids[..., 10:] = 0
    return grids


def does(block: dict, before: Tensor, temporary: Tensor | None, weights: np.ndarray) -> Tensor:
    """What a block makes of the map before it, and of the one that it adds, by PyTorch."""

    def tensor(name: str) -> Tensor | None:
        place = block.get(name)
        end = place and place["offset"] + int(np.prod(place["shape"]))
        return place and torch.from_numpy(weights[place["offset"] : end].reshape(place["shape"]))

    if block["kind"] == "conv":
        return F.conv2d(
            before, tensor("kernel"), tensor("bias"), block["stride"], block["padding"], groups=block["groups"]
        )
    if block["kind"] == "pool":
        return F.max_pool2d(before, block["kernel_size"], block["stride"], block["padding"])
    if block["kind"] == "norm":
        return before * tensor("scale")[:, None, None] + tensor("shift")[:, None, None]
    if block["kind"] == "linear":
        return F.linear(before.flatten(1), tensor("kernel"), tensor("bias"))
    if block["kind"] == "add":
        return before + temporary
    if block["kind"] == "softmax":
        return before.softmax(1)
    over_a_map = {"mean": lambda x: x.mean((2, 3), keepdim=True), "max": lambda x: x.amax((2, 3), keepdim=True)}
    return {"relu": F.relu, "flatten": lambda x: x.flatten(1), **over_a_map}[block["kind"]](before)


def test_every_published_network_of_images_is_on_the_page():
    assert {*networks.FIRST, *networks.VOXELS} <= EXPERIMENTS.keys()
    published = {path.stem for path in (ROOT / "saved_dict").glob("*.json")} & EXPERIMENTS.keys()
    of_images = {one["name"] for one in NETWORKS if one["kind"] == "image" and one["blocks"]}
    assert of_images == {name for name in published if EXPERIMENTS[name].recipe.kind == "images"}
    assert {one["name"] for one in NETWORKS if one["first"]} == {*networks.FIRST}


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one["name"])
def test_blocks_do_what_is_said(one):
    found = outputs(one, some(one))
    weights = np.fromfile(FOLDER / one["weights"]["file"], "<f4")
    for block in one["blocks"][1:]:
        assert list(found[block["output"]].shape[1:]) == block["shape"]
        made = does(block, found[block["from"]], found.get(block.get("and")), weights)
        torch.testing.assert_close(made, found[block["output"]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("one", [one for one in NETWORKS if one["kind"] == "image"], ids=lambda one: one["name"])
def test_fields_are_what_a_pixel_sees(one):
    """Ink outside its field changes nothing of an output pixel; ink inside does, somewhere."""
    image = np.fromfile(FOLDER / "digits.bin", "u1").reshape(-1, *one["input"]["shape"])[:1]
    blocks = [
        block for block in one["blocks"] if block["field"] and block["kind"] != "input" and len(block["shape"]) == 3
    ]
    crop, before = one["blocks"][0]["crop"], outputs(one, image)
    for block in blocks[:8]:
        there, seen, field = [...], [...], block["field"]
        for k in range(2):
            there.append(pixel := block["shape"][1 + k] // 2)
            first = field["start"][k] + pixel * field["jump"] + crop
            seen.append(slice(max(0, first), first + field["size"][k]))
        there, outside = tuple(there), 255 - image
        outside[tuple(seen)] = image[tuple(seen)]
        after = outputs(one, outside)
        torch.testing.assert_close(after[block["output"]][there], before[block["output"]][there], rtol=1e-4, atol=1e-4)
        assert not torch.equal(after[block["output"]], before[block["output"]])


def test_a_sum_with_a_convolution_beside_is_understood():
    """Which no published network has."""
    torch.manual_seed(0)
    model = models.build("residual(width=4)").eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):  # or folding it would change nothing
            layer.running_mean.uniform_(-1, 1)
    whole = export.Whole(model, pretrained.Preprocess(0.13, 0.31)).eval()
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    batch = {"dynamic_shapes": ({0: torch.export.Dim("N")},), "input_names": ["images"], "output_names": ["logits"]}
    graph = torch.onnx.export(whole, (images,), dynamo=True, verbose=False, **batch).model_proto
    blocks, weights, names = networks.opened(graph)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip(names, map(torch.from_numpy, session.run(names, {"images": images.numpy()})), strict=True))
    for block in blocks[1:]:
        made = does(block, found[block["from"]], found.get(block.get("and")), np.frombuffer(weights, "<f4").copy())
        torch.testing.assert_close(made, found[block["output"]], rtol=1e-4, atol=1e-4)
    assert {"conv", "add", "linear"} < {block["kind"] for block in blocks} and blocks[-1]["output"] == "logits"


def test_a_network_with_another_operation_is_asked_but_not_looked_into():
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["maps"], kernel_shape=[1, 1], pads=[0] * 4, strides=[1, 1]),
        helper.make_node("Sigmoid", ["maps"], ["logits"]),
    ]
    kernel = onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "kernel")
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 1, 28, 28]) for name in ("images", "logits")
    ]
    model = helper.make_model(helper.make_graph(nodes, "one", ends[:1], ends[1:], [kernel]))
    assert networks.opened(onnx.shape_inference.infer_shapes(model)) == ([], b"", ["logits"])


@pytest.mark.parametrize("one", [one for one in NETWORKS if one["axis"]], ids=lambda one: one["name"])
def test_axis_is_the_shortest_principal_axis(one):
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
    # the digits that stand in for MNIST are harder, and by chance one in ten is right
    assert right.float().mean() > 0.5
