"""Every row of the benchmark can be measured, and what is published changes only on request."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import dataset

from tools import measurements
from tools.measurements import MACHINE_STEPS, RECIPE_STEPS, TO_99
from tools.speed import measure, rows
from utils import ROOT, CourseError, files
from utils.data import datasets
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.runs import facts

COUNTED = {"time to": "accuracy", "held-out": "accuracy", "60 digits": "rows"}  # what the work of a row reports


@pytest.mark.parametrize("row", [row for row in rows.ROWS if row not in measurements.DAILY])
def test_every_row_can_be_measured(row, monkeypatch):
    """With a few images, which are learned in no time."""
    few = dataset(train=600)
    cubes = replace(few, kind="voxels", train=Split(torch.rand(60, 1, 16, 16, 16), few.train.labels[:60]))
    monkeypatch.setattr(datasets, "load", lambda name: few if name == "mnist" else cubes)
    monkeypatch.setattr(rows, "voxels_of_60_digits", lambda data: data.test.images[:1, 0].numpy())
    for side in rows.ROWS[row].sides:
        found = measure.once(row, side, 3)
        assert found["seed"] == 3 and 0 < found["seconds"] < 300 and found["peak_mib"] > 0, side
        assert all(found[key] > 0 for word, key in COUNTED.items() if word in row)


def test_a_fresh_process_measures_and_its_failure_is_one_error(monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    found = rows.in_fresh_process("--once", "loading MNIST", "data.load", "3")
    assert found["seed"] == 3 and found["images"] > 0
    monkeypatch.setattr(rows.sys, "executable", "false")  # the command of that name
    with pytest.raises(CourseError, match="--once nothing course 0 failed: "):
        rows.in_fresh_process("--once", "nothing", "course", "0")


def test_a_command_runs_in_a_folder_of_its_own_with_its_seed(tmp_path):
    script = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['COURSE_RUNS'])"
    rows.command("-c", script, f"{tmp_path}/seed {{seed}}").work(None, 5)
    assert not Path((tmp_path / "seed 5").read_text()).exists()  # gone with its process


def test_an_epoch_costs_its_arithmetic_or_its_traffic():
    found = measure.floor(EXPERIMENTS["mnist_ultrasmall"].recipe, 6_000)
    slower = max(found["gflop"] / found["gflop_per_s"], found["gbyte"] / found["gbyte_per_s"])
    assert found["floor_seconds"] == pytest.approx(slower) and slower > 0


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A copy of the published benchmark; measuring gives every side 1 second."""
    before, again = measurements.read(), [{"seconds": 1.0, "peak_mib": 1.0, "accuracy": 99.0, "epochs": 1, "seed": 0}]
    found = {row: dict.fromkeys(rows.ROWS[row].sides, again) for row in rows.ROWS}
    for module in (measurements, measure):
        monkeypatch.setattr(module, "path", lambda kind="", root=ROOT: tmp_path / ("here" if root == ROOT else "own"))
    files.write_json(tmp_path / "here", before)
    monkeypatch.setattr(datasets, "load", lambda name: dataset(train=60))
    monkeypatch.setattr(measure, "measure", lambda chosen: {row: found[row] for row in chosen})
    monkeypatch.setattr(facts, "code", lambda: facts.Code("a" * 40, "b" * 16))
    monkeypatch.setattr(measure, "floor", lambda _recipe: {"floor_seconds": 1.0})
    return before


def test_a_reader_s_benchmark_leaves_the_published_one_alone(published, tmp_path):
    before = (tmp_path / "here").read_bytes()
    measure.main([])
    with pytest.raises(CourseError, match="only a benchmark on the whole real MNIST can be published"):
        measure.main(["--publish"])
    assert (tmp_path / "here").read_bytes() == before and (tmp_path / "own").is_file()


def test_rows_that_are_measured_again_replace_published_ones_and_name_their_machine(published, monkeypatch):
    monkeypatch.setitem(datasets.PUBLISHABLE, dataset().name, dataset(train=60).fingerprint)
    measure.main(["--publish", "--only", TO_99, "loading"])
    after = measurements.read()
    changed = {row for row in after.rows if after.rows[row] != published.rows[row]}
    assert changed == {TO_99, "loading MNIST"} and after.rows.keys() == published.rows.keys()
    assert after.floor == published.floor and after.machine(TO_99).data == dataset().name
    assert f"“{TO_99}” was measured on " in measurements.note(after, [TO_99, MACHINE_STEPS, RECIPE_STEPS])
    with pytest.raises(CourseError, match="measured on different machines"):  # a ladder has no steps of two machines
        measurements.ladder(after)
    measure.main(["--publish", "--only", TO_99, MACHINE_STEPS, RECIPE_STEPS, measurements.BN_EPOCH])
    after = measurements.read()
    assert measurements.ladder(after) and after.floor == after.sprint_floor == {"floor_seconds": 1.0}


def test_the_speed_is_split_into_the_network_and_the_machine(published):
    def side(seconds, epochs):
        return [{"seconds": seconds, "epochs": epochs}]

    found = {
        TO_99: {"course": side(3, 4), "PyTorch's example": side(240, 4)},
        MACHINE_STEPS: {"a": side(60, 1), "b": side(40, 1)},
        RECIPE_STEPS: {"c": side(8, 2), "d": side(4, 2)},
    }
    text = measurements.speed_shares(replace(published, rows=found, later={}))
    assert "recipe make it 40.0 × faster" in text and "the machine makes it 1.5 × faster" in text
    assert "factors is 60.0 ×" in text
