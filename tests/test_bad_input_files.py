"""Files that are not what they should be are refused in one line that names them; nothing hidden in them runs."""

import hashlib
import json
import os
import pickle
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from rejections import rejected, rejected_command
from tiny import FACTS, TINY

from tools import colab, export, report, verify
from tools.measurements import Benchmark
from tools.site import pages
from utils import Interrupted, files, runs
from utils.data import photo, voxels
from utils.report import tables
from utils.runs import pretrained, records
from utils.runs.records import RunPaths
from utils.runs.trials import Trial

# ---- what is no file, or none of its kind, wherever one is read

READERS = {
    "facts.json": records.read_facts,
    "log.csv": records.read_log,
    "run.pt": records.read_checkpoint,
    "trials.jsonl": lambda path: files.read_lines(path, Trial),
    "benchmark.json": lambda path: files.read_json(path, Benchmark),
    "references.json": lambda path: files.read_json(path, tables.References),
    "images-idx3-ubyte": files.read_idx,
    "rows.h5": voxels.read,
    "digit.png": photo.read,
    "weights.pth": pretrained.load_model,
    "lesson.ipynb": report.read_notebook,
    "page.ipynb": lambda path: pages.notebook(path, False),
    "stamped.ipynb": colab.read,
    "runs.csv": colab.read_runs,
    "code.png": lambda path: export.main(["--read", str(path)]),
}
KINDS_OF_NONE = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "empty": Path.touch,
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 4 + b"\n"),
    "10 GB of zeros": lambda path: path.touch() or os.truncate(path, 10**10),
}
NOT_BEGUN = {("run.pt", "missing"), ("trials.jsonl", "missing"), ("trials.jsonl", "empty")}


