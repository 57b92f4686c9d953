"""Held-out images of known and of new writers: what is held out."""

import numpy as np
import pytest
import torch

from tools import writers
from utils import CourseError
from utils.data import Split, datasets

WRITERS = torch.arange(20_000) % 500  # forty images each


def test_images_or_whole_writers_are_held_out_and_each_split_differs():
    for by_writer in (False, True):
        out = [writers.held_out(WRITERS, by_writer, split) for split in (0, 0, 1)]
        assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2]) and out[0].sum() == 10_000
        shared = torch.isin(WRITERS[out[0]], WRITERS[~out[0]])
        assert not shared.any() if by_writer else shared.all()


def test_the_writers_are_those_of_the_images_or_the_files_are_named(mnist, tmp_path, monkeypatch):
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    half = Split(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([5, 0, 4]))
    data = datasets.replace(mnist, train=half, test=half)
    monkeypatch.setattr(datasets, "folders", lambda: [tmp_path])
    monkeypatch.setattr(writers.sources, "download", lambda *_: None)
    with pytest.raises(
        CourseError, match=r"no writers found: put qmnist-train-labels-idx2-int and .* into .*QMNIST/raw"
    ):
        writers.writer_numbers(data)
    rows = np.array([[5, 4, 2154, 0, 0, 0, 0, 0], [0, 4, 9, 0, 0, 0, 0, 0], [4, 4, 2154, 0, 0, 0, 0, 0]], ">i4")
    head = b"\0\0\x0c\x02" + np.array(rows.shape, ">u4").tobytes()
    for part in ("train", "test"):
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(head + rows.tobytes())
    assert [one.tolist() for one in writers.writer_numbers(data)] == [[2154, 9, 2154]] * 2
    rows[1, 0] = 1  # another label than MNIST's
    (raw / "qmnist-test-labels-idx2-int").write_bytes(head + rows.tobytes())
    with pytest.raises(CourseError, match="qmnist-test-labels-idx2-int: expected MNIST's labels in the first"):
        writers.writer_numbers(data)
