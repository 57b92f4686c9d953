"""Files that are not what they should be are refused in one line that names them; nothing hidden in them runs."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny
import torch
from rejections import rejected, rejected_command
from tiny import FACTS, TINY, TRIAL, interrupted, own

from tools import colab, export, report, train, verify
from tools.measurements import Benchmark
from tools.site import pages
from utils import files, runs
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
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty": Path.touch,
    "an LFS pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 4 + b"\n"),
    "10 GB of zeros": lambda path: path.touch() or os.truncate(path, 10**10),
}
ABSENT = {"missing", "a dangling link"}  # of a checkpoint or a study: none has begun
CUT_OFF = {"empty", "zeros"}  # a line without an end never counts


@pytest.mark.parametrize("kind", KINDS_OF_NONE)
def test_what_is_no_file_of_its_kind_is_refused_by_every_reader(kind, tmp_path):
    for name, read in READERS.items():
        if (name in ("run.pt", "trials.jsonl") and kind in ABSENT) or (name == "trials.jsonl" and kind in CUT_OFF):
            continue
        path = tmp_path / name
        KINDS_OF_NONE[kind](path)
        if name == "weights.pth":
            files.write_json(path.with_suffix(".json"), FACTS)
        assert name in rejected(lambda read=read, path=path: read(path))
    if kind in ("a pipe", "an endless device"):
        KINDS_OF_NONE[kind](tmp_path / "study")
        assert "study is no regular file" in rejected(lambda: files.append_line(tmp_path / "study", TRIAL))


def test_what_may_not_be_read_is_one_line_that_advises_to_delete_nothing(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    readers = [*READERS.values(), lambda path: records.finished(TINY, 0, path)]
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        for read in readers:
            message = rejected(lambda read=read: read(tmp_path / "closed" / "red\x1b[31m\n"))
            assert "elete it" not in message and "\x1b" not in message
    finally:
        os.seteuid(user)


# ---- voxels


def put(path: Path, **changed) -> None:
    """Write an HDF5 file like the rebuilt one, with other datasets; None leaves one out, a callable makes it."""
    whole = {"X_train": np.zeros((4, 4096), "f4"), "y_train": np.zeros(4, "i8")}
    whole |= {"X_test": np.zeros((2, 4096), "f4"), "y_test": np.zeros(2, "i8")}
    with h5py.File(path, "w") as file:
        for name, values in (whole | changed).items():
            if callable(values):
                values(file, name)
            elif values is not None:
                file[name] = values


def created(*shape, **options):
    return lambda file, name: file.create_dataset(name, shape, "f4", **options)


HDF5 = {
    "no dataset": {"X_train": None},
    "a group": {"y_test": h5py.File.create_group},
    "an empty dataset": {"y_test": h5py.Empty("f4")},
    "complex numbers": {"X_train": np.zeros((4, 4096), "c8")},
    "an odd number of rows": {"X_test": np.zeros((3, 4096), "f4"), "y_test": np.zeros(3, "i8")},
    "fewer columns": {"X_train": np.zeros((4, 100), "f4")},
    "fewer labels": {"y_train": np.zeros(3, "i8")},
    "what is no number": {"X_train": np.full((4, 4096), np.nan, "f4")},
    "a density too high": {"X_test": np.full((2, 4096), 255, "f4")},
    "a label too high": {"y_train": np.full(4, 10)},
    "more than memory": {"X_train": created(10**6, 4096, chunks=True)},
    "more than is stored": {"X_train": created(10**4, 4096, chunks=(1, 16))},
    "a link out of the file": {"X_train": h5py.ExternalLink("nowhere.h5", "/X")},
    "values in another file": {"X_test": created(2, 4096, external=[("/dev/zero", 0, 2**15)])},
}


@pytest.mark.parametrize("case", HDF5)
def test_a_file_of_voxels_that_holds_something_else_is_refused(case, tmp_path):
    put(tmp_path / "rows.h5", **HDF5[case])
    assert "rows.h5: " in rejected(lambda: voxels.read(tmp_path / "rows.h5"), tmp_path)


def test_a_whole_file_of_voxels_is_read_without_an_attribute_of_many_texts(tmp_path):
    put(tmp_path / "rows.h5")
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        file.attrs["mnist"], file.attrs["seed"] = ["x" * 1000] * 1000, 3
    rows, attributes = voxels.read(tmp_path / "rows.h5")
    assert rows.X_train.shape == (4, 4096) and attributes == {"seed": "3"}


def test_a_file_of_voxels_that_is_open_elsewhere_is_to_be_closed_not_deleted(tmp_path):
    path = tmp_path / "rows.h5"
    put(path)
    script = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        message = rejected(lambda: voxels.read(path))
        other.stdin.close()
    assert "Close it there" in message and "elete" not in message and len(voxels.read(path)[0].y_test) == 2


# ---- state dicts and checkpoints, and what may be hidden in them


@pytest.fixture(scope="module")
def trained(scratch_of_module, tmp_path_factory):
    """A scratch repository, and a copy of it: tiny published and one's own, its second seed interrupted after an
    epoch."""
    for publish in (True, False):
        tiny.train(publish=publish)
    interrupted(seed=1)
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


def saved(content, **how) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


PICKLES = (
    lambda canary: saved({"0.weight": Trap(canary)}),
    lambda canary: saved({"0.weight": Trap(canary)}, _use_new_zipfile_serialization=False),
    lambda canary: pickle.dumps(Trap(canary)),
)


def forge(content: bytes) -> None:
    """Put another content in all state dicts and in the checkpoint, with its hash where it belongs: a forger would."""
    sha256 = hashlib.sha256(content).hexdigest()
    for run in (own(), RunPaths.of(TINY, 0)):
        run.weights.write_bytes(content)
        for path in (run.weights.with_suffix(".json"), run.facts):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": sha256}))
    facts = own(seed=1).checkpoint.read_bytes().split(b"\n", 2)[1]
    rest = facts + b"\n" + content
    own(seed=1).checkpoint.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


PLACES = {  # that load what a reader may have got from elsewhere
    "load_pretrained": lambda: pretrained.load_pretrained(own().weights),
    "a finished run": tiny.train,
    "a published run": lambda: runs.load(TINY, published=True),
    "--final-state": lambda: train.main(["tiny", "--final-state"]),
    "--read": lambda: train.main(["tiny", "--read", "x.png"]),
    "tools.export": lambda: export.main([str(own().weights)]),
    "a checkpoint": lambda: tiny.train(seed=1),
    "a search that gives up": lambda: runs.give_up(TINY, 1, []),
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_hidden_in_a_file_is_run(place, finished, tmp_path):
    if place == "tools.export":
        pytest.importorskip("onnx", reason="ONNX is not there: pip install -r requirements-extra.txt")
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


def test_an_archive_that_expands_is_not_unpacked(finished, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    bombs = [saved({"0.weight": torch.zeros(10**6)})[:999]]
    for compression, pickled in ((zipfile.ZIP_DEFLATED, 99), (zipfile.ZIP_STORED, files.PICKLE + 1)):
        with zipfile.ZipFile(packed := io.BytesIO(), "w", compression) as archive:
            archive.writestr("archive/data.pkl", bytes(pickled))
        bombs.append(packed.getvalue())
    for bomb in bombs:
        forge(bomb)
        assert "rejected by the safe loader" in rejected(lambda: pretrained.load_model(own().weights), finished)


STATES = {
    "a tensor too many": lambda state: state.update({"9.weight": torch.zeros(1)}),
    "another shape": lambda state: state.update({"0.weight": torch.zeros(3, 3)}),
    "complex numbers": lambda state: state.update({"0.weight": state["0.weight"].to(torch.complex64)}),
    "a sparse tensor": lambda state: state.update({"0.weight": state["0.weight"].to_sparse()}),
}


@pytest.mark.parametrize("case", STATES)
def test_weights_that_fit_no_network_are_refused(case, finished):
    state = torch.load(own().weights, weights_only=True)
    STATES[case](state)
    forge(saved(state))
    assert own().weights.name in rejected(lambda: pretrained.load_model(own().weights), finished)


# ---- checkpoints


def test_one_flipped_bit_of_a_checkpoint_is_noticed(finished):
    path = own(seed=1).checkpoint
    content = path.read_bytes()
    for at in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert "its SHA-256 is another" in rejected(lambda: records.read_checkpoint(path))


def adam(state) -> dict:
    """Adam's state of the first parameter."""
    return state["optimizer"]["state"][0]


