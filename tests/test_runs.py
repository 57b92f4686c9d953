"""A run gives the same bits again, survives kill -9, is not done twice, publishes only what is real, and fails
whole."""

import csv
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny import TINY

from utils import ROOT, CourseError, Interrupted, experiments, files, runs
from utils.data import datasets
from utils.experiments import EXPERIMENTS, Experiment
from utils.report import tables
from utils.runs import comparison, execution, facts, job, pretrained, records, trials
from utils.runs.facts import Code
from utils.runs.records import RunPaths, read_log, read_record
from utils.training import devices, loops
from utils.training.loops import Score, evaluate

HELD = TINY.with_recipe(valid=200)
STOPPING = TINY.with_recipe(valid=200, patience=2, epochs=9)


uncached_code = facts.code.__wrapped__  # before a fixture puts another in its place


@pytest.fixture(autouse=True)
def whole(scratch):
    """Every run of this file goes to a scratch repository."""


def train(experiment=TINY, seed=0, **options):
    return runs.run(experiment, seed, device="cpu", echo=False, **options)


def own(experiment=TINY, seed=0) -> RunPaths:
    return RunPaths.of(experiment, seed, records.own_root())


def listing(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rows_without_time(log):
    with log.open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def counted(monkeypatch):
    """How often something was trained."""
    calls, fit = [], execution.train
    monkeypatch.setattr(execution, "train", lambda *arguments: calls.append(arguments[2]) or fit(*arguments))
    return calls


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    first, again = (train(folder=tmp_path / name) for name in "ab")
    assert first.weights.read_bytes() == again.weights.read_bytes()
    assert rows_without_time(first.log) == rows_without_time(again.log)
    assert train(seed=1).facts.sha256 != first.facts.sha256


def test_files_hold_what_the_rules_ask_for():
    result = train()
    header = result.log.read_text().splitlines()[0]
    assert header == "epoch,lr,train_loss,train_correct,train_total,test_loss,test_correct,test_total,seconds"
    plain = json.loads(result.log.with_suffix(".json").read_text())
    assert plain["recipe"] == files.without_defaults(TINY.recipe) and plain["seed"] == 0 and plain["epochs"] == 3
    assert (
        plain["data"]["name"] == "digits"
        and plain["data"]["kind"] == "images"
        and plain["data"]["input_shape"] == [1, 28, 28]
    )
    assert len(plain["data"]["fingerprint"]) == 64 and plain["code"] == {"commit": "a" * 40, "sources": "b" * 16}
    assert (
        plain["environment"]["threads"] == torch.get_num_threads()
        and plain["environment"]["torch"] == torch.__version__
    )
    model, sidecar = pretrained.load_model(result.weights)
    assert sidecar == result.facts == records.read_facts(result.log.with_suffix(".json"))
    assert evaluate(model, result.data.test, **plain["normalization"]) == result.facts.test
    assert (
        result.history[-1] | {f"test_{key}": value for key, value in asdict(result.facts.test).items()}
        == result.history[-1]
    )
    assert read_record(own()).result_row == read_log(result.log)[-1]
    assert not list(own().checkpoint.parent.iterdir())


def test_a_run_is_scored_once_on_the_cpu_wherever_it_was_trained(monkeypatch):
    monkeypatch.setattr(loops, "evaluate", lambda *_: Score(9.0, 1, 360))  # as another device might
    result = train()
    message = [Score(*(row[f"test_{key}"] for key in ("loss", "correct", "total"))) for row in read_log(result.log)]
    assert message[:2] == [Score(9.0, 1, 360)] * 2 and message[2].correct == result.facts.test.correct > 1
    assert read_record(own()).result_row["test_loss"] == pytest.approx(result.facts.test.loss, abs=1e-6)


def test_a_run_on_cuda_records_that_float32_is_not_rounded_to_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert facts.environment(torch.device("cuda")).tf32 is True
    devices.pick_device("cpu")
    assert facts.environment(torch.device("cuda")).tf32 is False and facts.environment(torch.device("cpu")).tf32 is None


def test_a_reader_s_own_run_is_loaded_by_name_and_by_path():
    result = train()
    for name in (result.weights.stem, result.weights, str(result.weights)):
        model, preprocess = pretrained.load_pretrained(name)
        assert model(preprocess(result.data.test.images[:3])).shape == (3, 10)
    with pytest.raises(
        CourseError, match=f"no published network or run of your own is called 'tiny': expected {result.weights.stem}"
    ):
        pretrained.load_pretrained("tiny")


# ---- what was begun is continued


SCRIPT = """
import sys, msgspec, tiny
from utils import models, CourseError
from utils import runs
from utils.experiments import Experiment, Recipe
models.MODELS.update(tiny.NETWORKS)
try:
    runs.run(Experiment("killed", msgspec.json.decode(sys.argv[1], type=Recipe), ""), device="cpu")
except CourseError as error:
    print(error)
"""


def start(root, recipe):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "COURSE_RUNS": str(root),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(asdict(recipe))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for_epoch(process, number):
    for line in process.stdout:
        if line.startswith(f"Epoch {number}:"):
            return
    raise AssertionError(f"the run ended before epoch {number}")


def killed(root, recipe) -> RunPaths:
    return RunPaths.of(Experiment("killed", recipe, ""), 0, root)


def test_a_run_killed_with_kill_9_ends_as_the_uninterrupted_one_and_can_be_read_meanwhile(tmp_path):
    recipe = replace(TINY.recipe, model="bn_augmentation", epochs=5)
    whole = start(tmp_path / "whole", recipe)
    for epoch, delay in ((1, 0.0), (3, 0.1)):  # while a checkpoint is written, and in mid-epoch
        process = start(tmp_path / "killed", recipe)
        wait_for_epoch(process, epoch)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert rows_so_far(killed(tmp_path / "killed", recipe)) >= epoch  # what is printed is on disk
    process = start(tmp_path / "killed", recipe)
    output = process.communicate()[0]
    assert process.returncode == 0 and "continuing after epoch" in output
    whole.communicate()
    one, other = (killed(tmp_path / name, recipe) for name in ("whole", "killed"))
    assert one.weights.read_bytes() == other.weights.read_bytes()
    assert rows_without_time(one.log) == rows_without_time(other.log)
    recorded = records.read_facts(other.facts).continued
    assert (
        len(recorded) in (1, 2) and 1 <= recorded[-1].after_epoch < 5 and recorded[-1].code and recorded[-1].environment
    )
    assert records.read_facts(one.facts).continued == []


def test_ctrl_c_says_where_it_will_continue(tmp_path):
    recipe = replace(TINY.recipe, epochs=3000)
    process = start(tmp_path, recipe)
    wait_for_epoch(process, 3)
    process.send_signal(signal.SIGINT)
    assert "The same command continues it after its last finished epoch" in process.communicate()[0]
    assert rows_so_far(killed(tmp_path, recipe)) >= 3


def interrupt_after(epoch):
    def after_epoch(history):
        if len(history) == epoch:
            raise KeyboardInterrupt

    return after_epoch


def interrupted(experiment=TINY, epoch=1, **options) -> None:
    """A run that stops after its first epoch, its checkpoint written."""
    with pytest.raises(Interrupted):
        train(experiment, after_epoch=interrupt_after(epoch), **options)


def rows_so_far(run: RunPaths) -> int:
    return len(records.read_checkpoint(run.checkpoint)[1]["history"])


def test_an_epoch_is_on_disk_as_soon_as_it_is_over():
    seen = []
    train(after_epoch=lambda history: seen.append((len(history), rows_so_far(own()))))
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_a_run_that_is_trained_again_can_be_read_until_the_new_one_is_filed(monkeypatch):
    first = train()
    interrupted(retrain=True)
    assert records.own(TINY)[0].facts == train().facts == first.facts and own().checkpoint.exists()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "write_log", lambda *_: interrupt_after(0)([]))
        train(retrain=True)
    again = train()  # without being asked to: what was filed in part is no finished run
    assert again.facts.continued and again.facts.sha256 == first.facts.sha256


