"""What the benchmark does around its measurements: a GPU that is not there, processes that keep a machine busy, how threads wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import dataset

import utils
from tools import bench, daily, gpu, measure, tried
from utils import ROOT, CourseError, data, models, records


def test_a_gpu_s_rows_are_left_out_with_their_reason(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.main(["--device", "cuda"])
    said = capsys.readouterr().out
    assert "finds no CUDA GPU here" in said and all(row in said for row in gpu.ROWS)
    assert not bench.path("cuda", records.own_root()).exists()
    with pytest.raises(CourseError, match="no row holds 'nothing'"):
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
    times = [{"seconds": 2.0, "accuracy": 99.25}]
    assert "2.00, 99.25 %" in bench.tried_table({next(iter(tried.TRIED)): {"one": times}})


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
