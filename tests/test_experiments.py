"""A recipe is all that decides the weights, refuses what can't be meant, and new entries are found."""

from dataclasses import asdict, field, fields, make_dataclass, replace
from functools import lru_cache
from itertools import count

import pytest
import torch
from tiny import FACTS, NETWORKS, RECIPE, TINY, dataset

from utils import CourseError, models
from utils.data import datasets, voxels
from utils.experiments import EXPERIMENTS, Experiment, Range, Recipe
from utils.runs import execution, job
from utils.training import devices, loops
from utils.training.loops import Score

SHORT = replace(RECIPE, epochs=1, batch_size=20)
VOXELS = {"model": "tiny_voxels", "data": "mnist3d", "rotate": 0.0}
HELD = {"valid": 20, "epochs": 4, "patience": 2}
# field of Recipe → a value that is not SHORT's, and what else must be set for it to matter
VALUES = {"model": "other", "data": "mnist", "normalize": False, "valid": 20, "epochs": 2, "patience": 3}
VALUES |= {"keep": "loss", "batch_size": 30, "optimizer": "sgd", "lr": 0.02, "weight_decay": 0.1}
VALUES |= {"decay_vectors": False}
VALUES |= {"momentum": 0.5, "images": 40, "schedule": "constant", "drop_at": 2, "warmup": 0.5, "average": 0.5}
VALUES |= {"start": f"tiny-{'0' * 8}", "levels": 3, "dropout": 0.3, "label_smoothing": 0.1, "rotate": 9.0, "shift": 1.0}
VALUES |= {"scale": 0.3, "shear": 9.0, "elastic": 1.0, "stroke": 0.5, "erase": 6.0, "fresh": True, "bfloat16": True}
VALUES |= {"recalibrate": 40}
CONTEXTS = {"patience": HELD, "keep": HELD, "decay_vectors": {"weight_decay": 1.0}, "momentum": {"optimizer": "sgd"}}
CONTEXTS |= {"drop_at": {"schedule": "step", "epochs": 2}, "fresh": VOXELS, "recalibrate": {"model": "mnist_small"}}


@lru_cache
def known() -> dict[str, datasets.Dataset]:
    """A few images, and bodies made of them, under the names of the real data."""
    images, other = dataset(train=80), dataset(train=60)

    def solid(part):
        grids = torch.from_numpy(voxels.pairs(part.images[:, 0].numpy(), (0,))).view(-1, 1, 16, 16, 16)
        return datasets.Split(grids, part.labels.repeat_interleave(2))

    solids = replace(other, name="mnist3d", kind="voxels", train=solid(other.train[:20]), test=solid(other.test[:5]))
    solids = replace(solids, mean=0.0, std=1.0, originals=other.train.images[:20, 0])
    return {"digits": replace(images, name="digits"), "mnist": replace(other, name="mnist"), "mnist3d": solids}


@pytest.fixture
def small(monkeypatch):
    """Tiny networks and few images."""
    networks = {**NETWORKS, "other": lambda dropout: NETWORKS["tiny"](dropout).append(torch.nn.Linear(10, 10))}
    monkeypatch.setattr(models, "MODELS", models.MODELS | networks)
    monkeypatch.setattr(datasets, "load", lambda name: known()[name])
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    published = NETWORKS["tiny"]().state_dict(), replace(FACTS, sha256="0" * 64, recipe=SHORT)
    monkeypatch.setattr(job, "read_state_dict", lambda path: published)
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)  # every device can, if slowly


@lru_cache
def weights(recipe: Recipe) -> dict:
    """The state dict that a recipe gives among `small` data, with the scores of HELD's four epochs fed in."""
    scores = zip(count(4, -1), [60, 50, 55, 99], strict=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "evaluate", lambda *_: Score(*next(scores), 100))
        torch.manual_seed(0)
        model = execution.initial(Experiment("t", recipe, ""))
        loops.fit(model, job.prepare_data(Experiment("t", recipe, "")), recipe, echo=False)
    return model.state_dict()