def test_continuing_early_stopping_keeps_the_best_weights_of_before(monkeypatch, tmp_path):
    def told(first):
        scores = iter([Score(1.0, correct, 200) for correct in (90, 150, 100, 100)][first:])
        real = loops.evaluate
        monkeypatch.setattr(loops, "evaluate", lambda model, split, *how: next(scores))
        return real

    real = told(0)
    whole = train(STOPPING, folder=tmp_path / "whole")
    monkeypatch.setattr(loops, "evaluate", real)
    told(0)
    interrupted(STOPPING, 3)
    monkeypatch.setattr(loops, "evaluate", real)
    told(3)
    continued = train(STOPPING)
    assert continued.facts.sha256 == whole.facts.sha256 and (continued.facts.kept_epoch, continued.facts.epochs) == (
        2,
        4,
    )


def test_a_continuation_records_epoch_code_and_environment(monkeypatch, capsys):
    interrupted(epoch=2)
    monkeypatch.setattr(facts, "code", lambda: Code("c" * 40, "d" * 16))
    result = runs.run(TINY, device="cpu")
    message = capsys.readouterr().out
    assert (
        "tiny, seed 0: continuing after epoch 2 of 3" in message
        and "the result will not be bit for bit the same" in message
    )
    (continued,) = result.facts.continued
    assert (continued.after_epoch, continued.code, result.facts.code) == (
        2,
        Code("c" * 40, "d" * 16),
        Code("a" * 40, "b" * 16),
    )
    assert continued.environment == result.facts.environment


