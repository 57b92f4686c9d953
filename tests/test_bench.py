"""What the benchmark does around its measurements: a GPU that is not there, processes that keep a machine busy, how threads wait."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import dataset

import utils
from tools import bench, daily, gpu, measure, tried
from utils import ROOT, CourseError, data, files, models, records


def test_a_gpu_s_rows_are_left_out_with_their_reason(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.main(["--device", "cuda"])
    said = capsys.readouterr().out
    assert "finds no CUDA GPU here" in said and all(row in said for row in gpu.ROWS)
    assert not bench.path("cuda", records.own_root()).exists()
    with pytest.raises(CourseError, match="no row holds nothing"):
        bench.main(["--only", "nothing"])


def test_a_gpu_s_rows_of_the_same_name_are_compared_with_the_same_ways():
    for row in gpu.ROWS.keys() & measure.ROWS["cpu"].keys():
        assert list(gpu.ROWS[row].sides) == list(measure.ROWS["cpu"][row].sides)


@pytest.mark.parametrize(
    ("row", "side", "said"),
    [
        ("loading MNIST", "data.load", "images"),
        ("10,000 images by every published network", "course", "networks"),
        ("sprint on held-out images", "as it is", "accuracy"),
    ],
)
def test_a_measurement_says_what_it_did(row, side, said, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name: dataset(train=600))
    monkeypatch.setattr(daily, "published", lambda: [models.build("mnist_ultrasmall").eval()])
    found = measure.once(row, side, 3)
    assert found["seed"] == 3 and found["seconds"] > 0 and found["peak_mib"] > 0 and found[said] > 0


def test_an_accuracy_stands_beside_its_seconds():
    times = [{"seconds": 2.0, "peak_mib": 1.0, "accuracy": 99.25}]
    assert "2.00, 99.25 %" in bench.tried_table({next(iter(tried.TRIED)): {"one": times}})


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A published benchmark of two rows and a ladder, in a folder of its own; measuring gives every side 1 second."""
    times, machine = [{"seconds": 2.0, "loading": 0.0, "peak_mib": 1.0, "accuracy": 99.0, "epochs": 1}], bench.read().environment
    rows = {row: dict.fromkeys(measure.ROWS["cpu"][row].sides, times) for row in ("time to 99 %", bench.MACHINE_STEPS, "make verify")}
    monkeypatch.setattr(bench, "path", lambda kind="cpu", root=None: tmp_path / f"{kind}.json")
    monkeypatch.setattr(data, "load", lambda name: dataset(train=60))
    monkeypatch.setitem(data.PUBLISHABLE, dataset().name, dataset(train=60).fingerprint)
    anew = [times[0] | {"seconds": 1.0}]
    monkeypatch.setattr(bench, "measure", lambda rows, *_: {row: dict.fromkeys(measure.ROWS["cpu"][row].sides, anew) for row in rows})
    before = bench.Benchmark(rows, {}, {}, {}, replace(machine, device="CPU, older"))
    files.write_json(tmp_path / "cpu.json", before)
    return before


def test_some_rows_measured_anew_stand_among_the_published_ones_with_their_machine(measured, capsys):
    bench.main(["--publish", "--only", "time to 99 %", "verify"])
    after = bench.read()
    assert after.rows.keys() == measured.rows.keys() and after.environment == measured.environment
    assert after.rows[bench.MACHINE_STEPS] == measured.rows[bench.MACHINE_STEPS]
    assert bench.median(after.rows["time to 99 %"]["course"], "seconds") == 1.0
    assert after.later.keys() == {"time to 99 %", "make verify"} and after.machine(bench.MACHINE_STEPS).device == "CPU, older"
    said = bench.note(after, after.rows)
    assert "CPU, older" in said and "(time to 99 %; make verify)" in said


def test_a_floor_is_that_of_the_machine_beside_whose_epoch_it_stands(measured, monkeypatch, capsys):
    for part in ("floor", "profile"):
        monkeypatch.setattr(bench.costs, part, lambda *_: {"here": 1.0})
    bench.main(["--publish", "--only", "make verify"])
    assert bench.read().floor == {}
    bench.main(["--publish", "--only", bench.BN_EPOCH])
    assert bench.read().floor == bench.read().profile == bench.read().sprint_floor == {"here": 1.0}


def test_a_ladder_has_no_steps_of_two_machines(measured, capsys):
    assert bench.ladder(bench.read())
    bench.main(["--publish", "--only", "time to 99 %"])
    with pytest.raises(CourseError, match="measured on different machines"):
        bench.ladder(bench.read())
    bench.main(["--publish", "--only", "time to 99 %", bench.MACHINE_STEPS])
    assert bench.ladder(bench.read())


def test_busy_processes_end_with_their_block(monkeypatch):
    begun, begin = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *words: begun.append(begin(*words)) or begun[-1])
    with daily.beside(2):
        assert [process.poll() for process in begun] == [None, None]
    assert len(begun) == 2 and None not in [process.poll() for process in begun]


@pytest.mark.parametrize(("running", "others"), [("procs_running 1", False), ("procs_running 3", True), ("nothing", False)])
def test_whether_others_are_at_work_is_what_linux_says(running, others, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: f"ctxt 7\n{running}\nprocs_blocked 0\n")
    assert utils.others_at_work() is others


def test_how_threads_wait_is_left_as_it_is_set():
    code = "import os, sys, utils; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    environment = {**os.environ, "GOMP_SPINCOUNT": "5", "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_WAIT_POLICY", None)
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["None", "False"]
