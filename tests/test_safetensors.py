"""Networks that a reader trained on the web pages: what load_pretrained takes of a .safetensors file, and what it
rejects."""

import pytest
import torch
from rejections import rejected
from safetensors.torch import save_file

from utils import models
from utils.runs import load_pretrained

FACTS = {"model": "sprint", "mean": "0.1307", "std": "0.3081"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.build("sprint").eval()


def test_a_network_of_the_page_answers_as_it_did_also_as_a_network_of_ones_own(network, tmp_path):
    path, given = tmp_path / "own.safetensors", models.build("sprint")
    save_file(network.state_dict(), path, FACTS)
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    for arguments in ([path], [path, given]):
        model, preprocess = load_pretrained(*arguments)
        assert (preprocess.mean, preprocess.std) == (0.1307, 0.3081) and not model.training and model is not given
        with torch.inference_mode():
            assert torch.equal(model(preprocess(images)), network(preprocess(images)))
    save_file(models.build("base", 0.2).state_dict(), path, FACTS | {"model": "base", "dropout": "0.2"})
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in load_pretrained(path)[0].modules()) > 0
    save_file(network.state_dict(), path, FACTS)
    assert "can't be used: " in rejected(lambda: load_pretrained(path, models.build("base")), tmp_path)
    save_file(models.build("voxel_best").state_dict(), path, FACTS | {"model": "voxel_best"})
    assert load_pretrained(path)[1].kind == "voxels"


DAMAGED = [None, b"", (3).to_bytes(8, "little") + b"abc", bytes(100)]  # no file, and other bytes; then other metadata
DAMAGED += [{"mean": "x"}, {"model": "no_network"}, {"model": "base"}]


@pytest.mark.parametrize("damage", DAMAGED, ids=str)
def test_another_file_is_one_line(damage, network, tmp_path):
    path = tmp_path / "own.safetensors"
    if isinstance(damage, dict):
        save_file(network.state_dict(), path, FACTS | damage)
    elif damage is not None:
        path.write_bytes(damage)
    expected = "is missing" if damage is None else "can't be used: "
    assert f"own.safetensors {expected}" in rejected(lambda: load_pretrained(path), tmp_path)
