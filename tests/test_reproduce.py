"""Published runs, trained again: what README's table of machines says."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY, train

from tools import measurements, reproduce
from utils import CourseError, files
from utils.experiments import EXPERIMENTS
from utils.runs import records

PUBLISHED = records.published(EXPERIMENTS["sprint"])


def line(record, images=0, off=1e-15, device="CPU, another"):
    """A published run as trained again elsewhere: `images` more right, and a loss that is `off` higher."""
    then = record.facts
    test = replace(then.test, loss=then.test.loss + off, correct=then.test.correct + images)
    where = replace(then.environment, device=device)
    return measurements.Reproduction(then.name, then.seed, where, then.code, test, "0" * 64, then.finished)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "REPRODUCTIONS", tmp_path / "reproductions.jsonl")

    def write(*lines):
        for one in lines:
            files.append_line(measurements.REPRODUCTIONS, one)
        return measurements.reproduction_rows()

    return write


def test_a_row_of_each_kind_of_conditions_counts_what_is_the_same_to_the_last_digit_and_the_images_between(recorded):
    first, second = PUBLISHED[:2]
    (row,) = recorded(line(first), line(first, off=0), line(second, images=-3))  # the latest line of a run counts
    assert row[0] == "sprint" and row[1] == "CPU, another" and "1 of 2" in row and row[-1] == 3
    other = recorded(line(first, images=1, device="CPU, a third"), replace(line(first), seed=10**6))[0]  # unpublished
    assert (other[1], other[4], other[-1]) == ("CPU, a third", "0 of 1", 1)


def test_what_cannot_be_compared_is_one_line(recorded, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    for name, why in (("sprnt", "no experiment is called 'sprnt'"), ("tiny", "is not published")):
        with pytest.raises(CourseError, match=why):
            reproduce.main([name])
    recorded(line(PUBLISHED[0]))
    path = measurements.REPRODUCTIONS
    path.write_text(path.read_text().replace('"sprint"', '"sprnt"', 1))
    with pytest.raises(CourseError, match=r"reproductions\.jsonl, line 1: no experiment is called 'sprnt'"):
        measurements.reproductions()


def test_a_published_run_that_is_trained_again_on_the_same_machine_is_identical(scratch, monkeypatch, capsys):
    published = train(publish=True).facts
    monkeypatch.setattr(reproduce, "REPRODUCTIONS", scratch / "reproductions.jsonl")
    reproduce.main(["tiny", "--threads", str(torch.get_num_threads())])
    [again] = files.read_lines(scratch / "reproductions.jsonl", measurements.Reproduction)
    assert again.sha256 == published.sha256 and again.test == published.test
    assert capsys.readouterr().out.startswith("tiny, seed 0: ")
