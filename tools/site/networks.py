"""Networks as the live page reads them: what each block does, and every weight; and what its "Train" tab runs.

networks/NAME.bin     every kernel and bias, float32, little endian, one after the other
networks/NAME.onnx    of networks of voxels: outputs "logits", "block_00_input", "block_01_conv", …; with a principal
                      view also "axis", the shortest principal axis
networks.json         their descriptions, from their sidecars and graphs
train/sprint.wasm     site/train/sprint.c, compiled with zig
train/*.packed        digits, compressed with gzip: first the label of each, then its pixels, 24×24 of 16 gray levels,
                      two in a byte
train/train.json      their sizes and SHA-256, and the mean and standard deviation of all training pixels
"""

import gzip
import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from tools import export
from tools.measurements import NoDigit
from utils import ROOT, CourseError, files, models
from utils.data import datasets
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.runs import records
from utils.training.quantize import NORMS, levels_of

# answer from the beginning; the reader may add every other published network of images
FIRST = ("base", "bn_augmentation", "bytes_99_5", "frontier_99", "frontier_99_4", "mnist_medium", "sprint_994")
VOXELS = ("voxel_best", "voxel_more_digits")
KINDS = {"Conv": "conv", "Relu": "relu", "MaxPool": "pool", "BatchNormalization": "norm", "Add": "add"}
KINDS |= {"Gemm": "linear", "ReduceMean": "mean", "ReduceMax": "max", "Softmax": "softmax"}
# change no value; an average's shape is restored by a Gather of all it has
SILENT = {"Reshape", "Flatten", "Identity", "Gather"}
# of an input pixel, down and across: start + p·jump … + size − 1 for output pixel p
ONE = {"size": [1, 1], "jump": 1, "start": [0, 0]}


