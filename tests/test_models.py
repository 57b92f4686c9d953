"""The networks are what their tables say: layers, parameters, shapes and receptive fields."""

import inspect
import re

import pytest
import torch
from matplotlib import colormaps
from torch import nn
from torchsummary import summary

from utils import ROOT, CourseError, artifacts, models
from utils.layers import ZERO, BatchNorm2d, FaceOn, Oranges, least_turn, thinnest

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
    """The family's table in short: "8,28,28 72" is a 3×3 convolution with ReLU and batch norm; "-" in place of the dropout that follows."""
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
    *("8,28,28 72", "8,28,28 576", "8,28,28 576", "8,14,14 576 -", "MaxPool2d 8,7,7 0", "Dropout 8,7,7 0", "Conv2d 8,7,7 72"),
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
TABLES += [("mnist_medium", 0.1, MEDIUM, 7632), ("mnist_small", 0.1, SMALL, 5616), ("mnist_ultrasmall", 0.1, ULTRASMALL, 4464)]
TABLES += [("small_cnn", 0.0, SMALL_CNN + " | Softmax 10 0", 785210), ("medium_cnn", 0.0, MEDIUM_CNN + " | Softmax 10 0", 1571030)]
TABLES += [("voxel_reference", 0.25, VOXEL_REFERENCE, 4279082)]
TABLES += [("voxel_density", 0.25, VOXEL_REFERENCE.replace("Oranges 3,16,16,16 0 |", "").replace(" 656", " 224"), 4278650)]
TABLES += [("small_cnn_logits", 0.0, SMALL_CNN, 785210), ("medium_cnn_logits", 0.0, MEDIUM_CNN, 1571030)]


def rows(table: str) -> list[list[str]]:
    return [row.split() for row in table.replace("\n", "|").split("|") if row.strip()]


def shape(name: str) -> tuple[int, ...]:
    return (1, 16, 16, 16) if name.startswith("voxel") else (1, 28, 28)


LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.Conv3d, nn.MaxPool3d)


@pytest.mark.parametrize(("name", "dropout", "table", "parameters"), TABLES)
def test_torchsummary_prints_the_reference_table(name, dropout, table, parameters, capsys):
    summary(models.build(name, dropout), shape(name), device="cpu")
    printed = capsys.readouterr().out
    found = re.findall(r"(\w+)-\d+\s+\[-1, ([\d, ]+)\]\s+([\d,]+)", printed)
    assert [[kind, shape.replace(" ", ""), count.replace(",", "")] for kind, shape, count in found] == rows(table)
    assert f"Total params: {parameters:,}" in printed
    assert models.count_parameters(models.build(name, dropout)) == parameters


@pytest.mark.parametrize("name", models.MODELS)
def test_comments_at_line_ends_are_true(name):
    written = {"voxel_density": models.voxel_reference}.get(name, getattr(models, f"{name}_logits", models.MODELS[name]))
    said = re.findall(r"# ([\d×]+)  RF (\d+)", inspect.getsource(written))
    layers = [layer for layer in models.build(name) if isinstance(layer, LAYERS)]
    assert len(said) == len(layers)
    network = models.build(name).eval()
    images = torch.zeros(1, *shape(name))
    true = []
    for i, layer in enumerate(network):
        images = layer(images)
        if isinstance(layer, LAYERS):
            true.append(("×".join(map(str, images.shape[1:])), str(models.receptive_field(network[: i + 1]))))
    assert said == true


