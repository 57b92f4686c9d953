"""Files that are not what they should be: each is refused in one line that names it; nothing that is hidden in it runs."""

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from refusals import ids, refused, refused_command
from tiny import BEGUN, FACTS, TINY, TRIAL

from tools import export, report, train, verify
from tools.measurements import Benchmark
from utils import ROOT, CourseError, Interrupted, files, runs
from utils.data import datasets, photo, voxels
from utils.report import tables
from utils.runs import pretrained, records
from utils.runs.records import Begun, Facts, Run
from utils.runs.trials import Trial

# ---- typed JSON: every field, missing, null, of another type, NaN, negative

TYPED = {"facts": (Facts, FACTS), "checkpoint": (Begun, BEGUN), "trial": (Trial, TRIAL)}
NULLABLE = {"$.test", "$.continued.0.code", "$.continued.0.environment"}
COUNTS = {"seed", "images", "std", "threads", "processes", "after_epoch", "parameters", "epochs", "kept_epoch", "loss", "correct", "total"}
COUNTS |= {"bytes", "seconds", "epoch", "batch_size", "lr", "dropout", "valid"}


def plain(value) -> dict:
    return json.loads(json.dumps(files.msgspec.to_builtins(value)))


def leaves(value, path="$"):
    """Every field of a dataclass and what is below it: its path, the field, and its value."""
    for field in fields(value):
        one, here = getattr(value, field.name), f"{path}.{field.name}"
        yield here, field, one
        if is_dataclass(one):
            yield from leaves(one, here)
        elif isinstance(one, list) and one and is_dataclass(one[0]):
            yield from leaves(one[0], f"{here}.0")


def changed(tree, path: str, value):
    """A copy of JSON with another value at a path; MISSING removes it."""
    tree = json.loads(json.dumps(tree))
    *way, last = path.removeprefix("$.").split(".")
    at = tree
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    if value is MISSING:
        del at[last]
    else:
        at[last] = value
    return tree


def spoilt(value):
    """(what is wrong, path, JSON) for every field of a dataclass."""
    tree = plain(value)
    for path, field, one in leaves(value):
        if field.default is MISSING and field.default_factory is MISSING:
            yield "missing", path, changed(tree, path, MISSING)
        if path not in NULLABLE:
            yield "null", path, changed(tree, path, None)
        yield "another type", path, changed(tree, path, 7 if isinstance(one, str) else "x")
        yield "a list", path, changed(tree, path, [[1]])
        if type(one) in (int, float):
            yield "NaN", path, changed(tree, path, float("nan"))
        if type(one) in (int, float) and path.rsplit(".")[-1] in COUNTS:
            yield "negative", path, changed(tree, path, -1)
        if is_dataclass(one):
            yield "one too many", path, changed(tree, f"{path}.extra", 1)
    yield "one too many", "$", tree | {"extra": 1}


JSON = [(name, kind, *case) for name, (kind, value) in TYPED.items() for case in spoilt(value)]


@pytest.mark.parametrize(("name", "kind", "wrong", "path", "tree"), JSON, ids=ids([(one[0], one[2], one[3]) for one in JSON]))
def test_a_wrong_field_is_named(name, kind, wrong, path, tree, tmp_path):
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(tree))
    said = refused(lambda: files.read_json(file, kind), tmp_path)
    assert file.name in said and (wrong in ("NaN", "negative") or path.rsplit(".")[-1] in said or "$" in said)


@pytest.mark.parametrize("name", TYPED)
def test_what_is_not_spoilt_is_read(name, tmp_path):
    kind, value = TYPED[name]
    files.write_json(tmp_path / "whole.json", value)
    assert files.read_json(tmp_path / "whole.json", kind) == value


# ---- logs

ROW = {"epoch": "1", "lr": "0.1", "train_loss": "0.5", "train_correct": "50", "train_total": "60"}
ROW |= {"test_loss": "0.4", "test_correct": "35", "test_total": "40", "seconds": "1.25"}
LOGS = [(column, value) for column in ROW for value in ("x", "", "nan", "inf", "-1", "1e999", None)]
LOGS += [(column, "1.5") for column in ROW if column.endswith(("epoch", "correct", "total"))]
LOGS += [("lr", "\r1"), ("lr", "1" * 200_000)]  # an end of a line by itself, and a cell longer than csv reads


