"""The networks are what their tables say: layers, parameters, shapes and receptive fields."""

import copy
import inspect
import re

import pytest
import torch
from matplotlib import colormaps
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchsummary import summary

from utils import ROOT, CourseError, models
from utils.experiments import EXPERIMENTS
from utils.layers import ZERO, Oranges, PrincipalAxisView, Residual, smallest_principal_axis, smallest_rotation
from utils.runs import pretrained
from utils.training import cpu

BASE = """
Conv2d 8,28,28 72 | ReLU 8,28,28 0 | Conv2d 8,28,28 576 | ReLU 8,28,28 0 | Conv2d 8,28,28 576 | ReLU 8,28,28 0
MaxPool2d 8,14,14 0 | Conv2d 4,14,14 32
Conv2d 8,14,14 288 | ReLU 8,14,14 0 | Conv2d 16,14,14 1152 | ReLU 16,14,14 0 | Conv2d 16,14,14 2304 | ReLU 16,14,14 0
MaxPool2d 16,7,7 0 | Conv2d 4,7,7 64 | Flatten 196 0 | Linear 10 1970"""
DROPOUT = BASE.replace("MaxPool2d 8,14", "Dropout 8,28,28 0 | MaxPool2d 8,14").replace(
    "MaxPool2d 16,7", "Dropout 16,14,14 0 | MaxPool2d 16,7"
)
BN_AUGMENTATION = """
Conv2d 8,28,28 72 | BatchNorm2d 8,28,28 16 | ReLU 8,28,28 0 | Conv2d 8,28,28 576 | BatchNorm2d 8,28,28 16 | ReLU 8,28,28 0
Conv2d 16,28,28 1152 | BatchNorm2d 16,28,28 32 | ReLU 16,28,28 0 | Dropout 16,28,28 0 | MaxPool2d 16,14,14 0 | Conv2d 4,14,14 64
Conv2d 8,14,14 288 | BatchNorm2d 8,14,14 16 | ReLU 8,14,14 0 | Conv2d 16,14,14 1152 | BatchNorm2d 16,14,14 32 | ReLU 16,14,14 0
Conv2d 16,14,14 2304 | BatchNorm2d 16,14,14 32 | ReLU 16,14,14 0 | Dropout 16,14,14 0 | MaxPool2d 16,7,7 0 | Conv2d 4,7,7 64
Flatten 196 0 | Linear 10 1970"""
UNDER_20K = """
Conv2d 32,26,26 320 | ReLU 32,26,26 0 | BatchNorm2d 32,26,26 64
Conv2d 32,24,24 9248 | BatchNorm2d 32,24,24 64 | MaxPool2d 32,12,12 0 | ReLU 32,12,12 0 | Dropout 32,12,12 0
Conv2d 8,12,12 264 | ReLU 8,12,12 0 | BatchNorm2d 8,12,12 16
Conv2d 32,8,8 6432 | BatchNorm2d 32,8,8 64 | MaxPool2d 32,4,4 0 | ReLU 32,4,4 0 | Dropout 32,4,4 0
Conv2d 16,4,4 528 | BatchNorm2d 16,4,4 32 | Flatten 256 0 | Linear 10 2570"""


def units(*rows: str) -> str:
    """The family's table in short: "8,28,28 72" is a 3×3 convolution with ReLU and batch norm; "-" in place of the
    dropout that follows."""
    table = []
    for row in rows:
        if row[0].isdigit():
            shape, count = row.split(" ")[:2]
            channels = int(shape.split(",")[0])
            table += [f"Conv2d {shape} {count}", f"ReLU {shape} 0", f"BatchNorm2d {shape} {2 * channels}"]
            table += [] if row.endswith("-") else [f"Dropout {shape} 0"]
        else:
            table.append(row)
    return " | ".join([*table, "AdaptiveAvgPool2d 16,1,1 0", "Conv2d 10,1,1 160", "Flatten 10 0"])


