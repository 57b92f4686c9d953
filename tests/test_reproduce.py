"""Published runs, trained again: what README's table of machines says."""

from dataclasses import replace

import pytest
from tiny import TINY

from tools import measurements, reproduce
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
    return measurements.Reproduction(then.name, then.seed, environment, then.code, test, "0" * 64, then.finished)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "REPRODUCTIONS", tmp_path / "reproductions.jsonl")

    def write(*lines):
        for one in lines:
            files.append_line(measurements.REPRODUCTIONS, one)
        return measurements.reproduction_rows()

    return write


def test_nothing_trained_again_is_said_in_a_sentence(recorded):
    assert recorded() == [] and "python -m tools.reproduce NAME" in measurements.reproductions_section()


def test_a_row_counts_what_is_the_same_to_the_last_digit_and_the_images_between(recorded):
    first, second = PUBLISHED[:2]
    (row,) = recorded(line(first, off=0), line(second, images=-3))
    assert row[0] == "sprint" and row[1] == "CPU, another" and "1 of 2" in row and row[-1] == 3


def test_each_kind_of_conditions_has_a_row_of_its_own_and_the_latest_line_counts(recorded):
    rows = recorded(line(PUBLISHED[0]), line(PUBLISHED[0], off=0), line(PUBLISHED[0], images=1, device="CPU, a third"))
    assert [(row[1], row[4], row[-1]) for row in rows] == [("CPU, a third", "0 of 1", 1), ("CPU, another", "1 of 1", 0)]


def test_what_is_no_longer_published_does_not_count_and_an_unknown_name_is_one_line(recorded):
    assert recorded(replace(line(PUBLISHED[0]), seed=10**6)) == []
    with pytest.raises(
        CourseError, match=r"reproductions\.jsonl, line \d+: no experiment is called 'sprnt'. Delete that line"
    ):
        recorded(replace(line(PUBLISHED[0]), name="sprnt"))


@pytest.mark.parametrize("name, why", [("sprnt", "no experiment is called 'sprnt'"), ("tiny", "is not published")])
def test_what_cannot_be_compared_is_one_line(name, why, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    with pytest.raises(CourseError, match=why):
        reproduce.main([name])


def test_the_repository_names_its_machines():
    """Every line is of a recorded experiment, and says on which processor, threads and torch."""
    assert all(
        one.name in EXPERIMENTS and one.environment.device and one.test.total for one in measurements.reproductions()
    )
