"""The loop does what the recipe says: it stops, averages, decays and continues so, and evaluating changes nothing."""

import copy
from dataclasses import replace
from itertools import count

import pytest
import torch
from tiny import RECIPE, dataset, tiny
from torch import nn
from torch.nn import functional as F

from utils.data.datasets import Split
from utils.experiments import Recipe
from utils.training import ddp, loops
from utils.training.loops import (
    CheckpointMismatch,
    Score,
    Training,
    cross_entropies,
    evaluate,
    fit,
    is_over,
    make_optimizer,
    result_epoch,
)

PLAIN = Recipe("tiny", epochs=6, batch_size=30, optimizer="sgd", lr=0.05, schedule="constant")


def begin(recipe: Recipe = PLAIN) -> nn.Module:
    torch.manual_seed(0)
    return tiny(recipe.dropout)


def trained(recipe: Recipe, valid: int = 0, **options) -> tuple[dict, list]:
    """State dict and rows after fit()."""
    model = begin(recipe)
    history = fit(model, dataset(valid=valid), recipe, echo=False, **options)
    return model.state_dict(), history


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def told(monkeypatch):
    """told([0.9, …], [50, …]): evaluate() then returns these losses and correct answers (of 100)."""

    def tell(losses, correct):
        scores = zip(losses, correct, strict=False)
        monkeypatch.setattr(loops, "evaluate", lambda *_: Score(*next(scores), 100))

    return tell


STOPPING = replace(PLAIN, valid=20, patience=2)


def states_of(recipe: Recipe, valid: int = 0, part=lambda training: training.model.state_dict(), **options) -> tuple:
    """State dict and rows after fit(), and a copy of a part of the training's state after each epoch."""
    after = []
    keep = lambda training: after.append(copy.deepcopy(part(training)))  # noqa: E731
    return *trained(recipe, valid, after_epoch=keep, **options), after


@pytest.mark.parametrize(
    ("patience", "keep", "losses", "correct", "epochs", "best"),
    [
        (2, "accuracy", count(1), [50, 60, 60, 55, 90, 90], 4, 2),  # the first of two that are as good
        (2, "loss", [0.9, 0.5, 0.4, 0.6, 0.4, 0.1], [90, 10, 10, 99, 99, 99], 5, 3),
        (0, "accuracy", count(1), [90, 10, 10, 10, 10, 10], 6, 6),  # without patience the last epoch counts
    ],
)
def test_early_stopping_keeps_the_weights_of_the_best_epoch(patience, keep, losses, correct, epochs, best, told):
    recipe = replace(STOPPING, keep=keep, patience=patience)
    told(losses, correct)
    weights, history, after = states_of(recipe, 20)
    assert len(history) == epochs == len(after) and result_epoch(history, recipe)["epoch"] == best
    assert equal(weights, after[best - 1]) and not equal(weights, after[0])  # the control: epochs do differ


def test_a_run_whose_patience_is_at_an_end_is_over_also_when_it_is_continued(told):
    told(count(1), [60, 50, 50])
    weights, history, states = states_of(STOPPING, 20, Training.state_dict)
    assert is_over(history, STOPPING) and not is_over(history[:2], STOPPING) and not is_over([], STOPPING)
    again, rows = trained(STOPPING, 20, state=states[-1])  # nothing is evaluated again: there is nothing left to tell
    assert rows == history and equal(again, weights)
    forgotten, _ = trained(STOPPING, 20, state={**states[-1], "best": None})
    assert not equal(forgotten, weights)


FULL = replace(RECIPE, average=0.5, batch_size=20, schedule="step", drop_at=2)


def whole_and_continued(recipe: Recipe, changes) -> tuple[dict, dict]:
    """State dicts after three epochs: uninterrupted, and continued after the first with `changes` of the state."""
    whole, _, states = states_of(recipe, part=Training.state_dict)
    torch.manual_seed(99)
    model = tiny(recipe.dropout)
    fit(model, dataset(), recipe, state=states[0] | copy.deepcopy(changes(states[0])), echo=False)
    return whole, model.state_dict()


def test_continued_training_is_exact_and_each_missing_part_of_the_state_is_noticed():
    assert equal(*whole_and_continued(FULL, lambda state: {}))
    fresh = Training(begin(FULL), FULL, 0, 60).state_dict()
    fresh["processes"] = [ddp.random_state()]
    for key in fresh.keys() - {"best", "device"}:  # best weights: see early stopping; the kind of device: see below
        assert not equal(*whole_and_continued(FULL, lambda state, key=key: {key: fresh[key]})), key
    with pytest.raises(CheckpointMismatch, match="RuntimeError: Error"):
        whole_and_continued(FULL, lambda state: {"model": {}})


def test_an_epoch_of_some_images_draws_others_each_time_and_the_schedule_knows_its_length(monkeypatch):
    step, drawn = loops.train_batch, []
    spy = lambda training, data, rows: (drawn.append(rows), step(training, data, rows))[1]  # noqa: E731
    monkeypatch.setattr(loops, "train_batch", spy)
    for images, batch_size, batches in ((40, 16, [16, 16, 8]), (61, 60, [60]), (0, 40, [40, 20])):
        drawn.clear()
        recipe, data = replace(PLAIN, images=images, batch_size=batch_size, schedule="one_cycle"), dataset(train=60)
        training = Training(begin(), recipe, 0, len(data.train))
        for _ in range(2):
            assert loops.train_epoch(training, data).total == sum(batches)
        assert [len(rows) for rows in drawn] == 2 * batches
        assert training.scheduler.total_steps == len(batches) * PLAIN.epochs
        first, second = torch.cat(drawn).chunk(2)
        assert len(first.unique()) == sum(batches) and not torch.equal(first, second)


