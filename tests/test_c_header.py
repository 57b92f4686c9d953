"""The C that a network becomes gives PyTorch's answers, in the memory that it says."""

import json
import re
import shutil

import pytest
import torch
from torch import nn

from tools import export
from utils import ROOT, CourseError, files, models, smoke
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.layers import Residual
from utils.runs import pretrained
from utils.training import quantize
from utils.training.loops import predict

compiled = pytest.mark.skipif(
    not any(map(shutil.which, export.COMPILERS)), reason="C needs a compiler (cc, gcc or clang)"
)
IMAGES = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FEW = "recurrent(width=4,repeats=1,position_weighted=True)"  # one convolution, used twice
LARGE = 1_000_000  # parameters: above, a header is tens of megabytes and takes a minute to compile
WEIGHTS = {path.stem for path in (ROOT / "saved_dict").glob("*.pth")}
PUBLISHED = [name for name, e in EXPERIMENTS.items() if name in WEIGHTS and e.recipe.kind == "images"]
COSTS = json.loads(export.COSTS.read_text())


class Branches(nn.Sequential):
    """A value that is used again after ReLU has changed a copy of it, a shortcut with weights, strides and paddings."""

    def __init__(self):
        block = nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
        super().__init__(
            *(nn.ZeroPad2d((-3, -1, 2, -4)), nn.Conv2d(1, 4, (3, 5), stride=2, padding=(2, 1))),
            *(Residual(*block, shortcut=nn.Conv2d(4, 6, 1)), Residual(nn.ReLU(), nn.MaxPool2d(1))),
            *(nn.MaxPool2d((3, 2), stride=2), Residual(nn.Identity()), nn.BatchNorm2d(6)),
            *(nn.Flatten(), nn.Linear(6 * 5 * 6, 10), nn.ReLU()),
        )


def network(name: str, levels: int) -> nn.Module:
    torch.manual_seed(3)
    model = Branches() if name == "branches" else models.build(name)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean):
                nn.init.uniform_(values, -1, 2)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return quantize.end(model.eval(), levels)


@compiled
@pytest.mark.parametrize(("name", "levels"), [("branches", 0), ("branches", 9), (FEW, 3), (FEW, 255)])
def test_compiled_scores_are_those_of_pytorch(name, levels, tmp_path):
    model = network(name, levels)
    text, _ = export.header("tiny", model, levels, 0.13066, 0.308108)
    files.write(tmp_path / "tiny.h", text.encode())
    labels, scores = export.answers(tmp_path / "tiny.h", "tiny", IMAGES)
    expected = predict(model, IMAGES, 0.13066, 0.308108)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert torch.equal(labels.long(), scores.argmax(1))
    with torch.no_grad():  # the control: another number shows
        quantize.levels_of(model, 9)[0][0].weight[0, 0, 1, 1] += 0.05
    assert not torch.allclose(predict(model, IMAGES, 0.13066, 0.308108), scores, rtol=1e-3)


def test_the_header_says_what_it_needs():
    """Counted by hand for one convolution of 2x2 on a linear layer."""
    convolution = nn.Conv2d(1, 2, 2, stride=2, bias=False)
    model = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(14), nn.Flatten(), nn.Linear(2, 10))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[[[1.0, 0.0], [2.0, 3.0]]], [[[0.0, 0.0], [0.0, 1.0]]]]))
        model[4].weight.fill_(1.0)
    text, program = export.header("tiny", model, 7, 0.0, 1.0)  # 31 in the first and the last layer: five bits
    # pixels, weights that are not 0, steps
    assert program.multiplications == 2 * 784 + (3 + 1) * 14 * 14 + 20 + (8 + 20)
    assert program.bytes == (8 * 5 + 7) // 8 + 1 + (20 * 5 + 7) // 8 + 1 + 4 * 10  # and a byte behind each array
    assert program.length == 784 + 2 * 14 * 14  # the input's place is free again when the pool writes
    assert "#include" not in text and "malloc" not in text and len(re.findall(r"static float", text)) == 1
    assert f"static float values[{program.length}]" in text and text.isascii()


def test_what_can_not_be_written_or_compiled_is_told(monkeypatch, tmp_path):
    assert [export.identifier(name) for name in ("tiny-0a1b", "99 ü")] == ["tiny_0a1b", "network_99__"]
    (tmp_path / "tiny.h").write_text("int tiny_digit(")
    sigmoid = nn.Sequential(nn.Sigmoid(), nn.Flatten(), nn.Linear(784, 10))
    for action, message in (
        (lambda: export.header("tiny", sigmoid, 0, 0.0, 1.0), "Sigmoid is not written in C yet"),
        (lambda: export.header("tiny", models.build("voxel_best"), 0, 0.0, 1.0), "C is written for networks of images"),
        (lambda: export.answers(tmp_path / "tiny.h", "tiny", IMAGES), r"tiny\.h can't be compiled: .*error|no C comp"),
    ):
        with pytest.raises(CourseError, match=message):
            action()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CourseError, match="no C compiler was found: expected one of cc, gcc, clang"):
        export.answers(tmp_path / "tiny.h", "tiny", IMAGES)


# ---- what is published


@compiled
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_gives_the_same_labels_in_c_at_the_published_cost(name, mnist, tmp_path):
    """On all test images; in a smoke run on 2,000 those of few levels, and on a few the others."""
    model, message = pretrained.load_model(pretrained.find_weights(name))
    if models.count_parameters(model) > (30_000 if smoke() else LARGE):
        pytest.skip("a large header takes long to compile (COURSE_SMOKE=0 compiles those of up to a million weights)")
    normalization = message.normalization.mean, message.normalization.std
    text, program = export.header(name, model, message.recipe.levels, *normalization)
    if kept := COSTS.get(name):
        found = program.levels, program.bytes, 4 * program.length, program.multiplications
        assert found == tuple(kept[key] for key in ("levels", "constants", "memory", "multiplications"))
    files.write(tmp_path / "network.h", text.encode())
    images = mnist.test.images[: (2000 if message.recipe.levels else 300) if smoke() else None]
    labels, _ = export.answers(tmp_path / "network.h", name, images)
    assert torch.equal(labels.long(), predict(model, images, *normalization).argmax(1))


@compiled
def test_the_command_writes_a_header_and_keeps_what_it_costs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(export, "COSTS", tmp_path / "c.json")
    monkeypatch.setattr(datasets, "load", lambda name, load=datasets.load: load("digits"))
    assert export.main(["frontier_99", str(tmp_path / "small.h"), "--to", "c", "--publish"]) == 0
    message = capsys.readouterr().out
    assert "small.h: 4,648 bytes of constants" in message and re.search(r"it gives (\d+) of \1 test images", message)
    kept = json.loads((tmp_path / "c.json").read_text())["frontier_99"]
    assert kept["constants"] == 4648 and "-Os" in kept["compiler"] and (kept["flash"] is None or kept["flash"] > 4648)