MEDIUM = units(
    *("8,28,28 72", "8,28,28 576 -", "MaxPool2d 8,14,14 0", "Dropout 8,14,14 0", "Conv2d 8,14,14 72"),
    *("8,14,14 576", "16,14,14 1152 -", "MaxPool2d 16,7,7 0", "Dropout 16,7,7 0", "Conv2d 16,7,7 272"),
    *("16,5,5 2304", "16,3,3 2304 -", "MaxPool2d 16,1,1 0", "Dropout 16,1,1 0"),
)
SMALL = units(
    *("8,28,28 72", "8,28,28 576", "8,28,28 576 -", "MaxPool2d 8,14,14 0", "Dropout 8,14,14 0", "Conv2d 8,14,14 72"),
    *("8,14,14 576", "16,14,14 1152", "16,7,7 2304"),
)
ULTRASMALL = units(
    *(
        "8,28,28 72",
        "8,28,28 576",
        "8,28,28 576",
        "8,14,14 576 -",
        "MaxPool2d 8,7,7 0",
        "Dropout 8,7,7 0",
        "Conv2d 8,7,7 72",
    ),
    *("8,7,7 576", "8,7,7 576", "16,4,4 1152"),
)
SMALL_CNN = "Conv2d 10,28,28 100 | ReLU 10,28,28 0 | Flatten 7840 0 | Linear 100 784100 | ReLU 100 0 | Linear 10 1010"
MEDIUM_CNN = """
Conv2d 10,28,28 100 | ReLU 10,28,28 0 | Conv2d 20,28,28 1820 | ReLU 20,28,28 0
Flatten 15680 0 | Linear 100 1568100 | ReLU 100 0 | Linear 10 1010"""
VOXEL_REFERENCE = """
Oranges 3,16,16,16 0 | Conv3d 8,16,16,16 656 | Conv3d 16,16,16,16 3472 | ReLU 16,16,16,16 0 | BatchNorm3d 16,16,16,16 32
MaxPool3d 16,8,8,8 0 | Conv3d 32,8,8,8 13856 | Conv3d 64,8,8,8 55360 | ReLU 64,8,8,8 0 | BatchNorm3d 64,8,8,8 128 | MaxPool3d 64,4,4,4 0
Dropout 64,4,4,4 0 | Flatten 4096 0 | Linear 1024 4195328 | ReLU 1024 0 | Dropout 1024 0 | Linear 10 10250"""
TABLES = [("base", 0.0, BASE, 7034), ("base", 0.1, DROPOUT, 7034), ("bn_augmentation", 0.1, BN_AUGMENTATION, 7786)]
TABLES += [("under_20k", 0.1, UNDER_20K, 19602)]
TABLES += [
    ("mnist_medium", 0.1, MEDIUM, 7632),
    ("mnist_small", 0.1, SMALL, 5616),
    ("mnist_ultrasmall", 0.1, ULTRASMALL, 4464),
]
TABLES += [
    ("small_cnn", 0.0, SMALL_CNN + " | Softmax 10 0", 785210),
    ("medium_cnn", 0.0, MEDIUM_CNN + " | Softmax 10 0", 1571030),
]
TABLES += [("voxel_reference", 0.25, VOXEL_REFERENCE, 4279082)]
TABLES += [
    ("voxel_density", 0.25, VOXEL_REFERENCE.replace("Oranges 3,16,16,16 0 |", "").replace(" 656", " 224"), 4278650)
]
TABLES += [("small_cnn_logits", 0.0, SMALL_CNN, 785210), ("medium_cnn_logits", 0.0, MEDIUM_CNN, 1571030)]


def rows(table: str) -> list[list[str]]:
    return [row.split() for row in table.replace("\n", "|").split("|") if row.strip()]


@pytest.mark.parametrize(("name", "dropout", "table", "parameters"), TABLES)
def test_torchsummary_prints_the_reference_table(name, dropout, table, parameters, capsys):
    model = models.build(name, dropout)
    summary(model, models.input_shape(model), device="cpu")
    printed = capsys.readouterr().out
    found = re.findall(r"(\w+)-\d+\s+\[-1, ([\d, ]+)\]\s+([\d,]+)", printed)
    assert [[kind, shape.replace(" ", ""), count.replace(",", "")] for kind, shape, count in found] == rows(table)
    assert f"Total params: {parameters:,}" in printed
    assert models.count_parameters(model) == parameters