def test_averaged_weights_are_what_is_tested_and_left(told):
    recipe = replace(PLAIN, average=0.75, batch_size=60)  # one step an epoch
    score = lambda training: evaluate(training.tested, dataset().test, 0.3, 0.2)  # noqa: E731
    weights, history, found = states_of(recipe, part=lambda training: (training.model.state_dict(), score(training)))
    after, tested = zip(*found, strict=True)
    for name in ("0.weight", "1.running_mean"):  # batch norm's statistics are averaged like their weights
        expected = after[0][name]
        for state in after[1:]:
            expected = 0.75 * expected + 0.25 * state[name]
        torch.testing.assert_close(weights[name], expected)
        assert not torch.allclose(expected, after[-1][name], atol=1e-3)
    assert [(row["test_loss"], row["test_correct"]) for row in history] == [(one.loss, one.correct) for one in tested]
    assert not equal(weights, trained(replace(recipe, average=0.0))[0])
    told(count(1), [90, 50, 50])  # early stopping keeps averaged weights too
    weights, _, after = states_of(replace(STOPPING, average=0.75), 20, lambda training: training.tested.state_dict())
    assert equal(weights, after[0]) and not equal(weights, after[-1])


def test_weight_decay_pulls_at_biases_and_batch_norm_only_where_the_recipe_says():
    for vectors in (True, False):
        model = begin()
        nn.init.ones_(model[0].bias)
        before = copy.deepcopy(model.state_dict())
        step = make_optimizer(model, replace(PLAIN, weight_decay=0.1, decay_vectors=vectors))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        step.step()
        for name, parameter in model.named_parameters():
            decayed = not torch.equal(parameter, before[name])
            assert decayed == (vectors or parameter.ndim > 1) or not before[name].any()


def rates(recipe: Recipe, valid: int = 0) -> list[float]:
    return [row["lr"] for row in trained(recipe, valid)[1]]


def test_schedules(told):
    assert rates(PLAIN) == [0.05] * 6
    assert rates(replace(PLAIN, schedule="step", drop_at=4)) == pytest.approx([0.05] * 3 + [0.005] * 3)
    assert rates(replace(PLAIN, schedule="step", drop_at=1))[0] == pytest.approx(0.005)
    cycle = rates(replace(PLAIN, schedule="one_cycle", warmup=0.5))
    assert cycle[0] == pytest.approx(0.005) and max(cycle) == cycle[3] > 0.045 and cycle[5] < 0.02
    told([1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1], count(1))
    halved = rates(replace(PLAIN, schedule="plateau", valid=20, epochs=7), 20)
    assert halved == pytest.approx([0.05] * 6 + [0.025])  # four in a row were no better than the second


def test_the_logged_training_loss_is_the_plain_cross_entropy_also_of_smoothed_labels():
    recipe = replace(PLAIN, epochs=1, batch_size=60)
    plain, smoothed = (trained(replace(recipe, label_smoothing=value))[1][0]["train_loss"] for value in (0.0, 0.3))
    assert plain == smoothed  # of the one batch before the first step


def test_a_row_sums_over_all_batches_of_its_epoch():
    torch.manual_seed(0)
    data, model = dataset(), nn.Sequential(nn.Flatten(), nn.Linear(784, 10))  # answers alike in training and in use
    still = replace(PLAIN, epochs=2, batch_size=7, lr=1e-12)  # the last batch is a smaller one
    whole = evaluate(model, data.train, data.mean, data.std)
    for row in fit(model, data, still, echo=False):
        assert (row["train_correct"], row["train_total"]) == (whole.correct, whole.total)
        assert row["train_loss"] == pytest.approx(whole.loss, rel=1e-5)  # float32 sums in another order


def test_losses_and_gradients_are_those_of_pytorch_to_the_last_bit():
    torch.manual_seed(0)
    logits, labels = torch.randn(33, 10) * 3, torch.randint(10, (33,))
    for smoothing in (0.0, 0.1):
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        plain, loss = cross_entropies(ours, labels, smoothing)
        expected = F.cross_entropy(theirs, labels, label_smoothing=smoothing)
        loss.backward()
        expected.backward()
        assert torch.equal(plain, F.cross_entropy(logits, labels)) and torch.equal(loss, expected)
        assert torch.equal(ours.grad, theirs.grad)


def test_a_loss_that_is_not_finite_ends_the_run(monkeypatch):
    monkeypatch.setattr(loops, "evaluate", lambda *_: loops.Score(float("nan"), 5, 20))
    for valid, what in ((0, "test"), (20, "validation")):
        with pytest.raises(loops.Diverged, match=f"tiny, seed 0: the {what} loss became nan in epoch 1"):
            trained(PLAIN, valid, after_epoch=lambda _: pytest.fail("kept"))


def test_evaluation_draws_no_random_number_and_keeps_mode_and_weights():
    model, test = tiny(0.5).train(), dataset().test
    before, weights = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    score = evaluate(model, test, 0.3, 0.2)
    assert torch.equal(before, torch.get_rng_state()) and model.training and equal(weights, model.state_dict())
    assert score.total == 40 and score.correct == round(score.percent * 0.4)


class Constant(nn.Module):
    """Says 0, whatever it sees."""

    def forward(self, images):
        return torch.eye(10)[torch.zeros(len(images), dtype=torch.int64)]


def test_accuracy_is_over_the_whole_set_not_a_mean_of_batches():
    split = Split(torch.zeros(1001, 1, 28, 28, dtype=torch.uint8), torch.tensor([0] * 1000 + [1]))
    score = evaluate(Constant(), split, 0.0, 1.0)
    assert (score.correct, score.total) == (1000, 1001)  # a mean of the batches of 1,000 would say 50 %
