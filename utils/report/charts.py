"""Spreads of numbers, and galleries of pictures. Every function returns a closed Figure, in the colors of
utils.report.plots."""

import statistics

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .plots import TEST, WRONG, finish


def spread(groups: dict[str, list[float]], title: str, xlabel: str, marks: dict[str, float] | None = None) -> Figure:
    """Every value of every group as a dot, in a row for each group; below it the mean ± standard deviation, and a mark
    if it has one.

    groups: name → values. marks: name of a group → a value that others report of it (hollow).
    """
    marks = marks or {}
    figure, axes = plt.subplots(figsize=(6, 0.85 * len(groups) + 1.2), layout="constrained")
    for row, (name, values) in enumerate(groups.items()):
        seen: dict[float, int] = {}
        for value in sorted(values):  # equal values lie on top of each other
            height = seen[round(value, 3)] = seen.get(round(value, 3), -1) + 1
            axes.plot(value, row - 0.06 * min(height, 5), "o", color=TEST, markersize=4, alpha=0.65, markeredgewidth=0)
        sd = statistics.stdev(values) if len(values) > 1 else 0
        axes.errorbar(
            statistics.mean(values), row + 0.22, xerr=sd, fmt="|", color="black", markersize=9, capsize=3, linewidth=1
        )
        axes.text(
            0, row - 0.36, f" {name}, n = {len(values)}", transform=axes.get_yaxis_transform(), va="bottom", fontsize=9
        )
        if name in marks:
            axes.plot(
                marks[name], row, "o", markerfacecolor="white", markeredgecolor=WRONG, markersize=8, markeredgewidth=1.6
            )
    axes.set(title=title, xlabel=xlabel, yticks=[], ylim=(len(groups) - 0.5, -0.65))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
    return finish(figure)


def gallery(
    pictures: list, titles: list[str], columns: int = 5, wrong: frozenset[int] | set[int] = frozenset()
) -> Figure:
    """Gray pictures of any size as they are, black as black, each under its title. pictures: PIL images, or (H, W)
    arrays.

    wrong: places whose titles are colored.
    """
    rows = -(-len(pictures) // columns)
    figure, places = plt.subplots(
        rows, columns, figsize=(1.25 * columns, 1.35 * rows), layout="constrained", squeeze=False
    )
    for place in places.flat:
        place.axis("off")
    for number, (place, picture, title) in enumerate(zip(places.flat, pictures, titles, strict=False)):
        place.imshow(picture, cmap="gray")
        place.set_title(title, fontsize=9, color=WRONG if number in wrong else "black", parse_math=False)
    return finish(figure)
