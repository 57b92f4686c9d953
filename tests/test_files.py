"""A file is whole and what it says, or rejected in one line; the commit that a run records is the course's."""

import json
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from rejections import rejected
from tiny import FACTS, TRIAL

from utils import CourseError, files
from utils.runs import facts, records
from utils.runs.records import COLUMNS, read_facts, read_log, write_log
from utils.runs.trials import Trial

TEXT = json.dumps(asdict(FACTS))


def test_a_field_that_was_added_later_means_its_default(tmp_path):
    path, older = tmp_path / "seed0.json", json.loads(TEXT)
    del older["recipe"]["elastic"]
    path.write_text(json.dumps(older))
    assert read_facts(path) == FACTS and type(read_facts(path).data.input_shape) is tuple


def row(epoch, **changes):
    counts = {"train_loss": 0.5, "train_correct": 50, "train_total": 60}
    counts |= {"test_loss": 0.4, "test_correct": 35, "test_total": 40}
    return {"epoch": epoch, "lr": 0.1} | counts | {"seconds": 1.25} | changes


def test_a_log_has_few_digits_and_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "seed0.csv"
    write_log(path, [row(1, lr=1 / 3, train_loss=2 / 3, seconds=1.23456)])
    assert path.read_bytes().split(b"\n")[1] == b"1,0.333333,0.666667,50,60,0.400000,35,40,1.23"
    for rows in ([row(1), row(2)], [{key.replace("test", "valid"): value for key, value in row(1).items()}]):
        write_log(path, rows)
        assert read_log(path) == rows and list(read_log(path)[0]) == [name for name in COLUMNS if name in rows[0]]


LOG = """epoch,lr,train_loss,train_correct,train_total,test_loss,test_correct,test_total,seconds
1,0.1,0.5,50,60,0.4,35,40,1.25
"""
DAMAGED = [  # a file's text, and what the line says of it
    (TEXT.replace('"seed": 0', '"x": 0'), "json.*missing required field `seed`"),
    (TEXT.replace('"correct": 350', '"correct": 350, "best": 99.9'), r"json.*found the unknown field `\$\.test\.best`"),
    (TEXT.replace('"lr": ', '"lr": -'), r"json.*lr = -.*: expected .* - at `\$\.recipe`"),
    (TEXT.replace('"correct": 350', '"correct": 361'), r"json.*correct = 361 of total = 360: .* - at `\$\.test`"),
    (TEXT.replace('"kept_epoch": 3', '"kept_epoch": 4'), "json.*kept_epoch = 4 of 3 epochs"),
    (TEXT[:-20], "json.*truncated"),
    (LOG.replace("35,40", "41,40"), "csv, line 2: found 41 correct of 40"),
    (LOG.replace("0.4", "nan"), "csv, line 2: found numbers that are negative or not finite"),
    (LOG.replace("test_loss", "best"), "csv, line 2: found 'best'"),
    (LOG.replace("\n1,", "\n2,"), "csv, line 2: found epoch 2 in the place of 1"),
    (LOG.split("\n")[0] + "\n", "csv, line 2: found no row"),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_of_a_run_is_one_line_with_file_and_place(text, message, tmp_path):
    path = tmp_path / f"seed0.{re.match('json|csv', message)[0]}"
    path.write_text(text)
    line = rejected(lambda: (read_log if path.suffix == ".csv" else read_facts)(path), tmp_path)
    assert re.search(rf"(?i)seed0\.{message}", line) and len(line) < 600


def test_facts_and_log_that_contradict_each_other_are_rejected(tmp_path):
    run = records.RunPaths(tmp_path, "tiny", 0)
    write_log(run.log, [row(1), row(2), row(3)])
    files.write_json(run.facts, FACTS)
    assert records.read_record(run).result_row == row(3)
    write_log(run.log, [row(1), row(2)])
    message = r"says seed 0 and 3 epochs, expected seed 0 and the 2 of seed0.csv.*--retrain"
    with pytest.raises(CourseError, match=message):
        records.read_record(run)


def test_a_last_line_that_is_cut_off_does_not_count_and_any_other_is_rejected(tmp_path):
    path = tmp_path / "deep" / "tiny.jsonl"
    assert files.read_lines(path, Trial) == []
    for _ in range(3):
        files.append_line(path, TRIAL)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert files.read_lines(path, Trial) == [TRIAL, TRIAL]
    files.append_line(path, TRIAL)
    assert files.read_lines(path, Trial) == [TRIAL] * 3
    line = whole.split(b"\n")[0]
    path.write_bytes(line + b"\n" + line[:-30] + b"\n" + line + b"\n")
    with pytest.raises(CourseError, match=r"tiny\.jsonl, line 2: .*(malformed|truncated)"):
        files.read_lines(path, Trial)


def test_processes_that_add_side_by_side_lose_no_line(tmp_path):
    path = tmp_path / "tiny.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: files.append_line(path, TRIAL), range(80)))
    assert len(files.read_lines(path, Trial)) == 80


def test_processes_that_write_one_file_at_once_leave_a_whole_one_and_no_leftover_of_a_killed_one(tmp_path):
    path, left = tmp_path / "a.json", tmp_path / ".a.json.killed.new"
    left.touch()
    os.utime(left, (time.time() - files.ABANDONED - 1,) * 2)
    with files.replacing(path) as mine:
        mine.write_bytes(b"first")
        files.write(path, b"second")  # as by another process
        assert path.read_bytes() == b"second" and not left.exists()
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_the_commit_is_that_of_the_course_or_unknown(tmp_path, monkeypatch):
    files.write(tmp_path / "utils" / "files.py", b"1")
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    monkeypatch.setattr(facts, "DECIDING", ("files",))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    commit = lambda: facts.code.__wrapped__().commit  # noqa: E731  not what was found before

    def git(*argv):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert commit() == "unknown"
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "none of the sources")
    assert commit() == "unknown"
    git("add", ".")
    git("commit", "-qm", "sources")
    expected = git("rev-parse", "HEAD")
    assert commit() == expected
    (tmp_path / "utils" / "files.py").write_text("3")
    assert commit() == f"{expected}+changes"
    monkeypatch.setenv("PATH", "")  # without git
    assert commit() == "unknown" and len(facts.code.__wrapped__().sources) == 16
