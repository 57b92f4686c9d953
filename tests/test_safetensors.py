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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own.safetensors"


def test_a_network_of_the_page_answers_as_it_did_also_as_a_network_of_ones_own(network, path):
    save_file(network.state_dict(), path, FACTS)
    images, given = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8), models.build("sprint")
    for arguments in ([path], [path, given]):
        model, preprocess = load_pretrained(*arguments)
        assert (preprocess.mean, preprocess.std) == (0.1307, 0.3081) and not model.training and model is not given
        with torch.inference_mode():
            assert torch.equal(model(preprocess(images)), network(preprocess(images)))
    message = rejected(lambda: load_pretrained(path, models.build("base")), path.parent)
    assert "can't be used: the state dict differs" in message


def test_other_metadata_is_one_line(network, path):
    for change in ({"std": "0"}, {"mean": "nan"}, {"mean": "x"}, {"model": "no_network"}, {"model": "base"}):
        save_file(network.state_dict(), path, FACTS | change)
        assert f"{path.name} can't be used: " in rejected(lambda: load_pretrained(path), path.parent)


def test_a_missing_a_damaged_and_another_file_are_one_line(network, path):
    assert "own.safetensors is missing" in rejected(lambda: load_pretrained(path))
    for content in (b"", (3).to_bytes(8, "little") + b"abc", bytes(100)):
        path.write_bytes(content)
        assert "is no file of tensors" in rejected(lambda: load_pretrained(path))
    save_file({name: value.double() for name, value in network.state_dict().items()}, path, FACTS)
    assert "is a tensor of float64" in rejected(lambda: load_pretrained(path))
