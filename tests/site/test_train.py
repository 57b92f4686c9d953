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
from hands import STROKES, check_sums, draw, networks, press, read, settled, start
from playwright.sync_api import expect
from torch.nn import functional as F

from conftest import PATIENCE, SIZES, opened, serving, until
from tools import measurements
from tools.measurements import InTab
from tools.site import __main__ as tool
from tools.site import train
from utils import files, models
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS
from utils.runs import load_pretrained
from utils.training.loops import evaluate, make_optimizer, make_scheduler

NODE = tool.ROOT / "tests" / "site" / "sprint_in_node.mjs"
RECIPE = EXPERIMENTS["sprint"].recipe
# as sprint_in_node.mjs has them; of each digit
MEAN, STD, COPIES = (0.13, 0.31, 15)


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


IN_PAGE = """async ([text, mean, std, seed, steps]) => {
    const { sprint } = await import(new URL("sprint.mjs", location.href).href);
    const network = await sprint(await (await fetch("../train/sprint.wasm")).arrayBuffer());
    const content = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    network.load(content, content);
    network.start(seed, { mean, std });
    for (let step = 0; step < steps; step++) network.step();
    const letters = ({ data }) => Array.from(new Uint8Array(data.buffer), (byte) => String.fromCharCode(byte)).join("");
    return Object.fromEntries(Object.entries(network.state()).map(([name, one]) => [name, btoa(letters(one))]));
}"""


def test_node_and_the_browser_give_the_same_weights(page, site, digits, trained):
    start(page, site)
    theirs = page.evaluate(IN_PAGE, [base64.b64encode(train.pack(digits)).decode(), MEAN, STD, 9, 4])
    ours = {name: one["data"] for name, one in trained(9, 4)["after"].items()}
    assert theirs == ours


@pytest.fixture(scope="module")
def has_digits():
    facts = json.loads((tool.SITE / "train" / "train.json").read_text(encoding="utf-8"))
    if "train" not in facts:
        pytest.skip("_site/ was built without MNIST")
    return facts


SEED = 4  # one of those in train_in_tab.json


def measured_runs():
    return files.read_json(measurements.path("train_in_tab"), InTab).runs


STEP = "Number(document.querySelector('.loss svg')?.ariaLabel.match(/at step (\\d+)/)?.[1] ?? 0)"


def test_published_trainings_give_the_same_state_dict_in_each_engine():
    runs = measured_runs()
    by_seed = {seed: [run for run in runs if run.seed == seed] for seed in {run.seed for run in runs}}
    assert len(by_seed) >= 5
    for found in by_seed.values():
        assert len({run.engine for run in found}) >= 3 and len({run.sha256 for run in found}) == 1
    assert statistics.mean(100 * found[0].correct / found[0].total for found in by_seed.values()) >= 98.9


