"""A committee is trained first, on the student's images; its answers change what is learned, and nothing else."""

import json

import pytest
import torch
from tiny import RECIPE, TINY, dataset, tiny

from utils import CourseError, Interrupted, distil, runs
from utils.experiments import EXPERIMENTS, replace
from utils.runs import job, records
from utils.training.loops import fit

TEACHER = replace(TINY, name="tiny_teacher")
TAUGHT = TINY.but(teacher=TEACHER.key, teachers=2, distil=0.7)
IMAGES = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def known(scratch, monkeypatch):
    """tiny_teacher is an experiment of the course, in a scratch repository."""
    monkeypatch.setitem(EXPERIMENTS, "tiny_teacher", TEACHER)


def members(n: int) -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [tiny() for _ in range(n)]


def committee(seed: int = 0, n: int = 2) -> distil.Committee:
    return distil.train(replace(RECIPE, teacher=TEACHER.key, teachers=n, distil=0.5), RECIPE, dataset(), seed)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_a_committee_answers_with_the_mean_of_its_members_and_learns_nothing():
    both = members(2)
    answers = distil.Committee(both)
    assert torch.equal(answers(IMAGES), (both[0](IMAGES) + both[1](IMAGES)) / 2)
    assert not any(parameter.requires_grad for parameter in answers.parameters()) and not both[0].training


def test_the_loss_is_the_divergence_of_the_softened_answers():
    answers, logits = distil.Committee(members(1)), torch.randn(6, 10, generator=torch.Generator().manual_seed(1), requires_grad=True)
    p, q = ((values.detach() / distil.TEMPERATURE).softmax(1) for values in (answers(IMAGES), logits))
    by_hand = distil.TEMPERATURE**2 * (p * (p / q).log()).sum() / 6
    loss = answers.loss(IMAGES, logits)
    loss.backward()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)  # float32: sums of 60 terms of either order
    assert logits.grad.abs().sum() > 0 and answers.loss(IMAGES, answers(IMAGES)).item() == pytest.approx(0, abs=1e-6)


def test_members_have_seeds_of_their_own_and_no_two_students_share_one():
    first, again, other = committee(0), committee(0), committee(1)
    assert torch.equal(weights(first), weights(again))
    everyone = [*first.members, *other.members]
    assert len({tuple(weights(member).tolist()) for member in everyone}) == 4


def test_teaching_leaves_the_student_s_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    committee()
    assert torch.equal(torch.rand(3), expected)


def test_what_is_taught_changes_the_student_and_takes_time_that_is_counted():
    def student(teach, weight):
        torch.manual_seed(0)
        model = tiny(RECIPE.dropout)
        recipe = replace(RECIPE, teacher=TEACHER.key, teachers=2, distil=weight) if teach else RECIPE
        history = fit(model, dataset(), recipe, echo=False, teach=teach)
        return weights(model), history

    alone, _ = student(None, 0)
    taught, _ = student(committee, 0.7)
    assert not torch.equal(alone, taught)
    by_labels, _ = student(committee, 1e-12)  # the control: a weight of all but nothing changes all but nothing
    assert torch.allclose(by_labels, alone, rtol=0, atol=1e-5) and not torch.allclose(taught, alone, rtol=0, atol=1e-3)


def test_the_seconds_of_teaching_are_those_of_the_first_epoch(monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("utils.training.loops.time.perf_counter", lambda: next(clock))
    history = fit(tiny(), dataset(), replace(RECIPE, dropout=0.0), echo=False, teach=lambda: distil.Committee(members(1)))
    assert [row["seconds"] for row in history] == [20, 10, 10]


def test_a_taught_run_is_the_same_again_and_when_it_is_continued(tmp_path):
    whole, again = (runs.run(TAUGHT, device="cpu", echo=False, folder=tmp_path / name) for name in "ab")
    assert whole.facts.sha256 == again.facts.sha256

    def stop(history):
        if len(history) == 1:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        runs.run(TAUGHT, device="cpu", echo=False, after_epoch=stop)
    continued = runs.run(TAUGHT, device="cpu", echo=False)
    alone = runs.run(TINY, device="cpu", echo=False, folder=tmp_path / "c")
    assert continued.facts.sha256 == whole.facts.sha256 != alone.facts.sha256
    recorded = json.loads(records.Run.of(TAUGHT, 0, records.own_root()).facts.read_text())["recipe"]
    assert (recorded["teacher"], recorded["teachers"], recorded["distil"]) == (TEACHER.key, 2, 0.7)


@pytest.mark.parametrize(
    ("teacher", "why"),
    [
        ("nobody-01234567", "expected NAME-DIGEST of an experiment"),
        ("tiny_teacher", "expected NAME-DIGEST of an experiment"),
        ("tiny_teacher-01234567", f"its recipe is now {TEACHER.key}"),
        (EXPERIMENTS["voxel_best"].key, "expected one that learns from labels, and from the same data"),
    ],
)
def test_a_teacher_that_is_not_there_was_changed_or_sees_other_data_is_refused(teacher, why):
    with pytest.raises(CourseError, match=why):
        job.teacher_of(TAUGHT.but(teacher=teacher))


def test_a_teacher_learns_from_labels(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "taught", replace(TAUGHT, name="taught"))
    with pytest.raises(CourseError, match="expected one that learns from labels"):
        job.teacher_of(TAUGHT.but(teacher=EXPERIMENTS["taught"].key))


@pytest.mark.parametrize("changes", [{"teachers": 0}, {"distil": 0.0}, {"teacher": ""}])
def test_a_committee_needs_all_that_is_said_of_it(changes):
    with pytest.raises(ValueError, match="expected all three, or none"):
        TAUGHT.but(**changes)


def test_every_teacher_of_the_course_is_one_of_its_experiments():
    taught = [entry for entry in EXPERIMENTS.values() if entry.recipe.teacher]
    assert all(job.teacher_of(entry) is not None for entry in taught)
