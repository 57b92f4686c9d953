"""Curves, samples, mistakes, confusion, kernels, feature maps and whole networks. Every function returns a closed Figure.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; the background is opaque white, so that a
picture is readable on a dark page too.
"""

import math
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import ImageFont
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F

TRAIN, TEST, GREY, WRONG = "#E69F00", "#0072B2", "#999999", "#D55E00"


def _finish(figure: Figure) -> Figure:
    figure.set_facecolor("white")
    plt.close(figure)  # a notebook shows what a cell returns; without this it would show it twice
    return figure


def curves(histories: list[list[dict]], title: str, reported_test: float | None = None) -> Figure:
    """Loss and accuracy over the epochs, a thin line a seed and a thick one for their mean.

    histories: rows as utils.artifacts.read_log returns them, one list a seed. reported_test: the reference's accuracy (%), dashed.
    """
    held = "test" if "test_loss" in histories[0][0] else "valid"
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    epochs = range(1, max(map(len, histories)) + 1)  # early stopping gives some seeds fewer than others
    for part, colour in (("train", TRAIN), (held, TEST)):
        losses = [[row[f"{part}_loss"] for row in history] for history in histories]
        percents = [[100 * row[f"{part}_correct"] / row[f"{part}_total"] for row in history] for history in histories]
        for axes, lines in ((loss, losses), (accuracy, percents)):
            lines = torch.tensor([line + [math.nan] * (len(epochs) - len(line)) for line in lines])
            if len(lines) > 1:
                axes.plot(epochs, lines.T.numpy(), color=colour, linewidth=0.7, alpha=0.45)
            axes.plot(epochs, lines.nanmean(0).numpy(), color=colour, linewidth=2, marker="o", markersize=3, label=part)
    if reported_test:
        accuracy.axhline(reported_test, color=GREY, linestyle="--", linewidth=1, label=f"reported test {reported_test:.2f}")
    lowest = min(
        100 * row[f"{part}_correct"] / row[f"{part}_total"] for rows in histories for row in rows[1:] or rows for part in ("train", held)
    )
    accuracy.set(title=f"{title}: accuracy", xlabel="epoch", ylabel="%", ylim=(min(lowest, reported_test or 100) - 0.3, 100.1))
    loss.set(title=f"{title}: loss", xlabel="epoch", ylabel="cross-entropy", yscale="log")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best", frameon=False)
    return _finish(figure)