class Weights:
    """Tensors one after the other, each remembered by where it begins and by its shape."""

    def __init__(self):
        self.content = b""
        self.places: dict[str, dict] = {}

    def add(self, tensor: np.ndarray, name: str = "") -> dict:
        """name: of a tensor that several layers may share; it is kept once."""
        if name in self.places:
            return self.places[name]
        place = {"offset": len(self.content) // 4, "shape": list(tensor.shape)}
        self.content += tensor.astype("<f4").tobytes()
        return self.places.setdefault(name, place) if name else place


class Graph:
    """An exported network, read once: its constants, the shapes of its values, what comes before its first convolution,
    and its nodes from there on."""

    def __init__(self, model: onnx.ModelProto):
        graph = model.graph
        self.model, nodes = model, list(graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        values = [*graph.input, *graph.value_info, *graph.output]
        self.shapes = {v.name: [axis.dim_value for axis in v.type.tensor_type.shape.dim][1:] for v in values}
        first = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")
        self.before, self.nodes = nodes[:first], nodes[first:]

    def axis(self) -> str:
        """The value that PrincipalAxisView looks along, where a network does: the last choice between two signs, (N,
        3)."""
        chosen = [node.output[0] for node in self.before if node.op_type == "Where"]
        return next((name for name in reversed(chosen) if self.shapes.get(name) == [3]), "")

    def rename(self, names: dict[str, str]) -> None:
        """Give values other names everywhere, and make them outputs of the graph."""
        for node in self.model.graph.node:
            for ends in (node.input, node.output):
                ends[:] = [names.get(name, name) for name in ends]
        for old, new in names.items():
            shape = ["N", *self.shapes[old]]
            self.model.graph.output.append(helper.make_tensor_value_info(new, onnx.TensorProto.FLOAT, shape))


def settings(node: onnx.NodeProto) -> dict:
    """Kernel size and padding of a convolution or a pool, down and across, its stride (the same both ways) and its
    groups."""
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    sizes = {"kernel_size": found["kernel_shape"], "stride": found["strides"][0], "padding": found["pads"][:2]}
    return sizes | {"groups": found.get("group", 1)}


def field_after(field: dict | None, does: dict) -> dict | None:
    """The receptive field after a convolution or a pool."""
    if not field:
        return None
    jump, kernel, padding = field["jump"], does["kernel_size"], does["padding"]
    size = [size + (k - 1) * jump for size, k in zip(field["size"], kernel, strict=True)]
    start = [start - cells * jump for start, cells in zip(field["start"], padding, strict=True)]
    return {"size": size, "jump": jump * does["stride"], "start": start}


def field_of_both(one: dict | None, other: dict | None) -> dict | None:
    """The smallest receptive field that holds both of a sum's."""
    if not one or not other:
        return None
    start = list(map(min, one["start"], other["start"]))
    ends = [max(a["start"][k] + a["size"][k] for a in (one, other)) for k in range(2)]
    return {"size": [end - low for end, low in zip(ends, start, strict=True)], "jump": one["jump"], "start": start}


def operation(kind: str, node: onnx.NodeProto, graph: Graph, weights: Weights) -> dict:
    """What a block does, with the places of its weights."""
    names = list(node.input[1:])
    tensors = [graph.constants.get(name) for name in names]
    if kind == "pool":
        return settings(node)
    if kind in ("conv", "linear"):
        kernel, bias = ([weights.add(*both) for both in zip(tensors, names, strict=True)] + [None])[:2]
        return {**(settings(node) if kind == "conv" else {}), "kernel": kernel, "bias": bias}
    if kind == "norm":
        gain, shift, mean, variance = tensors
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gain / np.sqrt(variance + epsilon)
        return {"scale": weights.add(scale), "shift": weights.add(shift - mean * scale)}
    return {}


def opened(model: onnx.ModelProto) -> tuple[list[dict], bytes, list[str]]:
    """Turn every activation into an output. Returns what each block does, the weights' bytes and the names of all
    outputs.

    A network with an operation that the page can't explain is asked, but not looked into: it has no blocks, or only the
    view that it reads.
    """
    graph, weights = Graph(model), Weights()
    seen = graph.nodes[0].input[0]
    crop = (28 - graph.shapes[seen][-1]) // 2 if graph.before[-1].op_type == "Pad" else 0
    blocks = [{"output": "block_00_input", "kind": "input", "shape": graph.shapes[seen], "crop": crop, "field": ONE}]
    names, made = {seen: "block_00_input"}, {seen: blocks[0]}  # made: the block that a value comes from
    axis = graph.axis()
    for node in graph.nodes:
        old, sources = node.output[0], [made[name] for name in node.input if name in made]
        if not sources:  # nothing that the images pass through
            continue
        if node.op_type in SILENT and old != "logits":
            made[old] = sources[0]
            continue
        kind = "flatten" if node.op_type in SILENT else KINDS.get(node.op_type)
        if kind is None:
            blocks, names, weights = (blocks[:1], {seen: "block_00_input"}, Weights()) if axis else ([], {}, Weights())
            break
        name = old if old == "logits" else f"block_{len(blocks):02}_{kind}"
        does = operation(kind, node, graph, weights)
        field = sources[0]["field"] if kind in ("conv", "pool", "relu", "norm", "add") else None
        if "kernel_size" in does:
            field = field_after(field, does)
        if kind == "add":
            does, field = {"and": sources[1]["output"]}, field_of_both(field, sources[1]["field"])
        place = {"output": name, "kind": kind, "shape": graph.shapes[old], "from": sources[0]["output"]}
        blocks.append(place | does | {"field": field})
        names |= {} if old == "logits" else {old: name}
        made[old] = blocks[-1]
    graph.rename(names | ({axis: "axis"} if axis else {}))
    return blocks, weights.content, [output.name for output in model.graph.output]


def packed(model: nn.Module, content: bytes, blocks: list[dict]) -> dict:
    """What the page needs to read a file of utils.runs.packed into the places of the blocks' weights: the number of
    levels, and for each parameter in the file's order its shape, its levels if it is a matrix, and its place. A batch
    norm that the export has folded into the convolution before it `scales` that kernel."""
    levels = content[1]
    of = {layer.weight: own for layer, own in levels_of(model, levels)}
    with_numbers = [block for block in blocks if block["kind"] in ("conv", "linear", "norm")]
    # a layer that is used repeatedly has one place
    places = iter({block.get("kernel", block.get("scale"))["offset"]: block for block in with_numbers}.values())
    numbers, last, is_folded = [], {}, False
    for layer in (layer for layer in model.modules() if list(layer.parameters(recurse=False))):
        if isinstance(layer, NORMS) and is_folded:
            found = [{"scales": last["kernel"]}, {"to": last["bias"]}]
        elif isinstance(layer, NORMS):
            block = next(places)
            found = [{"to": block["scale"]}, {"to": block["shift"]}]
        else:
            last = next(places)
            is_folded = bool(last["bias"]) and layer.bias is None
            found = [{"to": last["kernel"], "levels": of[layer.weight]}, {"to": last["bias"]}]
        parameters = layer.parameters(recurse=False)
        numbers += [one | {"shape": list(parameter.shape)} for one, parameter in zip(found, parameters, strict=False)]
    return {"levels": levels, "numbers": numbers}


def exported(name: str, sha256: str, cache: Path) -> onnx.ModelProto:
    """The network by the course's own export, which takes seconds: kept until its weights or the code change."""
    sources = [*sorted((ROOT / "utils").rglob("*.py")), Path(export.__file__)]
    versions = f"{sha256} {onnx.__version__} {torch.__version__}".encode()
    parts = [versions, *(path.read_bytes() for path in sources)]
    path = cache / f"{name}-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.onnx"
    if not path.is_file():
        export.export(name, path)
    return onnx.load(path)


def write_file(path: Path, content: bytes) -> dict:
    """Write a file; returns what the page must know to fetch and check it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def network(name: str, folder: Path, cache: Path) -> dict:
    """Write the files of a network to `folder`; returns the entry of networks.json."""
    facts = records.read_facts(ROOT / "saved_dict" / f"{name}.json")
    is_image = facts.recipe.kind == "images"
    model = exported(name, facts.sha256, cache)
    blocks, weights, outputs = opened(model)
    few = ROOT / "saved_dict" / f"{name}.bin"
    described = {
        "name": name,
        "first": name in FIRST,
        "model": facts.recipe.model,
        "kind": "image" if is_image else "voxels",
        "input": {
            "name": "images",
            "dtype": "uint8" if is_image else "float32",
            "shape": [1, 28, 28] if is_image else [1, 16, 16, 16],
        },
        "normalization": asdict(facts.normalization),
        "parameters": facts.parameters,
        "correct": facts.test.correct,
        "total": facts.test.total,
        "accuracy": facts.test.percent,
        "state_dict": {"file": f"{name}.pth", "bytes": facts.bytes, "sha256": facts.sha256},
        "weights": write_file(folder / f"{name}.bin", weights),
        "packed": packed(models.build(facts.recipe.model), few.read_bytes(), blocks) if few.is_file() else None,
        "outputs": outputs,
        "axis": "axis" if "axis" in outputs else None,
        "blocks": blocks,
    }
    if not is_image:
        described["onnx"] = write_file(folder / f"{name}.onnx", model.SerializeToString())
    return described


def write_digits(folder: Path, each: int = 20) -> None:
    """digits.bin and digits.json: the first `each` test images of every class, or of the substitute digits."""
    loaded = datasets.load("mnist")
    images, labels = loaded.test.images[:, 0].numpy(), loaded.test.labels.numpy()
    rows = np.sort(np.concatenate([np.flatnonzero(labels == digit)[:each] for digit in range(10)]))
    write_file(folder / "digits.bin", images[rows].tobytes())
    facts = {"count": len(rows), "labels": labels[rows].tolist(), "indices": rows.tolist(), "data": loaded.name}
    (folder / "digits.json").write_text(json.dumps(facts), encoding="utf-8")


def write(folder: Path, cache: Path) -> None:
    """Everything under networks/. A network that is not published here is left out."""
    others = sorted(name for name, one in EXPERIMENTS.items() if one.recipe.kind == "images" and name not in FIRST)
    published = [name for name in (*FIRST, *others, *VOXELS) if (ROOT / "saved_dict" / f"{name}.json").is_file()]
    entries = [network(name, folder, cache) for name in published]
    write_digits(folder)
    doubt = ROOT / "logs" / "benchmarks" / "no_digit.json"
    table = {"digits": {"images": "digits.bin", "labels": "digits.json"}, "networks": entries}
    table["runtime"] = (folder.parent / "vendor" / "ort" / "ort-wasm-simd-threaded.wasm").stat().st_size
    table["no_digit"] = {**asdict(files.read_json(doubt, NoDigit)), "log": doubt.relative_to(ROOT).as_posix()}
    (folder / "networks.json").write_text(json.dumps(table, separators=(",", ":")), encoding="utf-8")


# ---- what the "Train" tab runs

SPRINT = ROOT / "site" / "train" / "sprint.c"
MARGIN, LEVELS = 2, 16  # pixels that the network leaves out on each side; gray levels
# -ffp-contract=off: no multiplication is fused with an addition, which would round differently
FLAGS = ("--target=wasm32-freestanding", "-O3", "-msimd128", "-ffp-contract=off", "-nostdlib", "-Wl,--no-entry", "-s")
FLAGS += ("-fvisibility=default", "-Wl,--export-dynamic", "-Wall", "-Wextra", "-Werror")  # what is not static


def compile_sprint(path: Path) -> None:
    """Compile sprint.c to WebAssembly. Raises CourseError without ziglang, and for code that zig rejects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run([sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(path), str(SPRINT)]).returncode:
        install = f"{sys.executable} -m pip install -r requirements-site.txt"
        raise CourseError(f"sprint.c could not be compiled: see above. Without ziglang, install it: {install}")


def pack(split: Split) -> bytes:
    """Labels, then images without their margin, each pixel rounded to one of 16 levels, two in a byte: the first in the
    upper four bits."""
    inside = slice(MARGIN, 28 - MARGIN)
    pixels = split.images[:, 0, inside, inside].flatten(1).numpy().astype(np.uint16)
    step = 255 // (LEVELS - 1)
    levels = ((pixels + step // 2) // step).astype(np.uint8)
    return split.labels.numpy().astype(np.uint8).tobytes() + (levels[:, ::2] << 4 | levels[:, 1::2]).tobytes()


def write_training(folder: Path) -> None:
    """Everything under train/. Without the real MNIST, train.json names the data, and there are no digits."""
    compile_sprint(folder / "sprint.wasm")
    data = datasets.load("mnist")
    facts = {"data": data.name if data.whole else f"a part of {data.name}", "mean": data.mean, "std": data.std}
    if data.name == "mnist" and data.whole:
        for name, split in (("train", data.train[: EXPERIMENTS["sprint"].recipe.images]), ("test", data.test)):
            written = write_file(folder / f"{name}.packed", gzip.compress(pack(split), 9, mtime=0))
            facts[name] = {"images": len(split), **written}
    (folder / "train.json").write_text(json.dumps(facts), encoding="utf-8")
