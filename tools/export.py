"""A network in a format for use without this course: ONNX, PyTorch's own .pt2, safetensors, or C.

python -m tools.export NAME [FILE] [--to FORMAT]   write FILE (default: runs/FORMAT/NAME.FORMAT), evaluate it
python -m tools.export NAME --to c --publish       also keep what the network costs in logs/benchmarks/c.json

NAME: a published network, or a run of your own by its name or the path of its state dict.

onnx, pt2      the network with its preprocessing. Input "images": (N, 1, 28, 28) uint8, 0 to 255, of a voxel network
               (N, 1, 16, 16, 16) float32, 0 to 1. Output "logits": (N, 10) float32.
safetensors    the weights alone; a tensor that several layers share is stored once
c              one header (.h) without dependencies or heap, for networks of images; the system's C compiler checks it

onnx, pt2 and safetensors carry the class names, the input convention and the license. onnx needs
requirements-extra.txt.
"""

from tools import command  # isort: skip

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from tools import c_header, measurements
from utils import CourseError, files, models
from utils.data import datasets
from utils.files import display_path
from utils.runs.pretrained import Preprocess, find_weights, load_model, load_pretrained
from utils.runs.records import RunMetadata, own_root, read_facts
from utils.training.loops import predict

INCLUDED = {"preprocess": "included in this file's graph"}
COSTS = measurements.path("c")


class Whole(nn.Module):
    """A network together with its preprocessing."""

    def __init__(self, model: nn.Module, preprocess: Preprocess):
        super().__init__()
        self.model = model
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.preprocess(images))

    def example(self) -> Tensor:
        """A batch of two blank inputs, as the exporters trace them."""
        dtype = torch.uint8 if self.preprocess.kind == "images" else torch.float32
        return torch.zeros(2, *models.input_shape(self.model), dtype=dtype)


def write_onnx(whole: Whole, metadata: dict[str, str], path: Path) -> None:
    onnx = command.need("onnx")
    command.need("onnxscript")
    shapes, names = ({0: torch.export.Dim("N")},), {"input_names": ["images"], "output_names": ["logits"]}
    program = torch.onnx.export(whole, (whole.example(),), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
    proto = program.model_proto
    graph = proto.graph
    for part in [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del part.metadata_props[:]  # they hold stack traces, with the paths of this machine
        part.doc_string = ""
    onnx.helper.set_model_props(proto, metadata | INCLUDED)
    files.write(path, proto.SerializeToString(deterministic=True))


def read_onnx(path: Path, facts: RunMetadata) -> Callable[[Tensor], Tensor]:
    session = command.need("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def write_pt2(whole: Whole, metadata: dict[str, str], path: Path) -> None:
    program = torch.export.export(whole, (whole.example(),), dynamic_shapes=({0: torch.export.Dim("N")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds the paths of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(metadata | INCLUDED)})
    files.write(path, buffer.getvalue())


def read_pt2(path: Path, facts: RunMetadata) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def write_safetensors(whole: Whole, metadata: dict[str, str], path: Path) -> None:
    with files.replacing(path) as temporary:
        safetensors.torch.save_model(whole.model, str(temporary), metadata)


def read_safetensors(path: Path, facts: RunMetadata) -> Callable[[Tensor], Tensor]:
    model = models.build(facts.recipe.model, facts.recipe.dropout)
    safetensors.torch.load_model(model, path)
    return Whole(model, Preprocess(**asdict(facts.normalization), kind=facts.data.kind)).eval()


class Format(NamedTuple):
    """write(network, metadata, file). read(file, facts of its run) → a function: raw images → (N, 10) outputs."""

    write: Callable[[Whole, dict[str, str], Path], None]
    read: Callable[[Path, RunMetadata], Callable[[Tensor], Tensor]]


FORMATS = {"onnx": Format(write_onnx, read_onnx), "pt2": Format(write_pt2, read_pt2)}
FORMATS["safetensors"] = Format(write_safetensors, read_safetensors)


def metadata(facts: RunMetadata) -> dict[str, str]:
    """The metadata of an exported file: its network, classes as a JSON list, input convention, license, weights."""
    use = asdict(facts.use) if facts.use else {}
    use = {key: value if isinstance(value, str) else json.dumps(value) for key, value in use.items()}
    numbers = {key: str(value) for key, value in asdict(facts.normalization).items()}
    return {"name": facts.name, "model": facts.recipe.model, "weights_sha256": facts.sha256} | use | numbers


def export(name: str, path: Path, to: str = "onnx") -> None:
    """Write a network to a file, whole or not at all. Raises CourseError."""
    if path.is_dir():
        example = display_path(path / find_weights(name).stem)
        raise CourseError(f"{display_path(path)} is a folder: expected a file, such as {example}.{to}")
    whole = Whole(*load_pretrained(name)).eval()
    FORMATS[to].write(whole, metadata(read_facts(find_weights(name).with_suffix(".json"))), path)


def compare(name: str, path: Path, to: str = "onnx") -> tuple[int, int]:
    """How many test images get the same label from the file and from the network, and how many there are."""
    whole = Whole(*load_pretrained(name)).eval()
    outputs = FORMATS[to].read(path, read_facts(find_weights(name).with_suffix(".json")))
    same, test = 0, datasets.load("mnist3d" if whole.preprocess.kind == "voxels" else "mnist").test
    for images in test.images.split(1000):
        with torch.inference_mode():
            same += int((outputs(images).argmax(1) == whole(images).argmax(1)).sum(dtype=torch.int64))
    return same, len(test)


def export_c(name: str, path: Path) -> tuple[c_header.Costs, int, int]:
    """Write a network as a C header. Returns its costs, and how many of how many test images agree with PyTorch."""
    model, facts = load_model(find_weights(name))
    called, pixels = c_header.identifier(find_weights(name).stem), (facts.normalization.mean, facts.normalization.std)
    text, program = c_header.header(called, model, facts.recipe.levels, *pixels)
    files.write(path, text.encode())
    images = datasets.load("mnist").test.images
    labels, _ = c_header.answers(path, called, images)
    same = int((labels == predict(model, images, *pixels).argmax(1)).sum())
    return c_header.costs(path, called, program), same, len(images)


def main(argv: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.export", description=__doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path)
    parser.add_argument("--to", choices=[*FORMATS, "c"], default="onnx", help="the file's format (default: onnx)")
    parser.add_argument("--publish", action="store_true", help="with --to c: keep the costs in logs/benchmarks/c.json")
    options = parser.parse_args(argv)
    if options.publish and options.to != "c":
        raise CourseError("--publish keeps what a network costs in C: add --to c, or leave it out")
    stem, suffix = find_weights(options.name).stem, "h" if options.to == "c" else options.to
    path = options.file or own_root() / options.to / f"{stem}.{suffix}"
    if options.to == "c":
        costs, same, total = export_c(options.name, path)
        if options.publish:
            files.write_json(COSTS, (files.read_json(COSTS, dict) if COSTS.exists() else {}) | {stem: costs})
        size = f"{costs.constants:,} bytes of constants, {costs.memory:,} bytes of static memory"
    else:
        export(options.name, path, options.to)
        same, total = compare(options.name, path, options.to)
        size = f"{path.stat().st_size / 1024:.0f} KB"
    print(f"{display_path(path)}: {size}; it gives {same} of {total} test images the same label as PyTorch")
    return int(same != total)


if __name__ == "__main__":
    command.main("export", main)