def test_a_commit_that_changes_no_deciding_source_spoils_nothing(monkeypatch, capsys, tmp_path):
    whole = train(folder=tmp_path / "whole")
    interrupted()
    monkeypatch.setattr(facts, "code", lambda: Code("c" * 40, "b" * 16))
    result = runs.run(TINY, device="cpu")
    assert "bit for bit" not in capsys.readouterr().out and result.facts.sha256 == whole.facts.sha256


def test_an_interrupted_run_on_other_data_is_not_continued(monkeypatch):
    interrupted()
    digits = datasets.load("digits")
    monkeypatch.setattr(datasets, "load", lambda name: replace(digits, fingerprint="0" * 64))
    assert train().facts.continued == []


def signed(content: bytes) -> bytes:
    """A checkpoint of this content, with a digest that fits."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "its SHA-256 is another"),
        (lambda content: b"", "its SHA-256 is another"),
        (lambda content: signed(b"[1, 2]\n"), "Expected `object`, got `array`"),
        (lambda content: content.replace(b"tiny", b"tinx"), "its SHA-256 is another"),
        (lambda content: signed(b"{}\n"), "missing required field `run_start`"),
        (lambda content: signed(b"no JSON\n"), "JSON is malformed"),
        (None, "can't be read"),
    ],
    ids=["truncated", "empty", "other form", "other parts", "other facts", "no JSON", "a folder"],
)
def test_a_damaged_checkpoint_is_one_line_that_says_what_to_delete(damage, message, counted):
    interrupted()
    checkpoint = own().checkpoint
    content = checkpoint.read_bytes()
    checkpoint.unlink()
    checkpoint.write_bytes(damage(content)) if damage else checkpoint.mkdir()
    name = f"runs/unfinished/{checkpoint.name}"
    with pytest.raises(CourseError, match=f"^{name}.* {message}.*Delete {name} to start this run anew") as refusal:
        train()
    assert "\n" not in str(refusal.value) and len(counted) == 1
    checkpoint.unlink() if damage else checkpoint.rmdir()
    assert train().facts.continued == []


def test_a_checkpoint_that_does_not_fit_is_one_line_that_says_what_to_delete():
    interrupted()
    run_start, state = records.read_checkpoint(own().checkpoint)
    state["model"]["0.weight"] = torch.zeros(3, 3)
    records.write_checkpoint(own().checkpoint, run_start, state)
    with pytest.raises(
        CourseError,
        match=r"\.pt does not fit this run \(.*expected one like a tensor of float32.*Delete it to start again",
    ):
        train()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_checkpoint_of_another_kind_of_device_is_continued(device):
    interrupted()
    run_start, state = records.read_checkpoint(own().checkpoint)
    state |= {"device": device, "numbers": torch.zeros(16, dtype=torch.uint8)}
    records.write_checkpoint(own().checkpoint, run_start, state)
    assert [one.after_epoch for one in train().facts.continued] == [1]


# ---- what is finished is not done again


def test_a_finished_run_is_not_trained_again_unless_asked(counted, capsys):
    first = train()
    again = runs.run(TINY, device="cpu")
    assert (
        len(counted) == 1
        and again.facts == first.facts
        and "not trained again (retrain=True, or --retrain, does)" in capsys.readouterr().out
    )
    assert files.to_bytes(again.model.state_dict()) == first.weights.read_bytes() and again.history == read_log(
        first.log
    )
    anew = train(retrain=True)
    assert len(counted) == 2 and anew.facts.sha256 == first.facts.sha256


def test_the_checkpoint_that_a_kill_left_of_a_finished_run_is_deleted():
    left = []
    train(after_epoch=lambda history: left.append(own().checkpoint.read_bytes()))
    own().checkpoint.write_bytes(left[-1])
    train()
    assert not own().checkpoint.exists()


def test_a_finished_run_on_other_data_is_trained_again(counted, monkeypatch):
    train()
    digits = datasets.load("digits")
    monkeypatch.setattr(datasets, "load", lambda name: replace(digits, fingerprint="0" * 64))
    train()
    assert len(counted) == 2
    assert [one.facts.data.fingerprint for one in records.own(TINY)] == [
        "0" * 64
    ]  # whatever a reader trained on is shown


def test_a_run_without_its_facts_is_not_finished(counted):
    train().log.with_suffix(".json").unlink()  # written last: a kill before it leaves the rest
    train()
    assert len(counted) == 2


def test_two_recipes_never_share_a_path(counted):
    first = train()
    before = listing(records.own_root())
    other = train(TINY.with_recipe(lr=0.02))
    assert len(counted) == 2 and first.log != other.log and first.weights != other.weights
    assert before.items() <= listing(records.own_root()).items()
    assert own().checkpoint != own(TINY.with_recipe(lr=0.02)).checkpoint


# ---- published or not


def test_a_published_run_lies_in_the_repository_and_is_read_without_training(scratch, counted):
    result = train(publish=True)
    found = set(listing(scratch))
    assert found == {"logs/tiny/seed0.csv", "logs/tiny/seed0.json", "saved_dict/tiny.pth", "saved_dict/tiny.json"}
    second = train(seed=1, publish=True)
    assert set(listing(scratch)) - found == {"logs/tiny/seed1.csv", "logs/tiny/seed1.json"}  # weights of seed 0 alone
    assert not second.weights.is_file()
    read = runs.load(TINY, published=True, echo=False)
    assert len(counted) == 2 and read.facts == result.facts and read.model is not None
    assert runs.load(TINY, 1, published=True, echo=False).model is None
    assert [record.facts.seed for record in records.published(TINY)] == [0, 1] and records.own(TINY) == []
    train(publish=True)
    assert len(counted) == 2
    train()  # one's own run of a published recipe is not the published one
    assert len(counted) == 3 and len(records.own(TINY)) == 1


@pytest.mark.parametrize(
    ("experiment", "seed", "message"),
    [
        (TINY.with_recipe(lr=0.5), 0, "tiny: its recipe was changed, so there is no published run to read"),
        (TINY, 7, "tiny: seed 7 is not published by its present recipe"),
    ],
)
def test_reading_a_published_run_of_another_recipe_is_refused(experiment, seed, message, counted):
    train(publish=True)
    with pytest.raises(CourseError, match=message):
        runs.load(experiment, seed, published=True)
    assert len(counted) == 1


def test_a_published_run_of_an_earlier_recipe_does_not_count(monkeypatch):
    train(publish=True)
    changed = TINY.with_recipe(lr=0.5)
    monkeypatch.setitem(EXPERIMENTS, "tiny", changed)
    assert records.published(changed) == [] and len(records.published(TINY)) == 1
    with pytest.raises(CourseError, match="seed 0 is not published by its present recipe"):
        runs.load(changed, published=True)


@pytest.mark.parametrize("commit", ["unknown", "a" * 40 + "+changes"])
def test_code_that_is_in_no_commit_is_refused_before_training(commit, monkeypatch, counted, scratch):
    monkeypatch.setattr(facts, "code", lambda: Code(commit, "b" * 16))
    with pytest.raises(CourseError, match=r"can't be published from the commit '.*Commit them first"):
        train(publish=True)
    assert not counted and not listing(scratch)


def test_where_git_is_missing_the_commit_is_unknown(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(facts.subprocess, "run", missing)
    assert uncached_code().commit == "unknown" and len(uncached_code().sources) == 16


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (TINY.with_recipe(epochs=2), "can't be published with a changed recipe"),
        (replace(TINY, name="mine"), "can't be published with a changed recipe"),
    ],
)
def test_only_unchanged_registered_recipes_are_published(experiment, message, scratch, counted):
    with pytest.raises(CourseError, match=message):
        train(experiment, publish=True)
    assert not counted and not listing(scratch)


def test_a_smoke_run_can_not_be_published(monkeypatch, scratch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    with pytest.raises(CourseError, match="a smoke run can't be published"):
        train(publish=True)
    assert not listing(scratch)


def test_data_that_are_not_the_real_ones_are_not_published(monkeypatch, counted):
    monkeypatch.setitem(datasets.PUBLISHABLE, "digits", "0" * 64)
    with pytest.raises(CourseError, match=r"tiny can't be published: digits \(fingerprint .* is not the real digits"):
        train(publish=True)
    assert not counted


def test_fallback_digits_are_not_published_as_mnist(monkeypatch, counted):
    digits = datasets.load("digits")
    monkeypatch.setattr(datasets, "load", lambda name: digits)
    monkeypatch.delitem(datasets.PUBLISHABLE, "digits")
    with pytest.raises(CourseError, match=r"digits .* is not the real mnist"):
        train(EXPERIMENTS["base"], 99, publish=True)
    assert not counted


@pytest.mark.parametrize(
    ("change", "published"),
    [
        ({"code": Code("c" * 40, "b" * 16)}, True),  # a commit to README or to a plot does not spoil a long run
        ({"code": Code("a" * 40, "d" * 16)}, False),
        ({"code": Code("a" * 40 + "+changes", "b" * 16)}, False),
        ({"code": Code("unknown", "b" * 16)}, False),
        ({"threads": 64}, False),
        ({"torch": "1.0"}, False),
        ({"device": "CPU, another"}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("part", ["run_start", "continued"])
def test_a_run_of_which_any_part_ran_elsewhere_is_not_published(part, change, published, monkeypatch, counted):
    code, environment = facts.code, facts.environment

    def elsewhere() -> None:
        if "code" in change:
            monkeypatch.setattr(facts, "code", lambda: change["code"])
        else:
            monkeypatch.setattr(facts, "environment", lambda *how: replace(environment(*how), **change))

    def here() -> None:
        monkeypatch.setattr(facts, "code", code)
        monkeypatch.setattr(facts, "environment", environment)

    if part == "continued":
        interrupted()
    elsewhere()
    interrupted(epoch=2)
    here()
    if published:
        assert [one.after_epoch for one in train(publish=True).facts.continued][-1] == 2
        return
    with pytest.raises(
        CourseError,
        match=r"tiny, seed 0 can't be published: its checkpoint comes from other sources, or another machine.* Delete",
    ):
        train(publish=True)
    trainings = len(counted)
    assert (
        train().facts.continued[-1].after_epoch == 2 and len(counted) == trainings + 1
    )  # as a run of one's own it goes on


# ---- held-out images


def test_a_run_with_held_out_images_shows_no_test_figure_anywhere(capsys):
    result = runs.run(HELD, device="cpu")
    message = capsys.readouterr().out
    assert (
        result.facts.test is None and result.facts.parts == {} and "Valid set:" in message and "Test set" not in message
    )
    header, row = result.log.read_text().splitlines()[:2]
    assert "valid_correct" in header and "test" not in header and row.count(",") == header.count(",")
    assert result.history[0]["valid_total"] == 200 and result.history[0]["train_total"] == 1237
    table = tables.summary([result])
    assert "| closed |" in table and "tiny, held-out images: " in table
    assert json.loads(result.log.with_suffix(".json").read_text())["test"] is None
    assert "the test set stays closed while images are held out" in comparison.against_published(HELD, result.facts)
    # the control: without held-out images all of these show one
    open_ = train()
    assert open_.facts.test and "closed" not in tables.summary([open_]) and "test_correct" in open_.log.read_text()


def test_the_test_set_is_not_even_looked_at(monkeypatch):
    looked = []
    real = loops.evaluate
    for module in (loops, execution):
        monkeypatch.setattr(
            module, "evaluate", lambda model, split, *how: looked.append(len(split)) or real(model, split, *how)
        )
    train(HELD)
    assert set(looked) == {200}
    train()
    assert 360 in looked


def test_a_registered_recipe_that_holds_out_images_is_tested_once(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "tiny", HELD)
    result = train(HELD)
    assert result.facts.test.total == 360 and "test_correct" not in result.history[0]
    assert f"{result.facts.test.percent:.2f}" in tables.summary([result])


def test_every_run_with_held_out_images_adds_one_line_to_its_study(scratch):
    train()
    assert trials.read("tiny") == []
    first = train(HELD)
    (trial,) = trials.read("tiny")
    kept = first.history[-1]
    assert (trial.recipe, trial.seed, trial.epoch, trial.pruned) == (HELD.recipe, 0, 3, False)
    assert (trial.valid.correct, trial.valid.total, trial.valid.loss) == (
        kept["valid_correct"],
        200,
        kept["valid_loss"],
    )
    assert (
        trial.code == facts.code()
        and trial.environment == first.facts.environment
        and trial.fingerprint == first.facts.data.fingerprint
    )
    train(HELD)  # finished: nothing is added
    other = train(HELD.with_recipe(lr=0.02), 1)
    assert [(one.recipe.lr, one.seed) for one in trials.read("tiny")] == [(0.01, 0), (0.02, 1)]
    assert other.log != first.log and other.weights != first.weights and first.log.is_file()
    train(HELD, retrain=True)
    assert len(trials.read("tiny")) == 3
    assert [str(path.relative_to(scratch)) for path in scratch.rglob("*.jsonl")] == ["runs/trials/tiny.jsonl"]


def test_a_published_study_writes_nothing_but_its_line(scratch):
    result = train(HELD, publish=True)
    repository = {name for name in listing(scratch) if not name.startswith("runs/")}
    assert repository == {"logs/trials/tiny.jsonl"} and len(trials.read("tiny")) == 1
    assert result.weights.is_relative_to(scratch / "runs") and result.facts.test is None


def test_a_run_that_is_given_up_leaves_one_line_that_says_so():
    interrupted(HELD, 2)
    runs.give_up(HELD, 0, records.read_checkpoint(own(HELD).checkpoint)[1]["history"])
    (trial,) = trials.read("tiny")
    assert (trial.pruned, trial.epoch) == (True, 2) and not own(HELD).checkpoint.exists()


# ---- what goes wrong


def test_a_loss_that_is_not_finite_keeps_nothing_of_the_run(scratch):
    with pytest.raises(CourseError, match=r"tiny, seed 0: the training loss became (nan|inf) in epoch 1.*--lr"):
        train(TINY.with_recipe(optimizer="sgd", schedule="constant", lr=1e6, weight_decay=1e6, batch_size=20))
    assert not listing(scratch)


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, counted):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CourseError, match=r"could not be written \(Not a directory\).*run again"):
        train(folder=tmp_path / "file")
    assert not counted


def test_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "weights.pth"
    files.write(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CourseError,
        match=r"weights.pth could not be written \(No space left on device\); the old file is untouched.*Free some space",
    ):
        files.write(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_smoke_run_is_short_and_goes_with_the_process(monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    monkeypatch.delenv("COURSE_RUNS")
    result = train()
    assert (len(result.history), result.history[0]["train_total"]) == (1, 512)
    assert ROOT not in result.weights.parents and ROOT not in result.log.parents and result.weights.is_file()
    folder = subprocess.run(
        [
            sys.executable,
            "-c",
            "from utils.runs import records; print(records.own_root(), records.own_root().is_dir())",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert folder[1] == "True" and not Path(folder[0]).exists()


@pytest.mark.parametrize(("device", "there"), [("gpu", "cpu"), ("cpu:1", "cpu"), ("cpu:", "cpu"), ("cuda:99", "cpu")])
def test_unknown_device_lists_those_that_are_there(device, there):
    with pytest.raises(CourseError, match=rf"device '{device}' is not available: expected auto or one of .*{there}"):
        devices.pick_device(device)


@pytest.mark.parametrize(
    ("experiment", "seed", "message"),
    [
        (TINY, -1, "seed = -1: expected 0 to"),
        (TINY.with_recipe(data="mnits"), 0, "no data set is called 'mnits'"),
        (
            TINY.with_recipe(data="mnist3d", rotate=0.0),
            0,
            "model = 'tiny' takes images, but data = 'mnist3d' holds voxels",
        ),
        (
            TINY.with_recipe(model="tiny_voxels"),
            0,
            "model = 'tiny_voxels' takes voxels, but data = 'digits' holds images",
        ),
        (
            TINY.with_recipe(model="separable(width=-1)"),
            0,
            r"model = 'separable\(width=-1\)' with dropout = 0.1 can't be built",
        ),
        (TINY.with_recipe(model="bas"), 0, "no network is called 'bas'"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_any_data_is_loaded(experiment, seed, message, monkeypatch):
    monkeypatch.setattr(job, "prepare_data", lambda experiment: pytest.fail("data were loaded"))
    with pytest.raises(CourseError, match=message):
        train(experiment, seed)
    assert experiments.KINDS["mnist3d"] == "voxels"


def test_a_reader_s_own_runs_are_those_of_his_folder(scratch):
    """Beside them what is published may be missing, or of other seeds."""
    runs.run(TINY, seed=1, device="cpu", echo=False)
    assert [record.facts.seed for record in records.own(TINY)] == [1] and not records.published(TINY)
    runs.run(TINY, seed=0, device="cpu", publish=True, echo=False)
    assert [record.facts.seed for record in records.own(TINY)] == [1]
    assert [record.facts.seed for record in records.published(TINY)] == [0]
