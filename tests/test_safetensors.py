"""Networks that a reader trained on the web pages: what load_pretrained takes of a .safetensors file, and what it
rejects."""

import json

import pytest
import torch

from utils import CourseError, models
from utils.runs import load_pretrained
from utils.runs.pretrained import read_safetensors

FACTS = {"model": "sprint", "mean": "0.1307", "std": "0.3081"}


def content(state: dict[str, torch.Tensor], facts: dict[str, str]) -> bytes:
    """A file as the "Train" tab writes it."""
    header, end = {"__metadata__": facts}, 0
    for name, tensor in state.items():
        first, end = end, end + tensor.numel() * tensor.element_size()
        dtype = "I64" if tensor.dtype == torch.int64 else "F32"
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [first, end]}
    text = json.dumps(header).encode()
    numbers = b"".join(tensor.numpy().tobytes() for tensor in state.values())
    return len(text).to_bytes(8, "little") + text + numbers


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.build("sprint").eval()


@pytest.fixture
def path(network, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(content(network.state_dict(), FACTS))
    return path


def test_a_network_of_the_page_answers_as_it_did(network, path):
    model, preprocess = load_pretrained(path)
    assert (preprocess.mean, preprocess.std) == (0.1307, 0.3081) and not model.training
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(model(preprocess(images)), network(preprocess(images)))


def test_another_library_reads_and_writes_the_same(network, path, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    found, state = safetensors.load_file(path), network.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    safetensors.save_file(state, tmp_path / "theirs.safetensors", FACTS)
    theirs, facts = read_safetensors(tmp_path / "theirs.safetensors")
    assert facts == FACTS and all(torch.equal(theirs[name], state[name]) for name in state)


def test_a_network_of_ones_own_takes_the_weights(network, path):
    given = models.build("sprint")
    model, _ = load_pretrained(path, given)
    assert model is not given and torch.equal(model[1].weight, network[1].weight)
    with pytest.raises(CourseError, match="can't be used: the state dict differs"):
        load_pretrained(path, models.build("base"))


def odd(**changes) -> bytes:
    """A file of one tensor whose entry differs."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    text = json.dumps({"__metadata__": FACTS, "1.weight": entry}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


ODD = {
    "nothing": b"",
    "no header": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": (3).to_bytes(8, "little") + b"abc",
    "no names": (2).to_bytes(8, "little") + b"[]",
    "deep": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "longer than the file": odd(data_offsets=[0, 80]),
    "shorter than the file": odd(data_offsets=[0, 4]),
    "backwards": odd(data_offsets=[8, 0]),
    "another shape": odd(shape=[3]),
    "another type": odd(dtype="F16"),
    "text for places": odd(data_offsets="08"),
    "a number for places": odd(data_offsets=8),
}


@pytest.mark.parametrize("name", ODD)
def test_a_damaged_file_is_one_line(name, tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(ODD[name])
    with pytest.raises(CourseError, match=r"is no file of tensors|can't be used") as found:
        load_pretrained(path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "change",
    [{"std": "0"}, {"mean": "nan"}, {"mean": "x"}, {"model": 3}, {"model": "no_network"}, {"model": "base"}],
    ids=str,
)
def test_other_metadata_is_one_line(change, network, tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content(network.state_dict(), FACTS | change))
    with pytest.raises(CourseError) as found:
        load_pretrained(path)
    assert "\n" not in str(found.value)


def test_tensors_that_share_their_bytes_are_rejected(tmp_path):
    """Or a small file could fill the memory."""
    entry = {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}
    text = json.dumps({f"{k}": entry for k in range(1000)}).encode()
    (tmp_path / "odd.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4000))
    with pytest.raises(CourseError, match="is no file of tensors"):
        load_pretrained(tmp_path / "odd.safetensors")


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CourseError, match=r"own\.safetensors"):
        load_pretrained(tmp_path / "own.safetensors")
