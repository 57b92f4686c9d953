"""A file is whole and what it says, or refused in one line that names file and field."""

import errno
import json
import math
import os
import subprocess
import threading
from dataclasses import asdict

import pytest
import torch
from tiny import FACTS, TRIAL

from utils import CourseError, files
from utils.runs import records
from utils.runs.records import COLUMNS, read_facts, read_log, what_a_row_lacks, write_log
from utils.runs.trials import Trial


def but(**changes) -> bytes:
    """FACTS as JSON with some fields changed; None removes, a dict goes into the field."""
    plain = json.loads(json.dumps(asdict(FACTS)))
    for name, value in changes.items():
        if value is None:
            del plain[name]
        elif isinstance(value, dict):
            plain[name].update(value)
        else:
            plain[name] = value
    return json.dumps(plain).encode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "seed0.json"


def test_facts_come_back_as_they_were_written(path):
    files.write_json(path, FACTS)
    assert read_facts(path) == FACTS and type(read_facts(path).data.input_shape) is tuple
    path.write_bytes(but())
    assert read_facts(path) == FACTS


def test_an_older_log_that_lacks_a_field_of_the_recipe_means_its_default(path):
    plain = json.loads(but())
    del plain["recipe"]["elastic"]
    path.write_text(json.dumps(plain))
    assert read_facts(path) == FACTS


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (but(seed=None), "missing required field `seed`"),
        (but(note="hello"), r"found the unknown field `\$\.note`"),
        (but(test={"best": 99.9}), r"found the unknown field `\$\.test\.best`"),
        (but(recipe={"blur": 1.0}), r"found the unknown field `\$\.recipe\.blur`"),
        (but(epochs="3"), r"Expected `int`, got `str` - at `\$\.epochs`"),
        (but(epochs=2.5), r"Expected `int`, got `float` - at `\$\.epochs`"),
        (but(data=[]), r"Expected `object`, got `array` - at `\$\.data`"),
        (but(recipe={"lr": float("nan")}), "malformed"),
        (but(recipe={"lr": -1.0}), r"lr = -1\.0: expected .* - at `\$\.recipe`"),
        (but(recipe={"patience": 3}), r"early stopping needs held-out images.* - at `\$\.recipe`"),
        (but(test={"correct": 361}), r"correct = 361 of total = 360: expected 0 to total.* - at `\$\.test`"),
        (but(test={"correct": -1}), r"correct = -1 of total = 360.* - at `\$\.test`"),
        (but(seed=-1), "seed = -1: expected 0 or more"),
        (but(seconds=-0.5), "a count or a time is negative"),
        (but(kept_epoch=4), "kept_epoch = 4 of 3 epochs"),
        (but()[:-20], "truncated"),
        (b"", "truncated"),
        (b"<html>", "malformed"),
        (b"[" * 100_000, "recursion"),
        (b'{"name": "\xff\xfe"}', "utf-8|UTF-8"),
        (LFS, r"is only a Git LFS pointer, expected the file itself: run `git lfs pull`"),
    ],
    ids=range(21),
)
def test_facts_that_are_damaged_are_one_line_with_file_and_field(content, said, path):
    path.write_bytes(content)
    with pytest.raises(CourseError, match=f"(?i)seed0.json.*{said}") as refusal:
        read_facts(path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 600


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_that_is_none_gets_in(number, path):
    path.write_bytes(but(seconds=123.25).replace(b"123.25", number.encode()))
    with pytest.raises(CourseError, match=r"seed0\.json"):
        read_facts(path)


def test_what_is_missing_or_a_folder_is_one_line(path):
    with pytest.raises(CourseError, match=r"seed0.json is missing\. No number counts without it"):
        read_facts(path)
    path.mkdir()
    with pytest.raises(CourseError, match=r"seed0.json can't be read \(Is a directory\): expected a readable file"):
        read_facts(path)


# ---- logs


def row(epoch, **changes):
    counts = {"train_loss": 0.5, "train_correct": 50, "train_total": 60, "test_loss": 0.4, "test_correct": 35, "test_total": 40}
    return {"epoch": epoch, "lr": 0.1} | counts | {"seconds": 1.25} | changes


def test_a_log_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "seed0.csv"
    write_log(path, [row(1), row(2)])
    assert read_log(path) == [row(1), row(2)] and list(read_log(path)[0]) == [name for name in COLUMNS if "valid" not in name]
    write_log(path, [row(1, lr=1 / 3, train_loss=2 / 3, seconds=1.23456)])
    assert path.read_text().splitlines()[1] == "1,0.333333,0.666667,50,60,0.400000,35,40,1.23"
    assert b"\r" not in path.read_bytes()  # the same file on every system


@pytest.mark.parametrize("part", ["test", "valid"])
@pytest.mark.parametrize("correct", [0, 40])
def test_nothing_right_and_everything_right_are_results(part, correct, tmp_path):
    found = {key.replace("test", part): value for key, value in row(1, lr=0.0, train_correct=0, test_correct=correct).items()}
    write_log(tmp_path / "seed0.csv", [found])
    assert read_log(tmp_path / "seed0.csv") == [found]
    assert what_a_row_lacks(found | {f"{part}_correct": 41}, 1).startswith("correct between 0 and total")


GOOD = "epoch,lr,train_loss,train_correct,train_total,test_loss,test_correct,test_total,seconds\n1,0.1,0.5,50,60,0.4,35,40,1.25\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "3,0.1,0.5,50,60,0.4,35,40,1\n", "line 3: found {'epoch': '3'.*expected epoch 2"),
        (GOOD + "1,0.1,0.5,50,60,0.4,35,40,1\n", "line 3: found {'epoch': '1'.*expected epoch 2"),
        (GOOD.replace("\n1,", "\n0,"), "line 2: found {'epoch': '0'.*expected epoch 1"),
        (GOOD.replace("35,40", "41,40"), "line 2: .* expected correct between 0 and total"),
        (GOOD.replace("35,40", "-1,40"), "line 2: .* expected finite numbers from 0"),
        (GOOD.replace("50,60", "61,60"), "line 2: .* expected correct between 0 and total"),
        (GOOD.replace("0.4", "nan"), "line 2: .* finite numbers"),
        (GOOD.replace("0.5", "inf"), "line 2: .* finite numbers"),
        (GOOD.replace("35", "35.5"), "line 2: .* expected numbers in the columns"),
        (GOOD.replace("test_loss", "best"), "line 2: .* expected numbers in the columns"),
        (GOOD + "2,0.1,0.5\n", "line 3: .* expected numbers in the columns"),
        (GOOD + "2,0.1,0.5,50,60,0.4,35,40,1,7\n", "line 3: .* expected numbers in the columns"),
        (GOOD.replace("test_correct,test_total,", "").replace("35,40,", ""), "line 2: .* expected the columns epoch, lr"),
        (GOOD.split("\n")[0] + "\n", "line 1: found no row, expected one row per epoch"),
        ("", "line 1: found no row"),
        (LFS.decode(), "Git LFS pointer"),
    ],
    ids=range(16),
)
def test_a_damaged_log_is_one_line_with_file_and_line(text, said, tmp_path):
    path = tmp_path / "seed0.csv"
    path.write_text(text)
    with pytest.raises(CourseError, match=f"seed0.csv.*{said}") as refusal:
        read_log(path)
    assert "\n" not in str(refusal.value)
    path.write_text(GOOD)
    assert len(read_log(path)) == 1