@pytest.mark.parametrize(("column", "value"), LOGS, ids=ids(LOGS))
def test_a_wrong_cell_of_a_log_is_named(column, value, tmp_path):
    row = {key: cell if key != column else value for key, cell in ROW.items()}
    row = {key: cell for key, cell in row.items() if cell is not None}
    path = tmp_path / "seed0.csv"
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    assert refused(lambda: records.read_log(path), tmp_path).startswith(f"{path}, line ")
    path.write_text(f"{','.join(ROW)}\n{','.join(ROW.values())}\n")
    assert len(records.read_log(path)) == 1


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
}


def loop(path):
    path.symlink_to(path)


KINDS_OF_NONE = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": loop,
    "a pipe": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty": Path.touch,
    "a Git LFS pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
    "a web page": lambda path: path.write_text("<!DOCTYPE html>\n<html><body>404</body></html>\n"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "UTF-16": lambda path: path.write_text('{"name": 1}\n', encoding="utf-16"),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 4 + b"\n"),
}
ABSENT = {"missing", "a dangling link", "a link to itself"}  # which of a checkpoint or a study only means that none has begun
CUT_OFF = {("trials.jsonl", "empty"), ("trials.jsonl", "zeros")}  # a line without an end never counts
UNUSABLE = [
    (reader, kind)
    for reader in READERS
    for kind in KINDS_OF_NONE
    if not (reader in ("run.pt", "trials.jsonl") and kind in ABSENT) and (reader, kind) not in CUT_OFF
]


@pytest.mark.skipif(os.name != "posix", reason="pipes and links are POSIX's")
@pytest.mark.parametrize(("reader", "kind"), UNUSABLE, ids=ids(UNUSABLE))
def test_what_is_no_file_of_its_kind_is_refused(reader, kind, tmp_path):
    path = tmp_path / reader
    KINDS_OF_NONE[kind](path)
    if reader == "weights.pth":
        files.write_json(path.with_suffix(".json"), FACTS)
    if kind in ("a pipe", "an endless device"):  # to list a folder by digests would read these
        with pytest.raises(CourseError) as refusal:
            READERS[reader](path)
        assert "\n" not in str(refusal.value)
    else:
        assert path.name in refused(lambda: READERS[reader](path), tmp_path)


# ---- IDX and HDF5


def idx(*shape, kind=0x08, values=None, magic=0) -> bytes:
    content = np.zeros(int(np.prod(shape)) if values is None else values, np.uint8).tobytes()
    return struct.pack(f">HBB{len(shape)}I", magic, kind, len(shape), *shape) + content


IDX = {
    **{f"{n} bytes of a header": idx(2, 3, 4)[:n] for n in range(0, 16, 3)},
    "a first byte": idx(2, 3, 4, magic=0x100),
    "a second byte": idx(2, 3, 4, magic=1),
    **{f"type {kind:#04x}": idx(2, 3, 4, kind=kind) for kind in (0, 1, 0x07, 0x09, 0x0B, 0x0D, 0x0E, 0xFF)},
    "no axis": idx(values=1),
    "four axes": idx(2, 2, 2, 2),
    "255 axes": b"\0\0\x08\xff" + bytes(2000),
    "no images": idx(0, 28, 28),
    "no rows": idx(5, 0, 28),
    "one byte less": idx(2, 3, 4)[:-1],
    "one byte more": idx(2, 3, 4) + b"\0",
    "a product that overflows": idx(2**31, 2**31, 4, values=0),
    "a product that overflows to what is there": idx(2**16, 2**16, 2**16, values=0) + bytes(24),
    "more than there is": idx(2**32 - 1, 28, 28, values=100),
}


