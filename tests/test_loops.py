"""The loop does what the recipe says: it stops, averages, decays and continues so, and evaluating changes nothing."""

import copy
from dataclasses import replace
from itertools import count

import pytest
import torch
from tiny import dataset, tiny
from torch import nn
from torch.nn import functional as F

from utils.experiments import Recipe
from utils.training import loops
from utils.training.loops import (
    Score,
    Training,
    cross_entropies,
    evaluate,
    fit,
    is_over,
    make_optimizer,
    normalize,
    result_epoch,
)

PLAIN = Recipe("tiny", epochs=6, batch_size=30, optimizer="sgd", lr=0.05, schedule="constant")
STOPPING = replace(PLAIN, valid=20, patience=2)


def trained(recipe: Recipe, part=lambda training: training.model.state_dict(), **options) -> tuple:
    """State dict and rows after fit(), and a copy of a part of the training's state after each epoch."""
    torch.manual_seed(0)
    model, after = tiny(recipe.dropout), []
    keep = lambda training: after.append(copy.deepcopy(part(training)))  # noqa: E731
    history = fit(model, dataset(valid=recipe.valid), recipe, **{"echo": False, "after_epoch": keep} | options)
    return model.state_dict(), history, after


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def told(monkeypatch):
    """told([0.9, …], [50, …]): evaluate() then returns these losses and correct answers (of 100)."""

    def tell(losses, correct):
        scores = zip(losses, correct, strict=False)
        monkeypatch.setattr(loops, "evaluate", lambda *_: Score(*next(scores), 100))

    return tell


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
    weights, history, after = trained(recipe)
    assert len(history) == epochs == len(after) and result_epoch(history, recipe)["epoch"] == best
    assert equal(weights, after[best - 1]) and not equal(weights, after[0])  # the control: epochs do differ


def test_a_run_whose_patience_is_at_an_end_is_over_also_when_it_is_continued(told):
    told(count(1), [60, 50, 50])
    weights, history, states = trained(STOPPING, Training.state_dict)
    assert is_over(history, STOPPING) and not is_over(history[:2], STOPPING) and not is_over([], STOPPING)
    again, rows, _ = trained(STOPPING, state=states[-1])  # nothing is evaluated again: there is nothing left to tell
    assert rows == history and equal(again, weights)
    assert not equal(trained(STOPPING, state=states[-1] | {"best": None})[0], weights)


def test_an_epoch_of_some_images_draws_others_each_time_and_the_schedule_knows_its_length(monkeypatch):
    step, drawn = loops.train_batch, []
    spy = lambda training, data, rows: (drawn.append(rows), step(training, data, rows))[1]  # noqa: E731
    monkeypatch.setattr(loops, "train_batch", spy)
    for images, batch_size, batches in ((40, 16, [16, 16, 8]), (61, 60, [60]), (0, 40, [40, 20])):
        drawn.clear()
        recipe = replace(PLAIN, images=images, batch_size=batch_size, schedule="one_cycle", epochs=2)
        _, history, steps = trained(recipe, lambda training: training.scheduler.total_steps)
        assert [row["train_total"] for row in history] == 2 * [sum(batches)] and steps == 2 * [2 * len(batches)]
        assert [len(rows) for rows in drawn] == 2 * batches
        first, second = torch.cat(drawn).chunk(2)
        assert len(first.unique()) == sum(batches) and not torch.equal(first, second)


def test_averaged_weights_are_what_is_tested_and_left(told):
    recipe = replace(PLAIN, average=0.75, batch_size=60)  # one step an epoch
    score = lambda training: evaluate(training.tested, dataset().test, 0.3, 0.2)  # noqa: E731
    weights, history, found = trained(recipe, lambda training: (training.model.state_dict(), score(training)))
    after, tested = zip(*found, strict=True)
    for name in ("0.weight", "1.running_mean"):  # batch norm's statistics are averaged like their weights
        expected = after[0][name]
        for state in after[1:]:
            expected = 0.75 * expected + 0.25 * state[name]
        torch.testing.assert_close(weights[name], expected)
        assert not torch.allclose(expected, after[-1][name], atol=1e-3)
    assert [(row["test_loss"], row["test_correct"]) for row in history] == [(one.loss, one.correct) for one in tested]
    told(count(1), [90, 50, 50])  # early stopping keeps averaged weights too
    weights, _, after = trained(replace(STOPPING, average=0.75), lambda training: training.tested.state_dict())
    assert equal(weights, after[0]) and not equal(weights, after[-1])


def test_weight_decay_pulls_at_biases_and_batch_norm_only_where_the_recipe_says():
    for vectors in (True, False):
        model = tiny()
        nn.init.ones_(model[0].bias)
        before = copy.deepcopy(model.state_dict())
        step = make_optimizer(model, replace(PLAIN, weight_decay=0.1, decay_vectors=vectors))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        step.step()
        for name, parameter in model.named_parameters():
            decayed = not torch.equal(parameter, before[name])
            assert decayed == (vectors or parameter.ndim > 1) or not before[name].any()


def test_schedules(told):
    def rates(**changes) -> list[float]:
        return [row["lr"] for row in trained(replace(PLAIN, **changes))[1]]

    assert rates() == [0.05] * 6
    assert rates(schedule="step", drop_at=4) == pytest.approx([0.05] * 3 + [0.005] * 3)
    assert rates(schedule="step", drop_at=1)[0] == pytest.approx(0.005)
    cycle = rates(schedule="one_cycle", warmup=0.5)
    assert cycle[0] == pytest.approx(0.005) and max(cycle) == cycle[3] > 0.045 and cycle[5] < 0.02
    told([1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1], count(1))
    halved = rates(schedule="plateau", valid=20, epochs=7)
    assert halved == pytest.approx([0.05] * 6 + [0.025])  # four in a row were no better than the second


def test_a_row_sums_over_all_batches_of_its_epoch_the_plain_cross_entropy():
    torch.manual_seed(0)
    data, model = dataset(), nn.Sequential(nn.Flatten(), nn.Linear(784, 10))  # answers alike in training and in use
    still = replace(PLAIN, epochs=2, batch_size=7, lr=1e-12, label_smoothing=0.3)  # the last batch is a smaller one
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
    for recipe, what in ((PLAIN, "test"), (STOPPING, "validation")):
        with pytest.raises(loops.Diverged, match=f"tiny, seed 0: the {what} loss became nan in epoch 1"):
            trained(recipe, after_epoch=lambda _: pytest.fail("kept"))


def test_evaluation_counts_the_whole_set_draws_no_random_number_and_keeps_mode_and_weights():
    model, split = tiny(0.5).train(), dataset(1001).train  # a mean over batches would weigh the last image as 1,000
    before, weights = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    score = evaluate(model, split, 0.3, 0.2)
    assert torch.equal(before, torch.get_rng_state()) and model.training and equal(weights, model.state_dict())
    with torch.inference_mode():
        logits = model.eval()(normalize(split.images, 0.3, 0.2))
    assert (score.correct, score.total) == ((logits.argmax(1) == split.labels).sum(), 1001)
    assert score.loss == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-6)
