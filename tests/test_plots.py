"""Every picture shows what it was given: axes, titles and data."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d import Axes3D
from torch import nn

from utils import models
from utils.layers import Residual
from utils.report import diagrams, plots
from utils.report.tables import Point


def row(epoch, train, held, part="test"):
    found = {"epoch": epoch, "train_loss": 1 / train, "train_correct": train, "train_total": 100}
    return found | {f"{part}_loss": 1 / held, f"{part}_correct": held, f"{part}_total": 100}


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def shown(axes):
    return torch.from_numpy(axes.images[0].get_array().data)


def test_curves_have_a_thin_line_a_seed_and_a_thick_one_for_the_mean():
    short, long = [row(1, 80, 90)], [row(1, 90, 94), row(2, 96, 97)]
    loss, accuracy = plots.curves([short, long], "base", 99.17).axes
    assert (loss.get_title(), accuracy.get_title()) == ("base: loss", "base: accuracy")
    lines = accuracy.get_lines()
    assert len(lines) == 7  # for train and test two seeds and the mean, and the reference
    named = [line for line in lines if not line.get_label().startswith("_")]
    means = {line.get_label(): [float(y) for y in line.get_ydata() if not math.isnan(y)] for line in named}
    assert means == {"train": [85], "test": [92], "reported test 99.17": [99.17, 99.17]}  # no mean of one of two seeds
    assert lines[0].get_ydata()[0] == 80 and math.isnan(lines[0].get_ydata()[1])  # stopped early
    loss.set_ylim(0.000005, 2)
    loss.figure.canvas.draw()
    assert {"0.00001", "0.01", "1"} <= {label.get_text() for label in loss.get_yticklabels()}
    _, accuracy = plots.curves([[row(1, 80, 90, "valid"), row(2, 85, 91, "valid")]], "small_cnn").axes
    assert [line.get_label() for line in accuracy.get_lines()] == ["train", "valid"]


def test_images_and_copies():
    pictures = torch.arange(3 * 16).view(3, 1, 4, 4).float()
    figure = plots.images(pictures, ["a", "b", "c"], columns=2)
    assert titles(figure) == ["a", "b", "c", ""]
    assert torch.equal(shown(figure.axes[2]), pictures[2, 0]) and not figure.axes[3].images
    copies = titles(plots.copies(pictures, [pictures, pictures], ("input", "mask")))
    assert copies == ["input", "", "", "mask 1", "", "", "mask 2", "", ""]


def test_mistakes_are_the_most_confident_first_and_examples_color_what_is_wrong():
    labels = torch.tensor([0, 1, 2, 3])
    logits = torch.eye(10)[[0, 7, 8, 3]] * torch.tensor([[9.0], [1.0], [5.0], [9.0]])
    figure, count = plots.mistakes(torch.zeros(4, 1, 28, 28), labels, logits)
    assert count == 2 and [title[:5] for title in titles(figure)[:2]] == ["T2 P8", "T1 P7"]
    assert titles(figure)[0] == f"T2 P8 {logits[2].softmax(0).max():.0%}"
    assert plots.mistakes(torch.zeros(4, 1, 28, 28), labels, torch.eye(10)[:4])[1] == 0
    figure = plots.examples(torch.zeros(2, 1, 28, 28), torch.tensor([5, 6]), torch.tensor([5, 0]))
    assert titles(figure)[:2] == ["[T] 5  [P] 5", "[T] 6  [P] 0"]
    assert [axes.title.get_color() for axes in figure.axes[:2]] == ["black", plots.WRONG]


def test_confusion_counts():
    (axes,) = plots.confusion(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2]), ("a", "b", "c")).axes
    found = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert found == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "1"} and axes.get_title() == "1 of 4 wrong"
    assert axes.images[0].get_array().trace() == 0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


def test_a_kernel_answers_to_the_edge_that_it_looks_like():
    vertical = torch.tensor([[-1.0, 0, 1]] * 3)
    figure, strongest = plots.edges(torch.stack([vertical, vertical.T, torch.ones(3, 3)]).unsqueeze(1))
    torch.testing.assert_close(strongest, torch.tensor([[0.0, 3, 0], [3, 0, 0]]))
    assert titles(figure) == ["", "kernel 0", "kernel 1", "kernel 2", "horizontal", "", "", "", "vertical", "", "", ""]


def test_solids_show_every_voxel_from_every_angle(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes3D, "voxels", lambda _axes, filled, **_how: drawn.append(filled.nonzero()))
    grid = torch.zeros(16, 16, 16)
    grid[3, 5, 7] = 1.0  # z, y, x
    figure = plots.solids([grid, torch.rand(50, 3) - 0.5], ["grid", "cloud"])
    assert titles(figure) == ["grid", "", "cloud", ""]
    assert [(axes.elev, axes.azim) for axes in figure.axes[:2]] == [(20, -50), (10, 0)]
    assert drawn == [([7], [5], [3])] * 2  # x, y, z
    assert len(figure.axes[2].collections[0]._offsets3d[0]) == 50


def test_network_is_drawn_step_by_step():
    (axes,) = diagrams.network(models.build("base", 0.2), (1, 28, 28)).axes
    texts = [text.get_text() for text in axes.texts]
    assert texts[:4] == ["input", "1×28×28", "3×3 conv 1→8 · ReLU", "8×28×28, 72 parameters"]
    assert texts[6:8] == ["3×3 conv 8→8 · ReLU", "8×28×28, 576 parameters, dropout 0.2"]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == len(texts) / 2 == 12 and boxes[1].get_width() > boxes[4].get_width()  # half the side
    assert boxes[1].get_height() < boxes[7].get_height()  # twice the channels


def test_every_network_can_be_drawn_with_all_its_parameters_and_branches_meet_in_a_sum():
    for name in models.MODELS:
        model = models.build(name, 0.1)
        steps = diagrams.steps(model, models.input_shape(model))
        assert sum(step.parameters for step in steps) == models.count_parameters(model) and model.training, name
        assert steps[-1].shape == (10,) and all(max(step.before, default=-1) < row for row, step in enumerate(steps))
    branch = Residual(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2))
    steps = diagrams.steps(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), branch, nn.ReLU()), (1, 8, 8))
    assert [step.label for step in steps] == ["input", "3×3 conv 1→2", "3×3 conv 2→2 · BN", "+ sum · ReLU"]
    assert [step.before for step in steps] == [[], [0], [1], [1, 2]]


def test_a_class_that_asks_for_a_size_and_calls_functions_can_be_drawn():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 2, 3), nn.Linear(72, 10)

        def forward(self, x):
            x = torch.relu(self.conv(x))
            return self.linear(x.view(x.size(0), -1))

    labels = [step.label for step in diagrams.steps(Own(), (1, 8, 8))]
    assert labels == ["input", "3×3 conv 1→2", "relu", "view", "linear 72→10"]


def test_spread_has_a_dot_for_every_value_and_a_bar_for_each_mean():
    (axes,) = plots.spread({"a": [99.0, 99.0, 99.3], "b": [98.0]}, "seeds", "%").axes
    dots = [(line.get_xdata()[0], line.get_color()) for line in axes.get_lines() if line.get_marker() == "o"]
    assert [x for x, color in dots if color == plots.TEST][:4] == [99.0, 99.0, 99.3, 98.0]
    heights = [float(line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"]
    assert heights[0] != heights[1], "equal values would hide each other"
    bars = [line for line in axes.get_lines() if line.get_marker() == "|" and line.get_markersize() == 9]
    assert [float(line.get_xdata()[0]) for line in bars] == pytest.approx([99.1, 98.0])
    assert [text.get_text().strip() for text in axes.texts] == ["a, n = 3", "b, n = 1"]


def test_the_frontier_names_only_what_nothing_smaller_or_faster_beats():
    ours = [Point("small", 1000, 99.0, 0.3, 50.0), Point("large", 9000, 99.5, 0.05, 10.0)]
    ours.insert(1, Point("beaten", 2000, 98.9, None, 60.0))
    theirs = [Point("hollow", 700, 99.1, selected_on_test=True), Point("filled", 1900, 99.1)]
    size, time = plots.frontier(ours, theirs).axes
    assert {text.get_text() for text in size.texts if text.get_text()} == {"small", "large"}
    assert [text.get_text() for text in time.texts if text.get_text()] == ["large"]
    assert time.get_ylim()[0] < 99.0 - 0.3  # the whole bar is seen
    hollow, filled = size.collections[:2]
    assert hollow.get_facecolor().size == 0 and filled.get_facecolor().size
    assert hollow.get_offsets().tolist() == [[700, 99.1]] and plots.frontier([], theirs).axes
    theirs.append(Point("file", None, 99.1, bytes=900))  # the chart of bytes has those whose bytes are known
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
