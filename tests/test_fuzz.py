"""Inputs made up at random are read, or refused in one line; `make fuzz MINUTES=10` goes on for so long."""

import io
import json
import math
import os
import time
from dataclasses import asdict, fields

import pytest
import torch

pytest.importorskip("hypothesis", reason="hypothesis is not there: pip install -r requirements-extra.txt")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapes import STROKES, drawn
from test_bad_input_files import HDF5, put
from tiny import FACTS, TRIAL, dataset, tiny

from tools import train
from utils import CourseError, files, models
from utils.data import photo, voxels
from utils.experiments import KINDS, OPTIMIZERS, RANGES, SCHEDULES, Recipe
from utils.runs import records
from utils.runs.records import RunStart
from utils.runs.trials import Trial
from utils.training import loops

MINUTES = float(os.environ.get("FUZZ_MINUTES") or 0)
PROPERTIES = []
ROW = {"epoch": "1", "lr": "0.1", "train_loss": "0.5", "train_correct": "50", "train_total": "60"}
ROW |= {"test_loss": "0.4", "test_correct": "35", "test_total": "40", "seconds": "1.25"}


def holds(*strategies):
    """Make a test of a property: of always the same few inputs, or of ever new ones for its share of FUZZ_MINUTES."""

    def make(check):
        how = {"derandomize": not MINUTES, "deadline": None, "database": None, "suppress_health_check": HealthCheck}
        once = given(values=st.tuples(*strategies))(lambda folder, values: check(folder, *values))
        once = settings(max_examples=40, **how)(once)

        def test(folder):
            end = time.monotonic() + 60 * MINUTES / len(PROPERTIES)
            once(folder=folder)
            while time.monotonic() < end:
                once(folder=folder)

        PROPERTIES.append(check)
        test.__name__ = check.__name__
        return test

    return make


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def read_or_refused(action):
    """What action() returns, or None where it raises a CourseError of one line; anything else fails."""
    try:
        return action()
    except CourseError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 1500
        return None


def damaged(content: bytes):
    """The content with some bytes changed, cut out or put in, or cut off."""
    places = st.integers(0, len(content) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 3), st.binary(max_size=4)), max_size=4)

    def apply(changes, end):
        changed = content
        for at, width, new in changes:
            changed = changed[:at] + new + changed[at + width :]
        return changed[: len(changed) - end]

    return st.builds(apply, changes, st.just(0) | st.integers(0, len(content)))


def encoded(value) -> bytes:
    return files.msgspec.json.encode(value)


IDX = b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x03\0\0\0\x04" + bytes(range(24))


@holds(damaged(IDX) | st.binary(max_size=40))
def test_bytes_are_an_idx_file_or_refused(folder, content):
    path = folder / "idx"
    path.write_bytes(content)
    values = read_or_refused(lambda: files.read_idx(path))
    if values is not None:
        assert len(content) == 4 + 4 * values.ndim + values.numel() * values.element_size() and values.numel()
        files.write_idx(path, values)
        assert torch.equal(files.read_idx(path), values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*vars(FACTS), "x"]) | st.text(max_size=5), inner, max_size=8)
    ),
    max_leaves=12,
)
EXCHANGED = st.builds(
    lambda name, value: json.loads(encoded(FACTS)) | {name: value}, st.sampled_from([*vars(FACTS), "x"]), JSON
)


@holds(damaged(encoded(FACTS)) | st.builds(encoded, EXCHANGED | JSON) | st.binary(max_size=60))
def test_bytes_are_facts_or_refused(folder, content):
    path = folder / "facts.json"
    path.write_bytes(content)
    facts = read_or_refused(lambda: records.read_facts(path))
    if facts is not None:
        files.write_json(path, facts)
        assert records.read_facts(path) == facts and 1 <= facts.kept_epoch <= facts.epochs
        assert math.isfinite(facts.seconds)
    read_or_refused(lambda: files.decode(content, RunStart, "run_start"))


@holds(st.lists(st.just(encoded(TRIAL)) | damaged(encoded(TRIAL)), max_size=4), st.booleans())
def test_lines_are_a_study_or_refused(folder, lines, whole):
    path = folder / "trials.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * whole)
    found = read_or_refused(lambda: files.read_lines(path, Trial))
    if found is not None:
        files.append_line(path, TRIAL)  # a line that was cut off makes room for it
        assert files.read_lines(path, Trial) == [*found, TRIAL]


CELLS = st.sampled_from([*ROW.values(), "", "x", "nan", "-1", "1e999", '"', "1,2", "\n", "０"]) | st.text(max_size=4)
TABLE = st.builds(
    lambda header, rows: "\n".join(",".join(row) for row in [header, *rows]) + "\n",
    st.just(list(ROW)) | st.lists(st.sampled_from([*ROW, "valid_loss", "x"]), max_size=10),
    st.lists(st.just(list(ROW.values())) | st.lists(CELLS, min_size=7, max_size=10), max_size=3),
)


@holds(TABLE | st.text(max_size=40))
def test_text_is_a_log_or_refused(folder, text):
    path = folder / "log.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    rows = read_or_refused(lambda: records.read_log(path))
    if rows is not None:
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1)) and rows
        assert all(0 <= row["train_correct"] <= row["train_total"] and math.isfinite(row["train_loss"]) for row in rows)
        records.write_log(path, rows)
        assert len(records.read_log(path)) == len(rows)


