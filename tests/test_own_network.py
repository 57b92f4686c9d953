"""A network that a notebook's cell defines: the published one, or a reader's own run next to it."""

import copy
import math

import pytest
import torch
from tiny import TINY, tiny
from torch import nn

from utils import CourseError, models, runs
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.report import notebook
from utils.runs import load_pretrained


def changed(p=0.1):
    """The tiny network with ELU in place of ReLU: the same state-dict keys and shapes."""
    return nn.Sequential(*(nn.ELU() if isinstance(layer, nn.ReLU) else layer for layer in tiny(p)))


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (tiny(0.1), ""),
        (nn.Sequential(*tiny(0.1), nn.Linear(10, 10)), r"6.weight is \(10, 10\), expected no such entry"),
        (changed(), "its outputs in training differ"),
        (nn.Sequential(*tiny(0.1), nn.Softmax(1)), "its outputs in training differ"),
    ],
    ids=["equal", "a layer more", "another activation", "softmax"],
)
def test_a_changed_network_is_noticed(network, found):
    before = copy.deepcopy(network.state_dict())
    difference = models.difference(network, tiny(0.1))
    assert difference.startswith(found.replace("\\", "")) and bool(difference) == bool(found)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_published_network_of_a_cell_is_the_published_experiment(scratch):
    network = tiny(0.1)
    before = copy.deepcopy(network.state_dict())
    own = runs.run(TINY, device="cpu", echo=False, network=network)
    plain = runs.run(TINY, device="cpu", retrain=True, echo=False)
    assert own.experiment == TINY and own.facts.sha256 == plain.facts.sha256
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_changed_network_is_a_run_of_its_own_that_can_be_read_and_loaded(scratch, capsys):
    plain = runs.run(TINY, device="cpu", echo=False)
    first = runs.run(TINY, device="cpu", network=changed())
    assert first.experiment.name == "tiny-mine" and first.log != plain.log
    name = first.weights.stem
    assert f'load_pretrained("{first.weights.stem}", network) loads it' in capsys.readouterr().out
    again = runs.run(TINY, device="cpu", network=changed())
    assert "not trained again" in capsys.readouterr().out and again.facts == first.facts
    with pytest.raises(CourseError, match=rf'no file holds its layers: load_pretrained\("{name}", network\) needs'):
        load_pretrained(name)
    with pytest.raises(CourseError, match="was trained with another network"):
        load_pretrained(name, tiny(0.1))
    model, preprocess = load_pretrained(name, changed())
    images = preprocess(datasets.load("digits").test.images[:50])
    assert torch.equal(model(images), first.model(images)) and not model.training
    assert runs.run(TINY, device="cpu", echo=False, network=changed(0.3)).log != first.log


def test_a_changed_network_is_never_published_and_must_read_digits(scratch):
    for recipe in ({}, {"valid": 100}):
        with pytest.raises(CourseError, match=r"tiny-mine can't be published: it trains a network of your own"):
            runs.run(TINY.with_recipe(**recipe), device="cpu", publish=True, network=changed())
    assert not (scratch / "logs").exists()
    message = r"^your network can't be trained as tiny: .*Expected layers that turn \(N, 1, 28, 28\)"
    for network in (nn.Linear(3, 10), nn.Sequential(*tiny()[:5]), nn.Sequential(nn.Flatten(), nn.Linear(784, 9))):
        with pytest.raises(CourseError, match=message):
            runs.run(TINY, device="cpu", network=network)


def test_one_line_checks_a_cell_s_network(capsys):
    notebook.check_network(models.build("base"), EXPERIMENTS["base"])
    notebook.check_network(models.build("base", 0.2), EXPERIMENTS["base"])
    notebook.check_network(nn.Linear(3, 3), EXPERIMENTS["base"])
    same, *others = capsys.readouterr().out.splitlines()
    assert same.startswith("This is the published network base: the same 10 state-dict keys and shapes, 7,034 param")
    assert len(others) == 2 and all(line.startswith("This is not the published network base: ") for line in others)


def test_a_false_claim_fails_outside_a_smoke_run(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_SMOKE", "0")
    notebook.claim("Two is more than one", 2 > 1, two=2, one_half=0.5)
    assert capsys.readouterr().out == "✓ Two is more than one (two 2, one half 0.50).\n"
    with pytest.raises(CourseError, match=r"^false: One is more than two \(one 1\)"):
        notebook.claim("One is more than two", 1 > 2, one=1)
    notebook.claim("Seen on digits that stand in for MNIST", False, datasets.load("digits"))
    monkeypatch.setenv("COURSE_SMOKE", "1")
    notebook.claim("One is more than two", 1 > 2)
    assert "✓" not in capsys.readouterr().out


def test_a_short_run_trains_less_and_a_full_one_the_recipe(capsys):
    base = EXPERIMENTS["base"]
    assert notebook.short_run(base).recipe.changes(base.recipe) == {"epochs": (15, 2), "images": (0, 20_000)}
    assert notebook.short_run(base, retrain=True) == base
    short, full = capsys.readouterr().out.splitlines()
    assert notebook.short_run(EXPERIMENTS["mnist_small"]).recipe.average == 0
    assert notebook.short_run(base, images=5_000).recipe.images == 5_000
    assert "2 epochs of 20,000 random training images each, about" in short
    assert "15 epochs of all training images, about" in full
    voxels, sprint = EXPERIMENTS["voxel_best"], EXPERIMENTS["sprint"]
    assert notebook.short_run(voxels).recipe.changes(voxels.recipe) == {"epochs": (36, 2)}  # 10,000 solids are few
    assert notebook.short_run(sprint) == sprint, "the recipe is shorter than a short run"
    assert "full run of sprint: 1 epoch of 33,000 random training images each" in capsys.readouterr().out


def test_wilson_gives_what_textbooks_print_and_holds_the_true_accuracy_as_often_as_it_says():
    """The last of the four is Newcombe's example (1998)."""
    known = {(5, 10): (23.66, 76.34), (0, 10): (0.0, 27.75), (10, 10): (72.25, 100.0), (81, 263): (25.53, 36.62)}
    for (correct, total), expected in known.items():
        assert notebook.wilson(correct, total) == pytest.approx(expected, abs=0.006)
    total, p, inside = 1000, 0.99, 0.0
    for k in range(940, total + 1):
        low, high = notebook.wilson(k, total)
        inside += math.comb(total, k) * p**k * (1 - p) ** (total - k) * (low <= 100 * p <= high)
    assert 0.93 < inside < 0.97
