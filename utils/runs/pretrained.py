"""A trained network to use: its state dict, checked against its sidecar, and its preprocessing."""

import copy
import hashlib
import math
import os
import subprocess
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import CourseError, closest, files, models, workspace
from ..data import photo
from ..data.augment import scaled
from ..files import display_path
from ..training.loops import normalize
from .records import OWN, RunMetadata, own_root, read_facts


@dataclass(frozen=True)
class Preprocess:
    """Pictures of white digits on black, 28×28, → the normalized input of a network.

    Call it with a picture (a path or a PIL image of any mode), a NumPy array, a tensor, or a list of them. Arrays and
    tensors are (28, 28), (N, 28, 28) or (N, 1, 28, 28): uint8 from 0 to 255, or floats from 0 to 1. Returns (N, 1, 28,
    28) float32, on the device of a tensor. A network of voxels takes grids (16, 16, 16), (N, 16, 16, 16) or (N, 1, 16,
    16, 16) of densities, floats from 0 to 1, and returns (N, 1, 16, 16, 16). Raises CourseError for another size, type
    or range: utils.data.photo.read cuts out and resizes.
    """

    mean: float
    std: float
    kind: str = "images"

    def __call__(self, images) -> Tensor:
        shape = (16,) * 3 if self.kind == "voxels" else (28,) * 2
        if not isinstance(images, list | tuple):
            batch = self._batch(_tensor(images), shape)
        elif images:
            batch = torch.cat([self._batch(_tensor(image), shape) for image in images])
        else:
            raise CourseError("the list of images is empty: expected one or more")
        if self.kind == "images" and not torch.compiler.is_compiling():  # an export follows no values
            warn_of_paper(batch)
        return normalize(batch, self.mean, self.std).float()

    def _batch(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Images or grids → (N, 1, *shape), floats from 0 to 1. Raises CourseError."""
        voxels = self.kind == "voxels"
        if not images.is_floating_point() and (voxels or images.dtype != torch.uint8):
            expected = "densities from 0 to 1" if voxels else "from 0 (black) to 1, or torch.uint8 from 0 to 255"
            raise CourseError(f"{self.kind} are {images.dtype}: expected floats, {expected}")
        batch = images.unsqueeze(0) if images.ndim == len(shape) else images
        batch = batch.unsqueeze(1) if batch.ndim == len(shape) + 1 else batch
        if batch.shape[1:] != (1, *shape):
            size = ", ".join(map(str, shape))
            expected = f"expected ({size}), (N, {size}) or (N, 1, {size}); resize them first"
            raise CourseError(f"images are {tuple(images.shape)}: {expected}")
        if not images.is_floating_point():
            return scaled(batch)
        if not torch.compiler.is_compiling() and batch.numel() and not 0 <= batch.min() <= batch.max() <= 1:  # NaN, too
            found = f"{batch.min().item():g} to {batch.max().item():g}"
            raise CourseError(f"values are {found}: expected floats from 0 (black) to 1, or uint8 from 0 to 255")
        return batch


def _tensor(images) -> Tensor:
    """A path, a PIL image, an array or a tensor → a tensor. Raises CourseError."""
    if isinstance(images, Tensor):
        return images
    if isinstance(images, str | os.PathLike | Image.Image):
        return torch.from_numpy(photo.tones(images))
    values = np.array(images, order="C")  # a copy: an array may be read-only, or a flipped view
    if values.dtype != np.uint8 and values.dtype.kind != "f":
        found = f"{type(images).__name__} of {values.dtype}"
        raise CourseError(f"images are {found}: expected a picture, or an array or a tensor of uint8 or floats")
    return torch.from_numpy(values if values.dtype == np.uint8 else values.astype(np.float64))


def warn_of_paper(images: Tensor) -> None:
    """Warn if most of (N, 1, 28, 28) images (0 to 1) have a bright edge: dark ink on paper, which no network knows."""
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], 2).flatten(1)
    if (edge.median(1).values > 0.5).float().mean() > 0.5:
        expected = "expected white digits on black. utils.data.photo.read makes them of photographs"
        warnings.warn(f"the background is bright: {expected}", stacklevel=3)


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], RunMetadata]:
    """A state dict and the facts of its sidecar; only tensors are unpickled.

    Raises CourseError for a missing file, another hash than the sidecar's, or what the safe loader rejects.
    """
    fetch(path)
    content = files.read(path, "Train it with train.py, or check out the file again.", files.TENSORS)
    facts = read_facts(path.with_suffix(".json"))
    found = hashlib.sha256(content).hexdigest()
    if found != facts.sha256:
        hashes = f"the SHA-256 {found[:12]}…, but its sidecar says {facts.sha256[:12]}…"
        todo = "it is not the file that was tested. Check it out again."
        raise CourseError(f"{display_path(path)} has {hashes}: {todo}")
    return files.load_safely(path, content, "Check it out again."), facts


def fetch(path: Path) -> None:
    """Get a published state dict that this clone left out (as notebooks' clones do) from the cloned repository.

    Does nothing if the file exists, or is missing for another reason. Raises CourseError if git can't get it.
    """
    sidecar, name = path.with_suffix(".json"), f"saved_dict/{path.name}"
    with suppress(OSError):  # no git, no clone; and reading reports a closed folder
        left_out = sidecar.is_file() and not path.is_file() and path.resolve() == workspace.root / name
        if not left_out or not git("ls-files", "-t", "--", name).stdout.startswith(b"S"):  # S: skipped on purpose
            return
        print(f"downloading {name} ({read_facts(sidecar).bytes / 2**20:.1f} MB)")
        found = git("cat-file", "blob", f":{name}")
        if found.returncode:
            reason = (found.stderr.decode(errors="replace").strip() or "no reason given").splitlines()[-1]
            failed = f"{name} is not in this clone, and git could not download it ({reason})"
            raise CourseError(f"{failed}. Check the connection and try again.")
        files.write(path, found.stdout)


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", str(workspace.root), *arguments], capture_output=True)


def load_model(path: Path, network: nn.Module | None = None) -> tuple[nn.Module, RunMetadata]:
    """The network of a state dict, in eval mode, and the facts of its sidecar. Raises like read_state_dict.

    network: for a run of your own network, that network with any weights, which stays as it is.
    """
    state, facts = read_state_dict(path)
    model = structure(facts, network, path)
    try:
        fill(model, state)
    except RuntimeError as error:
        misfit = f"{display_path(path)} does not fit the network {facts.recipe.model} ({files.one_line(error)})"
        raise CourseError(f"{misfit}. Check it out again, or train it again.") from error
    return model.eval(), facts


def fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """model.load_state_dict(state), but no other dtype is cast. Raises RuntimeError if the state does not fit."""
    for name, own in model.state_dict().items():
        if name in state and state[name].dtype != own.dtype:
            raise RuntimeError(f"{name} is a tensor of {state[name].dtype}, expected {own.dtype}")
    model.load_state_dict(state)


def structure(facts: RunMetadata, network: nn.Module | None, path: Path) -> nn.Module:
    """The network of a run, without its weights. Raises CourseError if a reader's own network is another one."""
    if not facts.name.endswith(OWN):
        return models.build(facts.recipe.model, facts.recipe.dropout)
    if network is None:
        needs = f'load_pretrained("{path.stem}", network) needs the network as the cell that trained it defined it.'
        what = f"{display_path(path)} holds the weights of a network of your own, and no file holds its layers"
        raise CourseError(f"{what}: {needs}")
    expected, found = facts.recipe.model.rpartition("-")[2], models.digest(network)
    if found != expected:
        what = f"{display_path(path)} was trained with another network"
        todo = "Define it as the cell that trained it did."
        raise CourseError(f"{what}: the given one has the digest {found}, expected {expected}. {todo}")
    return copy.deepcopy(network).to("cpu")


def find_weights(name: str | Path) -> Path:
    """The state dict of a published network or your own run, by name or path. Raises CourseError if there is none."""
    folders = (workspace.root / "saved_dict", own_root() / "saved_dict")
    for path in (Path(name), *(folder / f"{name}.pth" for folder in folders)):
        with suppress(OSError, ValueError):  # an impossible file name
            if path.suffix == ".pth":
                fetch(path)
                if path.is_file():
                    return path
    known = [path.stem for folder in folders for path in folder.glob("*.json")]
    name = str(name)[:80]
    raise CourseError(f"no published network or run of your own is called {name!r}: expected {closest(name, known)}")


def load_safetensors(path: Path, network: nn.Module | None = None) -> tuple[nn.Module, Preprocess]:
    """A network that a reader trained on the web pages or exported, in eval mode, and its preprocessing. Raises
    CourseError for another file."""
    from safetensors import SafetensorError, safe_open  # few readers need it
    from safetensors.torch import load

    content = files.read(path, "Download it again from the page that trained it.", files.TENSORS)
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
        model = copy.deepcopy(network) if network else models.build(facts["model"], float(facts.get("dropout", 0)))
        preprocess = Preprocess(float(facts["mean"]), float(facts["std"]), models.takes(model))
        fill(model, load(content))
        if not 0 < preprocess.std < math.inf or not math.isfinite(preprocess.mean):
            raise ValueError("mean or std is out of range")
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:  # no such network: a RuntimeError
        wrong = f"it is not what the “Train” tab of the web pages or tools.export writes ({files.one_line(error)})"
        raise CourseError(f"{display_path(path)} can't be used: {wrong}. Download it again.") from error
    return model.eval(), preprocess


def load_pretrained(name: str | Path, network: nn.Module | None = None) -> tuple[nn.Module, Preprocess]:
    """A published network, or your own run by name or path, in eval mode, and its preprocessing:
    model(preprocess(image)).argmax(1) are labels. A path that ends in .safetensors is a network that was trained on the
    web pages or exported. network: for a run of a changed network, that network.

    Raises CourseError for an unknown name, and like read_state_dict.
    """
    if not isinstance(name, str | Path):
        raise CourseError(f"the network is a {type(name).__name__}: expected its name, or the path of a file")
    if Path(name).suffix == ".safetensors":
        return load_safetensors(Path(name), network)
    model, facts = load_model(find_weights(name), network)
    return model, Preprocess(**asdict(facts.normalization), kind=facts.data.kind)