def test_networks_have_the_parameters_that_their_docstrings_name():
    named = {name: re.search(r"in ([\d,]+) parameters", inspect.getdoc(found)) for name, found in models.MODELS.items()}
    numbers = {name: int(message[1].replace(",", "")) for name, message in named.items() if message}
    assert numbers == {name: models.count_parameters(models.build(name)) for name in numbers} and numbers


class Reached(Exception):
    """The features in front of the first Flatten or global pooling, and what each child of the network gave on the
    way."""


ENDS = (nn.Flatten, nn.Linear, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)


def transparent(model: nn.Module) -> nn.Module:
    """A copy in float64 through which the gradient reaches whatever can be seen: no weight cancels another, no maximum
    hides a pixel."""
    model = copy.deepcopy(model).double().eval()
    averages = {nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
        elif type(layer) in averages:
            layer.forward = averages[type(layer)](layer.kernel_size, layer.stride, layer.padding).forward
        elif isinstance(
            layer, (Oranges, PrincipalAxisView)
        ):  # a table of colors has no gradient; what is turned is counted in pixels of the view
            layer.forward = lambda features: features
    return model


def seen(model: nn.Module) -> tuple[int, dict[nn.Module, int]]:
    """Side of the part of the input on which the middle of the last features hangs, and of what each child gives, by
    the gradient.

    Of the network only forward() is used: it may have branches, use layers again, and need not be a Sequential.
    """
    model, outputs = transparent(model), {}

    def end(layer, given):
        raise Reached(given[0])

    for layer in model.modules():
        if isinstance(layer, ENDS):
            layer.register_forward_pre_hook(end)
    for name, child in model.named_children():
        child.register_forward_hook(lambda child, given, output, name=name: outputs.update({name: output}))
    first = next(layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Conv3d)))
    sides = [32] * 3 if isinstance(first, nn.Conv3d) else [96] * 2  # more than any field
    images = torch.ones(1, first.in_channels, *sides, dtype=torch.float64, requires_grad=True)
    with pytest.raises(Reached) as reached:
        model(images)

    def side(output: torch.Tensor) -> int:
        middle = output[(0, slice(None), *(size // 2 for size in output.shape[2:]))].sum()
        (gradient,) = torch.autograd.grad(middle, images, retain_graph=True)
        places = gradient[0].abs().sum((0, *range(2, len(sides)))).nonzero()  # along the first axis
        return int(places.max() - places.min()) + 1

    return side(reached.value.args[0]), {name: side(output) for name, output in outputs.items()}


class Branches(nn.Module):
    """No Sequential: two branches of different width, one of them with a step, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(1, 4, 5, padding=2)
        self.narrow = nn.Conv2d(1, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

    def forward(self, images):
        return self.end(self.again(self.again(self.pool(self.wide(images) + self.narrow(images)))))


def test_receptive_field_of_branches_is_the_widest_s():
    assert models.receptive_field(Branches()) == seen(Branches())[0] == 14  # 5, 6 after the pool, then twice 2 · 2 more
    assert models.receptive_field(Residual(nn.Conv2d(1, 1, 3, padding=1))) == 3


def test_a_wrong_field_is_noticed():
    assert models.receptive_field(nn.Sequential(*models.build("base")[1:])) != seen(models.build("base"))[0]


def comments(name: str) -> list[tuple[str, str]]:
    """What a network's source says at its lines' ends: shape and field; of one that is made of another network that
    one's."""
    source = inspect.getsource(models.MODELS[name])
    message = re.findall(r"# ([\d×]+)  RF (\d+)", source)
    others = [other for other in models.MODELS if re.search(rf"\b{other}\(", source) and other != name]
    return message or comments(others[0])


@pytest.mark.parametrize("name", models.MODELS)
def test_receptive_field_is_where_the_gradient_reaches_and_comments_at_line_ends_are_true(name):
    """One for every child that holds a convolution or a pooling: the shape and the field that it leaves."""
    network, shapes = models.build(name).eval(), {}
    images = torch.rand(1, *models.input_shape(network))
    for key, child in network.named_children():
        child.register_forward_hook(
            lambda child, given, output, key=key: shapes.update({key: "×".join(map(str, output.shape[1:]))})
        )
    network(images)
    spatial = [
        key
        for key, child in network.named_children()
        if any(isinstance(layer, models.SPATIAL) for layer in child.modules())
    ]
    field, fields = seen(models.build(name))
    assert models.receptive_field(models.build(name)) == field
    after = list(fields.values())[-1]  # what follows the global pooling sees what came before it
    assert comments(name) == [(shapes[key], str(fields.get(key, after))) for key in spatial]


def use_batch_norms(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics and factors as if trained: an untrained batch norm does next to nothing."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for values in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return model.eval()


def folded(model: nn.Module) -> nn.Module:
    """A copy whose batch norms are part of the convolutions before them, where those are used once."""
    used = [id(layer) for layer in models.layers(model)]
    once = {id(layer) for layer in models.layers(model) if used.count(id(layer)) == 1}

    def fold(part: nn.Module) -> nn.Module:
        children = list(part.children())
        if not isinstance(part, nn.Sequential):
            new = copy.copy(part)
            new._modules = {name: fold(child) for name, child in part.named_children()}
            return new
        new = []
        for before, child in zip([None, *children], children, strict=False):
            convolution = isinstance(before, (nn.Conv2d, nn.Conv3d)) and id(before) in once
            if convolution and isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
                new[-1] = fuse_conv_bn_eval(before, child)
            else:
                new.append(fold(child) if list(child.children()) else child)
        return nn.Sequential(*new)

    return fold(model)


@pytest.mark.parametrize("name", models.MODELS)
def test_folded_parameters_are_those_of_a_network_that_was_folded(name):
    torch.manual_seed(0)
    network = use_batch_norms(models.build(name))
    smaller = folded(network)
    images = torch.rand(2, *models.input_shape(network))
    with torch.inference_mode():
        # folding multiplies weights by factors up to 2 in float32, layer by layer
        torch.testing.assert_close(smaller(images), network(images), rtol=1e-3, atol=1e-3)
    assert models.count_folded(network) == sum(parameter.numel() for parameter in smaller.parameters())


def test_batch_norm_in_front_of_a_convolution_or_behind_a_shared_one_can_not_be_folded():
    assert models.count_folded(models.build("bn_augmentation")) < models.count_parameters(
        models.build("bn_augmentation")
    )
    shared = nn.Conv2d(4, 4, 3, padding=1)
    twice = nn.Sequential(shared, nn.BatchNorm2d(4), shared, nn.BatchNorm2d(4))
    behind = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    for model in (twice, behind):
        assert models.count_folded(model) == models.count_parameters(model)
    assert models.count_parameters(twice) == 4 * 4 * 9 + 4 + 4 * 4  # the shared weights count once


@pytest.mark.parametrize("name", models.MODELS)
def test_a_network_is_plain_pytorch_and_what_a_cpu_adds_leaves_no_trace(name):
    """What is shown, loaded and exported is stock torch.nn and utils.layers; prepared for training it holds the same
    state dict."""
    plain = models.build(name)
    kinds = {
        type(layer).__module__.split(".")[0] + "." + type(layer).__module__.split(".")[1] for layer in plain.modules()
    }
    assert kinds <= {"torch.nn", "utils.layers"}
    before = copy.deepcopy(plain.state_dict())
    prepared = cpu.prepare(plain, torch.device("cpu"))
    again = models.build(name)
    again.load_state_dict(prepared.state_dict(), strict=True)
    assert (
        all(torch.equal(before[key], value) for key, value in again.state_dict().items())
        and before.keys() == prepared.state_dict().keys()
    )


def test_batch_norms_of_few_channels_are_faster_ones_on_a_cpu_only():
    def kinds(device):
        model = cpu.prepare(models.build("bn_augmentation"), torch.device(device))
        return [type(layer) for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]

    few, plain = cpu.FewChannels, nn.BatchNorm2d
    assert kinds("cpu") == [few, few, plain, few, plain, plain]  # 8, 8, 16, 8, 16 and 16 channels
    assert kinds("meta") == [plain] * 6


def test_the_last_relu_is_pytorch_s_own_to_the_last_bit():
    """The same gradients, but the one that comes back flattened is brought into the layout of what it belongs to."""
    found = []
    for prepare in (False, True):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, bias=False), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Flatten(), nn.Linear(576, 10)
        )
        model = cpu.prepare(layers, torch.device("cpu")) if prepare else layers.to(memory_format=torch.channels_last)
        last = []

        def watch(_layer, _given, output, last=last):
            output.register_hook(
                lambda gradient: last.append(gradient.is_contiguous(memory_format=torch.channels_last))
            )

        model[1].register_forward_hook(watch)
        model(torch.randn(16, 1, 8, 8)).square().sum().backward()
        assert last == [prepare]
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_every_experiment_s_network_takes_its_data():
    for name, kind in {(entry.recipe.model, entry.recipe.kind) for entry in EXPERIMENTS.values()}:
        model = models.build(name).eval()
        assert len(models.input_shape(model)) == {"images": 3, "voxels": 4}[kind], name
        assert model(torch.rand(2, *models.input_shape(model))).shape == (2, 10), name


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("bn_augmentatoin", "'bn_augmentatoin': expected bn_augmentation"),
        ("separable(24)", r"separable takes stem=…, width=…, repeats=…"),
        ("separable(depth=2)", r"separable takes stem=…, width=…"),
        ("separable(width=24", "expected a network's name, with its arguments by name"),
        ("separable(width=open('x'))", "expected a network's name, with its arguments by name"),
        ("base(dropout=0.1)", "base takes batch_norm=…"),
        ("build", "no network is called 'build'"),
        ("", "expected a network's name"),
    ],
)
def test_a_network_that_is_not_there_is_one_line(model, message):
    with pytest.raises(CourseError, match=message):
        models.build(model)