FLIPS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=3)


@holds(FLIPS, st.sampled_from([*HDF5, ""]))
def test_flipped_bytes_are_voxels_or_refused(folder, flips, case):
    """Within the headers, which come first; what the grids hold is checked by its range."""
    path = folder / "rows.h5"
    HDF5.get(case, put())(path)
    content = bytearray(path.read_bytes())
    for at, value in flips:
        content[at % len(content)] = value
    path.write_bytes(content)
    found = read_or_refused(lambda: voxels.read(path))
    if found is not None:
        rows, _ = found
        assert rows.X_train.shape == (len(rows.y_train), 4096) and 0 <= rows.X_train.min() <= rows.X_train.max() <= 1


def picture(form: str, **how) -> bytes:
    drawn(STROKES[3], 80).save(content := io.BytesIO(), form, **how)
    return content.getvalue()


EXIF = st.binary(max_size=80).map(lambda exif: picture("JPEG", exif=b"Exif\0\0" + exif))


@holds(st.one_of(EXIF, *(damaged(picture(form)) for form in ("JPEG", "TIFF", "GIF", "PNG"))))
def test_bytes_are_a_photograph_or_refused(folder, content):
    image = read_or_refused(lambda: photo.read(io.BytesIO(content)))
    assert image is None or (image.shape == (28, 28) and image.max() == 255)


FLAGS = [f"--{field.name.replace('_', '-')}" for field in fields(train.Options)]
FLAGS += [train.flag_of(field.name) for field in fields(Recipe)]
WORDS = ["", "base", "dropout", "voxel_best", "all", "3", "0", "-1", "nan", "1e9", "yes", "2-4", "1-", "mnist3d"]
WORDS = st.sampled_from([*WORDS, *FLAGS]) | st.text(max_size=6)


@holds(st.lists(WORDS, max_size=6))
def test_words_are_a_command_or_refused(folder, argv):
    options = read_or_refused(lambda: train.parse(argv))
    experiments = read_or_refused(lambda: train.chosen(options)) if options else None
    tasks = read_or_refused(lambda: train.tasks_of(experiments, options)) if experiments else None
    if tasks is not None:
        assert tasks and len(tasks) == len(set(tasks)) and all(0 <= seed < 2**63 for _, seed in tasks)


NETWORKS = st.builds(
    "{}({}={})".format,
    st.sampled_from(["separable", "recurrent", "unpadded", "base", "x"]),
    st.sampled_from(["width", "kernel", "depth", "position_weighted", "dropout", "x"]),
    st.text(max_size=8) | st.integers(-2, 40) | st.booleans() | st.floats(),
)


@holds(NETWORKS | st.text())
def test_text_is_a_network_that_takes_a_digit_or_refused(folder, text):
    network = read_or_refused(lambda: models.build(text))
    assert network is None or network.eval()(torch.zeros(1, *models.input_shape(network))).shape == (1, 10)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
KINDS_OF_TENSOR = st.sampled_from([torch.float32, torch.int64, torch.complex64])
TENSORS = st.builds(torch.zeros, st.integers(0, 9), dtype=KINDS_OF_TENSOR)
RECIPE = Recipe("tiny", epochs=3, batch_size=30, schedule="one_cycle", average=0.5)


@holds(st.integers(0, 10**6), st.sampled_from(["exchanged", "missing", "one more"]), VALUES | TENSORS)
def test_a_state_with_any_part_exchanged_is_continued_or_refused(folder, at, how, value):
    network, data = tiny(), dataset()
    training = loops.Training(network, RECIPE, 0, len(data.train))
    training.history.append(loops.train_and_test(training, data, 0, echo=False))
    state = {**training.state_dict(), "best": None}
    places = list(containers(state))
    container, key = places[at % len(places)]
    if how == "missing":
        del container[key]
    else:
        container[key if how == "exchanged" or isinstance(container, list) else "x"] = value
    read_or_refused(lambda: loops.fit(tiny(), data, RECIPE, state=state, echo=False))


def containers(part):
    """Every place of nested dicts and lists, as the container and its key."""
    for key, value in list(part.items() if isinstance(part, dict) else enumerate(part)):
        if key != "history":  # records.read_checkpoint looks at the rows
            yield part, key
            if isinstance(value, dict | list):
                yield from containers(value)


def values_of(field):
    if field.name in RANGES:
        return (st.integers if field.type is int else st.floats)(*RANGES[field.name])
    return st.booleans()


CHOICES = {"model": ["base", "voxel_best"], "data": ["mnist", *KINDS], "keep": ["accuracy", "loss"]}
CHOICES |= {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
RECIPES = {field.name: values_of(field) for field in fields(Recipe) if field.type is not str}
RECIPES |= {name: st.sampled_from(values) for name, values in CHOICES.items()}


@holds(st.fixed_dictionaries(RECIPES))
def test_values_are_a_recipe_that_comes_back_from_its_file_and_its_command_line_or_refused(folder, values):
    try:
        recipe = Recipe(**values)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert files.decode(encoded(recipe), Recipe, "recipe") == recipe
    argv = ["base"]
    for name, value in asdict(recipe).items():
        argv += [train.flag_of(name), ("no", "yes")[value] if type(value) is bool else str(value)]
    [experiment] = train.chosen(train.parse(argv))
    assert experiment.recipe == recipe and recipe.digest() == experiment.recipe.digest()
