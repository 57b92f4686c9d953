"""On CUDA nothing mixes devices, shown without a GPU by fake tensors, which know their device and hold no numbers; and a step that is
replayed as a graph trains as the step itself, shown by a graph that is none."""

from dataclasses import replace

import pytest
import torch
from test_loops import PLAIN, begin, equal
from tiny import dataset
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from utils import graphs, models
from utils.data import augment, bodies
from utils.data.datasets import Split
from utils.experiments import EXPERIMENTS, Recipe
from utils.training.loops import Training, fit, normalise, predict, train_epoch
from utils.training.steps import cross_entropies

CUDA = torch.device("cuda", 0)


@pytest.fixture
def fake():
    """Fake CUDA tensors; what was cached of them is forgotten afterwards."""
    cached = augment._pixels, augment._pixel, bodies._shapes
    for function in cached:
        function.cache_clear()
    with FakeTensorMode() as mode, torch.no_grad():  # going backward would need a GPU
        try:
            torch.empty(1, device=CUDA)[:1]
        except RuntimeError as error:
            pytest.skip(f"torch {torch.__version__} asks for a driver even to slice a fake tensor ({str(error).splitlines()[0]})")
        yield mode
    for function in cached:
        function.cache_clear()


def images(n: int, recipe: Recipe) -> torch.Tensor:
    shape = (16, 16, 16) if recipe.kind == "voxels" else (28, 28)
    return torch.empty(n, 1, *shape, dtype=torch.float32 if recipe.kind == "voxels" else torch.uint8, device=CUDA)


def on_gpu(model: torch.nn.Module) -> torch.nn.Module:
    """The network with fake tensors for all that it holds, which Module.to() can't give it."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            module.register_parameter(name, torch.nn.Parameter(torch.empty(value.shape, device=CUDA)))
        for name, value in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(value.shape, dtype=value.dtype, device=CUDA))
    return model


@pytest.mark.parametrize("entry", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_a_batch_its_network_its_loss_and_a_prediction_stay_on_the_gpu(entry, fake):
    recipe = entry.recipe
    if recipe.fresh:  # drawing waits for numbers that a fake tensor does not have
        recipe = replace(recipe, data="mnist3d", fresh=False, rotate=0, scale=0, shear=0, elastic=0)
    rows, labels = torch.empty(4, dtype=torch.int64, device=CUDA), torch.empty(4, dtype=torch.int64, device=CUDA)
    batch = augment.augmentation(recipe, None)(images(8, recipe).index_select(0, rows), rows, slice(None))
    with unset_fake_temporarily():
        model = models.build(recipe.model, recipe.dropout)
    model = on_gpu(model)
    logits = model(normalise(batch, 0.1, 0.3))
    losses = cross_entropies(logits, labels, recipe.label_smoothing)
    found = [batch, logits, *losses, *model.state_dict().values()]
    found.append(predict(model, images(5, recipe), 0.1, 0.3, batch_size=2))
    assert {tensor.device for tensor in found} == {CUDA}


def test_images_are_deformed_on_the_gpu(fake):
    def deformed(device):
        one = augment.affine(torch.empty(4, 1, 28, 28, device=CUDA), None, 10.0, 1.0, 0.1, 5.0)
        return augment.erased(augment.stroked(augment.elastic(one.to(device), None, 1.0), None, 0.5), None, 6.0)

    assert deformed(CUDA).device == CUDA and deformed(CUDA).shape == (4, 1, 28, 28)


def test_a_number_left_on_the_cpu_is_noticed(fake):
    with pytest.raises(RuntimeError, match=r"cuda.*cpu|cpu.*cuda"):
        normalise(torch.empty(4, 1, 28, 28, device=CUDA), torch.empty(28), 0.3)


# ---- a step as a graph


@pytest.fixture
def replayed(monkeypatch):
    """Steps as on CUDA, with a graph that is none; the list holds what was captured and, after each, how often it was replayed."""
    captured = []

    def capture(work, generators):
        captured.append([generators, 0])

        def replay():
            captured[-1][1] += 1
            return work()

        return replay

    monkeypatch.setattr(graphs, "apply", lambda recipe, device: True)
    monkeypatch.setattr(graphs, "capture", capture)
    return captured


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam"}, {"average": 0.5}, {"schedule": "one_cycle"}], ids=str)
def test_replayed_steps_train_as_steps_do(changes, replayed, monkeypatch):
    recipe = replace(PLAIN, batch_size=16, lr=2**-6, rotate=5.0, label_smoothing=0.1, dropout=0.2, **changes)
    found = []
    for usual in (10**6, graphs.USUAL_STEPS):
        monkeypatch.setattr(graphs, "USUAL_STEPS", usual)
        model = begin(recipe)
        history = fit(model, dataset(), recipe, echo=False)
        found.append([model.state_dict(), [{**row, "seconds": 0} for row in history]])
    (steps, rows), (replays, same_rows) = found
    assert equal(steps, replays) and rows == same_rows
    # of 6 epochs of 3 batches of 16 and one of 12, all but the first 3 and the small ones
    assert [times for _, times in replayed] == [6 * 3 - 3]
    assert len(replayed[0][0]) == 1  # augmentation's generator; the global one needs no word


def test_the_schedule_and_a_checkpoint_know_nothing_of_a_graph_s_tensors(replayed):
    recipe = replace(PLAIN, optimizer="adam", batch_size=10, schedule="one_cycle")
    training = Training(begin(recipe), recipe, 0, 60)
    train_epoch(training, dataset())
    group = training.state_dict()["optimizer"]["param_groups"][0]
    assert type(group["lr"]) is float and group["capturable"] is False and group["lr"] != recipe.lr / 10


def test_a_step_that_can_not_be_captured_goes_on_as_usual_and_says_so(replayed, monkeypatch):
    def refuse(work, generators):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    usual, replaced = begin(), begin()
    fit(usual, dataset(), PLAIN, echo=False)
    monkeypatch.setattr(graphs, "capture", refuse)
    with pytest.warns(UserWarning, match=r"can't be captured as a CUDA graph \(operation not permitted when stream is capturing\)") as said:
        fit(replaced, dataset(), PLAIN, echo=False)
    assert equal(usual.state_dict(), replaced.state_dict()) and len(said) == 1


def test_graphs_are_for_who_asks_for_cuda_and_for_what_waits_for_nothing(monkeypatch):
    monkeypatch.delenv("COURSE_GRAPHS", raising=False)
    assert not graphs.apply(EXPERIMENTS["sprint"].recipe, CUDA)
    monkeypatch.setenv("COURSE_GRAPHS", "1")
    sprint, drawn = EXPERIMENTS["sprint"].recipe, EXPERIMENTS["voxel_best"].recipe
    assert [graphs.apply(recipe, device) for recipe in (sprint, drawn) for device in (CUDA, torch.device("cpu"))] == [True] + [False] * 3


def test_another_data_set_is_another_graph(replayed):
    training = Training(begin(), PLAIN, 0, 60)
    training.step_on(one := dataset())
    first = training.graphed[1]
    assert training.step_on(one) is first
    assert training.step_on(replace(one, train=Split(*one.train.tensors))) is not first