def images(images: Tensor, titles: list[str], columns: int = 10) -> Figure:
    """A grid of images, each under its title. images: (N, 1, H, W), any real dtype."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns, 1.25 * rows), layout="constrained", squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for place, image, title in zip(axes.flat, images, titles, strict=False):
        place.imshow(image.squeeze(0).cpu().numpy(), cmap="gray_r")
        place.set_title(title, fontsize=9)
    return _finish(figure)


def copies(originals: Tensor, changed: list[Tensor], names: tuple[str, str] = ("original", "copy")) -> Figure:
    """Originals in the first row, a row of what became of them below for each draw. All: (N, 1, H, W); names: of both kinds of row."""
    blank = [""] * (len(originals) - 1)
    labels = [names[0], *blank]
    for draw in range(len(changed)):
        labels += [f"{names[1]} {draw + 1}", *blank]
    return images(torch.cat([originals.float(), *(copy.float() for copy in changed)]), labels, len(originals))


def mistakes(pictures: Tensor, labels: Tensor, logits: Tensor, most: int = 20) -> tuple[Figure, int]:
    """The images that a network gets wrong, the most confident first, titled [T]rue, [P]redicted and confidence.

    pictures: (N, 1, H, W); labels: (N,); logits: (N, 10). Returns the figure and how many mistakes there are in all.
    """
    confidence, predicted = logits.softmax(1).max(1)
    wrong = (predicted != labels).nonzero().squeeze(1)
    shown = wrong[confidence[wrong].argsort(descending=True)][:most]
    titles = [f"T{labels[i]} P{predicted[i]} {confidence[i]:.0%}" for i in shown]
    return images(pictures[shown], titles), len(wrong)


def steps(names: list[str], seconds: list[float]) -> Figure:
    """A bar for each step, from the slowest way (top) to the fastest, on a logarithmic axis, with what it is against the first."""
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(names) + 1), layout="constrained")
    axes.barh(names, seconds, color=[GREY, *[TEST] * (len(names) - 2), TRAIN])
    for place, value in enumerate(seconds):
        ratio = f"  {value:.1f} s" + (f"   {seconds[0] / value:.1f} ×" if place else "")
        axes.text(value, place, ratio, va="center", fontsize=9)
    axes.set(xscale="log", xlabel="seconds to 99 % on the test set (training only)", xlim=(min(seconds) / 2, max(seconds) * 4))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return _finish(figure)


def lines(x: Tensor, ys: dict[str, Tensor], title: str, xlabel: str, ylabel: str) -> Figure:
    """Curves over x, one a name; x and each curve: (N,)."""
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for (name, y), colour in zip(ys.items(), (TEST, TRAIN, WRONG, GREY), strict=False):
        axes.plot(x.numpy(), y.numpy(), color=colour, linewidth=2, label=name)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return _finish(figure)


def confusion(labels: Tensor, predicted: Tensor, classes: tuple[str, ...], name: str = "") -> Figure:
    """Counts of true (rows) against predicted (columns); the diagonal is left white, so that the mistakes stand out.

    labels, predicted: (N,); name: what is counted, before the number of mistakes in the title.
    """
    n = len(classes)
    counts = torch.bincount(labels.cpu() * n + predicted.cpu(), minlength=n * n).view(n, n)
    wrong = counts.clone().fill_diagonal_(0)
    figure, axes = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    axes.imshow(wrong.numpy(), cmap="Blues")
    for row in range(n):
        for column in range(n):
            if counts[row, column]:
                dark = wrong[row, column] > 0.6 * wrong.max()
                axes.text(column, row, int(counts[row, column]), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set(xticks=range(n), yticks=range(n), xlabel="predicted", ylabel="true")
    axes.set_title(f"{name}{': ' * bool(name)}{int(wrong.sum())} of {len(labels)} wrong")
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes)
    return _finish(figure)


def examples(pictures: Tensor, labels: Tensor, predicted: Tensor) -> Figure:
    """Images titled [T]rue and [P]redicted, the predicted in colour where it is wrong. pictures: (N, 1, H, W); labels, predicted: (N,)."""
    figure = images(pictures, [f"[T] {true}  [P] {found}" for true, found in zip(labels, predicted, strict=True)])
    for place, true, found in zip(figure.axes, labels, predicted, strict=False):
        if true != found:
            place.title.set_color(WRONG)
    return figure


def kernels(weight: Tensor) -> Figure:
    """The kernels of a first layer in a row, on one scale: orange is negative, purple positive. weight: (K, 1, H, W)."""
    figure, axes = plt.subplots(1, len(weight), figsize=(1.1 * len(weight), 1.5), layout="constrained", squeeze=False)
    for number, (place, kernel) in enumerate(zip(axes[0], weight.detach().cpu(), strict=True)):
        shown = place.imshow(kernel[0].numpy(), **_signed(weight))
        place.set_title(f"kernel {number}", fontsize=9)
        place.axis("off")
    figure.colorbar(shown, ax=axes[0].tolist(), shrink=0.8)
    return _finish(figure)


def _signed(values: Tensor) -> dict:
    """imshow's settings for values around 0, which stays white."""
    most = values.detach().abs().max().item()
    return {"cmap": "PuOr", "vmin": -most, "vmax": most}


def feature_maps(maps: Tensor, original: Tensor, columns: int = 4) -> Figure:
    """Each channel of one image's feature maps, and the image itself at the bottom right. maps: (C, H, W); original: (1, H, W)."""
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.5 * columns, 1.65 * rows), layout="constrained", squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for number, (place, channel) in enumerate(zip(axes.flat, maps.detach().cpu(), strict=False)):
        place.imshow(channel.numpy(), cmap="viridis")
        place.set_title(f"map {number}", fontsize=9)
    axes[-1, -1].imshow(original[0].cpu().numpy(), cmap="gray_r")
    axes[-1, -1].set_title("original", fontsize=9)
    return _finish(figure)


