"""Networks that a reader trained on the web pages: what load_pretrained takes of a .safetensors file, and what it
rejects."""

import pytest
import torch
from safetensors.torch import save_file

from utils import CourseError, models
from utils.runs import load_pretrained

FACTS = {"model": "sprint", "mean": "0.1307", "std": "0.3081"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.build("sprint").eval()


@pytest.fixture
def path(network, tmp_path):
    path = tmp_path / "own.safetensors"
    save_file(network.state_dict(), path, FACTS)
    return path


def test_a_network_of_the_page_answers_as_it_did(network, path):
    model, preprocess = load_pretrained(path)
    assert (preprocess.mean, preprocess.std) == (0.1307, 0.3081) and not model.training
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(model(preprocess(images)), network(preprocess(images)))


def test_a_network_of_ones_own_takes_the_weights(network, path):
    given = models.build("sprint")
    model, _ = load_pretrained(path, given)
    assert model is not given and torch.equal(model[1].weight, network[1].weight)
    with pytest.raises(CourseError, match="can't be used: the state dict differs"):
        load_pretrained(path, models.build("base"))


def test_weights_of_another_type_are_not_cast(network, tmp_path):
    save_file(
        {name: value.double() for name, value in network.state_dict().items()}, tmp_path / "odd.safetensors", FACTS
    )
    with pytest.raises(CourseError, match="is a tensor of float64"):
        load_pretrained(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("content", [b"", (3).to_bytes(8, "little") + b"abc", bytes(100)])
def test_a_damaged_file_is_one_line(content, tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(CourseError, match="is no file of tensors") as found:
        load_pretrained(path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "change",
    [{"std": "0"}, {"mean": "nan"}, {"mean": "x"}, {"model": "no_network"}, {"model": "base"}],
    ids=str,
)
def test_other_metadata_is_one_line(change, network, tmp_path):
    path = tmp_path / "odd.safetensors"
    save_file(network.state_dict(), path, FACTS | change)
    with pytest.raises(CourseError) as found:
        load_pretrained(path)
    assert "\n" not in str(found.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CourseError, match=r"own\.safetensors"):
        load_pretrained(tmp_path / "own.safetensors")
    with pytest.raises(CourseError, match="can't be read"):
        load_pretrained("\ud800.safetensors")
