"""Does a saved state fit? Its tensors and numbers are compared with those of the network, optimizer and schedule.

PyTorch checks the names and shapes of weights only. It casts other types silently and takes any text for a learning
rate, and a fused kernel writes beyond the end of a short state.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

VARYING = {"last_epoch", "_step_count", "_last_lr", "best", "num_bad_epochs", "cooldown_counter"}  # in a schedule


def difference(found: object, expected: object, where: str) -> str:
    """The first difference between two nested containers, in structure or in a tensor's shape or type; "" if none.

    Numbers must only be finite, or as infinite as the expected one; True, False and None replace each other.
    """
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            odd = found.keys() ^ expected.keys() if isinstance(found, dict) else [type(found).__name__]
            return f"{where} differs from what is expected in {', '.join(sorted(map(str, odd))[:3])[:80]}"
        parts = [difference(found[key], value, f"{where}.{key}") for key, value in expected.items()]
        return next(filter(None, parts), "")
    if isinstance(expected, list | tuple) and type(found) is type(expected) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return next(filter(None, (difference(*pair, f"{where}.{at}") for at, pair in pairs)), "")
    if expected is None or isinstance(expected, bool):
        good = found is None or isinstance(found, bool)
    elif isinstance(expected, int | float):
        good = type(found) in (int, float) and (abs(found) < 2**63 or found == expected == math.inf)
    else:
        good = _kind(found) == _kind(expected)
    return "" if good else f"{where} is {_kind(found)}, expected one like {_kind(expected)}"


def _kind(value: object) -> str:
    """A value in a few words: a tensor's type and shape, a container's length, or the value."""
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and value.device.type != "meta" and not value.is_quantized
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{'a' if plain else 'no plain'} tensor of {dtype} {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 63 bits"
    return repr(value)[:40] if value is None or isinstance(value, int | float | str) else type(value).__name__


def of_network(found: object, network: nn.Module, where: str) -> str:
    """Why a state dict can't be this network's; "" if it can."""
    return difference(found, network.state_dict(), where)


def of_schedule(found: object, scheduler: object, steps: int, where: str) -> str:
    """Why a state can't be this schedule's after `steps` steps; "" if it can."""
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
    """A saved state of this optimizer, its tensors copied into memory of the layout that its kernels expect.

    make: creates such an optimizer for a copy of the network. Raises ValueError if the state is another's.
    """
    twin = copy.deepcopy(model)
    other = make(twin)
    for parameter in twin.parameters():
        parameter.grad = torch.zeros_like(parameter)
    other.step()  # gives it a state
    states, groups = other.state_dict()["state"], optimizer.state_dict()["param_groups"]
    saved = found.get("state") if isinstance(found, dict) else None
    if isinstance(saved, dict):  # a parameter without gradients has no state
        states = {key: state for key, state in states.items() if key in saved}
    wrong = difference(found, {"state": states, "param_groups": groups}, where)
    if wrong or [group["params"] for group in found["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError(wrong or f"{where}.param_groups is of other parameters than expected")

    def laid_out(value: object, like: object) -> object:
        return torch.empty_like(like).copy_(value) if isinstance(like, Tensor) else value

    copied = {}
    for key, state in states.items():
        copied[key] = {name: laid_out(saved[key][name], like) for name, like in state.items()}
    return {"state": copied, "param_groups": found["param_groups"]}
