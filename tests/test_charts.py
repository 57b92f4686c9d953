"""Charts of spreads show every value that they were given."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from utils.report import plots
from utils.report.tables import Point


def test_spread_has_a_dot_for_every_value_and_a_hollow_mark_for_what_is_reported():
    (axes,) = plots.spread({"a": [99.0, 99.0, 99.3], "b": [98.0]}, "seeds", "%", {"b": 98.5}).axes
    dots = [(line.get_xdata()[0], line.get_color()) for line in axes.get_lines() if line.get_marker() == "o"]
    assert [x for x, color in dots if color == plots.TEST][:4] == [99.0, 99.0, 99.3, 98.0]
    heights = [float(line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"]
    assert heights[0] != heights[1], "equal values would hide each other"
    marks = [line for line in axes.get_lines() if line.get_markeredgecolor() == plots.WRONG]
    assert [mark.get_xdata()[0] for mark in marks] == [98.5]
    bars = [line for line in axes.get_lines() if line.get_marker() == "|" and line.get_markersize() == 9]
    assert [float(line.get_xdata()[0]) for line in bars] == pytest.approx([99.1, 98.0])
    assert [text.get_text().strip() for text in axes.texts] == ["a, n = 3", "b, n = 1"]


def test_a_gallery_shows_every_picture_and_colours_the_wrong_titles():
    pictures = [np.arange(12).reshape(3, 4), Image.new("L", (5, 2)), np.zeros((28, 28))]
    figure = plots.gallery(pictures, ["a", "b", "c"], columns=2, wrong={1})
    assert [axes.images[0].get_array().shape for axes in figure.axes[:3]] == [(3, 4), (2, 5), (28, 28)]
    assert not figure.axes[3].images
    assert [axes.title.get_color() for axes in figure.axes[:3]] == ["black", plots.WRONG, "black"]


def test_the_frontier_names_only_what_nothing_smaller_or_faster_beats():
    ours = [
        Point("small", 1000, 99.0, 0.3, 50.0),
        Point("beaten", 2000, 98.9, None, 60.0),
        Point("large", 9000, 99.5, 0.05, 10.0),
    ]
    theirs = [Point("hollow", 700, 99.1, selected_on_test=True), Point("filled", 1900, 99.1)]
    size, time = plots.frontier(ours, theirs).axes
    assert {text.get_text() for text in size.texts if text.get_text()} == {"small", "large"}
    assert [text.get_text() for text in time.texts if text.get_text()] == ["large"]
    assert time.get_ylim()[0] < 99.0 - 0.3  # the whole bar is seen
    hollow, filled = size.collections[:2]
    assert hollow.get_facecolor().size == 0 and filled.get_facecolor().size
    assert hollow.get_offsets().tolist() == [[700, 99.1]] and plots.frontier([], theirs).axes


def test_the_chart_of_bytes_has_the_figures_of_others_whose_bytes_are_known():
    theirs = [Point("file", None, 99.1, bytes=900), Point("other", 50, 98)]
    [axes] = plots.frontier([Point("ours", 1000, 99.0, bytes=700)], theirs, ["bytes"]).axes
    assert [one.get_offsets().tolist() for one in axes.collections[:2]] == [[], [[900, 99.1]]]


def test_names_of_a_crowd_lie_apart_and_no_line_runs_through_one():
    best = {4: 99.06, 18: 99.46, 225: 99.49, 320: 99.5, 470: 99.55, 1590: 99.56, 1700: 99.68}
    beaten = {245: 99.3, 285: 99.28, 350: 99.3, 420: 99.21, 440: 99.32, 980: 99.1, 1030: 99.42}
    ours = [Point(f"network_of_{time}_s", 1000, accuracy, 0.06, time) for time, accuracy in (best | beaten).items()]
    axes = plots.frontier(ours, []).axes[1]
    names = [text for text in axes.texts if text.get_text()]
    lines = [text for text in axes.texts if not text.get_text()]
    boxes = [name.get_window_extent() for name in names]
    assert len(boxes) == len(best) and not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for box, line in zip(boxes, lines, strict=True):
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        begin = axes.transData.transform(line.xy)
        spots = [begin + np.array(line.xyann) * axes.figure.dpi / 72 * part for part in np.linspace(0, 1, 50)]
        assert not any(other.contains(*spot) for other in boxes for spot in spots)
