"""Weights of few levels: what is trained is what is tested, and what is tested is what the file of few bytes holds."""

import copy
import math

import pytest
import torch
from tiny import RECIPE, TINY, dataset, tiny
from torch.nn.utils import parametrize

from utils import CourseError, models, runs
from utils.experiments import replace
from utils.runs import packed, records
from utils.training import devices, loops, quantize
from utils.training.loops import evaluate, fit

FEW = replace(RECIPE, levels=5, average=0.9)
SHARED = "recurrent(width=4,repeats=1,position_weighted=True)"  # one convolution, used twice, with two batch norms


def random_network(name: str) -> torch.nn.Module:
    torch.manual_seed(1)
    model = models.build(name)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 2)
    return model.eval()


def test_a_trained_network_is_a_plain_one_of_few_levels_and_the_one_that_was_tested():
    torch.manual_seed(0)
    model, images = tiny(), dataset()
    history = fit(model, images, FEW, echo=False)
    for layer, levels in quantize.levels_of(model, 5):
        step, whole = quantize.weight_grid(layer.weight.detach(), levels)
        assert torch.equal(step * whole, layer.weight) and 2 <= len(whole.unique()) <= levels
    score = evaluate(model, images.test, images.mean, images.std)
    assert (score.correct, score.loss) == (history[-1]["test_correct"], history[-1]["test_loss"])
    assert not any(parametrize.is_parametrized(layer) for layer in model.modules())
    assert model.state_dict().keys() == tiny().state_dict().keys()
    assert len(tiny()[0].weight.unique()) > 50  # the control
    assert [levels for _, levels in quantize.levels_of(models.build(SHARED), 7)] == [31, 7, 7, 7, 7, 31]


def test_weights_are_rounded_to_shares_of_their_root_mean_square_and_the_gradient_passes_through():
    weight = torch.tensor([[-9.0, -0.4, 0.3, 2.6, 9.0, 0.0]], requires_grad=True)
    rounded = quantize.Rounded(5)
    assert math.isclose(rounded.share, 0.84, abs_tol=0.01)  # J. Max 1960, table II: 0.8430
    step = rounded.share * math.sqrt((81 + 0.16 + 0.09 + 6.76 + 81) / 6)
    result = rounded(weight)
    result.backward(torch.arange(6.0)[None])
    torch.testing.assert_close(result, torch.tensor([[-2, 0, 0, 1, 2, 0]]) * step)
    assert torch.equal(weight.grad, torch.arange(6.0)[None])
    assert not rounded(torch.zeros(2, 2)).any() and not quantize.weight_grid(torch.zeros(2, 2), 5)[1].any()


@pytest.mark.parametrize("name", ["bn_augmentation", "under_20k", SHARED])
def test_folding_batch_norms_changes_no_answer_and_rounding_twice_no_weight(name):
    model = random_network(name)
    images, folded = torch.randn(4, *models.input_shape(model)), copy.deepcopy(model)
    with torch.no_grad():
        for layer in folded.modules():
            if isinstance(layer, quantize.NORMS):
                quantize.fold(layer)
                unit = torch.full_like(layer.running_var, 1 - layer.eps)
                assert not layer.running_mean.any() and torch.equal(layer.running_var, unit)
        largest = model(images).abs().max().item()
        torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-4 * largest)
    once = quantize.end(model, 7)
    twice = quantize.end(copy.deepcopy(once), 7)
    assert all(torch.equal(value, twice.state_dict()[key]) for key, value in once.state_dict().items())


def test_a_recalibrated_network_answers_as_in_training_and_a_constant_channel_leaves_the_others_their_levels():
    model, images = random_network("mnist_small"), torch.rand(400, 1, 28, 28)
    devices.prepare(model, torch.device("cpu"))[0].weight.data[3] = 0
    loops.recalibrate(model, images, 0.0, 1.0)
    assert not model.training
    torch.testing.assert_close(model(images), copy.deepcopy(model).train()(images), rtol=1e-2, atol=1e-2)  # other sums
    norm = next(layer for layer in model if isinstance(layer, quantize.NORMS))
    with torch.no_grad():
        before = norm.weight / (norm.running_var + norm.eps).sqrt()
        quantize.fold(norm)
    assert before[3].abs() > 20 * before[:3].abs().max() and norm.weight[3] == 0
    assert torch.equal(norm.weight[:3], before[:3])


@pytest.mark.parametrize("levels", [3, 15])
def test_the_step_is_the_one_of_the_least_error(levels):
    weight, most = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)), levels // 2

    def error(step: torch.Tensor) -> float:
        return (step * (weight / step).round().clamp(-most, most) - weight).square().mean().item()

    step, whole = quantize.weight_grid(weight, levels)
    assert whole.abs().max() == most and step == step.half().float()
    assert error(step) < 1.01 * min(error(other) for other in torch.linspace(0.01, 3, 2000))
    step, whole = quantize.weight_grid(torch.zeros(3, 3), levels)
    assert not (step * whole).any()


# ---- the file


@pytest.mark.parametrize("levels", [3, 16, 255])
def test_a_file_gives_back_every_number_bit_for_bit_and_a_damaged_one_or_another_network_is_refused(levels):
    model = quantize.end(random_network(SHARED), levels)
    content = packed.write(model, SHARED, levels, 0.13066, 1.0)
    read, mean, std = packed.read(content, SHARED.replace(",", ", "))
    assert (mean, std) == (0.13066, 1.0) and not read.training
    state = read.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if "tracked" not in key)
    assert packed.write(read, SHARED, levels, mean, std) == content
    damaged = (b"", content[:-1], content + b"\1", b"\2" + content[1:], content[:40] + b"?" + content[41:])
    for given, name in (*((one, SHARED) for one in damaged), (content, "separable")):
        with pytest.raises(CourseError, match=f"the {len(given)} bytes are no network {name[:9]}.* or damaged: exp"):
            packed.read(given, name)


# ---- runs


def test_a_training_that_starts_with_a_published_network_begins_with_its_weights(scratch):
    before = runs.run(TINY, device="cpu", publish=True, echo=False)
    sha256 = before.facts.sha256
    still = TINY.with_recipe(start=f"tiny-{sha256[:8]}", epochs=1, lr=1e-12, dropout=0.0)
    after = runs.run(still, seed=3, device="cpu", echo=False)
    for (key, value), other in zip(before.model.named_parameters(), after.model.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-6, msg=key)
    for changes, message in (
        ({"start": "tiny"}, "start = 'tiny': expected NAME-HASH of a published network"),
        ({"start": "tiny-00000000"}, f"expected tiny-{sha256[:8]}, as it is published now"),
        ({"start": still.recipe.start, "normalize": False}, "expected a network tiny that saw the same data"),
    ):
        with pytest.raises(CourseError, match=message):
            runs.run(TINY.with_recipe(**changes), device="cpu", echo=False)


def test_every_published_file_holds_the_normalization_of_its_sidecar():
    """That it holds the weights of the state dict, `tools.verify` checks."""
    for path in (records.ROOT / "saved_dict").glob("*.bin"):
        facts, content = records.read_facts(path.with_suffix(".json")), path.read_bytes()
        normalization = facts.normalization.mean, facts.normalization.std
        assert packed.read(content, facts.recipe.model)[1:] == normalization and len(content) == facts.packed