@pytest.mark.parametrize("case", IDX)
def test_a_damaged_idx_file_is_refused(case, tmp_path):
    (tmp_path / "images").write_bytes(IDX[case])
    assert "images" in refused(lambda: files.read_idx(tmp_path / "images"), tmp_path)
    (tmp_path / "images").write_bytes(idx(2, 3, 4))
    assert files.read_idx(tmp_path / "images").shape == (2, 3, 4)


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
    **{f"no {name}": put(**{name: None}) for name in voxels.Rows._fields},
    **{f"{name} is a group": put(**{name: lambda file, name: file.create_group(name)}) for name in voxels.Rows._fields},
    **{f"{name} is a number": put(**{name: np.float32(1)}) for name in voxels.Rows._fields},
    **{
        f"{name} is empty": put(**{name: lambda file, name: file.create_dataset(name, data=h5py.Empty("f4"))})
        for name in ("X_train", "y_test")
    },
    **{f"{name} is text": put(**{name: np.array([b"x"] * 4)}) for name in ("X_train", "y_train")},
    "grids without rows": put(X_train=np.zeros((0, 4096), "f4"), y_train=np.zeros(0, "i8")),
    "an odd number of rows": put(X_test=np.zeros((3, 4096), "f4"), y_test=np.zeros(3, "i8")),
    "another width": put(X_train=np.zeros((4, 4095), "f4")),
    "another number of axes": put(X_train=np.zeros((4, 16, 16, 16), "f4")),
    "fewer labels": put(y_train=np.zeros(3, "i8")),
    "complex numbers": put(X_train=np.zeros((4, 4096), "c8")),
    "what is no number": put(X_train=np.full((4, 4096), np.nan, "f4")),
    "above 1": put(X_train=np.full((4, 4096), 2, "f4")),
    "below 0": put(X_test=np.full((2, 4096), -0.5, "f4")),
    "a label too high": put(y_train=np.full(4, 10)),
    "a label below 0": put(y_test=np.full(2, -1)),
    "more than is stored": put(
        X_train=lambda file, name: file.create_dataset(name, (10**6, 4096), "f4", chunks=(100, 4096)), y_train=np.zeros(10**6, "i1")
    ),
    "a link out of the file": put(X_train=lambda file, name: file.__setitem__(name, h5py.ExternalLink("nowhere.h5", "/X"))),
}


@pytest.mark.parametrize("case", HDF5)
def test_a_file_of_voxels_that_holds_something_else_is_refused(case, tmp_path):
    path = tmp_path / "rows.h5"
    HDF5[case](path)
    assert "rows.h5: " in refused(lambda: voxels.read(path), tmp_path)
    put()(path)
    assert voxels.read(path)[0].X_train.shape == (4, 4096)


# ---- pictures

PICTURES = {
    "cut off": lambda path: path.write_bytes(picture()[: len(picture()) // 2]),
    "a header alone": lambda path: path.write_bytes(picture()[:33]),
    "a bomb": lambda path: path.write_bytes(picture()[:16] + struct.pack(">II", 60_000, 60_000) + picture()[24:]),
    "no size": lambda path: path.write_bytes(picture()[:16] + struct.pack(">II", 0, 0) + picture()[24:]),
    "one pixel": lambda path: Image.new("L", (1, 1)).save(path),
    "a line": lambda path: Image.new("L", (2000, 3)).save(path),
    "white": lambda path: Image.new("L", (100, 100), 255).save(path),
    "transparent": lambda path: Image.new("RGBA", (100, 100), (0, 0, 0, 0)).save(path),
    "SVG": lambda path: path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>'),
}


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(10_000, dtype=np.uint8).reshape(100, 100)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("case", PICTURES)
def test_what_is_no_picture_of_a_digit_is_refused_by_name(case, tmp_path):
    PICTURES[case](tmp_path / "digit.png")
    weights = ROOT / "saved_dict" / "base.pth"
    if not weights.is_file():
        pytest.skip("base is not published here")
    words = ["base", "--read", str(tmp_path / "digit.png")]
    assert "digit.png" in refused_command("train.py", train.main, words, tmp_path)


# ---- state dicts and checkpoints, and what may be hidden in them


@pytest.fixture(scope="module")
def trained(scratch_of_module):
    """A scratch repository with tiny published and one's own, and its second seed interrupted after an epoch; and its files' bytes."""
    for publish in (True, False):
        runs.run(TINY, device="cpu", publish=publish, echo=False)

    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        runs.run(TINY, 1, device="cpu", echo=False, after_epoch=stop)
    return scratch_of_module, {path: path.read_bytes() for path in scratch_of_module.rglob("*") if path.is_file()}


@pytest.fixture
def finished(trained):
    """The same, as it was before each test."""
    root, before = trained
    yield root
    for path in root.rglob("*"):
        if path.is_file() and path not in before:
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


class Trap:
    """What, unpickled by a loader that builds anything, makes a folder."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def saved(content, **how) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def zipped(canary: Path) -> bytes:
    """A state dict's archive whose data.pkl was exchanged."""
    before, after = io.BytesIO(saved({"a": torch.zeros(1)})), io.BytesIO()
    with zipfile.ZipFile(before) as source, zipfile.ZipFile(after, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps(Trap(canary)) if name.endswith("data.pkl") else source.read(name))
    return after.getvalue()


PICKLES = {
    "a trap among weights": lambda canary: saved({"0.weight": Trap(canary)}),
    "a trap as the whole": lambda canary: saved(Trap(canary)),
    "the old format": lambda canary: saved({"0.weight": Trap(canary)}, _use_new_zipfile_serialization=False),
    "a plain pickle": lambda canary: pickle.dumps(Trap(canary)),
    "an exchanged data.pkl": zipped,
}


def forge(run: Run, content: bytes) -> None:
    """Put another content in a run's weights, and its hash into the sidecar: a forger would."""
    run.weights.write_bytes(content)
    for path in (run.weights.with_suffix(".json"), run.facts):
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"sha256": hashlib.sha256(content).hexdigest()}))


