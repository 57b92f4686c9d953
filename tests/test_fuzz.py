"""Inputs made up at random are read, or rejected in one line; `make fuzz MINUTES=10` goes on for so long."""

import io
import json
import math
import os
import time
from dataclasses import fields, replace

import pytest
import torch

pytest.importorskip("hypothesis", reason="hypothesis is not there: pip install -r requirements-extra.txt")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapes import STROKES, drawn
from tiny import FACTS

from tools import train
from utils import CourseError, files
from utils.data import photo
from utils.experiments import EXPERIMENTS, KINDS, OPTIMIZERS, RANGES, SCHEDULES, Recipe
from utils.runs import records

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


def read_or_rejected(action):
    """What action() returns, or None where it raises a CourseError of one line; anything else fails."""
    try:
        return action()
    except CourseError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 1500
        return None


def damaged(content: bytes):
    """The content with some bytes changed, cut out or put in, and perhaps cut off."""
    change = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 3), st.binary(max_size=4))

    def apply(changes, end):
        changed = content
        for at, width, new in changes:
            changed = changed[:at] + new + changed[at + width :]
        return changed[:end]

    return st.builds(apply, st.lists(change, max_size=4), st.none() | st.integers(0, len(content)))


def encoded(value) -> bytes:
    return files.msgspec.json.encode(value)


IDX = b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x03\0\0\0\x04" + bytes(range(24))


@holds(damaged(IDX) | st.binary(max_size=40))
def test_bytes_are_an_idx_file_or_rejected(folder, content):
    path = folder / "idx"
    path.write_bytes(content)
    values = read_or_rejected(lambda: files.read_idx(path))
    if values is not None:
        assert len(content) == 4 + 4 * values.ndim + values.numel() * values.element_size() and values.numel()
        files.write_idx(path, values)
        assert torch.equal(files.read_idx(path), values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8),
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
def test_bytes_are_facts_or_rejected(folder, content):
    path = folder / "facts.json"
    path.write_bytes(content)
    facts = read_or_rejected(lambda: records.read_facts(path))
    if facts is not None:
        files.write_json(path, facts)
        assert records.read_facts(path) == facts and 1 <= facts.kept_epoch <= facts.epochs


CELLS = st.sampled_from([*ROW.values(), "", "x", "nan", "-1", "1e999", '"', "1,2", "\n", "０"]) | st.text(max_size=4)
TABLE = st.builds(
    lambda header, rows: "\n".join(",".join(row) for row in [header, *rows]) + "\n",
    st.just(list(ROW)) | st.lists(st.sampled_from([*ROW, "valid_loss", "x"]), max_size=10),
    st.lists(st.just(list(ROW.values())) | st.lists(CELLS, min_size=7, max_size=10), max_size=3),
)


@holds(TABLE | st.text(max_size=40))
def test_text_is_a_log_or_rejected(folder, text):
    path = folder / "log.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    rows = read_or_rejected(lambda: records.read_log(path))
    if rows is not None:
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1)) and rows
        assert all(0 <= row["train_correct"] <= row["train_total"] and math.isfinite(row["train_loss"]) for row in rows)
        records.write_log(path, rows)
        assert len(records.read_log(path)) == len(rows)


def picture(form: str, **how) -> bytes:
    drawn(STROKES[3], 80).save(content := io.BytesIO(), form, **how)
    return content.getvalue()


EXIF = st.binary(max_size=80).map(lambda exif: picture("JPEG", exif=b"Exif\0\0" + exif))


@holds(st.one_of(EXIF, *(damaged(picture(form)) for form in ("JPEG", "TIFF", "GIF", "PNG"))))
def test_bytes_are_a_photograph_or_rejected(folder, content):
    image = read_or_rejected(lambda: photo.read(io.BytesIO(content)))
    assert image is None or (image.shape == (28, 28) and image.max() == 255)


FLAGS = [f"--{field.name.replace('_', '-')}" for field in fields(train.Options)]
FLAGS += [train.flag_of(field.name) for field in fields(Recipe)]
WORDS = ["", "base", "dropout", "voxel_best", "all", "3", "0", "-1", "nan", "1e9", "yes", "2-4", "1-", "mnist3d"]
WORDS = st.sampled_from([*WORDS, *FLAGS]) | st.text(max_size=6)


@holds(st.lists(WORDS, max_size=6))
def test_words_are_a_command_or_rejected(folder, argv):
    options = read_or_rejected(lambda: train.parse(argv))
    experiments = read_or_rejected(lambda: train.chosen(options)) if options else None
    tasks = read_or_rejected(lambda: train.tasks_of(experiments, options)) if experiments else None
    if tasks is not None:
        assert tasks and len(tasks) == len(set(tasks))


CHOICES = {"model": ["base", "voxel_best"], "data": ["mnist", *KINDS], "keep": ["accuracy", "loss"]}
CHOICES |= {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "start": [""]}
RECIPES = {name: st.sampled_from(values) for name, values in CHOICES.items()}
for field in fields(Recipe):
    if field.name in RANGES:
        RECIPES[field.name] = (st.integers if field.type is int else st.floats)(*RANGES[field.name])
    RECIPES.setdefault(field.name, st.booleans())


@holds(st.fixed_dictionaries(RECIPES))
def test_values_are_a_recipe_that_comes_back_from_its_file_and_its_command_line_or_rejected(folder, values):
    try:
        recipe = Recipe(**values)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert files.decode(encoded(recipe), Recipe, "recipe") == recipe
    experiment = replace(EXPERIMENTS["base"], recipe=recipe)
    asked = {"device": "cpu", "retrain": True, "publish": True, "threads": 1}
    options = train.parse(train.argv_of(experiment, 3, train.Options(**asked)))
    assert train.chosen(options) == [experiment] and options.seed == 3
    assert asked.items() <= vars(options).items()
