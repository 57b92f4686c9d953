"""An interval gives the values of textbooks and holds the true accuracy as often as it states."""

import math

import pytest

from utils.report import notebook


def test_wilson_gives_what_textbooks_print_and_holds_the_true_accuracy_as_often_as_it_says():
    """The last of the four is Newcombe's example (1998)."""
    known = {(5, 10): (23.66, 76.34), (0, 10): (0.0, 27.75), (10, 10): (72.25, 100.0), (81, 263): (25.53, 36.62)}
    for (correct, total), expected in known.items():
        assert notebook.wilson(correct, total) == pytest.approx(expected, abs=0.006)
    total, p, inside = 1000, 0.99, 0.0
    for k in range(940, total + 1):
        low, high = notebook.wilson(k, total)
        inside += math.comb(total, k) * p**k * (1 - p) ** (total - k) * (low <= 100 * p <= high)
    assert 0.93 < inside < 0.97
