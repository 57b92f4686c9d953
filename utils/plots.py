"""Curves, samples, augmented copies, mistakes and the confusion matrix. Every function returns a closed Figure.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; the background is opaque white, so that a
picture is readable on a dark page too.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

TRAIN, TEST, GREY = "#E69F00", "#0072B2", "#999999"


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
    epochs = [row["epoch"] for row in histories[0]]
    for part, colour in (("train", TRAIN), (held, TEST)):
        losses = [[row[f"{part}_loss"] for row in history] for history in histories]
        percents = [[100 * row[f"{part}_correct"] / row[f"{part}_total"] for row in history] for history in histories]
        for axes, lines in ((loss, torch.tensor(losses)), (accuracy, torch.tensor(percents))):
            if len(lines) > 1:
                axes.plot(epochs, lines.T, color=colour, linewidth=0.7, alpha=0.45)
            axes.plot(epochs, lines.mean(0), color=colour, linewidth=2, marker="o", markersize=3, label=part)
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
        place.imshow(image.squeeze(0).cpu(), cmap="gray_r")
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


def confusion(labels: Tensor, predicted: Tensor, classes: tuple[str, ...]) -> Figure:
    """Counts of true (rows) against predicted (columns); the diagonal is left white, so that the mistakes stand out."""
    n = len(classes)
    counts = torch.bincount(labels.cpu() * n + predicted.cpu(), minlength=n * n).view(n, n)
    wrong = counts.clone().fill_diagonal_(0)
    figure, axes = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    axes.imshow(wrong, cmap="Blues")
    for row in range(n):
        for column in range(n):
            if counts[row, column]:
                dark = wrong[row, column] > 0.6 * wrong.max()
                axes.text(column, row, int(counts[row, column]), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set(xticks=range(n), yticks=range(n), xlabel="predicted", ylabel="true", title=f"{int(wrong.sum())} of {len(labels)} wrong")
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes)
    return _finish(figure)
