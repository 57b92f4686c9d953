"""A few kills of `make stress`; and what it counts would be noticed."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tools import measurements, stress
from tools.measurements import Stress, Stressed
from utils import ROOT, files, runs
from utils.experiments import EXPERIMENTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes can't be forked here once torch is imported")


def test_killed_commands_lose_nothing(tmp_path):
    """One kill of three kinds each; `make stress` does a hundred, of all kinds."""
    kinds = ("plateau and early stopping", "voxels, and building them", "several runs")
    code = f"from tools import stress; stress.KINDS = {{kind: stress.KINDS[kind] for kind in {kinds}}}; "
    code += "raise SystemExit(stress.main(['--kills', '3']))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COURSE_RUNS": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = files.read_json(measurements.path("stress", tmp_path), Stress)
    assert found.passed and tuple(found.kinds) == kinds and all(one.kills for one in found.kinds.values())


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with one finished run that held images out."""
    monkeypatch.setenv("COURSE_SMOKE", "0")
    experiment = EXPERIMENTS["base"].with_recipe(data="digits", valid=600, images=64, epochs=2)
    runs.run(experiment, device="cpu", folder=tmp_path, echo=False)
    return tmp_path


def test_a_damaged_file_and_another_outcome_are_noticed_and_other_times_are_none(root):
    before = stress.outcome(root)
    assert stress.damaged(root) == []
    for suffix in (".pth", ".csv", ".json", ".jsonl"):
        path = next(root.rglob(f"*{suffix}"))
        content = path.read_bytes()
        path.write_bytes(content[:-40] + b"\n")
        assert path in stress.damaged(root)
        if suffix != ".json":
            path.write_bytes(content + b"\0" if suffix == ".pth" else content.replace(b"600", b"601"))
            assert before != stress.outcome(root)
            path.unlink()
            assert before.keys() != stress.outcome(root).keys()
        path.write_bytes(content)
    assert before == stress.outcome(root)
    log, study = next(root.rglob("*.csv")), next(root.rglob("*.jsonl"))
    header, *lines = log.read_text().splitlines()
    log.write_text("\n".join([header, *(line[: line.rindex(",")] + ",9.99" for line in lines)]))
    study.write_bytes(study.read_bytes() * 2)  # a run counted twice
    assert stress.outcome(root) == before


def test_a_run_that_was_done_again_and_epochs_that_were_are_noticed(root):
    before = stress.left(root)
    assert stress.lost(before, before) == (0, 0)
    facts = next(root.glob("logs/*/*.json"))
    facts.write_bytes(facts.read_bytes() + b"\n")
    assert stress.lost(before, stress.left(root)) == (1, 0)
    unfinished = ({}, {facts: 2})  # two epochs were there, and the run says that nothing was continued
    assert stress.lost(unfinished, stress.left(root)) == (0, 2)
    continued = {"continued": [{"after_epoch": 1, "code": None, "environment": None}]}
    facts.write_text(json.dumps(json.loads(facts.read_text()) | continued))
    assert stress.lost(unfinished, stress.left(root)) == (0, 1)


def test_a_single_failure_is_no_pass_and_the_sentence_says_it(monkeypatch, tmp_path):
    machine, good = measurements.read().environment, Stressed(kills=5, same=5)
    assert Stress({"plain": good}, machine).passed
    for change in ({"same": 4}, {"damaged": 1}, {"lost_runs": 1}, {"lost_epochs": 1}):
        assert not Stress({"plain": good, "voxels": replace(good, **change)}, machine).passed
    monkeypatch.setattr(measurements, "path", lambda kind: tmp_path / f"{kind}.json")
    assert "Not measured yet" in measurements.stress_section()
    files.write_json(tmp_path / "stress.json", Stress({"plain": good, "voxels": Stressed(3, 1, 0, 2, 2)}, machine))
    told = measurements.stress_section()
    assert "8 times" in told and "After 7 of 8 kills" in told
    assert "(plain 5, voxels 3). It found 1 damaged files, 0 lost runs and 2 lost epochs." in told