def test_arguments_reach_the_network():
    assert models.build("separable(width=16)")[-1].in_features == 16
    wide = models.build("unpadded(width=4,step=2,depth=5,kernel=5)")
    assert (wide[-1].in_features, models.receptive_field(wide)) == (12 * 8 * 8, 21)
    assert models.build("separable( width = 16 )", dropout=0.3)[-2].p == 0.3


def test_voxel_best_is_small():
    assert models.count_parameters(models.build("voxel_best")) <= 500_000


def slabs(n):
    """Boxes of 10×8×2 voxels with one corner cut off, flat along x: (n, 1, 16, 16, 16)."""
    grids = torch.zeros(n, 1, 16, 16, 16)
    grids[:, :, 3:13, 4:12, 7:9] = 1  # z, y, x
    grids[:, :, 10:13, 4:7] = 0
    return grids


def test_the_thinnest_direction_is_that_of_the_smallest_eigenvalue():
    factors = torch.randn(500, 3, 3, generator=torch.Generator().manual_seed(0))
    covariance = factors @ factors.mT
    axis = smallest_principal_axis(covariance)
    exact = torch.linalg.eigh(covariance.double())
    apart = exact.eigenvalues[:, 1] > 1.1 * exact.eigenvalues[:, 0]  # where two are nearly the same, either will do
    assert ((axis.double() * exact.eigenvectors[:, :, 0]).sum(1).abs()[apart] > 0.9999).all() and apart.sum() > 400
    assert (axis[:, 0] > -ZERO).all()
    frame = smallest_rotation(axis)
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3).expand(500, 3, 3), atol=1e-5, rtol=0)
    assert torch.equal(frame[:, 0], axis) and (torch.linalg.det(frame) > 0).all()
    torch.testing.assert_close(smallest_rotation(torch.tensor([[1.0, 0, 0]]))[0], torch.eye(3))