def own(seed=0) -> Run:
    return Run.of(TINY, seed, records.own_root())


PLACES = {  # every place that loads: what is forged, and what then reads it
    "load_pretrained": (lambda content: forge(own(), content), lambda: pretrained.load_pretrained(own().weights)),
    "load_pretrained by name": (lambda content: forge(Run.of(TINY, 0), content), lambda: pretrained.load_pretrained("tiny")),
    "a finished run": (lambda content: forge(own(), content), lambda: runs.run(TINY, device="cpu")),
    "a published run": (lambda content: forge(Run.of(TINY, 0), content), lambda: runs.load(TINY, published=True)),
    "--final-state": (lambda content: forge(own(), content), lambda: train.main(["tiny", "--final-state"])),
    "--read": (lambda content: forge(own(), content), lambda: train.main(["tiny", "--read", "x.png"])),
    "tools.export": (lambda content: forge(own(), content), lambda: export.main([str(own().weights)])),
    "a checkpoint": (lambda content: own(1).checkpoint.write_bytes(content), lambda: runs.run(TINY, 1, device="cpu")),
    "a search that gives up": (lambda content: own(1).checkpoint.write_bytes(content), lambda: runs.give_up(TINY, 1, [])),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", PICKLES)
def test_nothing_hidden_in_a_file_is_run(kind, place, finished, tmp_path_factory):
    canary = tmp_path_factory.mktemp("canary") / "sang"
    if place == "tools.export":
        pytest.importorskip("onnx", reason="ONNX is not there: pip install -r requirements-extra.txt")
    hide, read = PLACES[place]
    hide(PICKLES[kind](canary))
    assert "refused by the safe loader" in refused(read, finished)
    assert not canary.exists()


@pytest.mark.parametrize("kind", PICKLES)
def test_verify_runs_nothing_either_and_the_canary_would_sing(kind, finished, tmp_path):
    canary = tmp_path / "sang"
    forge(Run.of(TINY, 0), PICKLES[kind](canary))
    text, good = verify.verify(finished)
    assert not good and "REFUSED" in text and not canary.exists()
    with suppress(RuntimeError):  # a plain pickle is none of torch's, which shows only when it has run
        torch.load(Run.of(TINY, 0).weights, weights_only=False)  # the control: this very test's own file, which makes a folder
    assert canary.exists()


STATES = {
    "a tensor too few": lambda state: state.pop("0.weight"),
    "a tensor too many": lambda state: state.update({"9.weight": torch.zeros(1)}),
    "another shape": lambda state: state.update({"0.weight": torch.zeros(3, 3)}),
    "no tensor": lambda state: state.update({"0.weight": "x"}),
    "a number": lambda state: state.update({"0.weight": 3}),
    "a name that is none": lambda state: state.update({7: torch.zeros(1)}),
    "nothing": lambda state: state.clear(),
}


@pytest.mark.parametrize("case", STATES)
def test_weights_that_fit_no_network_are_refused(case, finished):
    state = torch.load(own().weights, weights_only=True)
    STATES[case](state)
    forge(own(), saved(state))
    assert own().weights.name in refused(lambda: pretrained.load_model(own().weights), finished)


CHECKPOINTS = [
    (key, wrong)
    for key in ("model", "optimizer", "scheduler", "order", "numbers", "device", "processes", "history", "average", "best")
    for wrong in ("missing", "text", "a number", "a list", "an empty dict")
]
ROWS = {
    "no rows": lambda rows: rows.clear(),
    "more rows than epochs": lambda rows: rows.extend([rows[0] | {"epoch": n} for n in range(2, 6)]),
    "another epoch": lambda rows: rows[0].update(epoch=2),
    "a loss that is none": lambda rows: rows[0].update(train_loss=float("nan")),
    "more right than there are": lambda rows: rows[0].update(train_correct=10**6),
    "a column too few": lambda rows: rows[0].pop("lr"),
    "a column too many": lambda rows: rows[0].update(best=1.0),
    "text": lambda rows: rows[0].update(lr="x"),
    "no row": lambda rows: rows.append(None),
}


def refused_checkpoint(state, finished) -> None:
    begun, _ = records.read_checkpoint(own(1).checkpoint)
    records.write_checkpoint(own(1).checkpoint, begun, state)
    said = refused(lambda: runs.run(TINY, 1, device="cpu", echo=False), finished)
    assert own(1).checkpoint.name in said and "Delete" in said


@pytest.mark.parametrize(("key", "wrong"), CHECKPOINTS, ids=ids(CHECKPOINTS))
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(key, wrong, finished):
    _, state = records.read_checkpoint(own(1).checkpoint)
    state[key] = {"text": "x", "a number": 7, "a list": [1], "an empty dict": {}}.get(wrong)
    if wrong == "missing":
        del state[key]
    refused_checkpoint(state, finished)


@pytest.mark.parametrize("case", ROWS)
def test_a_checkpoint_with_other_rows_is_refused(case, finished):
    _, state = records.read_checkpoint(own(1).checkpoint)
    ROWS[case](state["history"])
    refused_checkpoint(state, finished)


# ---- a folder of runs


def test_what_is_wrong_with_a_reader_s_run_is_named_by_the_report(finished):
    log = own().log
    for name in ("seedx.json", "seed.json", "seed²x.json"):
        stray = log.with_name(name)
        shutil.copy(own().facts, stray)
        assert name in report.own_report(records.own_root()).split("No runs, and ignored: ")[1]
        stray.unlink()
    log.write_text(log.read_text().replace("\n2,", "\n3,"))
    assert "seed0.csv, line 3" in refused_command("report", report.main, [str(records.own_root())], finished)
    assert "seed0.csv, line 3" in refused(partial(tables.compare, [TINY], records.own), finished)


@pytest.mark.parametrize("name", ["mnist", "kmnist", "qmnist"])
def test_a_folder_whose_files_do_not_fit_each_other_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    images, labels, *rest = datasets.SOURCES[name].files(tmp_path)
    kind = torch.int32 if name == "qmnist" else torch.uint8
    for paths, n in (((images, labels), 5), (rest, 3)):
        files.write_idx(paths[0], torch.ones(n, 28, 28, dtype=torch.uint8))
        files.write_idx(paths[1], torch.zeros(n, 8, dtype=kind) if name == "qmnist" else torch.zeros(n, dtype=kind))
    assert len(datasets.load(name).train) == 5
    good = images.read_bytes(), labels.read_bytes()
    for path, values in (
        (images, torch.ones(4, 28, 28)),
        (images, torch.ones(5, 27, 28)),
        (images, torch.ones(5)),
        (labels, torch.zeros(6)),
    ):
        files.write_idx(path, values.to(torch.uint8))
        assert images.name in refused(lambda: datasets.load(name), tmp_path)
        images.write_bytes(good[0])
        labels.write_bytes(good[1])
    files.write_idx(labels, torch.full((5,), 10, dtype=torch.uint8))
    assert "labels 10 to 10" in refused(lambda: datasets.load(name), tmp_path)