@pytest.mark.parametrize("kind", KINDS_OF_NONE)
def test_what_is_no_file_of_its_kind_is_rejected_by_every_reader(kind, tmp_path):
    for name, read in READERS.items():
        path = tmp_path / name
        KINDS_OF_NONE[kind](path)
        if name == "weights.pth":
            files.write_json(path.with_suffix(".json"), FACTS)
        if (name, kind) not in NOT_BEGUN:
            assert name in rejected(lambda read=read, path=path: read(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_may_not_be_read_is_one_line_that_advises_to_delete_nothing(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    try:
        os.seteuid(65534)
        for read in [*READERS.values(), lambda path: records.finished(TINY, 0, path)]:
            assert "elete it" not in rejected(lambda read=read: read(tmp_path / "closed" / "file"))
    finally:
        os.seteuid(0)


# ---- voxels


def put(**changed):
    """An HDF5 file like the rebuilt one, with other datasets; None leaves one out, a callable makes it."""

    def make(path: Path) -> None:
        whole = {"X_train": np.zeros((4, 4096), "f4"), "y_train": np.zeros(4, "i8")}
        whole |= {"X_test": np.zeros((2, 4096), "f4"), "y_test": np.zeros(2, "i8")}
        with h5py.File(path, "w") as file:
            for name, values in (whole | changed).items():
                if callable(values):
                    values(file, name)
                elif values is not None:
                    file[name] = values

    return make


HDF5 = {
    "no dataset": put(X_train=None),
    "a group": put(y_test=lambda file, name: file.create_group(name)),
    "fewer columns": put(X_train=np.zeros((4, 100), "f4")),
    "fewer labels": put(y_train=np.zeros(3, "i8")),
    "what is no number": put(X_train=np.full((4, 4096), np.nan, "f4")),
    "a density too high": put(X_test=np.full((2, 4096), 255, "f4")),
    "a label too high": put(y_train=np.full(4, 10)),
}


@pytest.mark.parametrize("case", HDF5)
def test_a_file_of_voxels_that_holds_something_else_is_rejected(case, tmp_path):
    HDF5[case](tmp_path / "rows.h5")
    assert "rows.h5: " in rejected(lambda: voxels.read(tmp_path / "rows.h5"), tmp_path)


# ---- state dicts and checkpoints, and what may be hidden in them


@pytest.fixture(scope="module")
def trained(scratch_of_module, tmp_path_factory):
    """A scratch repository, and a copy of it: tiny published and one's own, its second seed interrupted after an
    epoch."""
    for publish in (True, False):
        runs.run(TINY, device="cpu", publish=publish, echo=False)

    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        runs.run(TINY, 1, device="cpu", echo=False, after_epoch=stop)
    return scratch_of_module, shutil.copytree(scratch_of_module, tmp_path_factory.mktemp("kept") / "copy")


@pytest.fixture
def finished(trained):
    """The scratch repository, as it was before each test."""
    root, kept = trained
    yield root
    shutil.rmtree(root)
    shutil.copytree(kept, root)


class Trap(str):
    """The name of a folder. Unpickled by a loader that builds anything, it makes that folder."""

    def __reduce__(self):
        return os.mkdir, (str(self),)


PICKLES = (lambda canary: files.to_bytes({"0.weight": Trap(canary)}), lambda canary: pickle.dumps(Trap(canary)))


def own(seed=0) -> RunPaths:
    return RunPaths.of(TINY, seed, records.own_root())


def forge(content: bytes) -> None:
    """Put another content in all state dicts and in the checkpoint, with its hash where it belongs: a forger would."""
    sha256 = hashlib.sha256(content).hexdigest()
    for run in (own(), RunPaths.of(TINY, 0)):
        run.weights.write_bytes(content)
        for path in (run.weights.with_suffix(".json"), run.facts):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": sha256}))
    facts = own(1).checkpoint.read_bytes().split(b"\n", 2)[1]
    rest = facts + b"\n" + content
    own(1).checkpoint.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


PLACES = {  # that load what a reader may have got from elsewhere
    "load_pretrained": lambda: pretrained.load_pretrained(own().weights),
    "a finished run": lambda: runs.run(TINY, device="cpu"),
    "a published run": lambda: runs.load(TINY, published=True),
    "a checkpoint": lambda: runs.run(TINY, 1, device="cpu"),
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_hidden_in_a_file_is_run(place, finished, tmp_path):
    for make in PICKLES:
        forge(make(tmp_path / "canary"))
        message = rejected(PLACES[place], finished)
        assert "rejected by the safe loader" in message and "weights_only" not in message
        assert not (tmp_path / "canary").exists()


def test_verify_runs_nothing_either_and_the_canary_would_sing(finished, tmp_path):
    for number, make in enumerate(PICKLES):
        canary = tmp_path / str(number)
        forge(make(canary))
        text, good = verify.verify(finished)
        assert not good and "REFUSED" in text and not canary.exists()
        with suppress(RuntimeError):  # torch rejects a plain pickle only after it has run
            torch.load(own().weights, weights_only=False)  # the control: this test's own file
        assert canary.exists()


def test_weights_that_fit_no_network_are_rejected(finished):
    forge(files.to_bytes(torch.load(own().weights) | {"0.weight": torch.zeros(3, 3)}))
    assert own().weights.name in rejected(lambda: pretrained.load_model(own().weights), finished)


# ---- checkpoints


def test_one_flipped_bit_of_a_checkpoint_is_noticed(finished):
    path = own(1).checkpoint
    content = path.read_bytes()
    for at in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert "its SHA-256 is another" in rejected(lambda: records.read_checkpoint(path))


def test_a_checkpoint_of_another_run_is_not_continued(finished):
    own(1).checkpoint.rename(own(2).checkpoint)
    assert runs.run(TINY, 2, device="cpu", echo=False).facts.continued == []


CHECKPOINTS = {
    "weights of another shape": lambda state: state["model"].update({"0.weight": torch.zeros(3, 3)}),
    "another optimizer": lambda state: state["optimizer"].update(param_groups=[]),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_of_another_training_is_rejected(case, finished):
    run_start, state = records.read_checkpoint(own(1).checkpoint)
    CHECKPOINTS[case](state)
    records.write_checkpoint(own(1).checkpoint, run_start, state)
    line = rejected(lambda: runs.run(TINY, 1, device="cpu", echo=False), finished)
    assert own(1).checkpoint.name in line and "Delete" in line


# ---- a folder of runs


def test_what_is_wrong_with_a_reader_s_run_is_named_by_the_report(finished):
    log = own().log
    for name in ("seedx.json", "seed.json"):
        shutil.copy(own().facts, log.with_name(name))
    log.write_text(log.read_text().replace("\n2,", "\n3,"))
    assert "seed0.csv, line 3" in rejected_command("report", report.main, [str(records.own_root())], finished)
    runs.run(TINY, 2, device="cpu", echo=False)
    text = report.own_report(records.own_root())
    assert f"| {TINY.key} " in text and "seed0.csv, line 3" in text.split("Left out: ")[1]
    assert all(name in text.split("No runs, and ignored: ")[1] for name in ("seedx.json", "seed.json"))
    assert "seed0.csv, line 3" in rejected(partial(tables.compare, [TINY], records.own), finished)