def test_face_on_shows_a_turned_body_as_it_was():
    grids, face_on = slabs(1), PrincipalAxisView()
    upright = face_on(grids)
    assert upright.shape == (1, 4, 24, 24) and upright.min() >= 0 and upright.max() <= 1
    assert (
        upright[0].mean(0)[14:].sum() > upright[0].mean(0)[:10].sum()
    )  # z runs up: the cut corner is in the upper half
    # y → x, x → −y: seen along its thinnest direction it is the same picture again, upside up, but from one side or the
    # other
    turned = face_on(grids.transpose(3, 4).flip(3))
    both = torch.stack([turned, turned.flip(1, 3)])  # from behind: slices in the other order, left and right exchanged
    assert (both - upright).abs().flatten(1).mean(1).min() < 0.01
    assert torch.allclose(face_on(0.5 * grids), 0.5**0.5 * upright, atol=1e-5)
    about_x = face_on(grids.transpose(2, 3).flip(2))  # in its own plane it is left as it lies
    assert (about_x - upright).abs().mean() > 0.02 and (about_x - upright.rot90(3, (2, 3))).abs().mean() < 0.01


def test_the_sign_of_the_thinnest_direction_does_not_hang_on_rounding():
    across = torch.tensor([[0.0, 0.8, -0.6], [0.0, -0.8, 0.6], [0.0, 0.0, -1.0]])  # in the digit's plane, as a 1's is
    for x in (1e-9, -1e-9):
        normal = across + torch.tensor([x, 0, 0])
        covariance = torch.eye(3) - 0.9 * normal[:, :, None] * normal[:, None]
        torch.testing.assert_close(
            smallest_principal_axis(covariance), torch.tensor([[0.0, 0.8, -0.6], [0.0, 0.8, -0.6], [0.0, 0.0, 1.0]])
        )


