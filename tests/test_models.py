"""The networks are what their tables say: layers, parameters, shapes and receptive fields."""

import inspect
import re

import pytest
import torch
from torch import nn
from torchsummary import summary

from utils import CourseError, models
from utils.layers import BatchNorm2d

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
TABLES = [("base", 0.0, BASE, 7034), ("base", 0.1, DROPOUT, 7034), ("bn_augmentation", 0.1, BN_AUGMENTATION, 7786)]
TABLES += [("under_20k", 0.1, UNDER_20K, 19602)]
TABLES += [("mnist_medium", 0.1, MEDIUM, 7632), ("mnist_small", 0.1, SMALL, 5616), ("mnist_ultrasmall", 0.1, ULTRASMALL, 4464)]
TABLES += [("small_cnn", 0.0, SMALL_CNN + " | Softmax 10 0", 785210), ("medium_cnn", 0.0, MEDIUM_CNN + " | Softmax 10 0", 1571030)]
TABLES += [("small_cnn_logits", 0.0, SMALL_CNN, 785210), ("medium_cnn_logits", 0.0, MEDIUM_CNN, 1571030)]


def rows(table: str) -> list[list[str]]:
    return [row.split() for row in table.replace("\n", "|").split("|") if row.strip()]


@pytest.mark.parametrize(("name", "dropout", "table", "parameters"), TABLES)
def test_torchsummary_prints_the_reference_table(name, dropout, table, parameters, capsys):
    summary(models.build(name, dropout), (1, 28, 28), device="cpu")
    printed = capsys.readouterr().out
    found = re.findall(r"(\w+)-\d+\s+\[-1, ([\d, ]+)\]\s+([\d,]+)", printed)
    assert [[kind, shape.replace(" ", ""), count.replace(",", "")] for kind, shape, count in found] == rows(table)
    assert f"Total params: {parameters:,}" in printed
    assert models.count_parameters(models.build(name, dropout)) == parameters


@pytest.mark.parametrize("name", models.MODELS)
def test_comments_at_line_ends_are_true(name):
    said = re.findall(r"# ([\d×]+)  RF (\d+)", inspect.getsource(getattr(models, f"{name}_logits", models.MODELS[name])))
    layers = [layer for layer in models.build(name) if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))]
    assert len(said) == len(layers)
    network = models.build(name)
    images = torch.zeros(1, 1, 28, 28)
    true = []
    for i, layer in enumerate(network):
        images = layer(images)
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            true.append(("×".join(map(str, images.shape[1:])), str(models.receptive_field(network[: i + 1]))))
    assert said == true


@pytest.mark.parametrize("name", models.MODELS)
def test_receptive_field_is_where_the_gradient_reaches(name):
    network = models.build(name).eval()
    end = next(i for i, layer in enumerate(network) if isinstance(layer, (nn.Flatten, nn.AdaptiveAvgPool2d)))
    features = network[:end]
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1.0)  # no path cancels another, no unit is dead
        if isinstance(layer, nn.MaxPool2d):
            layer.forward = nn.AvgPool2d(layer.kernel_size).forward  # a maximum passes the gradient of one input only
    images = torch.ones(1, 1, 64, 64, requires_grad=True)
    output = features(images)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    reached = images.grad[0, 0].abs().sum(0).nonzero()
    assert int(reached.max() - reached.min()) + 1 == models.receptive_field(network)


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
