"""A network as ONNX, for Netron and for use without PyTorch.

python -m tools.export NAME [FILE]    write FILE (default: runs/onnx/NAME.onnx) and evaluate it by onnxruntime on the test set

NAME: a published network, or a run of your own by its name or the path of its state dict.

Input "images": (N, 1, 28, 28) uint8, 0…255, of a voxel network (N, 1, 16, 16, 16) float32, 0…1; output "logits": (N, 10) float32. The
normalisation is part of the graph. Needs the packages of requirements-extra.txt.
"""

from tools import command  # isort: skip

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utils import CourseError, files, models
from utils.data import datasets
from utils.files import shown
from utils.runs.pretrained import Preprocess, find_weights, load_pretrained
from utils.runs.records import own_root


class Whole(nn.Module):
    """A network together with its preprocessing."""

    def __init__(self, model: nn.Module, preprocess: Preprocess):
        super().__init__()
        self.model = model
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.preprocess(images))


def export(name: str, path: Path) -> None:
    """Write the network `name` to `path`, whole or not at all. Raises CourseError without the extra packages."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CourseError(f"{error.name} is not installed: python -m pip install -r requirements-extra.txt") from error
    whole = Whole(*load_pretrained(name)).eval()
    dtype = torch.uint8 if whole.preprocess.kind == "images" else torch.float32
    images = torch.zeros(2, *models.input_shape(whole.model), dtype=dtype)
    program = torch.onnx.export(
        whole,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        verbose=False,
    )
    files.write(path, program.model_proto.SerializeToString())


def compare(name: str, path: Path) -> tuple[int, int]:
    """Test images to which onnxruntime gives the same label as PyTorch, and how many there are."""
    import onnxruntime

    model, preprocess = load_pretrained(name)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    same, test = 0, datasets.load("mnist3d" if preprocess.kind == "voxels" else "mnist").test
    for images in test.images.split(1000):
        with torch.inference_mode():
            ours = model(preprocess(images)).argmax(1).numpy()
        same += int((session.run(None, {"images": images.numpy()})[0].argmax(1) == ours).sum(dtype=np.int64))
    return same, len(test)


def main(words: list[str]) -> int:
    parser = command.Parser(prog="python -m tools.export", description=__doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path)
    options = parser.parse_args(words)
    path = options.file or own_root() / "onnx" / f"{find_weights(options.name).stem}.onnx"
    export(options.name, path)
    same, total = compare(options.name, path)
    print(f"{shown(path)}: {path.stat().st_size / 1024:.0f} KB; onnxruntime gives {same} of {total} test images the same label")
    return int(same != total)


if __name__ == "__main__":
    command.main("export", main)
