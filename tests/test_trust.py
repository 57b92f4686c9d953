"""An interval gives the values of textbooks and holds the true accuracy as often as it states."""

import math

import pytest

from utils.report import trust


@pytest.mark.parametrize(
    ("correct", "total", "expected"),
    [(5, 10, (23.66, 76.34)), (0, 10, (0.0, 27.75)), (10, 10, (72.25, 100.0)), (81, 263, (25.53, 36.62))],
)
def test_wilson_gives_what_textbooks_print(correct, total, expected):
    """The last is Newcombe's example (1998)."""
    assert trust.wilson(correct, total) == pytest.approx(expected, abs=0.006)


def test_wilson_holds_the_true_accuracy_as_often_as_it_says():
    total, p = 1000, 0.99
    inside = sum(
        math.comb(total, k) * p**k * (1 - p) ** (total - k)
        for k in range(940, total + 1)
        if trust.wilson(k, total)[0] <= 100 * p <= trust.wilson(k, total)[1]
    )
    assert 0.93 < inside < 0.97
