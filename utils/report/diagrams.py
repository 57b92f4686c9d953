"""Networks as pictures: a row for each step, from top to bottom, and a line for each connection."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from .. import models

BATCH_NORM = (nn.BatchNorm2d, nn.BatchNorm3d)
ALONG = (*BATCH_NORM, nn.ReLU, nn.Dropout, nn.Flatten, nn.Identity)  # drawn in the row of the layer before it
SUMS = dict.fromkeys(("add", "add_", "iadd"), "+ sum")
ROW, MIDDLE, WIDEST, TEXT, WIDTH = 0.54, 1.25, 1.5, 2.2, 5.2  # inches: rows, boxes' middle and width, texts, all
BOX, EDGE, GRAY = "#56B4E9", "#0072B2", "#666666"


@dataclass
class Step:
    """One row. shape: of the output, without N. parameters: new ones. before: the rows of its inputs."""

    label: str
    note: str
    shape: tuple[int, ...]
    parameters: int
    before: list[int]


@torch.inference_mode()
def steps(model: nn.Module, shape: tuple[int, ...]) -> list[Step]:
    """The rows of a network's picture, for an input of `shape` (without N). ReLU and others share the row above."""
    was_training = model.training
    nodes = [node for node in models.graph(model.eval()) if node.op != "output"]
    ShapeProp(fx.GraphModule(model, nodes[0].graph)).propagate(torch.zeros(1, *shape))
    model.train(was_training)
    found, row, seen = [], {}, set()
    for node in nodes:
        if "tensor_meta" not in node.meta:  # a size, not a tensor
            continue
        layer, of_output = models.layer_of(model, node), tuple(node.meta["tensor_meta"].shape[1:])
        before = sorted({row[source] for source in node.all_input_nodes if source in row})
        alone = isinstance(layer, nn.Identity) or all(len(source.users) == 1 for source in node.all_input_nodes)
        if isinstance(layer, ALONG) and alone:
            row[node], step = before[0], found[before[0]]
            step.label += label(layer)
            step.note += f", dropout {layer.p:g}" if isinstance(layer, nn.Dropout) and layer.p else ""
            step.shape = of_output
            step.parameters += models.count_parameters(layer)
            continue
        row[node] = len(found)
        again = layer in seen
        seen.add(layer)
        called = getattr(node.target, "__name__", str(node.target))
        text = label(layer) if layer else "input" if node.op == "placeholder" else SUMS.get(called, called)
        parameters = models.count_parameters(layer) if layer and not again else 0
        note = ", shared weights" if layer and again else ""
        found.append(Step(text.removeprefix(" · "), note, of_output, parameters, before))
    return found


def label(layer: nn.Module) -> str:
    """A short name of a layer, with a leading dot if it shares the row of another."""
    size = getattr(layer, "kernel_size", None)
    size = "×".join(map(str, size if isinstance(size, tuple) else [size] * 2))
    if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
        depthwise = " depthwise" if layer.groups == layer.in_channels > 1 else ""
        stride = f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
        return f"{size}{depthwise} conv {layer.in_channels}→{layer.out_channels}{stride}"
    if isinstance(layer, nn.Linear):
        return f"linear {layer.in_features}→{layer.out_features}"
    if isinstance(layer, BATCH_NORM):
        return " · BN"
    names = {nn.ReLU: " · ReLU", nn.Softmax: "softmax", nn.ZeroPad2d: "cut off the margin"}
    names |= dict.fromkeys((nn.Dropout, nn.Flatten, nn.Identity), "")
    names |= {nn.MaxPool2d: f"{size} max-pool", nn.MaxPool3d: "2×2×2 max-pool"}
    names |= {nn.AdaptiveAvgPool2d: "average of each map", nn.AdaptiveMaxPool2d: "maximum of each map"}
    return names.get(type(layer), type(layer).__name__)


def network(model: nn.Module, shape: tuple[int, ...]) -> Figure:
    """A network from top to bottom, for an input of `shape` (without N), with branches on the left.

    A box's width is the side of its map, its height the number of channels, to scale.
    """
    found = steps(model, shape)
    height = ROW * len(found)
    figure, axes = plt.subplots(figsize=(WIDTH, height))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="equal")
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    figure.set_facecolor("white")
    widest, most = max(step.shape[-1] for step in found if len(step.shape) > 1), max(step.shape[0] for step in found)
    boxes = [_draw(axes, step, ROW * (row + 0.5), widest, most) for row, step in enumerate(found)]
    lanes: list[int] = []  # for each lane on the left, the row in which its last line ends
    for row, step in enumerate(found):
        for source in step.before:
            above, below = boxes[source], boxes[row]
            if source == row - 1:
                _arrow(axes, [(MIDDLE, above.get_y() + above.get_height()), (MIDDLE, below.get_y())])
                continue
            lane = next((place for place, end in enumerate(lanes) if end <= source), len(lanes))
            lanes[lane : lane + 1] = [row]
            x = MIDDLE - WIDEST / 2 - 0.14 * (lane + 1)
            top, bottom = ROW * (source + 0.5) + 0.05, ROW * (row + 0.5) - 0.05
            axes.plot([above.get_x(), x, x], [top, top, bottom], color=GRAY, linewidth=1.2)
            _arrow(axes, [(x, bottom), (below.get_x(), bottom)])
    plt.close(figure)
    return figure


def _draw(axes: Axes, step: Step, y: float, widest: int, most: int) -> Rectangle:
    """The box of a step, centered at height y, and its labels."""
    side = step.shape[-1] if len(step.shape) > 1 else 1
    width, high = 0.1 + (WIDEST - 0.1) * side / widest, 0.06 + 0.24 * (step.shape[0] / most) ** 0.5
    box = Rectangle((MIDDLE - width / 2, y - high / 2), width, high, facecolor=BOX, edgecolor=EDGE, linewidth=1)
    axes.add_patch(box)
    axes.text(TEXT, y - 0.02, step.label, fontsize=10, va="bottom")
    size = "×".join(map(str, step.shape))
    count = f", {step.parameters:,} parameters" if step.parameters else ""
    axes.text(TEXT, y + 0.02, size + count + step.note, fontsize=9, va="top", color=GRAY)
    return box


def _arrow(axes: Axes, ends: list[tuple[float, float]]) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": GRAY, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(*ends, **style))
