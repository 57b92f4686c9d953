"""What the benchmark does around its measurements: a GPU that is not there, busy processes, how threads wait."""

import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import dataset

from tools import measurements
from tools.speed import measure, rows
from utils import CourseError, files, models
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.runs import records


def test_a_gpu_s_rows_are_left_out_with_their_reason(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measure.main(["--device", "cuda"])
    message = capsys.readouterr().out
    assert "finds no CUDA GPU here" in message and all(row in message for row in rows.ROWS["cuda"])
    assert not measurements.path("cuda", records.own_root()).exists()
    with pytest.raises(CourseError, match="no row holds nothing"):
        measure.main(["--only", "nothing"])

    for row in rows.ROWS["cuda"].keys() & rows.ROWS["cpu"].keys():
        assert list(rows.ROWS["cuda"][row].sides) == list(rows.ROWS["cpu"][row].sides)


EVERY_NETWORK = "10,000 images by every published network"
# not in a moment: a compiler, what torchvision would have to find, whole commands (of which the tests below run one)
SLOW = {"torch.compile", "torchvision"} | set(measurements.DAILY) - {measurements.ALONE, EVERY_NETWORK}
SAID = {"time to": "accuracy", "held-out": "accuracy", EVERY_NETWORK: "networks", "60 digits": "rows"}


@pytest.mark.parametrize("row", [row for row in rows.ROWS["cpu"] if row not in SLOW])
def test_every_row_can_be_measured_and_says_what_it_did(row, monkeypatch):
    """Of a few images, which are learnt in no time."""
    few, load = dataset(train=600), datasets.load
    monkeypatch.setattr(datasets, "load", lambda name: few if name == "mnist" else load(name))
    monkeypatch.setattr(rows, "published", lambda: [models.build("mnist_ultrasmall").eval()])
    monkeypatch.setattr(rows, "voxels_of_60_digits", lambda data: data.test.images[:1, 0].numpy())
    for side in rows.ROWS["cpu"][row].sides.keys() - SLOW:
        found = measure.once(row, side, 3)
        assert found["seed"] == 3 and 0 < found["seconds"] < 300 and found["peak_mib"] > 0, side
        for argv, message in SAID.items():
            assert argv not in row or found[message] > 0, side


def test_a_fresh_process_answers_and_what_failed_in_it_is_said(monkeypatch):
    found = rows.in_fresh_process("--once", "loading MNIST", "data.load", "3", COURSE_SMOKE="1")
    assert found["seed"] == 3 and found["images"] > 0
    monkeypatch.setattr(rows.sys, "executable", "false")  # the command of that name
    with pytest.raises(CourseError, match="--once nothing course 0 failed: "):
        rows.in_fresh_process("--once", "nothing", "course", "0")


def test_a_row_under_load_is_measured_while_others_are_at_work(monkeypatch):
    at_work = []

    @contextmanager
    def with_busy_processes(busy):
        at_work.append(busy)
        yield
        at_work.pop()

    monkeypatch.setattr(rows, "with_busy_processes", with_busy_processes)
    monkeypatch.setattr(rows, "in_fresh_process", lambda *argv: {"argv": argv, "busy": at_work[-1]})
    found = rows.ROWS["cpu"]["the same, other processes at work: 2"].sides["one thread"].work(None, 7)
    assert found == {"argv": ("--once", measurements.ALONE, "one thread", "7"), "busy": 2} and not at_work


def test_a_command_is_run_in_a_folder_of_its_own_with_its_seed(tmp_path):
    script = (
        f"import os, pathlib, sys; pathlib.Path({str(tmp_path)!r}, sys.argv[1]).write_text(os.environ['COURSE_RUNS'])"
    )
    rows.command("-c", script, "seed {seed}").work(None, 5)
    assert not Path((tmp_path / "seed 5").read_text()).exists()  # gone with its process


def test_what_is_measured_is_kept_and_not_measured_again(tmp_path, monkeypatch):
    asked, row = [], "loading MNIST"
    monkeypatch.setattr(
        measure, "in_fresh_process", lambda *argv, **_: asked.append(argv[3:]) or {"seconds": float(len(asked))}
    )
    whole = measure.measure([row], 2, tmp_path / "unfinished.json")
    assert asked == [(row, side, seed) for seed in "01" for side in ("data.load", "torchvision")]  # in turn
    assert measure.measure([row], 2, tmp_path / "unfinished.json") == whole and len(asked) == 4


def test_an_epoch_costs_its_arithmetic_and_its_traffic():
    recipe = EXPERIMENTS["mnist_ultrasmall"].recipe
    one, two = (measure.floor(recipe, images) for images in (6_000, 12_000))
    assert two["gflop"] == pytest.approx(2 * one["gflop"]) and two["gbyte"] == pytest.approx(2 * one["gbyte"])
    slower = max(one["gflop"] / one["gflop_per_s"], one["gbyte"] / one["gbyte_per_s"])
    assert one["floor_seconds"] == pytest.approx(slower) and slower > 0  # both sides round, in units of their own


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A published benchmark of two rows and a ladder, in a folder of its own; measuring gives every side 1 second."""
    times = [{"seconds": 2.0, "loading": 0.0, "peak_mib": 1.0, "accuracy": 99.0, "epochs": 1}]
    machine, ladder = measurements.read().environment, (measurements.MACHINE_STEPS, measurements.RECIPE_STEPS)
    names = ("time to 99 %", *ladder, "make verify")
    published = {row: dict.fromkeys(rows.ROWS["cpu"][row].sides, times) for row in names}
    for module in (measurements, measure):
        monkeypatch.setattr(module, "path", lambda kind="cpu", root=None: tmp_path / f"{kind}.json")
    monkeypatch.setattr(datasets, "load", lambda name: dataset(train=60))
    monkeypatch.setitem(datasets.PUBLISHABLE, dataset().name, dataset(train=60).fingerprint)
    anew = [times[0] | {"seconds": 1.0}]

    def again(wanted, *_):
        return {row: dict.fromkeys(rows.ROWS["cpu"][row].sides, anew) for row in wanted}

    monkeypatch.setattr(measure, "measure", again)
    before = measurements.Benchmark(published, replace(machine, device="CPU, older"))
    files.write_json(tmp_path / "cpu.json", before)
    return before


def test_some_rows_measured_anew_stand_among_the_published_ones_with_their_machine(measured, monkeypatch):
    monkeypatch.setattr(measure, "floor", lambda _recipe: {"here": 1.0})
    measure.main(["--publish", "--only", "time to 99 %", "verify"])
    after = measurements.read()
    assert after.rows.keys() == measured.rows.keys() and after.environment == measured.environment
    assert after.sprint_floor == {}  # a floor is that of the machine beside whose epoch it stands
    assert after.rows[measurements.MACHINE_STEPS] == measured.rows[measurements.MACHINE_STEPS]
    assert measurements.median(after.rows["time to 99 %"]["course"], "seconds") == 1.0
    assert after.later.keys() == {"time to 99 %", "make verify"}
    assert after.machine(measurements.MACHINE_STEPS).device == "CPU, older"
    message = measurements.note(after, [measurements.TO_99, measurements.MACHINE_STEPS, "make verify"])
    assert f" “{measurements.MACHINE_STEPS}” was measured on CPU, older, " in message
    assert "verify" not in message  # most rows need no name
    with pytest.raises(CourseError, match="measured on different machines"):  # a ladder has no steps of two machines
        measurements.ladder(measurements.read())
    measure.main(["--publish", "--only", "time to 99 %", measurements.MACHINE_STEPS, measurements.RECIPE_STEPS])
    assert measurements.ladder(measurements.read())
    measure.main(["--publish", "--only", measurements.BN_EPOCH])
    assert measurements.read().floor == measurements.read().sprint_floor == {"here": 1.0}


def test_the_speed_is_split_into_the_network_and_the_machine(measured):
    def seconds(*found, epochs):
        rest = {"loading": 0.0, "peak_mib": 1.0, "accuracy": 99.0, "epochs": epochs}
        return [[{"seconds": one, **rest}] for one in found]

    example, *_ = rows.ROWS["cpu"][measurements.TO_99].sides.keys() - {"course"}
    found = replace(
        measured,
        rows={
            measurements.TO_99: dict(zip((example, "course"), seconds(240, 3, epochs=4), strict=True)),
            measurements.MACHINE_STEPS: dict(zip("ab", seconds(60, 40, epochs=1), strict=True)),
            measurements.RECIPE_STEPS: dict(zip("cd", seconds(8, 4, epochs=2), strict=True)),
        },
    )
    [text] = measurements.speed_shares(found)
    assert "recipe make it 40.0 × faster" in text and "the machine makes it 1.5 × faster" in text
    assert "factors is 60.0 ×" in text
    assert measurements.speed_shares(replace(found, rows={measurements.TO_99: found.rows[measurements.TO_99]})) == []


def test_busy_processes_end_with_their_block(monkeypatch):
    run_start, begin = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *argv: run_start.append(begin(*argv)) or run_start[-1])
    with rows.with_busy_processes(2):
        assert [process.poll() for process in run_start] == [None, None]
    assert len(run_start) == 2 and None not in [process.poll() for process in run_start]
