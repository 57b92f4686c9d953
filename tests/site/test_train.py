"""The "Train" tab: its gradients are PyTorch's, its weights are the same in each engine, and its network joins the
others."""

import base64
import hashlib
import json
import re
import statistics
import subprocess

import numpy as np
import pytest
import torch
from hands import STEP, check_sums, draw, networks, press, read, settled, start
from playwright.sync_api import expect
from shapes import STROKES
from torch.nn import functional as F

from conftest import SIZES
from tools import measurements
from tools.site import networks as site_networks
from tools.site.__main__ import SITE, program
from utils import ROOT, files, models
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.runs import load_pretrained
from utils.training.loops import evaluate, make_optimizer, make_scheduler

NODE = ROOT / "tests" / "site" / "sprint_in_node.mjs"
RECIPE = EXPERIMENTS["sprint"].recipe
MEAN, STD, COPIES = 0.13, 0.31, 15  # as sprint_in_node.mjs has them; of each digit
SEED = 4  # one of those in train_in_tab.json


@pytest.fixture(scope="module")
def digits() -> Split:
    """The test digits of the page, each several times."""
    images = np.fromfile(SITE / "networks" / "digits.bin", "u1").reshape(-1, 1, 28, 28)
    labels = json.loads((SITE / "networks" / "digits.json").read_text(encoding="utf-8"))["labels"]
    return Split(torch.from_numpy(images).repeat(COPIES, 1, 1, 1), torch.tensor(labels).repeat(COPIES))


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """What Node makes of the digits in a number of steps: called with a seed and the steps."""
    path = tmp_path_factory.mktemp("train") / "digits"
    path.write_bytes(site_networks.pack(digits))

    def run(seed: int, steps: int) -> dict:
        argv = [*program("node"), str(NODE), str(SITE), str(path), str(seed), str(steps)]
        return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)

    return run


@pytest.fixture(scope="module")
def has_digits():
    if "train" not in json.loads((SITE / "train" / "train.json").read_text(encoding="utf-8")):
        pytest.skip("the pages were built without MNIST: set COURSE_DATA")


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


def loss_of(model: torch.nn.Module, digits: Split, rows: list[int]) -> torch.Tensor:
    return F.cross_entropy(model(seen(digits)[rows]), digits.labels[rows], label_smoothing=RECIPE.label_smoothing)


def test_gradients_are_pytorchs(trained, digits):
    found = trained(3, 1)
    model, ours = network(tensors(found["before"])).train(), tensors(found["gradients"])
    loss_of(model, digits, found["batches"][0]).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-5, atol=1e-5)
    assert (ours[name] - parameter.grad.roll(1)).abs().max() > 1e-2, "the control: of the last parameter"


def test_a_training_of_several_steps_is_pytorchs(trained, digits):
    """Optimizer, schedule, running statistics, and the network in eval mode."""
    found = trained(4, 5)
    model = network(tensors(found["before"])).train()
    optimizer = make_optimizer(model, RECIPE)
    scheduler = make_scheduler(optimizer, RECIPE, found["total"])
    for rate, rows in zip(found["rates"], found["batches"], strict=False):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.zero_grad()
        loss_of(model, digits, rows).backward()
        optimizer.step()
        scheduler.step()
    after, expected = tensors(found["after"]), model.state_dict()
    assert after.keys() == {name for name in expected if not name.endswith("num_batches_tracked")}
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-3)
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