def edges(weight: Tensor) -> tuple[Figure, Tensor]:
    """What first-layer kernels answer to a horizontal and to a vertical edge (dark, then bright).

    weight: (K, 1, H, W). Returns the figure, edges in the first column, kernels in the first row; and the (2, K) strongest
    answers, with their sign.
    """
    weight = weight.detach().cpu()
    side = 4 * weight.shape[-1]
    edge = torch.zeros(2, 1, side, side)
    edge[0, :, side // 2 :] = edge[1, :, :, side // 2 :] = 1  # horizontal: bright below; vertical: bright to the right
    # without its mean a kernel does not answer to plain brightness
    answers = F.conv2d(edge, weight - weight.mean((-1, -2), keepdim=True))
    figure, axes = plt.subplots(3, len(weight) + 1, figsize=(len(weight) + 1, 3.5), layout="constrained")
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
    axes[0, 0].axis("off")
    for row, name in enumerate(("horizontal", "vertical")):
        axes[row + 1, 0].imshow(edge[row, 0].numpy(), cmap="gray")
        axes[row + 1, 0].set_title(name, fontsize=9)
    for number in range(len(weight)):
        axes[0, number + 1].imshow(weight[number, 0].numpy(), **_signed(weight))
        axes[0, number + 1].set_title(f"kernel {number}", fontsize=9)
        for row in range(2):
            axes[row + 1, number + 1].imshow(answers[row, number].numpy(), **_signed(answers))
    flat = answers.flatten(2)
    return _finish(figure), flat.gather(2, flat.abs().argmax(2, keepdim=True)).squeeze(2)


def solids(shapes: list[Tensor], titles: list[str], angles: tuple[tuple[float, float], ...] = ((15, -60), (15, 0), (80, -60))) -> Figure:
    """Clouds and voxel grids in 3D: a row of views from several angles (elevation and azimuth in degrees) for each.

    shapes: (P, 3) points, or (16, 16, 16) densities, whose axes are z, y, x: a voxel is the darker and the larger the denser it is.
    """
    figure = plt.figure(figsize=(2.6 * len(angles), 2.7 * len(shapes)), layout="constrained")
    for row, (shape, title) in enumerate(zip(shapes, titles, strict=True)):
        grid = shape.ndim == 3
        points = shape.nonzero().flip(1) if grid else shape[:: max(1, len(shape) // 3000)]
        density = shape[shape > 0] if grid else torch.ones(len(points))
        for column, (elevation, azimuth) in enumerate(angles):
            axes = figure.add_subplot(len(shapes), len(angles), row * len(angles) + column + 1, projection="3d")
            look = {"marker": "s", "s": (2 + 22 * density).numpy()} if grid else {"s": 1}
            axes.scatter(*points.T.numpy(), c=density.numpy(), cmap="Oranges", vmin=-0.3, vmax=1, depthshade=False, linewidths=0, **look)
            axes.view_init(elevation, azimuth)
            axes.set(xticklabels=[], yticklabels=[], zticklabels=[], title=title if column == 0 else "")
            axes.set_box_aspect([1, 1, 1])
            if grid:
                axes.set(xlim=(0, 15), ylim=(0, 15), zlim=(0, 15))
            else:
                axes.set(xlim=(-0.55, 0.55), ylim=(-0.55, 0.55), zlim=(-0.55, 0.55))
    return _finish(figure)


def network(model: nn.Module, shape: tuple[int, ...]) -> Image:
    """The network's graph: a box a layer, in the proportions of its output, from an input of `shape` (without N) to the right.

    Dropout, ReLU and Flatten, which change no number of values, are left out. Drawn by visualtorch (requirements-extra.txt).
    """
    import visualtorch

    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 13)
    return visualtorch.render(
        model.cpu().eval(),
        (1, *shape),
        style="flow",
        type_ignore=[nn.Dropout, nn.ReLU, nn.Flatten],
        scale_xy=5,
        min_xy=6,
        max_xy=200,
        scale_z=2,
        min_z=8,
        max_z=120,
        spacing=36,
        legend=True,
        show_dimension=True,
        font=font,
    )
