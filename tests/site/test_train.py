"""The "Train" tab: its gradients are PyTorch's, its weights are the same in each engine, and its network joins the
others."""

import base64
import json
import subprocess

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tools.site import __main__ as tool
from tools.site import train
from utils import models
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.training.steps import make_optimizer, make_scheduler

NODE = tool.ROOT / "tests" / "site" / "sprint_in_node.mjs"
RECIPE = EXPERIMENTS["sprint"].recipe
MEAN, STD, COPIES = (
    0.13,
    0.31,
    15,
)  # as sprint_in_node.mjs has them; of each digit


@pytest.fixture(scope="module")
def digits() -> Split:
    """The test digits of the page, each several times."""
    images = np.fromfile(tool.SITE / "networks" / "digits.bin", "u1").reshape(-1, 1, 28, 28)
    labels = json.loads((tool.SITE / "networks" / "digits.json").read_text(encoding="utf-8"))["labels"]
    return Split(torch.from_numpy(images).repeat(COPIES, 1, 1, 1), torch.tensor(labels).repeat(COPIES))


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """What Node makes of the digits in a number of steps: called with a seed and the steps."""
    path = tmp_path_factory.mktemp("train") / "digits"
    path.write_bytes(train.pack(digits))

    def run(seed: int, steps: int) -> dict:
        argv = [*tool.program("node"), str(NODE), str(tool.SITE), str(path), str(seed), str(steps)]
        return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)

    return run


def numbers(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy())


def tensors(found: dict) -> dict[str, torch.Tensor]:
    return {name: numbers(one["data"]).view(one["shape"]) for name, one in found.items()}


def network(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = models.build("sprint")
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and all(name.endswith("num_batches_tracked") for name in left.missing_keys)
    return model


def seen(digits: Split) -> torch.Tensor:
    """Digits as the tab trains on them: 16 gray levels, normalized."""
    return ((digits.images.int() + 8) // 17 / 15 - MEAN) / STD


def test_gradients_are_pytorchs(trained, digits):
    found = trained(3, 1)
    model = network(tensors(found["before"])).train()
    rows = found["batches"][0]
    logits = model(seen(digits)[rows])
    F.cross_entropy(logits, digits.labels[rows], label_smoothing=RECIPE.label_smoothing).backward()
    assert found["losses"][0] == pytest.approx(F.cross_entropy(logits, digits.labels[rows]).item(), abs=1e-5)
    ours = tensors(found["gradients"])
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            ours[name], parameter.grad, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert max((ours[name] - parameter.grad.roll(1)).abs().max() for name, parameter in model.named_parameters()) > 1e-2


def test_a_training_of_several_steps_is_pytorchs(trained, digits):
    """Optimizer, schedule, running statistics, and the network in eval mode."""
    steps = 5
    found = trained(4, steps)
    model = network(tensors(found["before"])).train()
    optimizer = make_optimizer(model, RECIPE)
    scheduler = make_scheduler(optimizer, RECIPE, found["total"])
    for number in range(steps):
        assert found["rates"][number] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        rows = found["batches"][number]
        optimizer.zero_grad()
        F.cross_entropy(
            model(seen(digits)[rows]), digits.labels[rows], label_smoothing=RECIPE.label_smoothing
        ).backward()
        optimizer.step()
        scheduler.step()
    after, expected = tensors(found["after"]), model.state_dict()
    assert after.keys() == {name for name in expected if not name.endswith("num_batches_tracked")}
    for name, tensor in after.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-3, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )
    model.load_state_dict(after, strict=False)
    model.eval()
    drawing = (torch.arange(784).view(1, 1, 28, 28) * 37 % 256 / 255 - MEAN) / STD
    with torch.inference_mode():
        torch.testing.assert_close(numbers(found["logits"])[None], model(drawing), rtol=1e-4, atol=1e-4)
        for maps, layers in zip(found["maps"], (4, 8, 11), strict=True):
            expected = model[:layers](drawing)[0].flatten(1).T  # [pixel][channel]
            torch.testing.assert_close(numbers(maps).view_as(expected), expected, rtol=1e-4, atol=1e-4)
        right = model(seen(digits)[:128]).argmax(1) == digits.labels[:128]
    assert abs(found["correct"] - int(right.sum())) <= 1


def test_first_weights_are_distributed_as_pytorchs(trained):
    state = tensors(trained(5, 0)["before"])
    for name, inputs in {"1.weight": 25, "4.weight": 144, "8.weight": 288, "13.weight": 1024}.items():
        bound = inputs**-0.5
        assert bound * 0.98 < state[name].abs().max() <= bound
        assert state[name].mean().abs() < 4 * bound / (3 * state[name].numel()) ** 0.5
        assert state[name].std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert all((state[f"{name}.weight"] == 1).all() and not state[f"{name}.bias"].any() for name in "269")


def test_a_seed_gives_the_weights_and_another_seed_others(trained):
    one, same, other = (trained(seed, 2)["after"]["4.weight"]["data"] for seed in (6, 6, 7))
    assert one == same != other


def test_order_is_a_permutation(trained, digits):
    rows = [row for batch in trained(8, len(digits) // 128)["batches"] for row in batch]
    assert len(set(rows)) == len(rows) == len(digits) // 128 * 128 and rows != sorted(rows)


def test_packed_digits_are_the_digits_at_16_levels(digits):
    content = np.frombuffer(train.pack(digits[:5]), "u1")
    assert content[:5].tolist() == digits.labels[:5].tolist()
    levels = np.stack([content[5:] >> 4, content[5:] & 15], 1).reshape(5, 24, 24)
    apart = levels * 17.0 - digits.images[:5, 0, 2:26, 2:26].numpy()
    assert np.abs(apart).max() <= 8
