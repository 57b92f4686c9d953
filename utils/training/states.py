"""Does a saved state fit? Its tensors and numbers are compared with a network's, an optimizer's and a schedule's own
before they are used.

PyTorch checks the names and shapes of weights only: it casts other types silently, takes any text for a learning rate,
and a fused kernel writes beyond the end of a state that is too short.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

VARYING = {
    "last_epoch",
    "_step_count",
    "_last_lr",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
}  # what a schedule changes as it goes on


def difference(found: object, expected: object, where: str) -> str:
    """The first place at which two nested containers differ in structure, or in a tensor's shape or type, in a line; ""
    if there is none.

    Numbers only need to be finite, or as infinite as the expected one, and switches (True, False, None) to be one of
    the three.
    """
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            odd = (
                sorted(map(str, found.keys() ^ expected.keys())) if isinstance(found, dict) else [type(found).__name__]
            )
            return f"{where} differs from what is expected in {', '.join(odd[:3])[:80]}"
        return next(
            filter(None, (difference(found[key], value, f"{where}.{key}") for key, value in expected.items())), ""
        )
    if isinstance(expected, list | tuple) and type(found) is type(expected) and len(found) == len(expected):
        return next(
            filter(
                None, (difference(*pair, f"{where}.{at}") for at, pair in enumerate(zip(found, expected, strict=True)))
            ),
            "",
        )
    if expected is None or isinstance(expected, bool):
        good = found is None or isinstance(found, bool)
    elif isinstance(expected, int | float):
        good = type(found) in (int, float) and (abs(found) < 2**63 or found == expected == math.inf)
    else:
        good = _kind(found) == _kind(expected)
    return "" if good else f"{where} is {_kind(found)}, expected one like {_kind(expected)}"


def _kind(value: object) -> str:
    """What a value is, in a few words: of a tensor type and shape, of a container its length, of text and numbers the
    value."""
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and value.device.type != "meta" and not value.is_quantized
        return (
            f"{'a' if plain else 'no plain'} tensor of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        )
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 63 bits"
    return repr(value)[:40] if value is None or isinstance(value, int | float | str) else type(value).__name__


def of_network(found: object, network: nn.Module, where: str) -> str:
    """Why a state dict can't be this network's; "" if it can."""
    return difference(found, network.state_dict(), where)


def of_schedule(found: object, scheduler: object, steps: int, where: str) -> str:
    """Why a state cannot be this schedule's after `steps` steps, or "" if it can."""
    expected = scheduler.state_dict()
    wrong = difference(found, expected, where)
    odd = [] if wrong else [name for name in expected.keys() - VARYING if found[name] != expected[name]]
    if odd:
        return f"{where}.{min(odd)} is another than the recipe's"
    if not wrong and found["last_epoch"] != steps:
        return f"{where} is after {found['last_epoch']} steps, expected {steps}"
    return wrong


def fitted(
    found: object, model: nn.Module, optimizer: Optimizer, make: Callable[[nn.Module], Optimizer], where: str
) -> dict:
    """A state that can be this optimizer's after some steps, its tensors copied into memory of the layout that its
    kernels expect.
    make: gives such an optimizer for a copy of the network. Raises ValueError where the state can't be."""
    twin = copy.deepcopy(model)
    other = make(twin)
    for parameter in twin.parameters():
        parameter.grad = torch.zeros_like(parameter)
    other.step()  # gives it a state
    states, groups = other.state_dict()["state"], optimizer.state_dict()["param_groups"]
    if isinstance(found, dict) and isinstance(
        found.get("state"), dict
    ):  # a parameter that no gradient ever reached has no state
        states = {key: state for key, state in states.items() if key in found["state"]}
    wrong = difference(found, {"state": states, "param_groups": groups}, where)
    if wrong or [group["params"] for group in found["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError(wrong or f"{where}.param_groups is of other parameters than expected")

    def laid_out(value: object, like: object) -> object:
        return torch.empty_like(like).copy_(value) if isinstance(like, Tensor) else value

    copied = {
        key: {name: laid_out(found["state"][key][name], like) for name, like in state.items()}
        for key, state in states.items()
    }
    return {"state": copied, "param_groups": found["param_groups"]}
