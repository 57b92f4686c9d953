"""A network in a format for use without this course: ONNX, PyTorch's own .pt2, safetensors, C, or a QR code to print.

python -m tools.export NAME [FILE] [--to FORMAT]   write FILE (default: below runs/FORMAT/), evaluate it
python -m tools.export NAME --to c --publish       also keep what the network costs in logs/benchmarks/c.json
python -m tools.export --read FILE                 read the network in a picture of a QR code, and evaluate it

NAME: a published network, or a run of your own by its name or the path of its state dict.

onnx, pt2      the network with its preprocessing. Input "images": (N, 1, 28, 28) uint8, 0 to 255, of a voxel network
               (N, 1, 16, 16, 16) float32, 0 to 1. Output "logits": (N, 10) float32.
safetensors    the weights alone; a tensor that several layers share is stored once
c              one header (.h) without dependencies or heap, for networks of images; the system's C compiler checks it
qr             the packed file of a network whose recipe has levels (see utils/runs/packed.py) as a picture (default:
               pngs/NAME_qr.png, or below runs/). The largest code, version 40, holds 2,953 bytes (ISO/IEC 18004).

onnx, pt2 and safetensors carry the class names, the input convention and the license. onnx and qr need
requirements-extra.txt.
"""

from tools import command  # isort: skip

import ctypes
import io
import json
import math
import operator
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, fx, nn
from torch.nn import functional as F

from tools import measurements
from tools.measurements import Costs
from utils import ROOT, CourseError, files, models
from utils.data import datasets, photo
from utils.experiments import EXPERIMENTS
from utils.files import display_path
from utils.runs import packed
from utils.runs.pretrained import Preprocess, find_weights, load_model
from utils.runs.records import RunMetadata, own_root
from utils.training.loops import evaluate, predict
from utils.training.quantize import levels_of, weight_grid

INCLUDED = {"preprocess": "included in this file's graph"}
COSTS = measurements.path("c")


class Whole(nn.Module):
    """A network together with its preprocessing. facts: of the network's run."""

    def __init__(self, model: nn.Module, facts: RunMetadata):
        super().__init__()
        self.model, self.preprocess = model, Preprocess(**asdict(facts.normalization), kind=facts.data.kind)

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


