"""Spreads of numbers, and galleries of pictures. Each function returns a closed Figure, in the colors of plots."""

import statistics

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .plots import TEST, WRONG, finish, grid


def spread(groups: dict[str, list[float]], title: str, xlabel: str, marks: dict[str, float] | None = None) -> Figure:
    """A row for each group: every value as a dot, mean ± standard deviation, and a hollow mark for a reported value.

    groups: name → values. marks: name of a group → the value that others report.
    """
    marks = marks or {}
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
        if name in marks:
            axes.plot(marks[name], row, "o", mfc="white", mec=WRONG, markersize=8, markeredgewidth=1.6)
    axes.set(title=title, xlabel=xlabel, yticks=[], ylim=(len(groups) - 0.5, -0.65))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
    return finish(figure)


def gallery(
    pictures: list, titles: list[str], columns: int = 5, wrong: frozenset[int] | set[int] = frozenset()
) -> Figure:
    """Gray pictures (PIL or arrays), each below its title. wrong: the places whose titles are colored."""
    figure, places = grid(len(pictures), columns, (1.25, 1.35))
    for number, (place, picture, title) in enumerate(zip(places, pictures, titles, strict=True)):
        place.imshow(picture, cmap="gray")
        place.set_title(title, fontsize=9, color=WRONG if number in wrong else "black", parse_math=False)
    return finish(figure)