@pytest.mark.parametrize("name", models.MODELS)
def test_receptive_field_is_where_the_gradient_reaches(name):
    network = models.build(name).eval()
    ends = (nn.Flatten, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
    features = network[: next(i for i, layer in enumerate(network) if isinstance(layer, ends))]
    averages = {nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
    for layer in features.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.constant_(layer.weight, 1.0)  # no path cancels another, no unit is dead
        if type(layer) in averages:
            layer.forward = averages[type(layer)](layer.kernel_size).forward  # a maximum passes the gradient of one input only
    flat = not any(isinstance(layer, nn.Conv3d) for layer in features)
    if isinstance(features[0], (Oranges, FaceOn)):
        features = features[1:]  # a table of colours has no gradient, and what is turned face-on is counted in pixels of that view
    into = next(layer for layer in features if isinstance(layer, LAYERS[::2])).in_channels
    images = torch.ones(1, into, *([64, 64] if flat else [48, 48, 48]), requires_grad=True)
    output = features(images)
    output[(0, 0, *(side // 2 for side in output.shape[2:]))].backward()
    reached = images.grad[0].abs().flatten(2 if flat else 3).sum((0, *range(2, images.ndim - 1))).nonzero()
    assert int(reached.max() - reached.min()) + 1 == models.receptive_field(network)


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
    axis = thinnest(covariance)
    exact = torch.linalg.eigh(covariance.double())
    apart = exact.eigenvalues[:, 1] > 1.1 * exact.eigenvalues[:, 0]  # where two are nearly the same, either will do
    assert ((axis.double() * exact.eigenvectors[:, :, 0]).sum(1).abs()[apart] > 0.9999).all() and apart.sum() > 400
    assert (axis[:, 0] > -ZERO).all()
    frame = least_turn(axis)
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3).expand(500, 3, 3), atol=1e-5, rtol=0)
    assert torch.equal(frame[:, 0], axis) and (torch.linalg.det(frame) > 0).all()
    torch.testing.assert_close(least_turn(torch.tensor([[1.0, 0, 0]]))[0], torch.eye(3))


def test_face_on_shows_a_turned_body_as_it_was():
    grids, face_on = slabs(1), FaceOn()
    upright = face_on(grids)
    assert upright.shape == (1, 4, 24, 24) and upright.min() >= 0 and upright.max() <= 1
    assert upright[0].mean(0)[14:].sum() > upright[0].mean(0)[:10].sum()  # z runs up: the cut corner is in the upper half
    # y → x, x → −y: seen along its thinnest direction it is the same picture again, upside up, but from one side or the other
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
        torch.testing.assert_close(thinnest(covariance), torch.tensor([[0.0, 0.8, -0.6], [0.0, 0.8, -0.6], [0.0, 0.0, 1.0]]))


@pytest.mark.parametrize("name", ["voxel_best", "voxel_more_digits"])
def test_rounding_moves_no_answer_to_a_body(name, mnist3d):
    """float64, one thread and grids scaled by 1 ± 1e-6 against float32 on all threads, over all 2,000 bodies.

    0.01 is some fifty times what rounding was seen to do, and a twentieth of what a mirrored view does.
    """
    model, grids = artifacts.load_model(artifacts.weights_path(ROOT, name))[0], mnist3d.test.images
    threads = torch.get_num_threads()
    with torch.inference_mode():
        logits = model(grids)
        others = [model(grids * (1 + 1e-6)), model(grids * (1 - 1e-6))]
        torch.set_num_threads(1)
        others.append(model(grids))
        torch.set_num_threads(threads)
        others.append(model.double()(grids.double()))
        model[0].places.neg_()  # what a mirrored view would do
        mirrored = model(grids.double())
    assert all((other - logits).abs().max() < 0.01 for other in others)
    assert (mirrored - logits).abs().amax(1).median() > 0.2


def test_face_on_takes_an_empty_grid():
    assert torch.isfinite(FaceOn()(torch.zeros(2, 1, 16, 16, 16))).all()


def test_unknown_network_names_the_closest():
    with pytest.raises(CourseError, match="'bn_augmentatoin': expected bn_augmentation"):
        models.build("bn_augmentatoin")


@pytest.mark.parametrize(("channels", "layout"), [(8, torch.channels_last), (8, torch.contiguous_format), (16, torch.channels_last)])
def test_batch_norm_is_pytorch_s_own(channels, layout):
    """The same output, gradients and running statistics as nn.BatchNorm2d,."""
    torch.manual_seed(0)
    features = (torch.randn(32, channels, 14, 14) * 3 + 1).to(memory_format=layout)
    upstream = torch.randn_like(features)
    found = []
    for norm, dtype in ((BatchNorm2d(channels), torch.float32), (nn.BatchNorm2d(channels), torch.float64)):
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
    coloured = Oranges()(grids).permute(0, 2, 3, 4, 1).double()
    torch.testing.assert_close(coloured, torch.from_numpy(colormaps["Oranges"](grids[:, 0].numpy())[..., :3]), rtol=0, atol=1e-6)
    assert not Oranges().state_dict()