def test_a_training_from_its_start_to_the_state_dict(browser, site, has_digits, mnist, tmp_path, figure):
    with opened(browser, site) as page:
        start(page, site, "#train")
        draw(page, STROKES[3])
        assert not [address for address in page.seen.requests if address.endswith((".packed", "sprint.wasm"))]
        page.locator("#seed").fill(str(SEED))
        page.keyboard.press("Enter")
        page.wait_for_function(f"{STEP} > 3")
        page.keyboard.press("Tab")  # past "Another seed"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # Pause
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
        expect(said).to_contain_text("are right")
        found = re.match(r"(\S+) % .*?: (\S+) of 10,000, after (\S+) s", said.inner_text())
        percent, correct, seconds = found.groups()
        figure("a network trained in the page: correct of 10,000, seconds", f"{correct} in {seconds}")
        assert 98.6 < float(percent) < 99.4 and page.evaluate(STEP) == 257
        for width, height in SIZES.values():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_function("width => innerWidth === width", arg=width)
            assert page.evaluate("document.documentElement.scrollWidth") == width
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Download its state dict").click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        shown = page.locator("#view-train .quiet code").all_inner_texts()
        assert shown == [f'load_pretrained("{path.name}")', hashlib.sha256(path.read_bytes()).hexdigest()]
        published = {
            run.sha256 for run in files.read_json(measurements.path("train_in_tab"), InTab).runs if run.seed == SEED
        }
        assert published == {hashlib.sha256(path.read_bytes()).hexdigest()}
        model, preprocess = load_pretrained(path)
        packed = Split(((mnist.test.images.int() + 8) // 17 * 17).to(torch.uint8), mnist.test.labels)
        found = evaluate(model, packed, preprocess.mean, preprocess.std).correct
        assert abs(found - int(correct.replace(",", ""))) <= 2  # sums in another order
        assert evaluate(model, mnist.test, preprocess.mean, preprocess.std).percent > 98.6

        page.locator("#tab-draw").click()
        settled(page)
        assert read(page, "your network") == 1
        about = f"seed {SEED}, 33,914 parameters, {percent} % of the test set"
        expect(page.locator(".network").last.locator("p")).to_have_text(about)
        page.locator("#tab-inside").click()
        page.get_by_label("Network", exact=True).select_option("your network")
        check_sums(page, next(one for one in networks().values() if one["model"] == "sprint"))


def test_the_page_labels_as_the_state_dict_does(page, site, has_digits, trained, digits):
    """The network that joins is the one that was trained: its batch norms are folded into convolutions there."""
    start(page, site)
    state = trained(10, 6)["after"]
    script = """async ([state, images]) => {
        const load = (name) => import(new URL(name, location.href).href);
        const { catalogue, outputs } = await load("networks.mjs");
        const { sprintValues } = await load("own.mjs");
        const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const tensor = ([name, { data }]) => [name, { data: new Float32Array(bytes(data).buffer) }];
        const tensors = Object.fromEntries(Object.entries(state).map(tensor));
        const like = (await catalogue()).networks.find(({ model }) => model === "sprint");
        const network = { ...like, normalization: { mean: 0.13, std: 0.31 }, values: sprintValues(like, tensors) };
        const pixels = bytes(images);
        const found = [];
        for (let i = 0; i < pixels.length; i += 784) {
            const { logits } = await outputs(network, pixels.subarray(i, i + 784));
            found.push(...logits.data);
        }
        return found;
    }"""
    images = digits.images[:20]
    found = page.evaluate(script, [state, base64.b64encode(images.numpy().tobytes()).decode()])
    with torch.inference_mode():
        expected = network(tensors(state)).eval()((images / 255 - MEAN) / STD)
    torch.testing.assert_close(torch.tensor(found).view(-1, 10), expected, rtol=1e-4, atol=1e-4)


def test_a_training_whose_digits_fail_is_started_again_stopped_and_started_with_another_seed(browser, site, has_digits):
    # a service worker would ask for the digits itself, too
    with opened(browser, site, forced_colors="active") as page:
        page.route(re.compile(r".*/train\.packed$"), lambda route: route.fulfill(body=b"not the digits"))
        start(page, site, "#train")
        go, said = page.locator("#go"), page.locator("#view-train .said")
        stop = page.locator("#view-train").get_by_role("button", name="Stop")
        go.click()
        expect(said).to_contain_text("SHA-256")
        page.unroute_all()
        before = len(page.seen.requests)
        go.click()
        page.wait_for_function(f"{STEP} > 1")
        stroke, paper = page.evaluate("""() => [getComputedStyle(document.querySelector(".loss .mean")).stroke,
            getComputedStyle(document.body).backgroundColor]""")
        assert stroke != paper, "the loss must show in forced colors"
        stop.click()
        expect(said).to_have_text(re.compile("^Stopped after step"))
        expect(go).to_be_focused()
        filters = "document.querySelector('.tiles canvas').toDataURL()"
        first, seed = page.evaluate(filters), page.locator("#seed").input_value()
        page.get_by_role("button", name="Another seed").click()
        expect(page.locator("#seed")).not_to_have_value(seed)
        go.click()
        page.wait_for_function(f"{filters} !== '{first}' && {STEP} > 1")
        stop.click()
        expect(said).to_have_text(re.compile("^Stopped after step"))
        asked = [address for address in page.seen.requests[before:] if address.endswith(".packed")]
        assert len(asked) == 2, "digits are loaded once"
        page.locator("#tab-draw").click()
        settled(page)
        expect(page.locator(".network", has_text="your network")).to_have_count(0)


KEPT = """async () => {
    const names = ["../train/test.packed", "train_worker.mjs", "sprint.mjs"];
    return (await Promise.all(names.map((name) => caches.match(new URL(name, location.href).href)))).every(Boolean);
}"""


def test_what_has_been_loaded_trains_without_a_network(browser, has_digits):
    with serving() as address:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        start(page, address, "#train")
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        page.locator("#go").click()
        page.wait_for_function(f"{STEP} > 1")
        until(page, KEPT)
    page.reload()  # the server is gone now
    page.locator("#go").click()
    page.wait_for_function(f"{STEP} > 1")
    context.close()


def test_a_build_without_mnist_says_so(page, site):
    facts = {"data": "digits", "mean": 0.3, "std": 0.3}
    page.route(re.compile(r".*/train\.json$"), lambda route: route.fulfill(json=facts))
    start(page, site, "#train")
    expect(page.get_by_text("This build of the pages cannot train: it was made with digits")).to_be_visible()
    expect(page.locator("#go")).to_have_count(0)