def rewrite_checkpoint(change) -> None:
    run_start, state = records.read_checkpoint(own(seed=1).checkpoint)
    change(state)
    records.write_checkpoint(own(seed=1).checkpoint, run_start, state)


CHECKPOINTS = {  # one of each kind; test_fuzz.py draws more
    "a part is missing": lambda state: state.pop("order"),
    "a part is text": lambda state: state.update(model="x"),
    "weights of another shape": lambda state: state["model"].update({"0.weight": torch.zeros(3, 3)}),
    "no state of the optimizer": lambda state: state["optimizer"].update(state=7),
    "an optimizer's tensor too short": lambda state: adam(state).update(exp_avg=torch.zeros(1)),
    "a random state too short": lambda state: state.update(numbers=torch.zeros(3, dtype=torch.uint8)),
    "no random state of a process": lambda state: state.update(processes=[7]),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(case, finished):
    rewrite_checkpoint(CHECKPOINTS[case])
    told = rejected(lambda: tiny.train(seed=1), finished)
    assert own(seed=1).checkpoint.name in told and "Delete" in told


def test_a_tensor_that_only_looks_as_long_as_it_should_corrupts_no_memory(finished):
    """Of stride 0, all of it one number: a fused optimizer would write beyond it."""
    rewrite_checkpoint(lambda state: adam(state).update(exp_avg=torch.zeros(1).expand(adam(state)["exp_avg"].shape)))
    assert tiny.train(seed=1).facts.epochs == 3


# ---- a folder of runs


def test_any_name_of_a_folder_of_runs_is_drawn_as_plain_text(finished):
    for name in ("$\\frac$", os.fsdecode(b"\xff\x1b[31m")):
        shutil.copytree(own().log.parent, own().log.parent.with_name(name))
    assert "Curves: " in report.own_report(records.own_root())


def test_what_is_wrong_with_a_reader_s_run_is_named_by_the_report(finished):
    log = own().log
    for name in ("seedx.json", "seed.json"):
        shutil.copy(own().facts, log.with_name(name))
    log.write_text(log.read_text().replace("\n2,", "\n3,"))
    assert "seed0.csv, line 3" in rejected_command("report", report.main, [str(records.own_root())], finished)
    tiny.train(seed=2)
    text = report.own_report(records.own_root())
    assert f"| {TINY.key} " in text and "seed0.csv, line 3" in text.split("Left out: ")[1]
    assert all(name in text.split("No runs, and ignored: ")[1] for name in ("seedx.json", "seed.json"))
    assert "seed0.csv, line 3" in rejected(partial(records.own, TINY), finished)


def test_a_page_that_the_report_can_not_read_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    for make in (lambda path: None, Path.mkdir, lambda path: path.rmdir() or os.mkfifo(path)):
        make(tmp_path / "README.md")
        assert "README.md is no readable file" in rejected_command("report", report.main, ["--check"])