@pytest.mark.parametrize("name", ["voxel_best", "voxel_more_digits", "voxel_frontier"])
def test_rounding_moves_no_answer_to_a_body(name, mnist3d):
    """float64, one thread and grids scaled by 1 ± 1e-6 against float32 on all threads, over 500 bodies.

    0.01 is some fifty times what rounding was seen to do, and a twentieth of what a mirrored view does.
    """
    model, grids = pretrained.load_model(ROOT / "saved_dict" / f"{name}.pth")[0], mnist3d.test.images[:500]
    threads = torch.get_num_threads()
    with torch.inference_mode():
        logits = model(grids)
        others = [model(grids * (1 + 1e-6)), model(grids * (1 - 1e-6))]
        torch.set_num_threads(1)
        others.append(model(grids))
        torch.set_num_threads(threads)
        others.append(model.double()(grids.double()))
        model[0].places.neg_()  # what a mirrored view would do
        mirrored = model(grids[:200].double())
    assert all((other - logits).abs().max() < 0.01 for other in others)
    assert (mirrored - logits[:200]).abs().amax(1).median() > 0.2


def test_face_on_takes_an_empty_grid():
    assert torch.isfinite(PrincipalAxisView()(torch.zeros(2, 1, 16, 16, 16))).all()


@pytest.mark.parametrize(
    ("channels", "layout"), [(8, torch.channels_last), (8, torch.contiguous_format), (16, torch.channels_last)]
)
def test_batch_norm_is_pytorch_s_own(channels, layout):
    """The same output, gradients and running statistics as nn.BatchNorm2d (rtol, atol: float32 sums over 6,272 values
    against float64)."""
    torch.manual_seed(0)
    features = (torch.randn(32, channels, 14, 14) * 3 + 1).to(memory_format=layout)
    upstream = torch.randn_like(features)
    found = []
    for norm, dtype in ((cpu.FewChannels(channels), torch.float32), (nn.BatchNorm2d(channels), torch.float64)):
        norm = norm.to(dtype)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, channels))
        leaf = features.detach().to(dtype, copy=True).requires_grad_()
        output = norm(leaf)
        torch.relu_(output).backward(upstream.to(dtype))  # in place, as the networks do it
        found.append([output, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()])
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), exact.double(), rtol=1e-4, atol=1e-4)
    assert found[0][0].is_contiguous(memory_format=layout)


def test_oranges_are_matplotlib_s():
    grids = torch.rand(2, 1, 4, 4, 4)
    grids[0, 0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    colored = Oranges()(grids).permute(0, 2, 3, 4, 1).double()
    torch.testing.assert_close(
        colored, torch.from_numpy(colormaps["Oranges"](grids[:, 0].numpy())[..., :3]), rtol=0, atol=1e-6
    )
    assert not Oranges().state_dict()


def test_what_build_checks_of_arguments_changes_no_weight():
    torch.manual_seed(0)
    built = models.build("separable(width=32, position_weighted=True)", dropout=0.1)
    torch.manual_seed(0)
    expected = models.separable(0.1, width=32, position_weighted=True)
    assert built.training and all(map(torch.equal, built.state_dict().values(), expected.state_dict().values()))
