"""Curves, samples, mistakes, confusion, kernels, feature maps, spreads. Each function returns a closed Figure.

The colors are those of Okabe and Ito, for color-blind readers; the background is opaque white, for dark pages.
"""

import math
import statistics
from collections.abc import Collection, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from matplotlib.transforms import Bbox
from torch import Tensor
from torch.nn import functional as F

from ..runs.records import percent

TRAIN, TEST, GRAY, WRONG = "#E69F00", "#0072B2", "#999999", "#D55E00"


def finish(figure: Figure) -> Figure:
    figure.set_facecolor("white")
    plt.close(figure)  # otherwise a notebook would show it twice
    return figure


def grid(count: int, columns: int, inches: tuple[float, float], margin: float = 0.0) -> tuple[Figure, list[plt.Axes]]:
    """A figure with `count` axes without frames, each (width, height) inches; margin: more width."""
    rows, columns = max(1, -(-count // columns)), min(count, columns) if margin else columns
    size = (inches[0] * columns + margin, inches[1] * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for place in axes.flat:
        place.axis("off")
    return figure, list(axes.flat)[:count]


class PlainLog(LogFormatter):
    """Labels of a log axis as plain numbers, such as 0.01, where LogFormatter labels anything."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return np.format_float_positional(x, 6, fractional=False, trim="-") if super().__call__(x, pos) else ""


def curves(histories: list[list[dict]], title: str, reported_test: float | None = None) -> Figure:
    """Loss above accuracy over the epochs: a thin line for each seed, a thick one for the mean until the first stops.

    histories: rows as records.read_log returns them, one list per seed. reported_test: in %, a dashed line.
    """
    held = "test" if "test_loss" in histories[0][0] else "valid"
    figure, (loss, accuracy) = plt.subplots(2, 1, figsize=(6, 5.4), sharex=True, layout="constrained")
    epochs = range(1, max(map(len, histories)) + 1)  # early stopping gives some seeds fewer than others
    marks = {"linewidth": 2, "marker": "o", "markersize": 3}
    lowest = reported_test or 100
    for part, color in (("train", TRAIN), (held, TEST)):
        losses = [[row[f"{part}_loss"] for row in history] for history in histories]
        percents = [[percent(row, part) for row in history] for history in histories]
        # the first tenth may be cut off
        lowest = min(lowest, *(min(line[len(line) // 10 or 1 :] or line) for line in percents))
        for axes, lines in ((loss, losses), (accuracy, percents)):
            lines = torch.tensor([line + [math.nan] * (len(epochs) - len(line)) for line in lines])
            if len(lines) > 1:
                axes.plot(epochs, lines.T.numpy(), color=color, linewidth=0.7, alpha=0.45)
            axes.plot(epochs, lines.mean(0).numpy(), color=color, label=part, **marks)
    if reported_test:
        label = f"reported test {reported_test:.2f}"
        accuracy.axhline(reported_test, color=GRAY, linestyle="--", linewidth=1, label=label)
    accuracy.set(title=f"{title}: accuracy", xlabel="epoch", ylabel="%", ylim=(lowest - 0.3, 100.1))
    loss.set(title=f"{title}: loss", ylabel="cross-entropy", yscale="log")
    loss.yaxis.set_major_formatter(PlainLog())
    loss.yaxis.set_minor_formatter(PlainLog(labelOnlyBase=False, minor_thresholds=(1, 0.4)))
    for axes in (loss, accuracy):
        axes.title.set_parse_math(False)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best", frameon=False)
    return finish(figure)


def gallery(
    pictures: Sequence,
    titles: list[str],
    columns: int = 5,
    wrong: Collection[int] = (),
    inches: tuple[float, float] = (1.25, 1.35),
    colors: str = "gray",
) -> Figure:
    """Gray pictures (PIL or arrays), each below its title. wrong: the places whose titles are colored."""
    figure, places = grid(len(pictures), columns, inches)
    for number, (place, picture, title) in enumerate(zip(places, pictures, titles, strict=False)):
        place.imshow(picture, cmap=colors)
        place.set_title(title, fontsize=9, color=WRONG if number in wrong else "black", parse_math=False)
    return finish(figure)


def images(images: Tensor, titles: list[str], columns: int = 5, wrong: Collection[int] = ()) -> Figure:
    """A gallery of images as dark on light. images: (N, 1, H, W), any real dtype."""
    return gallery(images.squeeze(1).cpu().numpy(), titles, columns, wrong, (1, 1.25), "gray_r")


def copies(originals: Tensor, changed: list[Tensor], names: tuple[str, str] = ("original", "copy")) -> Figure:
    """Originals in the first row, and below it a row of changed copies for each draw. All: (N, 1, H, W)."""
    blank = [""] * (len(originals) - 1)
    labels = [names[0], *blank]
    for draw in range(len(changed)):
        labels += [f"{names[1]} {draw + 1}", *blank]
    return images(torch.cat([originals.float(), *(copy.float() for copy in changed)]), labels, len(originals))


def mistakes(pictures: Tensor, labels: Tensor, logits: Tensor, most: int = 20) -> tuple[Figure, int]:
    """The images that a network gets wrong, the most confident first, titled [T]rue, [P]redicted and confidence.

    pictures: (N, 1, H, W), labels: (N,), logits: (N, 10). Returns the figure and the number of all mistakes.
    """
    confidence, predicted = logits.softmax(1).max(1)
    wrong = (predicted != labels).nonzero().squeeze(1)
    shown = wrong[confidence[wrong].argsort(descending=True)][:most]
    titles = [f"T{labels[i]} P{predicted[i]} {confidence[i]:.0%}" for i in shown]
    return images(pictures[shown], titles), len(wrong)


def steps(names: list[str], seconds: list[float]) -> Figure:
    """A bar for each step, from the slowest way (top) to the fastest, with its ratio to the first."""
    figure, axes = plt.subplots(figsize=(6, 0.62 * len(names) + 0.8), layout="constrained")
    axes.barh(range(len(names)), seconds, height=0.35, color=[GRAY, *[TEST] * (len(names) - 2), TRAIN])
    for place, (name, value) in enumerate(zip(names, seconds, strict=True)):
        ratio = f", {seconds[0] / value:.1f} ×" if place else ""
        axes.text(0, place - 0.24, f" {name}: {value:.1f} s{ratio}", va="bottom", fontsize=10)
    axes.set(xlabel="seconds to 99 % on the test set (training only)", yticks=[])
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    return finish(figure)


def lines(x: Tensor, ys: dict[str, Tensor], title: str, xlabel: str, ylabel: str) -> Figure:
    """One curve over x for each name; x and each curve: (N,)."""
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for (name, y), color in zip(ys.items(), (TEST, TRAIN, WRONG, GRAY), strict=False):
        axes.plot(x.numpy(), y.numpy(), color=color, linewidth=2, label=name)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return finish(figure)


def confusion(labels: Tensor, predicted: Tensor, classes: tuple[str, ...], name: str = "") -> Figure:
    """Counts of true (rows) against predicted (columns), colored except on the diagonal.

    labels, predicted: (N,); name: what is counted, for the title.
    """
    n = len(classes)
    counts = torch.bincount(labels.cpu() * n + predicted.cpu(), minlength=n * n).view(n, n)
    wrong = counts.clone().fill_diagonal_(0)
    figure, axes = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    axes.imshow(wrong.numpy(), cmap="Blues")
    for row in range(n):
        for column in range(n):
            if count := int(counts[row, column]):
                color = "white" if wrong[row, column] > 0.6 * wrong.max() else "black"
                axes.text(column, row, count, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(n), classes)
    axes.set_yticks(range(n), classes)
    mistakes = int(wrong.sum())
    title = f"{f'{name}: ' if name else ''}{mistakes} of {len(labels)} wrong"
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return finish(figure)


def examples(pictures: Tensor, labels: Tensor, predicted: Tensor) -> Figure:
    """Images titled [T]rue and [P]redicted, in color if wrong. pictures: (N, 1, H, W); labels, predicted: (N,)."""
    titles = [f"[T] {true}  [P] {found}" for true, found in zip(labels, predicted, strict=True)]
    return images(pictures, titles, wrong=(labels != predicted).nonzero().flatten().tolist())


def kernels(weight: Tensor) -> Figure:
    """The kernels of a first layer, on one scale: orange is negative, purple positive. weight: (K, 1, H, W)."""
    figure, places = grid(len(weight), 5, (1.1, 1.35), margin=0.6)
    for number, (place, kernel) in enumerate(zip(places, weight.detach().cpu(), strict=True)):
        shown = place.imshow(kernel[0].numpy(), **_signed(weight))
        place.set_title(f"kernel {number}", fontsize=9)
    figure.colorbar(shown, ax=figure.axes, shrink=0.8)
    return finish(figure)


def _signed(values: Tensor) -> dict:
    """imshow's settings for values around 0, which stays white."""
    most = values.detach().abs().max().item()
    return {"cmap": "PuOr", "vmin": -most, "vmax": most}


def feature_maps(maps: Tensor, original: Tensor, columns: int = 4) -> Figure:
    """Each channel of one image's feature maps (C, H, W), and the image (1, H, W) at the bottom right."""
    figure, places = grid(len(maps) + 1, columns, (1.5, 1.65))
    for number, (place, channel) in enumerate(zip(places, maps.detach().cpu(), strict=False)):
        place.imshow(channel.numpy(), cmap="viridis")
        place.set_title(f"map {number}", fontsize=9)
    figure.axes[-1].imshow(original[0].cpu().numpy(), cmap="gray_r")
    figure.axes[-1].set_title("original", fontsize=9)
    return finish(figure)


def edges(weight: Tensor) -> tuple[Figure, Tensor]:
    """The responses of first-layer kernels to a horizontal and a vertical edge (dark, then bright).

    weight: (K, 1, H, W). Returns the figure (in blocks of five kernels: edges in the first column, kernels in the first
    row) and the (2, K) strongest responses, with their sign.
    """
    weight = weight.detach().cpu()
    side = 4 * weight.shape[-1]
    edge = torch.zeros(2, 1, side, side)
    edge[0, :, side // 2 :] = edge[1, :, :, side // 2 :] = 1  # horizontal: bright below; vertical: bright to the right
    # without its mean a kernel ignores plain brightness
    answers = F.conv2d(edge, weight - weight.mean((-1, -2), keepdim=True))
    blocks, columns = -(-len(weight) // 5), min(len(weight), 5)
    figure, axes = plt.subplots(3 * blocks, columns + 1, figsize=(columns + 1, 3.5 * blocks), layout="constrained")
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
        place.set_frame_on(False)
    for block in range(0, 3 * blocks, 3):
        for row, name in enumerate(("horizontal", "vertical")):
            axes[block + row + 1, 0].imshow(edge[row, 0].numpy(), cmap="gray")
            axes[block + row + 1, 0].set_title(name, fontsize=9)
            axes[block + row + 1, 0].set_frame_on(True)
    for number in range(len(weight)):
        block, column = number // columns * 3, number % columns + 1
        axes[block, column].imshow(weight[number, 0].numpy(), **_signed(weight))
        axes[block, column].set_title(f"kernel {number}", fontsize=9)
        for row in range(2):
            axes[block + row + 1, column].imshow(answers[row, number].numpy(), **_signed(answers))
    flat = answers.flatten(2)
    return finish(figure), flat.gather(2, flat.abs().argmax(2, keepdim=True)).squeeze(2)


def solids(shapes: list[Tensor], titles: list[str]) -> Figure:
    """Clouds and voxel grids in 3D, each in a row of views from two angles (elevation, azimuth in degrees).

    shapes: (P, 3) points, or (16, 16, 16) densities with axes z, y, x, where denser cubes are darker and more opaque.
    """
    angles = (20, -50), (10, 0)
    figure = plt.figure(figsize=(2.8 * len(angles), 2.9 * len(shapes)), layout="constrained")
    for row, (shape, title) in enumerate(zip(shapes, titles, strict=True)):
        for column, (elevation, azimuth) in enumerate(angles):
            axes = figure.add_subplot(len(shapes), len(angles), row * len(angles) + column + 1, projection="3d")
            if shape.ndim == 3:
                density = shape.permute(2, 1, 0).numpy()
                colors = plt.get_cmap("Oranges")(0.25 + 0.75 * density)
                colors[..., 3] = (0.15 + density).clip(max=1)
                axes.voxels(density > 0, facecolors=colors, shade=True)
                axes.set(xlim=(0, 16), ylim=(0, 16), zlim=(0, 16))
            else:
                points = shape[:: max(1, len(shape) // 3000)].T.numpy()
                axes.scatter(*points, c=WRONG, s=1, depthshade=False, linewidths=0)
                axes.set(xlim=(-0.55, 0.55), ylim=(-0.55, 0.55), zlim=(-0.55, 0.55))
            axes.view_init(elevation, azimuth)
            axes.tick_params(labelbottom=False, labelleft=False)  # empty labels break the layout of matplotlib 3.10
            axes.set_title(title if column == 0 else "", parse_math=False)
            axes.set_box_aspect([1, 1, 1])
    return finish(figure)


def principal_axes(grid: Tensor, middle: Tensor, axes: Tensor, view: Tensor) -> Figure:
    """A solid with its principal axes, the shortest one orange, and the solid as seen along that axis.

    grid: (16, 16, 16) densities, axes z, y, x. middle: (3,) x, y, z in voxels from the grid's center. axes: (3, 3),
    rows of half the length to draw, the shortest first. view: (H, W).
    """
    figure = plt.figure(figsize=(6, 3), layout="constrained")
    solid, flat = figure.add_subplot(1, 2, 1, projection="3d"), figure.add_subplot(1, 2, 2)
    density, places = grid[grid > 0].numpy(), grid.nonzero().T.flip(0).numpy() - 7.5
    solid.scatter(*places, c=density, cmap="Greys", vmin=-1, vmax=1, s=45, alpha=0.7, linewidths=0)
    for axis, color in zip(axes, (WRONG, TEST, TEST), strict=True):
        solid.plot(*torch.stack([middle - axis, middle + axis]).T.numpy(), color=color, linewidth=3)
    solid.set(xlim=(-8, 8), ylim=(-8, 8), zlim=(-8, 8), title="principal axes")
    solid.set_box_aspect([1, 1, 1], zoom=1.6)
    solid.set_axis_off()
    flat.imshow(view.numpy(), cmap="gray_r")
    flat.set(title="seen along the orange axis", xticks=[], yticks=[])
    return finish(figure)


def spread(groups: dict[str, list[float]], title: str, xlabel: str) -> Figure:
    """A row for each group (name → values): every value as a dot, and mean ± standard deviation."""
    figure, axes = plt.subplots(figsize=(6, 0.85 * len(groups) + 1.2), layout="constrained")
    for row, (name, values) in enumerate(groups.items()):
        seen: dict[float, int] = {}
        for value in sorted(values):  # equal values lie on top of each other
            height = seen[round(value, 3)] = seen.get(round(value, 3), -1) + 1
            axes.plot(value, row - 0.06 * min(height, 5), "o", color=TEST, markersize=4, alpha=0.65, markeredgewidth=0)
        sd = statistics.stdev(values) if len(values) > 1 else 0
        bar = {"fmt": "|", "color": "black", "markersize": 9, "capsize": 3, "linewidth": 1}
        axes.errorbar(statistics.mean(values), row + 0.22, xerr=sd, **bar)
        left = axes.get_yaxis_transform()
        axes.text(0, row - 0.36, f" {name}, n = {len(values)}", transform=left, va="bottom", fontsize=9)
    axes.set(title=title, xlabel=xlabel, yticks=[], ylim=(len(groups) - 0.5, -0.65))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
    return finish(figure)


COSTS = {  # of a network, and the axis and the title of the chart of accuracy against it
    "parameters": ("parameters", "accuracy against size"),
    "seconds": ("seconds of training, one seed (processors differ and were shared)", "accuracy against time"),
    "bytes": ("bytes: of the packed file, or 4 for each parameter", "accuracy against bytes"),
}


def frontier(
    ours: list, theirs: list, costs: Sequence[str] = ("parameters", "seconds"), size: Sequence[float] = (5.4, 4.5)
) -> Figure:
    """Test accuracy against each of the costs (keys of COSTS), one chart below the other. size: of a chart, in inches.

    ours: tables.Point, measured here (mean ± standard deviation over the seeds). theirs: tables.Point, reported by
    others, in the first chart only; hollow if chosen on the test set. A line joins the networks that no network of
    lower cost beats, and only they have a name.
    """
    inches = size[0], size[1] * len(costs)
    figure, charts = plt.subplots(len(costs), 1, figsize=inches, layout="constrained", squeeze=False)
    theirs = [point for point in theirs if getattr(point, costs[0])]
    for chosen, face in ((True, "none"), (False, GRAY)):
        some = [point for point in theirs if point.selected_on_test == chosen]
        label = "reported by others, chosen on the test set" if chosen else "reported by others"
        places = [getattr(p, costs[0]) for p in some], [p.accuracy for p in some]
        label = label if some else "_"  # which the legend leaves out
        charts[0, 0].scatter(*places, s=34, facecolors=face, edgecolors=GRAY, label=label)
    figure.get_layout_engine().set(hspace=0.06)
    names = []
    for axes, field in zip(charts[:, 0], costs, strict=True):
        best, ends = _chart(axes, field, ours)
        others = [(getattr(p, field), p.accuracy) for p in theirs if field == costs[0]]
        lowest = min((y for _, y in (*ends, *others)), default=98)
        axes.set(ylim=(max(lowest, 97.8) - 0.1, 100))
        names.append((axes, [(p.name, getattr(p, field), p.accuracy) for p in best], ends + others))
    figure.legend(*charts[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center")
    figure.canvas.draw()  # computes the layout, which decides what covers what
    for axes, wanted, points in names:
        _name(axes, wanted, axes.transData.transform(points) if points else [])
    return finish(figure)


def _chart(axes: plt.Axes, field: str, ours: list) -> tuple[list, list[tuple[float, float]]]:
    """Draw our networks against one cost. Returns the unbeaten ones, and the ends and middles of all bars."""
    x, y, bars = ([getattr(p, key) for p in ours] for key in (field, "accuracy", "sd"))
    bars = [bar or 0 for bar in bars]
    label = "this course, mean ± sd of all seeds"
    axes.errorbar(x, y, bars, fmt="o", markersize=5, color=TEST, capsize=2, label=label)

    def unbeaten(p: object) -> bool:
        return all(p.accuracy > q.accuracy or p is q for q in ours if getattr(q, field) <= getattr(p, field))

    best = sorted(filter(unbeaten, ours), key=lambda p: getattr(p, field))
    line = [getattr(p, field) for p in best], [p.accuracy for p in best]
    axes.plot(*line, color=TEST, linewidth=1, alpha=0.5, zorder=1)
    label, title = COSTS[field]
    axes.margins(x=0.1)
    axes.set(xscale="log", xlabel=label, ylabel="test accuracy, %", title=title)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return best, [(x, y + side * bar) for x, y, bar in zip(x, y, bars, strict=True) for side in (-1, 0, 1)]


def _name(axes: plt.Axes, wanted: list[tuple[str, float, float]], points: list) -> None:
    """Write each (name, x, y), with a line to it, inside the axes, where it covers the fewest points, names and lines,
    and there as near as possible."""
    taken, names = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in points], []
    far, right = (14, -14, 26, -26, 40, -40, 54, -54, 68, -68), (0, -24, -48, 24, -72, 48, -96, 72)
    places, centered = [(x, y) for y in far for x in right], {"ha": "center", "va": "center", "color": TEST}
    for name, x, y in reversed(wanted):  # at the right end there is least room
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=8.5, **centered)
        text.set_in_layout(False)
        start, found = axes.transData.transform((x, y)), []
        for place in places:
            text.set_position(place)
            end = place[0], place[1] - math.copysign(6, place[1])
            box = text.get_window_extent().padded(2)
            line = start + np.linspace(0, 1, 20)[:, None] * end * axes.figure.dpi / 72
            outside = axes.bbox.count_contains(box.corners()) < 4
            covers = sum(box.overlaps(other) for other in taken)
            covers += sum(other.contains(*spot) for other in names for spot in line)
            found.append((outside, covers, place, end, box, line))
            if not (outside or covers):
                break
        _, _, place, end, box, line = min(found, key=lambda one: one[:2])
        text.set_position(place)
        names.append(box)
        taken += [box, *(Bbox.from_extents(*spot, *spot).padded(1) for spot in line)]
        arrow = {"arrowstyle": "-", "color": TEST, "lw": 0.6}
        axes.annotate("", (x, y), end, textcoords="offset points", arrowprops=arrow)
