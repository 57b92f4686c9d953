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
    assert "can't be used: " in message


@pytest.mark.parametrize("content", [b"", (3).to_bytes(8, "little") + b"abc", bytes(100)])
def test_a_damaged_file_is_one_line(content, path):
    path.write_bytes(content)
    assert "own.safetensors can't be used: " in rejected(lambda: load_pretrained(path))


@pytest.mark.parametrize("change", [{"mean": "x"}, {"model": "no_network"}, {"model": "base"}], ids=str)
def test_other_metadata_is_one_line(change, network, path):
    save_file(network.state_dict(), path, FACTS | change)
    assert f"{path.name} can't be used: " in rejected(lambda: load_pretrained(path), path.parent)


def test_a_file_that_is_not_there_is_one_line(path):
    assert "own.safetensors is missing" in rejected(lambda: load_pretrained(path))