def test_a_seed_gives_the_first_weights_distributed_as_pytorchs_and_the_order(trained, digits):
    one, same, other = trained(8, len(digits) // 128), trained(8, len(digits) // 128), trained(7, 1)
    assert one["after"] == same["after"] and one["batches"][0] != other["batches"][0]
    rows = [row for batch in one["batches"] for row in batch]
    assert len(set(rows)) == len(rows) == len(digits) // 128 * 128 and rows != sorted(rows)
    state = tensors(one["before"])
    for name, inputs in {"1.weight": 25, "4.weight": 144, "8.weight": 288, "13.weight": 1024}.items():
        bound = inputs**-0.5
        assert bound * 0.98 < state[name].abs().max() <= bound
        assert state[name].mean().abs() < 4 * bound / (3 * state[name].numel()) ** 0.5
        assert state[name].std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert all((state[f"{name}.weight"] == 1).all() and not state[f"{name}.bias"].any() for name in "269")


@pytest.fixture(scope="module")
def by_seed() -> dict:
    """The published trainings."""
    runs = files.read_json(measurements.path("train_in_tab"), measurements.InTab).runs
    return {seed: [run for run in runs if run.seed == seed] for seed in {run.seed for run in runs}}


def test_published_trainings_give_the_same_state_dict_in_each_engine(by_seed):
    assert len(by_seed) >= 5
    for found in by_seed.values():
        assert len({run.engine for run in found}) >= 3 and len({run.sha256 for run in found}) == 1
    assert statistics.mean(100 * found[0].correct / found[0].total for found in by_seed.values()) >= 98.9


def test_a_training_from_its_start_to_the_state_dict(page, site, has_digits, by_seed, mnist, tmp_path):
    start(page, site, "#train")
    draw(page, STROKES[3])
    assert not [address for address in page.seen.requests if address.endswith((".packed", "sprint.wasm"))]
    page.locator("#seed").fill(str(SEED))
    page.keyboard.press("Enter")
    page.wait_for_function(f"{STEP} > 3")
    for key in ("Tab", "Tab", "Enter"):  # past "Another seed" to "Pause"
        page.keyboard.press(key)
    said = page.locator("#view-train .said")
    expect(said).to_have_text("Paused.")
    step = page.evaluate(STEP)
    drawn = "document.querySelectorAll('.tiles')[1].firstChild.toDataURL()"
    before = page.evaluate(drawn)
    press(page, "Clear")
    draw(page, STROKES[1])  # what a paused network makes of another digit
    page.wait_for_function(f"{drawn} !== '{before}'")
    assert page.evaluate(STEP) == step < 257
    page.locator("#go").click()  # Go on
    expect(said).to_contain_text("classified correctly")
    percent, correct = re.match(r"(\S+) % .*?: (\S+) of 10,000, after \S+ s", said.inner_text()).groups()
    assert 98.6 < float(percent) < 99.4 and page.evaluate(STEP) == 257
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("width => innerWidth === width", arg=width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download its state dict").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    shown = page.locator("#view-train .quiet code").all_inner_texts()
    assert shown == [f'load_pretrained("{path.name}")', sha256]
    assert {run.sha256 for run in by_seed[SEED]} == {sha256}
    model, preprocess = load_pretrained(path)
    packed = Split(((mnist.test.images.int() + 8) // 17 * 17).to(torch.uint8), mnist.test.labels)
    found = evaluate(model, packed, preprocess.mean, preprocess.std).correct
    assert abs(found - int(correct.replace(",", ""))) <= 2  # sums in another order

    page.locator("#tab-draw").click()
    settled(page)
    assert read(page, "your network") == 1
    about = f"seed {SEED}, 33,914 parameters, {percent} % of the test set"
    expect(page.locator(".network").last.locator("p")).to_have_text(about)
    page.locator("#tab-inside").click()
    page.get_by_label("Network", exact=True).select_option("your network")
    check_sums(page, next(one for one in networks().values() if one["model"] == "sprint"))


def test_a_training_whose_digits_fail_is_started_again_and_stopped(page, site, has_digits):
    page.route(re.compile(r".*/train\.packed$"), lambda route: route.fulfill(body=b"not the digits"))
    start(page, site, "#train")
    go, said = page.locator("#go"), page.locator("#view-train .said")
    go.click()
    expect(said).to_contain_text("SHA-256")
    page.unroute_all()
    go.click()
    page.wait_for_function(f"{STEP} > 1")
    page.locator("#view-train").get_by_role("button", name="Stop").click()
    expect(said).to_have_text(re.compile("^Stopped after step"))
    expect(go).to_be_focused()
    seed = page.locator("#seed").input_value()
    page.get_by_role("button", name="Another seed").click()
    expect(page.locator("#seed")).not_to_have_value(seed)
    page.locator("#tab-draw").click()
    settled(page)
    expect(page.locator(".network", has_text="your network")).to_have_count(0)


def test_a_build_without_mnist_says_so(page, site):
    facts = {"data": "digits", "mean": 0.3, "std": 0.3}
    page.route(re.compile(r".*/train\.json$"), lambda route: route.fulfill(json=facts))
    start(page, site, "#train")
    expect(page.get_by_text("This build of the pages cannot train: it was made with digits")).to_be_visible()
    expect(page.locator("#go")).to_have_count(0)