def read_onnx(path: Path, _facts: RunMetadata) -> Callable[[Tensor], Tensor]:
    session = command.need("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def write_pt2(whole: Whole, metadata: dict[str, str], path: Path) -> None:
    program = torch.export.export(whole, (whole.example(),), dynamic_shapes=({0: torch.export.Dim("N")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds the paths of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(metadata | INCLUDED)})
    files.write(path, buffer.getvalue())


def read_pt2(path: Path, _facts: RunMetadata) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def write_safetensors(whole: Whole, metadata: dict[str, str], path: Path) -> None:
    with files.replacing(path) as temporary:
        safetensors.torch.save_model(whole.model, str(temporary), metadata)


def read_safetensors(path: Path, facts: RunMetadata) -> Callable[[Tensor], Tensor]:
    model = models.build(facts.recipe.model, facts.recipe.dropout)
    safetensors.torch.load_model(model, path)
    return Whole(model, facts).eval()


# write(network, metadata, file) and read(file, facts of its run) → a function: raw images → (N, 10) outputs
FORMATS = {
    "onnx": (write_onnx, read_onnx),
    "pt2": (write_pt2, read_pt2),
    "safetensors": (write_safetensors, read_safetensors),
}


def metadata(facts: RunMetadata) -> dict[str, str]:
    """The metadata of an exported file: its network, classes as a JSON list, input convention, license, weights."""
    use = asdict(facts.use) if facts.use else {}
    use = {key: value if isinstance(value, str) else json.dumps(value) for key, value in use.items()}
    numbers = {key: str(value) for key, value in asdict(facts.normalization).items()}
    built = {"model": facts.recipe.model, "dropout": str(facts.recipe.dropout)}
    return {"name": facts.name, "weights_sha256": facts.sha256} | built | use | numbers


def export(name: str, path: Path, to: str = "onnx") -> None:
    """Write a network to a file, whole or not at all. Raises CourseError."""
    require_no_folder(path)
    model, facts = load_model(find_weights(name))
    FORMATS[to][0](Whole(model, facts).eval(), metadata(facts), path)


def require_no_folder(path: Path) -> None:
    if path.is_dir():
        raise CourseError(f"{display_path(path)} is a folder: expected the path of a file")


def compare(name: str, path: Path, to: str = "onnx") -> tuple[int, int]:
    """How many test images get the same label from the file and from the network, and how many there are."""
    model, facts = load_model(find_weights(name))
    whole, outputs = Whole(model, facts).eval(), FORMATS[to][1](path, facts)
    test = datasets.load("mnist3d" if facts.data.kind == "voxels" else "mnist").test
    with torch.inference_mode():
        same = [outputs(images).argmax(1) == whole(images).argmax(1) for images in test.images.split(1000)]
    return int(torch.cat(same).sum()), len(test)


# ---- C: a header with one function, `int NAME_digit(const unsigned char pixels[784], float scores[10])`. It compiles
# as C99 and C++, and is not reentrant, because its one array is static.

LAYERS = Path(__file__).with_name("layers.h")
UNPACK = Path(__file__).with_name("weight.h")
DIGIT = Path(__file__).with_name("digit.h")
SAME = (nn.Dropout, nn.Identity, nn.Flatten, nn.Softmax)  # numbers stay where they are; a softmax changes no order
MOVING = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d)  # not in place
COMPILERS = ("cc", "gcc", "clang")


class Program:
    """The steps of a network in C, its constants, and what they cost.

    All values are in one array, in which the place of a value is free again after the value's last use.
    """

    def __init__(self, model: nn.Module, levels: int):
        self.model, self.levels = model, levels
        self.of = {layer.weight: own for layer, own in levels_of(model, levels)}
        self.steps: list[str] = []
        self.constants: dict[str, str] = {}  # what has been declared, by its name
        self.bytes, self.multiplications = 0, 2 * 784  # the pixels are scaled
        self.used: dict[int, int] = {}  # where a value begins in the array → its length
        self.length = 0  # of the array
        self.places: dict[fx.Node, int] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.nodes = models.graph(model)
        self.names = {id(parameter): name.replace(".", "_") for name, parameter in model.named_parameters()}
        for position, node in enumerate(self.nodes):
            self.add(node, position)

    def take(self, length: int) -> int:
        """The first gap of this length in the array."""
        place = 0
        for begin in sorted(self.used):
            if begin - place >= length:
                break
            place = max(place, begin + self.used[begin])
        self.used[place] = length
        self.length = max(self.length, place + length)
        return place

    def add(self, node: fx.Node, position: int) -> None:
        """Add the step of one node. Raises CourseError for a layer that has no C code here."""
        if node.op == "output":
            return
        if node.op == "placeholder":
            self.shapes[node], self.places[node] = (1, 28, 28), self.take(784)
            return
        sources = node.all_input_nodes
        layer = self.model.get_submodule(node.target) if node.op == "call_module" else node.target
        with torch.no_grad():
            self.shapes[node] = tuple(layer(*(torch.zeros(1, *self.shapes[source]) for source in sources)).shape[1:])
        ends = [source for source in dict.fromkeys(sources) if not self.needed(source, position)]
        in_place = not isinstance(layer, MOVING)
        if (ends and in_place) or isinstance(layer, SAME):
            self.places[node] = self.places[(ends or sources)[0]]
        else:
            self.places[node] = self.take(math.prod(self.shapes[node]))
        self.steps += self.step(layer, sources, node)
        for place in {self.places[source] for source in ends} - {self.places[node]}:
            del self.used[place]

    def needed(self, value: fx.Node, position: int) -> bool:
        """Whether a later step reads the place of this value."""
        there = {node for node, place in self.places.items() if place == self.places[value]}
        return any(there & set(node.all_input_nodes) for node in self.nodes[position + 1 :] if node.op != "output")

    def step(self, layer: nn.Module, sources: list[fx.Node], node: fx.Node) -> Iterator[str]:
        """The lines of C that compute a layer."""
        (channels, height, width), (filters, *out) = ((*self.shapes[value], 1, 1)[:3] for value in (sources[0], node))
        start, to = (f"values + {self.places[value]}" for value in (sources[0], node))
        plane, numbers = math.prod(out), filters * math.prod(out)
        planes = f"{start}, {height}, {width}, {to}, {out[0]}, {out[1]}, {channels}"
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            kernels = self.convolution(layer, (channels, height, width))
            yield f"NAME_convolve({planes}, {kernels});"
            if layer.bias is not None:
                bias = self.vector(layer.bias)
                yield f"NAME_affine({to}, {to}, {filters}, {plane}, 0, {bias});"
        elif isinstance(layer, nn.BatchNorm2d):
            factor = layer.weight / (layer.running_var + layer.eps).sqrt()
            shift = layer.bias - layer.running_mean * factor
            self.multiplications += numbers
            factors, shifts = self.vector(layer.weight, factor), self.vector(layer.bias, shift)
            yield f"NAME_affine({start}, {to}, {channels}, {plane}, {factors}, {shifts});"
        elif isinstance(layer, nn.ReLU):
            yield f"NAME_relu({start}, {to}, {numbers});"
        elif isinstance(layer, (nn.MaxPool2d, nn.AdaptiveMaxPool2d)):
            adaptive = isinstance(layer, nn.AdaptiveMaxPool2d)
            kernel, stride = ((height, width), 1) if adaptive else (pair(layer.kernel_size), pair(layer.stride)[0])
            yield f"NAME_largest({planes}, {kernel[0]}, {kernel[1]}, {stride});"
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            self.multiplications += channels
            yield f"NAME_average({start}, {to}, {channels}, {height * width});"
        elif isinstance(layer, nn.ZeroPad2d):
            yield f"NAME_window({planes}, {-layer.padding[2]}, {-layer.padding[0]});"
        elif layer is operator.add:
            yield f"NAME_add({start}, values + {self.places[sources[-1]]}, {to}, {numbers});"
        elif not isinstance(layer, SAME):
            raise CourseError(f"{type(layer).__name__} is not written in C yet: expected a network of images")

    def convolution(self, layer: nn.Conv2d | nn.Linear, shape: tuple[int, int, int]) -> str:
        """The arguments of NAME_convolve. A linear layer is a convolution with one position."""
        linear = isinstance(layer, nn.Linear)
        weight = layer.weight[:, :, None, None] if linear else layer.weight
        (stride, _), (top, left), groups = (
            ((1, 1), (0, 0), 1) if linear else (layer.stride, layer.padding, layer.groups)
        )
        used = F.conv2d(torch.ones(1, *shape), (weight != 0).float(), stride=stride, padding=(top, left), groups=groups)
        self.multiplications += int(used.double().sum()) + (weight.numel() if self.levels else 0)
        constants, step = self.matrix(layer.weight)
        sizes = ", ".join(map(str, (len(weight), groups, *weight.shape[2:], stride, top, left)))
        return f"{sizes}, {constants}{step}"

    def matrix(self, weight: Tensor) -> tuple[str, str]:
        """The name of a declared array of weights; and, if they have levels, their step and their bits."""
        if not self.levels:
            return self.vector(weight), ""
        levels = self.of[weight]
        bits, (step, whole) = (levels - 1).bit_length(), weight_grid(weight.detach(), levels)
        codes = packed_bits((whole.flatten() + (1 << bits) // 2 - 1).int().numpy(), bits)
        name = self.declare("unsigned char", self.names[id(weight)], [str(code) for code in codes], 1)
        return name, f", {literal(step)}, {bits}"

    def vector(self, parameter: Tensor, values: Tensor | None = None) -> str:
        """The name of a declared array: a parameter, or other values under its name."""
        numbers = (parameter if values is None else values).detach().flatten()
        return self.declare("float", self.names[id(parameter)], [literal(number) for number in numbers], 4)

    def declare(self, kind: str, name: str, values: list[str], size: int) -> str:
        if name not in self.constants:
            lines, line = [], ""
            for value in values:
                if len(line) + len(value) > 118:
                    lines, line = [*lines, line], ""
                line += value + ","
            start = f"static const {kind} NAME_{name}[{len(values)}] = {{"
            self.constants[name] = "\n".join([start, *lines, line, "};"])
            self.bytes += size * len(values)
        return f"NAME_{name}"


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def literal(value: Tensor) -> str:
    """A float32 in C, to the last bit."""
    text = f"{float(value):.9g}"
    return text + ("f" if "." in text or "e" in text else ".f")


def packed_bits(codes: np.ndarray, bits: int) -> list[int]:
    """Codes of `bits` bits each, least significant bit first, and one more byte, which a reader may touch."""
    each = (codes[:, None] >> np.arange(bits)) & 1
    return [*np.packbits(each.astype(np.uint8).ravel(), bitorder="little").tolist(), 0]


# the parameters of NAME_convolve, and how it reads weight number i
PACKED = "const unsigned char *weights, float step, int bits"
WEIGHT = {"STORED": PACKED, "WEIGHT": "step * NAME_weight(weights, bits, next++)"}
FLOAT = {"STORED": "const float *weights", "WEIGHT": "weights[next++]"}


def identifier(name: str) -> str:
    """A network's name in C."""
    name = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)
    return name if name[:1].isalpha() else f"network_{name}"


def header(name: str, model: nn.Module, levels: int, mean: float, std: float) -> tuple[str, Program]:
    """A network as a C header, and its program. levels: 0 for float32. Raises CourseError for voxels."""
    if models.input_shape(model) != (1, 28, 28):
        what = f"{name} takes grids of voxels: C is written for networks of images only"
        raise CourseError(f"{what} (leave out --to c for ONNX)")
    program = Program(model.eval(), levels)
    last = program.places[program.nodes[-1].all_input_nodes[0]]
    argv = {"LAST": last, "LENGTH": program.length} | (WEIGHT if levels else FLOAT)
    argv |= {"MEAN": literal(mean), "STD": literal(std), "STEPS": "\n".join(f"    {step}" for step in program.steps)}
    memory = f"{4 * program.length:,} bytes of\n * static memory"
    about = (
        f"/* NAME: a network that reads handwritten digits. {program.bytes:,} bytes of constants, {memory}, "
        f"{program.multiplications:,} multiplications for an image. */\n\n#ifndef NAME_H\n#define NAME_H"
    )
    pieces = [path.read_text() for path in ([UNPACK] if levels else []) + [LAYERS, DIGIT]]
    parts = [about, *program.constants.values(), *pieces, "#endif\n"]
    text = "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
    return re.sub(rf"\b({'|'.join(argv)})\b", lambda word: str(argv[word[0]]), text).replace("NAME", name), program


def compiler() -> str:
    """The system's C compiler. Raises CourseError if there is none."""
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if not found:
        raise CourseError(f"no C compiler was found: expected one of {', '.join(COMPILERS)}, to compare with PyTorch")
    return found


def build(path: Path, name: str, folder: Path, *flags: str) -> Path:
    """Compile the header's network in `folder`, behind one function for many images. Raises CourseError if it fails."""
    source = f"""#include "{path.resolve().as_posix()}"
void read_all(const unsigned char *pixels, int images, int *labels, float *scores)
{{
    for (int i = 0; i < images; i++)
        labels[i] = {name}_digit(pixels + 784 * i, scores + 10 * i);
}}
"""
    files.write(folder / "all.c", source.encode())
    command = [compiler(), "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *flags, "all.c", "-o", "all.so"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if ended.returncode:
        why = files.one_line(ended.stderr, 300)
        raise CourseError(f"{path.name} can't be compiled: {why}")
    return folder / "all.so"


def answers(path: Path, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """The labels (N,) int32 and scores (N, 10) float32 that a header gives (N, 1, 28, 28) uint8 images."""
    pixels, scores = np.ascontiguousarray(images.numpy()), np.empty((len(images), 10), np.float32)
    labels = np.empty(len(images), np.int32)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = ctypes.CDLL(str(build(path, name, Path(folder), "-O2", "-shared", "-fPIC")))
        first, second, third = (array.ctypes.data_as(ctypes.c_void_p) for array in (pixels, labels, scores))
        library.read_all(first, ctypes.c_int(len(images)), second, third)
    return torch.from_numpy(labels), torch.from_numpy(scores)


def costs(path: Path, name: str, program: Program) -> Costs:
    """What a header's network costs, compiled for this machine. Raises CourseError."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        built = build(path, name, Path(folder), "-Os", "-c")
        size = ["size", str(built)]
        message = subprocess.run(size, capture_output=True, text=True).stdout if shutil.which("size") else ""
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    return Costs(
        levels=program.levels,
        constants=program.bytes,
        memory=4 * program.length,
        multiplications=program.multiplications,
        flash=sum(map(int, message.splitlines()[1].split()[:2])) if message else None,  # text and data
        compiler=f"{version} -Os, {platform.machine()}",
    )


def export_c(name: str, path: Path) -> tuple[Costs, int, int]:
    """Write a network as a C header. Returns its costs, and how many of how many test images agree with PyTorch."""
    model, facts = load_model(find_weights(name))
    called, pixels = identifier(find_weights(name).stem), (facts.normalization.mean, facts.normalization.std)
    text, program = header(called, model, facts.recipe.levels, *pixels)
    files.write(path, text.encode())
    images = datasets.load("mnist").test.images
    same = answers(path, called, images)[0] == predict(model, images, *pixels).argmax(1)
    return costs(path, called, program), int(same.sum()), len(images)


# ---- QR codes

PIXELS = 4  # the side of a module, the smallest square of a code


def draw(content: bytes) -> bytes:
    """Bytes as a QR code in a PNG picture. Raises CourseError without segno, and for too many bytes."""
    segno, picture = command.need("segno"), io.BytesIO()
    try:
        segno.make_qr(content, error="L", mode="byte").save(picture, kind="png", scale=PIXELS)
    except segno.DataOverflowError as error:
        raise CourseError(f"{len(content)} bytes: expected at most the 2953 that a QR code holds") from error
    return picture.getvalue()


def scan(picture: Image.Image) -> bytes:
    """The bytes of the QR code in a picture. Raises CourseError without zxing-cpp, and if no code is readable."""
    zxingcpp = command.need("zxingcpp")
    found = zxingcpp.read_barcode(picture.convert("L"), formats=zxingcpp.BarcodeFormat.QRCode)
    if not found:
        raise CourseError("no QR code can be read in this picture: expected a sharp one with a white margin")
    return found.bytes


def recognize(content: bytes) -> tuple[str, nn.Module, float, float]:
    """The experiment whose network the bytes hold, the network, and its pixels' mean and standard deviation."""
    for experiment in EXPERIMENTS.values():
        if experiment.recipe.levels:
            try:
                return experiment.name, *packed.read(content, experiment.recipe.model)
            except CourseError:
                continue
    names = ", ".join(e.name for e in EXPERIMENTS.values() if e.recipe.levels)
    raise CourseError(f"the {len(content)} bytes of this code are no network of the course: expected one of {names}")


def export_qr(weights: Path, path: Path | None) -> None:
    """Draw the packed file of a published network. Raises CourseError if there is none."""
    content = files.read(weights.with_suffix(".bin"), "Only a network whose recipe has levels has such a file.")
    root = ROOT if weights.resolve().parent.parent == ROOT else own_root()
    path = path or root / "pngs" / f"{weights.stem}_qr.png"
    files.write(path, draw(content))
    print(f"{display_path(path)}: {len(content)} bytes")


def read_qr(path: Path) -> None:
    """Evaluate the network in a picture of a code."""
    name, model, mean, std = recognize(scan(photo.open_picture(path)))
    data = datasets.load("mnist")
    score = evaluate(model, data.test, mean, std)
    print(f"{display_path(path)} holds {name}: {score.correct} of {score.total} test images of {data.name} are right")


def main(argv: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.export", description=__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path)
    parser.add_argument("--to", choices=[*FORMATS, "c", "qr"], default="onnx", help="the file's format (default: onnx)")
    parser.add_argument("--publish", action="store_true", help="with --to c: keep the costs in logs/benchmarks/c.json")
    parser.add_argument("--read", metavar="FILE", type=Path)
    options = parser.parse_intermixed_args(argv)
    if (options.name is None) == (options.read is None):
        raise CourseError("expected the NAME of a network to export, or --read FILE")
    if options.publish and options.to != "c":
        raise CourseError("--publish keeps what a network costs in C: add --to c, or leave it out")
    if options.read and (options.publish or options.to != "onnx"):
        raise CourseError("--read only reads a QR code: leave out --to and --publish")
    if options.read:
        read_qr(options.read)
        return 0
    weights, suffix = find_weights(options.name), "h" if options.to == "c" else options.to
    if options.publish and weights.resolve().parent != ROOT / "saved_dict":
        raise CourseError(f"--publish: {weights.stem} is a run of your own, expected a published network")
    path = options.file or own_root() / options.to / f"{weights.stem}.{suffix}"
    require_no_folder(path)
    if options.to == "qr":
        export_qr(weights, options.file)
        return 0
    if options.to == "c":
        costs, same, total = export_c(options.name, path)
        if options.publish and same == total:
            before = files.read_json(COSTS, dict[str, Costs]) if COSTS.exists() else {}
            files.write_json(COSTS, before | {weights.stem: costs})
        size = f"{costs.constants:,} bytes of constants, {costs.memory:,} bytes of static memory"
    else:
        export(options.name, path, options.to)
        same, total = compare(options.name, path, options.to)
        size = f"{path.stat().st_size / 1024:.0f} KB"
    print(f"{display_path(path)}: {size}; it gives {same} of {total} test images the same label as PyTorch")
    return int(same != total)


if __name__ == "__main__":
    command.main("export", main)
