"""The bound below which the live page doubts a picture: where it comes from, and what it is worth."""

import numpy as np
import pytest
import torch

from tools import no_digit
from utils import CourseError, files
from utils.data.datasets import PUBLISHABLE
from utils.runs import pretrained


def test_the_bound_leaves_the_stated_share_of_digits_below_it():
    confidence = torch.linspace(0, 1, 1001)
    for share in (0.01, 0.02, 0.5):
        assert (confidence < no_digit.bound(confidence, share)).float().mean() == pytest.approx(share, abs=0.002)  # to a thousandth


def test_the_published_bound_doubts_letters_far_more_often_than_digits():
    found = files.read_json(no_digit.PATH, no_digit.NoDigit)
    assert found.network == no_digit.NETWORK and found.held_out == no_digit.HELD_OUT
    assert found.fingerprint == PUBLISHABLE["mnist"]
    assert found.share == pytest.approx(no_digit.SHARE, abs=0.002)
    model, preprocess = pretrained.load_pretrained(found.network)
    letters = no_digit.letters()
    assert letters.shape == (len(no_digit.FONTS) * len(no_digit.LETTERS), 28, 28) and letters.dtype == np.uint8
    with torch.inference_mode():
        doubted = (model(preprocess(letters)).softmax(1).max(1).values < found.least).float().mean()
    for share in (doubted, found.doubted / found.letters):  # of the published network, and of the one that saw fewer digits
        assert share > 10 * found.share


def test_no_bound_is_written_from_a_smoke_run(monkeypatch, tmp_path):
    monkeypatch.setattr(no_digit, "PATH", tmp_path / "no_digit.json")
    monkeypatch.setenv("COURSE_SMOKE", "1")
    with pytest.raises(CourseError, match="COURSE_SMOKE"):
        no_digit.main([])
    assert not no_digit.PATH.exists()
