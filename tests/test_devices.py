"""On CUDA nothing mixes devices, shown without a GPU by fake tensors, which know their device and hold no numbers."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from utils import models
from utils.data import augment, fresh_voxels
from utils.experiments import EXPERIMENTS
from utils.training.loops import cross_entropies, normalize, predict

CUDA = torch.device("cuda", 0)


@pytest.fixture
def fake():
    """Fake CUDA tensors; what was cached of them is forgotten afterwards."""
    cached = augment._pixels, augment._pixel, fresh_voxels._shapes
    for function in cached:
        function.cache_clear()
    with FakeTensorMode() as mode, torch.no_grad():  # going backward would need a GPU
        try:
            torch.empty(1, device=CUDA)[:1]
        except RuntimeError as error:
            pytest.skip(f"this torch asks for a driver to slice a fake tensor ({str(error).splitlines()[0]})")
        yield mode
    for function in cached:
        function.cache_clear()


def on_gpu(model: torch.nn.Module) -> torch.nn.Module:
    """The network with fake tensors for all that it holds, which Module.to() can't give it."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            module.register_parameter(name, torch.nn.Parameter(torch.empty(value.shape, device=CUDA)))
        for name, value in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(value.shape, dtype=value.dtype, device=CUDA))
    return model


# one experiment of each network
@pytest.mark.parametrize(
    "recipe", {e.recipe.model: e.recipe for e in EXPERIMENTS.values()}.values(), ids=lambda r: r.model
)
def test_a_batch_its_network_its_loss_and_a_prediction_stay_on_the_gpu(recipe, fake):
    if recipe.fresh:  # drawing waits for numbers that a fake tensor does not have
        recipe = replace(recipe, data="mnist3d", fresh=False, rotate=0, scale=0, shear=0, elastic=0)
    rows, labels = torch.empty(2, 4, dtype=torch.int64, device=CUDA)
    shape, dtype = {"images": ((28, 28), torch.uint8), "voxels": ((16, 16, 16), torch.float32)}[recipe.kind]
    images = torch.empty(8, 1, *shape, dtype=dtype, device=CUDA)
    batch = augment.augmentation(recipe, None)(images.index_select(0, rows), rows, slice(None))
    with unset_fake_temporarily():
        model = models.build(recipe.model, recipe.dropout)
    model = on_gpu(model)
    logits = model(normalize(batch, 0.1, 0.3))
    losses = cross_entropies(logits, labels, recipe.label_smoothing)
    found = [batch, logits, *losses, *model.state_dict().values()]
    found.append(predict(model, images[:5], 0.1, 0.3, batch_size=2))
    assert {tensor.device for tensor in found} == {CUDA}


def test_images_are_deformed_on_the_gpu_and_a_number_left_on_the_cpu_is_noticed(fake):
    one = augment.affine(torch.empty(4, 1, 28, 28, device=CUDA), None, 10.0, 1.0, 0.1, 5.0)
    one = augment.vary_stroke_width(augment.elastic(one, None, 1.0), None, 0.5)
    deformed = augment.erase_square(one, None, 6.0)
    assert deformed.device == CUDA and deformed.shape == (4, 1, 28, 28)
    with pytest.raises(RuntimeError, match=r"cuda.*cpu|cpu.*cuda"):
        normalize(torch.empty(4, 1, 28, 28, device=CUDA), torch.empty(28), 0.3)
