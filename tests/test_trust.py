"""Intervals, tests and calibration give the values of textbooks and of arithmetic that fits on paper."""

import math

import pytest
import torch

from utils.report import trust


@pytest.mark.parametrize(
    ("correct", "total", "expected"), [(5, 10, (23.66, 76.34)), (0, 10, (0.0, 27.75)), (10, 10, (72.25, 100.0)), (81, 263, (25.53, 36.62))]
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


def answers(both, first, second, neither):
    counts = torch.tensor([both, first, second, neither])
    right = torch.tensor([[True, True], [True, False], [False, True], [False, False]]).repeat_interleave(counts, 0)
    return right[:, 0], right[:, 1]


def test_mcnemar_is_an_exact_test_of_a_fair_coin():
    assert trust.mcnemar(*answers(80, 1, 9, 5)) == (1, 9, pytest.approx(22 / 1024))  # 2 · (1 + 10) / 2¹⁰
    assert trust.mcnemar(*answers(80, 9, 1, 5)).p == trust.mcnemar(*answers(3, 1, 9, 0)).p, "what both get right or wrong says nothing"
    assert trust.mcnemar(*answers(90, 5, 5, 0)).p == 1 == trust.mcnemar(*answers(90, 0, 0, 10)).p
    assert trust.mcnemar(*answers(0, 600, 700, 0)).p == pytest.approx(0.00602, abs=1e-4)


def test_calibration_error_is_the_distance_between_confidence_and_accuracy():
    sure = torch.tensor([[0.9, 0.1]]).repeat(10, 1)
    labels = torch.tensor([0] * 9 + [1])
    assert trust.reliability(sure, labels).error == pytest.approx(0, abs=1e-6)
    assert trust.reliability(sure, 1 - labels).error == pytest.approx(0.8, abs=1e-6)
    mixed = torch.cat([sure, torch.tensor([[0.6, 0.4]]).repeat(10, 1)])
    found = trust.reliability(mixed, torch.cat([labels, torch.tensor([0] * 4 + [1] * 6)]), bins=10)
    assert found.error == pytest.approx(0.1, abs=1e-6)  # nothing of the one half, 0.2 of the other
    assert found.count.sum() == 20 and sorted(found.accuracy[~found.accuracy.isnan()].tolist()) == pytest.approx([0.4, 0.9])


def test_a_confidence_of_one_has_a_bin():
    assert trust.reliability(torch.eye(10), torch.arange(10)).count[-1] == 10


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_temperature_makes_the_confidence_what_the_accuracy_is(size):
    logits = torch.tensor([[size, 0.0]]).repeat(4, 1)
    labels = torch.tensor([0, 0, 0, 1])  # right in three of four, so the logit should be log 3
    found = trust.temperature(logits, labels)
    assert found == pytest.approx(size / math.log(3), rel=1e-3)
    assert (logits / found).softmax(1)[0, 0] == pytest.approx(0.75, abs=1e-3)


@pytest.fixture
def images():
    return torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", trust.CHANGES)
def test_no_change_changes_nothing_and_some_does(name, images):
    change = trust.CHANGES[name]
    nothing = 1 if name == "scaled" else 0
    assert nothing in change.strengths
    torch.testing.assert_close(change.of(images, nothing), images, atol=1e-5, rtol=0)
    for strength in change.strengths:
        changed = change.of(images, strength)
        assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1.00001
        assert strength == nothing or not torch.allclose(changed, images, atol=1e-2)


def test_changes_do_what_they_are_called(images):
    torch.testing.assert_close(trust.rotated(images, 90), images.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(trust.shifted(images, 3)[..., 3:], images[..., :-3], atol=1e-5, rtol=0)
    assert trust.shifted(images, 3)[..., :3].abs().max() < 1e-5
    torch.testing.assert_close(trust.inverted(images, 1), 1 - images)
    small = trust.scaled(torch.ones(1, 1, 28, 28), 0.5)
    assert small.sum() == pytest.approx(14 * 14, rel=0.05) and small[..., 13, 13] == 1
    point = torch.zeros(1, 1, 27, 27)
    point[..., 13, 13] = 1
    blurred = trust.blurred(point, 1.0)
    assert blurred.sum() == pytest.approx(1, abs=1e-5) and blurred.max() == pytest.approx(1 / (2 * math.pi), rel=0.01)
    assert torch.equal(trust.noisy(images, 0.3), trust.noisy(images, 0.3))
