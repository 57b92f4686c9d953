"""A network that a notebook's cell defines: the published one, or a reader's own run next to it."""

import copy

import pytest
import torch
from tiny import TINY, tiny, train
from torch import nn

from utils import CourseError, models, runs
from utils.data import datasets
from utils.experiments import EXPERIMENTS
from utils.report import notebook
from utils.runs import load_pretrained


def changed(layers: nn.Sequential) -> nn.Sequential:
    """The same state-dict keys and shapes, but ELU in place of ReLU."""
    return nn.Sequential(*(nn.ELU() if isinstance(layer, nn.ReLU) else layer for layer in layers))


BASE = models.build("base")
CELLS = [  # a network, and how it differs from base
    (BASE, ""),
    (models.build("base", 0.2), "is missing, expected"),
    (nn.Linear(3, 3), "0.weight is missing"),
    (nn.Sequential(*BASE, nn.Linear(10, 10)), "is (10, 10), expected no such entry"),
    (changed(BASE), "its outputs in training differ"),
    (nn.Sequential(*BASE, nn.Softmax(1)), "its outputs in training differ"),
    (nn.Sequential(*BASE, nn.Unflatten(1, (3, 3))), "it raises RuntimeError"),
]


@pytest.mark.parametrize(("network", "found"), CELLS, ids=range(len(CELLS)))
def test_one_line_checks_a_cell_s_network(network, found, capsys):
    before = copy.deepcopy(network.state_dict())
    notebook.check_network(network, EXPERIMENTS["base"])
    same = "This is the published network base: the same 10 state-dict keys and shapes, 7,034 parameters"
    printed = capsys.readouterr().out
    assert printed.startswith("This is not the published network base: " if found else same) and found in printed
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_published_network_of_a_cell_is_the_published_experiment(scratch):
    network = tiny(0.1)
    before = copy.deepcopy(network.state_dict())
    own, plain = train(network=network), train(retrain=True)
    assert own.experiment == TINY and own.facts.sha256 == plain.facts.sha256
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_changed_network_is_a_run_of_its_own_that_can_be_read_and_loaded(scratch, capsys):
    plain, first = train(), train(network=changed(tiny(0.1)), echo=True)
    assert first.experiment.name == "tiny-mine" and first.log != plain.log
    name = first.weights.stem
    assert f'load_pretrained("{first.weights.stem}", network) loads it' in capsys.readouterr().out
    again = train(network=changed(tiny(0.1)), echo=True)
    assert "not trained again" in capsys.readouterr().out and again.facts == first.facts
    with pytest.raises(CourseError, match=rf'no file holds its layers: load_pretrained\("{name}", network\) needs'):
        load_pretrained(name)
    with pytest.raises(CourseError, match="was trained with another network"):
        load_pretrained(name, tiny(0.1))
    model, preprocess = load_pretrained(name, changed(tiny(0.1)))
    images = preprocess(datasets.load("digits").test.images[:50])
    assert torch.equal(model(images), first.model(images)) and not model.training
    assert train(network=changed(tiny(0.3))).log != first.log


def test_a_changed_network_is_never_published_and_must_read_digits(scratch):
    for recipe in ({}, {"valid": 100}):
        with pytest.raises(CourseError, match=r"tiny-mine can't be published: it trains a network of your own"):
            train(TINY.with_recipe(**recipe), publish=True, network=changed(tiny(0.1)))
    assert not (scratch / "logs").exists()
    message = r"^your network can't be trained as tiny: .*Expected layers that turn \(N, 1, 28, 28\)"
    for network in (nn.Linear(3, 10), nn.Sequential(*tiny()[:5]), nn.Sequential(nn.Flatten(), nn.Linear(784, 9))):
        with pytest.raises(CourseError, match=message):
            train(network=network)


class Scaled(nn.Module):
    """A reader's own layer. Without `factor`, one that forgets to return."""

    def __init__(self, factor: float = 0.0):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * (x * self.factor).sigmoid() if self.factor else None


def test_a_layer_of_one_s_own_counts_with_its_numbers_and_a_mistake_in_it_is_named(scratch, capsys):
    one, other = (nn.Sequential(*tiny(), Scaled(factor)) for factor in (1.0, 5.0))
    assert models.digest(one) != models.digest(other) and models.digest(one) == models.digest(copy.deepcopy(one))
    assert train(network=one).log != train(network=other).log
    mistakes = {"NoneType": nn.Sequential(*tiny(), Scaled()), "IndexError": nn.Flatten(1, 5), "no parameters": Pooled()}
    for found, network in mistakes.items():
        with pytest.raises(CourseError, match=f"^your network can't be trained as tiny: .*{found}"):
            train(network=network)
    notebook.check_network(nn.Sequential(*BASE, Scaled()), EXPERIMENTS["base"])
    assert "This is not the published network base: it raises AttributeError" in capsys.readouterr().out


class Pooled(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]


def test_solids_need_no_3d_layer_first_and_may_meet_layers_in_2d(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    of_solids = EXPERIMENTS["voxel_density"]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4096, 10))
    mixed = nn.Sequential(
        nn.Conv3d(1, 2, 3), nn.Flatten(1, 2), nn.Conv2d(28, 4, 3), nn.Flatten(), nn.Linear(4 * 12 * 12, 10)
    )
    for network in (flat, mixed):
        assert runs.run(of_solids, network=network, publish=False, echo=False).history
    with pytest.raises(CourseError, match="your network can't be trained as voxel_density"):
        runs.run(of_solids, network=nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), publish=False)


def test_a_smoke_run_is_not_read_as_the_whole_one(scratch, monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    few = train(TINY.with_recipe(epochs=1))
    monkeypatch.setenv("COURSE_SMOKE", "0")
    assert train(TINY.with_recipe(epochs=1)).facts.test.total > few.facts.test.total


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


def test_wilson_gives_what_textbooks_print():
    """The last of the four is Newcombe's example (1998)."""
    known = {(5, 10): (23.66, 76.34), (0, 10): (0.0, 27.75), (10, 10): (72.25, 100.0), (81, 263): (25.53, 36.62)}
    for (correct, total), expected in known.items():
        assert notebook.wilson(correct, total) == pytest.approx(expected, abs=0.006)
