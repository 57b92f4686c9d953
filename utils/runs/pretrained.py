"""A trained network to use: its state dict, checked against its sidecar, and its preprocessing."""

import copy
import hashlib
import json
import math
import subprocess
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import CourseError, closest, files, models, workspace
from ..files import display_path
from ..training import states
from .preprocess import Preprocess
from .records import OWN, RunMetadata, own_root, read_facts


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], RunMetadata]:
    """A state dict and the facts of its sidecar. Nothing is unpickled but tensors.

    Raises CourseError for a missing file, a hash that is not the sidecar's, or a file that the safe loader refuses.
    """
    fetch(path)
    content = files.read(path, "Train it with train.py, or check out the file again.", files.TENSORS)
    facts = read_facts(path.with_suffix(".json"))
    found = hashlib.sha256(content).hexdigest()
    if found != facts.sha256:
        raise CourseError(
            f"{display_path(path)} has the SHA-256 {found[:12]}…, but its sidecar says {facts.sha256[:12]}…: "
            "it is not the file that was tested. Check it out again."
        )
    return files.load_safely(path, content, "Check it out again."), facts


def fetch(path: Path) -> None:
    """Get a published state dict that this clone left out, as notebooks' clones do, from where it was cloned.

    Does nothing where the file is there, or where it is missing for another reason. Raises CourseError if git can't get
    it.
    """
    sidecar = path.with_suffix(".json")
    try:
        missing = not (path.is_file() or path.is_symlink()) and sidecar.is_file()
        if not missing or path.resolve().parent != workspace.root / "saved_dict":
            return
    except OSError:  # of a folder that may not be entered: reading says so
        return
    with suppress(FileNotFoundError):  # no git, no clone
        name = f"saved_dict/{path.name}"
        if not git("ls-files", "-t", "--", name).stdout.startswith(
            b"S"
        ):  # git's letter for a file that it skipped on purpose
            return
        print(f"downloading {name} ({read_facts(sidecar).bytes / 2**20:.1f} MB)")
        found = git("cat-file", "blob", f":{name}")
        if found.returncode:
            reason = (found.stderr.decode(errors="replace").strip() or "no reason given").splitlines()[-1]
            raise CourseError(
                f"{name} is not in this clone, and git could not download it ({reason}). Check the connection and try again."
            )
        files.write(path, found.stdout)


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", str(workspace.root), *arguments], capture_output=True)


def load_model(path: Path, network: nn.Module | None = None) -> tuple[nn.Module, RunMetadata]:
    """The network of a state dict with its weights, in eval mode, and the facts of its sidecar. Raises like
    read_state_dict.

    network: for a run of a network of your own, that network with any weights, which stays as it is.
    """
    state, facts = read_state_dict(path)
    model = structure(facts, network, path)
    wrong = states.of_network(state, model, "the state dict")
    if wrong:
        raise CourseError(
            f"{display_path(path)} does not fit the network {facts.recipe.model}: {wrong}. Check it out again, or train it anew."
        )
    model.load_state_dict(state)
    return model.eval(), facts


def structure(facts: RunMetadata, network: nn.Module | None, path: Path) -> nn.Module:
    """The network of a run, its weights still to come: the recipe's, or a copy of a reader's own. Raises CourseError if
    that is another."""
    if not facts.name.endswith(OWN):
        return models.build(facts.recipe.model, facts.recipe.dropout)
    if network is None:
        raise CourseError(
            f"{display_path(path)} holds the weights of a network of your own, and no file holds its layers: "
            f'load_pretrained("{path.stem}", network) needs the network as the cell that trained it defined it.'
        )
    expected, found = facts.recipe.model.rpartition("-")[2], models.digest(network)
    if found != expected:
        raise CourseError(
            f"{display_path(path)} was trained with another network: the given one has the digest {found}, expected {expected}. "
            "Define it as the cell that trained it did."
        )
    return copy.deepcopy(network).to("cpu")


def find_weights(name: str | Path) -> Path:
    """The state dict of a published network, or of a run of one's own: by name, or by path. Raises CourseError if there
    is none."""
    folders = (workspace.root / "saved_dict", own_root() / "saved_dict")
    for path in (Path(name), *(folder / f"{name}.pth" for folder in folders)):
        with suppress(OSError, ValueError):  # of a name that no file can have
            if path.suffix == ".pth":
                fetch(path)
                if path.is_file():
                    return path
    known = [path.stem for folder in folders for path in folder.glob("*.json")]
    raise CourseError(
        f"no published network or run of your own is called {str(name)[:80]!r}: expected {closest(str(name)[:80], known)}"
    )


DTYPES = {"F32": torch.float32, "I64": torch.int64}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The float32 and int64 tensors of a .safetensors file, and its metadata. Raises CourseError for another file.

    Format: the length of the header as a little-endian uint64, the header in JSON, and the numbers of all tensors
    (https://github.com/huggingface/safetensors).
    """
    content = files.read(path, "Download it again from the page that trained it.", files.TENSORS)
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header, numbers = json.loads(content[8:start]), content[start:]
        facts, tensors = header.pop("__metadata__", {}), {}
        if sum(one["data_offsets"][1] - one["data_offsets"][0] for one in header.values()) != len(numbers):
            raise ValueError("the tensors have another size than the file")
        for name, one in header.items():
            first, end = one["data_offsets"]
            values = torch.frombuffer(bytearray(numbers[first:end]), dtype=DTYPES[one["dtype"]])
            tensors[name] = values.reshape(one["shape"])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise CourseError(
            f"{display_path(path)} is no file of tensors that the course reads ({type(error).__name__}): "
            "expected what the “Train” tab of the web pages writes. Download it again."
        ) from error
    return tensors, facts


def load_from_page(path: Path, network: nn.Module | None = None) -> tuple[nn.Module, Preprocess]:
    """A network that a reader trained on the web pages, in eval mode, and its preprocessing. Raises CourseError for
    another file."""
    state, facts = read_safetensors(path)
    try:
        mean, std = float(facts["mean"]), float(facts["std"])
        model = copy.deepcopy(network) if network else models.build(facts["model"])
        wrong = states.of_network(state, model, "the state dict")
    except (ValueError, TypeError, KeyError, AttributeError):
        wrong, mean, std = "its metadata is not that of the “Train” tab", 0.0, 1.0
    if wrong or not (math.isfinite(mean) and 0 < std < math.inf):
        wrong = wrong or "mean or std is out of range"
        raise CourseError(f"{display_path(path)} can't be used: {wrong}. Download it again.")
    model.load_state_dict(state)
    return model.eval(), Preprocess(mean, std)


def load_pretrained(name: str | Path, network: nn.Module | None = None) -> tuple[nn.Module, Preprocess]:
    """A published network, or one of your own runs by name or path, in eval mode, and its preprocessing:
    model(preprocess(image)).argmax(1) are labels. A path that ends in .safetensors is a network that was trained on the
    web pages. network: of a run of a changed network, the network as its cell defines it.

    Raises CourseError for a name that is not there, and like read_state_dict.
    """
    if Path(name).suffix == ".safetensors":
        return load_from_page(Path(name), network)
    model, facts = load_model(find_weights(name), network)
    return model, Preprocess(**asdict(facts.normalization), kind=facts.data.kind)
