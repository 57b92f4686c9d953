"""A file is whole and what it says, or refused in one line; the commit that a run records is the course's."""

import json
import os
import re
import resource
import subprocess
import tracemalloc
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


def test_facts_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "seed0.json"
    files.write_json(path, FACTS)
    assert read_facts(path) == FACTS and type(read_facts(path).data.input_shape) is tuple
    older = json.loads(TEXT)
    del older["recipe"]["elastic"]  # a field that was added later means its default
    path.write_text(json.dumps(older))
    assert read_facts(path) == FACTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace('"seed": 0', '"x": 0'), "missing required field `seed`"),
        (TEXT.replace('"correct": 350', '"correct": 350, "best": 99.9'), r"found the unknown field `\$\.test\.best`"),
        (TEXT.replace('"lr": ', '"lr": -'), r"lr = -.*: expected .* - at `\$\.recipe`"),
        (TEXT.replace('"correct": 350', '"correct": 361'), r"correct = 361 of total = 360: .* - at `\$\.test`"),
        (TEXT.replace('"kept_epoch": 3', '"kept_epoch": 4'), "kept_epoch = 4 of 3 epochs"),
        (TEXT.replace('"bytes": 100', f'"bytes": {2**63}'), "more than 63 bits"),
        ("[" * 100_000, "recursion"),
    ],
    ids=range(7),
)
def test_facts_that_are_damaged_are_one_line_with_file_and_field(text, message, tmp_path):
    (tmp_path / "seed0.json").write_text(text)
    told = rejected(lambda: read_facts(tmp_path / "seed0.json"), tmp_path)
    assert re.search(f"(?i)seed0.json.*{message}", told) and len(told) < 600


# ---- logs


def row(epoch, **changes):
    counts = {"train_loss": 0.5, "train_correct": 50, "train_total": 60}
    counts |= {"test_loss": 0.4, "test_correct": 35, "test_total": 40}
    return {"epoch": epoch, "lr": 0.1} | counts | {"seconds": 1.25} | changes


def test_a_log_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "seed0.csv"
    write_log(path, [row(1, lr=1 / 3, train_loss=2 / 3, seconds=1.23456)])
    assert path.read_text().splitlines()[1] == "1,0.333333,0.666667,50,60,0.400000,35,40,1.23"
    assert b"\r" not in path.read_bytes()  # the same file on every system
    held_out = {key.replace("test", "valid"): value for key, value in row(1).items()}
    for rows in ([row(1), row(2)], [row(1, test_correct=0)], [row(1, lr=0.0, test_correct=40)], [held_out]):
        write_log(path, rows)
        assert read_log(path) == rows and list(read_log(path)[0]) == [name for name in COLUMNS if name in rows[0]]


GOOD = """epoch,lr,train_loss,train_correct,train_total,test_loss,test_correct,test_total,seconds
1,0.1,0.5,50,60,0.4,35,40,1.25
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("35,40", "41,40"), "line 2: .* expected correct between 0 and total"),
        (GOOD.replace("0.4", "nan"), "line 2: .* finite numbers"),
        (GOOD.replace("test_loss", "best"), "line 2: .* expected numbers in the columns"),
        (GOOD.replace("0.1", "1" * 200_000), "line 1: found what is no table"),
        (GOOD.split("\n")[0] + "\n", "line 1: found no row, expected one row per epoch"),
    ],
    ids=range(5),
)
def test_a_damaged_log_is_one_line_with_file_and_line(text, message, tmp_path):
    path = tmp_path / "seed0.csv"
    path.write_text(text)
    assert re.search(f"seed0.csv.*{message}", rejected(lambda: read_log(path), tmp_path))


def test_facts_and_log_that_contradict_each_other_are_refused(tmp_path):
    run = records.RunPaths(tmp_path, "tiny", 0)
    write_log(run.log, [row(1), row(2), row(3)])
    files.write_json(run.facts, FACTS)
    assert records.read_record(run).result_row == row(3)
    write_log(run.log, [row(1), row(2)])
    message = r"says seed 0 and 3 epochs, expected seed 0 and the 2 of seed0.csv.*--retrain"
    with pytest.raises(CourseError, match=message):
        records.read_record(run)


# ---- lines


def test_a_last_line_that_is_cut_off_does_not_count_and_any_other_is_refused(tmp_path):
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
    path.write_bytes(line)  # a whole last line without an end counts and is kept
    files.append_line(path, TRIAL)
    assert files.read_lines(path, Trial) == [TRIAL] * 2
    path.write_bytes(line + b"\n" + line[:-30] + b"\n" + line + b"\n")
    with pytest.raises(CourseError, match=r"tiny\.jsonl, line 2: .*(malformed|truncated)"):
        files.read_lines(path, Trial)


def test_a_line_that_does_not_fit_is_reported_and_leaves_the_file_as_it_was(tmp_path):
    """At a limit for the size of files the system writes a part of a line, and says how much."""
    path = tmp_path / "tiny.jsonl"
    files.append_line(path, TRIAL)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, hard))
        with pytest.raises(CourseError, match=r"tiny\.jsonl could not be written \(File too large\)"):
            files.append_line(path, TRIAL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before


def test_lines_are_read_one_by_one(tmp_path):
    """Or a million short ones would take a hundred times the memory of the file before the first is rejected."""
    (tmp_path / "lines.jsonl").write_bytes(b"1\n" * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CourseError, match=r"lines\.jsonl, line 1: "):
            files.read_lines(tmp_path / "lines.jsonl", Trial)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_processes_that_add_side_by_side_lose_no_line(tmp_path):
    path = tmp_path / "tiny.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: files.append_line(path, TRIAL), range(80)))
    assert len(files.read_lines(path, Trial)) == 80


# ---- the rest


def test_what_a_living_process_writes_is_no_leftover_and_what_a_killed_one_left_is(tmp_path):
    path, left = tmp_path / "a.json", tmp_path / ".a.json.killed.new"
    left.touch()
    with files.replacing(path) as mine:
        mine.write_bytes(b"first")
        files.write(path, b"second")  # as by a process in another container, where this one's number means nothing
        assert path.read_bytes() == b"second" and not left.exists()
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one source in a folder of its own, inside a repository that tracks it; and a git that works there."""
    root = tmp_path / "course"
    files.write(root / "utils" / "files.py", b"1")
    monkeypatch.setattr(facts, "ROOT", root)
    monkeypatch.setattr(facts, "DECIDING", ("files",))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))

    def git(folder, *argv):
        command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "enclosing")
    return root, git


def commit() -> str:
    return facts.code.__wrapped__().commit  # not what was found before


def test_the_commit_is_that_of_the_course_s_own_repository_or_unknown(course, monkeypatch):
    root, git = course
    assert commit() == "unknown"  # an enclosing repository tracks the same files
    git(root, "init", "-q")
    git(root, "commit", "-q", "--allow-empty", "-m", "none of the sources")
    assert commit() == "unknown"
    git(root, "add", ".")
    git(root, "commit", "-qm", "sources")
    expected = git(root, "rev-parse", "HEAD")
    assert commit() == expected
    monkeypatch.setenv("GIT_DIR", str(root.parent / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(root.parent))
    assert commit() == expected
    (root / "utils" / "files.py").write_text("3")
    assert commit() == f"{expected}+changes"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_clone_of_another_user_is_one_line(course, capsys):
    root, git = course
    git(root, "init", "-q")
    for path in (root, root / ".git"):
        os.chown(path, 65534, 65534)
    assert commit() == "unknown"
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "belongs to another user" in message and "safe.directory" in message