def differ(one: dict, other: dict) -> bool:
    return one.keys() != other.keys() or any(not torch.equal(one[key], other[key]) for key in one)


def test_every_field_of_a_recipe_reaches_the_weights(small):
    assert {f.name for f in fields(Recipe)} == VALUES.keys(), "say in VALUES how a field is seen to matter"
    for name, value in VALUES.items():
        before = replace(SHORT, **CONTEXTS.get(name, {}))
        after = replace(before, **{name: value})
        assert before != after and differ(weights(before), weights(after)), name
    assert not differ(weights(SHORT), weights(replace(SHORT, drop_at=5))), "the control: without steps it is unused"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": 3}, "need held-out images, never the test set's"),
        ({"schedule": "plateau"}, "need held-out images, never the test set's"),
        ({"data": "mnist3d_published", "fresh": True}, "with fresh: expected mnist3d or mnist3d_all"),
        ({"data": "mnist3d_all"}, "data = 'mnist3d_all' without fresh"),
        ({"data": "mnist3d", "fresh": True, "recalibrate": 5}, "fresh and recalibrate = 5: expected 0"),
        ({"data": "mnist3d", "rotate": 3.0}, "rotate = 3: expected 0 .grids drawn with fresh can be rotated"),
        ({"data": "mnist3d", "fresh": True, "erase": 6.0}, "with erase = 6: expected 0"),
        ({"data": "mnist3d", "rotate": 0.0, "valid": 3}, "valid = 3 .* expected an even number"),
        ({"start": "tiny-00000000", "valid": 20}, "a published network has learned the images"),
        ({"levels": 4}, "levels = 4: expected an odd number"),
        ({"scale": 1.0}, "scale = 1.0: expected 0 to 0.99"),
        ({"lr": float("nan")}, "lr = nan: expected"),
        ({"epochs": True}, "epochs = True: expected int"),
        ({"optimizer": "adan"}, "optimizer = 'adan': expected one of adam, adamw, sgd, heavy_ball"),
    ],
    ids=str,
)
def test_a_recipe_refuses_what_can_not_be_meant(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **changes)


def test_no_epoch_draws_more_images_than_there_are(small):
    experiment = Experiment("t", Recipe("tiny", images=60), "")
    assert len(job.prepare_data(experiment).train) == 60
    for changes, message in (
        ({"images": 61}, "t: images = 61: expected at most 60, the number of training images"),
        ({"valid": 20}, "images = 60: expected at most 40"),
    ):
        with pytest.raises(CourseError, match=message):
            job.prepare_data(experiment.with_recipe(**changes))


def test_a_digest_tells_recipes_apart_and_does_not_change_when_a_field_is_added():
    changes = [{**CONTEXTS.get(name, {}), name: value} for name, value in VALUES.items() if name != "fresh"]
    digests = {replace(RECIPE, **change).digest() for change in ({}, *changes)}
    assert len(digests) == len(changes) + 1 and replace(RECIPE, rotate=5).digest() == RECIPE.digest()
    more = make_dataclass("More", [("blur", float, field(default=0.0))], bases=(Recipe,), frozen=True)
    for recipe in (RECIPE, *(entry.recipe for entry in EXPERIMENTS.values())):
        assert more(**asdict(recipe)).digest() == recipe.digest() != more(**asdict(recipe), blur=0.5).digest()


def test_every_experiment_can_be_trained_and_searched():
    for entry in EXPERIMENTS.values():
        job.require_fit(entry)
        assert entry.teaches and "\n" not in entry.teaches and entry.seeds >= 1, entry.name
        spaces = {name: (one.low, one.high) if isinstance(one, Range) else one for name, one in entry.search.items()}
        for place in range(max(map(len, spaces.values()), default=0)):
            values = {name: values[min(place, len(values) - 1)] for name, values in spaces.items()}
            job.require_fit(entry.with_recipe(**values, valid=10_000))
        assert all(len(values) > 1 for values in spaces.values()), entry.name
