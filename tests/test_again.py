"""Published runs, trained again: what README's table of machines says."""

from dataclasses import replace

import pytest

from tools import again
from utils import CourseError, files
from utils.experiments import EXPERIMENTS
from utils.runs import records
from utils.training.loops import Score

PUBLISHED = records.published(EXPERIMENTS["sprint"])


def line(record, images=0, off=1e-15, device="CPU, another"):
    """A published run as trained again elsewhere: `images` more right, and a loss that is `off` higher."""
    then = record.facts
    test = Score(then.test.loss + off, then.test.correct + images, then.test.total)
    environment = replace(then.environment, device=device)
    return again.Again(then.name, then.seed, environment, then.code, test, "0" * 64, then.finished)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(again, "PATH", tmp_path / "again.jsonl")

    def write(*lines):
        for one in lines:
            files.append_line(again.PATH, one)
        return again.rows()

    return write


def test_nothing_trained_again_is_said_in_a_sentence(recorded):
    assert recorded() == [] and "python -m tools.again NAME" in again.section()


def test_a_row_counts_what_is_the_same_to_the_last_digit_and_the_images_between(recorded):
    first, second = PUBLISHED[:2]
    (row,) = recorded(line(first, off=0), line(second, images=-3))
    assert row[0] == "sprint" and row[1] == "CPU, another" and "1 of 2" in row and row[-1] == 3


def test_each_kind_of_conditions_has_a_row_of_its_own_and_the_latest_line_counts(recorded):
    rows = recorded(line(PUBLISHED[0]), line(PUBLISHED[0], off=0), line(PUBLISHED[0], images=1, device="CPU, a third"))
    assert [(row[1], row[4], row[-1]) for row in rows] == [("CPU, a third", "0 of 1", 1), ("CPU, another", "1 of 1", 0)]


def test_what_is_no_longer_published_does_not_count(recorded):
    assert recorded(replace(line(PUBLISHED[0]), seed=10**6)) == []


@pytest.mark.parametrize("name, why", [("sprnt", "no experiment is called 'sprnt'"), ("teacher", "is not published")])
def test_what_cannot_be_compared_is_one_line(name, why):
    with pytest.raises(CourseError, match=why):
        again.main([name])


def test_the_repository_names_its_machines():
    """Every line is of a recorded experiment, and says on which processor, threads and torch."""
    assert all(one.name in EXPERIMENTS and one.environment.device and one.test.total for one in again.recorded())