def test_a_log_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "seed0.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CourseError, match=r"seed0\.csv, line 1: found bytes that are no text, expected a CSV file"):
        read_log(tmp_path / "seed0.csv")


def test_facts_and_log_that_contradict_each_other_are_refused(tmp_path):
    run = records.Run(tmp_path, "tiny", 0)
    write_log(run.log, [row(1), row(2), row(3)])
    files.write_json(run.facts, FACTS)
    assert records.read_record(run).kept == row(3)
    write_log(run.log, [row(1), row(2)])
    with pytest.raises(CourseError, match=r"seed0.json says seed 0 and 3 epochs, expected seed 0 and the 2 of seed0.csv.*--again"):
        records.read_record(run)
    write_log(run.log, [row(1), row(2), row(3)])
    run.facts.write_bytes(but(seed=1))
    with pytest.raises(CourseError, match="says seed 1"):
        records.read_record(run)


# ---- lines


def test_lines_are_added_and_read_back(tmp_path):
    path = tmp_path / "deep" / "tiny.jsonl"
    assert files.read_lines(path, Trial) == []
    for _ in range(2):
        files.append_line(path, TRIAL)
    assert files.read_lines(path, Trial) == [TRIAL, TRIAL]


def test_a_last_line_that_is_cut_off_does_not_count_and_any_other_is_refused(tmp_path):
    path = tmp_path / "tiny.jsonl"
    for _ in range(3):
        files.append_line(path, TRIAL)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert files.read_lines(path, Trial) == [TRIAL, TRIAL]
    line = whole.split(b"\n")[0]
    path.write_bytes(line + b"\n" + line[:-30] + b"\n" + line + b"\n")
    with pytest.raises(CourseError, match=r"tiny\.jsonl, line 2: .*malformed|tiny\.jsonl, line 2: .*truncated"):
        files.read_lines(path, Trial)
    path.write_bytes(line.replace(b'"correct":90', b'"correct":900') + b"\n")
    with pytest.raises(CourseError, match=r"tiny\.jsonl, line 1: correct = 900 of total = 100"):
        files.read_lines(path, Trial)


def test_a_line_that_is_added_after_one_that_was_cut_off_is_not_lost(tmp_path):
    path = tmp_path / "tiny.jsonl"
    files.append_line(path, TRIAL)
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    files.append_line(path, TRIAL)
    assert files.read_lines(path, Trial) == [TRIAL, TRIAL]


def test_processes_that_add_side_by_side_lose_no_line(tmp_path):
    path = tmp_path / "tiny.jsonl"
    threads = [threading.Thread(target=lambda: [files.append_line(path, TRIAL) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files.read_lines(path, Trial)) == 80


def test_idx_comes_back_as_it_was_written(tmp_path):
    for values in (torch.arange(24, dtype=torch.uint8).view(2, 3, 4), torch.tensor([[1, -70_000]], dtype=torch.int32)):
        files.write_idx(tmp_path / "idx", values)
        assert torch.equal(files.read_idx(tmp_path / "idx"), values)


def test_whether_a_process_is_running_is_asked_without_harm(monkeypatch):
    with subprocess.Popen(["sleep", "60"]) as process:
        assert files.is_running(str(process.pid)) and files.is_running("no number")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)  # whatever signal it got would have ended it
        process.kill()
    assert not files.is_running(str(process.pid))

    def another_user_s(pid, number):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", another_user_s)
    assert files.is_running("1")


@pytest.mark.parametrize(("words", "expected"), [("2", 2e9), ("0.5", 5e8), ("", math.inf)])
def test_the_memory_bound_is_in_gigabytes(words, expected, monkeypatch):
    monkeypatch.setenv("COURSE_MEMORY_GB", words)
    assert files.memory_bound() == expected
