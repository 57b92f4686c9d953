"""A network in as few bytes as its numbers need: the result of quantize.end as a file.

A header of four bytes holds the format's version, the number of levels, and a CRC-16 of the network's name and of all
other bytes. The rest is one whole number, least significant byte first, from which a Reader takes one number after
another: the mean and the standard deviation of the pixels in millionths, then each parameter in the order of layers. A
matrix: its step as float16, and its weights in steps. A vector (a bias, or a batch norm's factor or summand): its
lowest value and its step as float16, and its numbers in steps above the lowest.

J. Duda 2009, "Asymmetric numeral systems": one of n equally probable symbols takes a remainder modulo n. If they are
not equally probable, each owns a share of the remainders, and a more probable one takes fewer bits. Writer and reader
count the weights as they go to estimate the probabilities.
"""

from binascii import crc_hqx
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from .. import CourseError, models
from ..training.quantize import NORMS, VECTOR_LEVELS, levels_of, vector_grid, weight_grid

VERSION = 1
MILLION = 1_000_000
PIXELS = 2**20  # above every mean and standard deviation in millionths
Share = tuple[int, int, int]  # first remainder, how many, of how many


def equal(values: list[int], below: int) -> list[Share]:
    """The shares of numbers from 0, all equally probable."""
    return [(value, 1, below) for value in values]


class Counts:
    """Counts of symbols, which estimate their probabilities; the middle begins higher, as most weights are small."""

    def __init__(self, levels: int):
        self.counts = [1 + min(symbol, levels - 1 - symbol) for symbol in range(levels)]

    def share(self, symbol: int) -> Share:
        """The remainders that a symbol owns now; then counts it."""
        share = sum(self.counts[:symbol]), self.counts[symbol], sum(self.counts)
        self.counts[symbol] += 1
        return share

    def symbol(self, remainder: int) -> int:
        return next(symbol for symbol, end in enumerate(accumulate(self.counts)) if remainder < end)


def written(shares: list[Share]) -> bytes:
    """The bytes from which a Reader takes symbols with these shares, in this order."""
    state = 0
    for first, count, of in reversed(shares):  # the last one written is the first one read
        state = state // count * of + first + state % count
    return state.to_bytes((state.bit_length() + 7) // 8, "little")


class Reader:
    """Takes one number after another from what `written` returned."""

    def __init__(self, content: bytes):
        self.state = int.from_bytes(content, "little")

    def whole(self, number: int, below: int) -> list[int]:
        """The next `number` equally probable numbers from 0."""
        values = []
        for _ in range(number):
            self.state, value = divmod(self.state, below)
            values.append(value)
        return values

    def counted(self, number: int, levels: int) -> list[int]:
        counts, symbols = Counts(levels), []
        for _ in range(number):
            quotient, remainder = divmod(self.state, sum(counts.counts))
            symbols.append(counts.symbol(remainder))
            first, count, _ = counts.share(symbols[-1])
            self.state = quotient * count + remainder - first
        return symbols


def write(model: nn.Module, name: str, levels: int, mean: float, std: float) -> bytes:
    """The file of a network that quantize.end left. name: with its arguments; mean, std: of the pixels, 0 to 1."""
    shares = equal([round(MILLION * mean), round(MILLION * std)], PIXELS)
    of = {layer.weight: own for layer, own in levels_of(model, levels)}
    for parameter in model.parameters():
        numbers = parameter.detach()
        if parameter in of:
            step, whole = weight_grid(numbers, of[parameter])
            counts = Counts(of[parameter])
            shares += equal(halves(step), 2**16)
            shares += [counts.share(int(code) + of[parameter] // 2) for code in whole.flatten()]
        else:
            low, step, whole = vector_grid(numbers)
            shares += equal(halves(low, step), 2**16) + equal([int(code) for code in whole], VECTOR_LEVELS)
    body = written(shares)
    return bytes([VERSION, levels]) + checksum(name, levels, body) + body


def read(content: bytes, name: str) -> tuple[nn.Module, float, float]:
    """The network of a file, in eval mode, and its pixels' mean and standard deviation. Raises CourseError."""
    version, levels, crc, body = content[0:1], (content[1:2] or b"\0")[0], content[2:4], content[4:]
    if version != bytes([VERSION]) or levels < 3 or crc != checksum(name, levels, body):
        what = f"the {len(content)} bytes are no network {name} of format {VERSION}, or damaged"
        raise CourseError(f"{what}: expected a file of its own")
    reader, model = Reader(body), models.build(name)
    mean, std = (value / MILLION for value in reader.whole(2, PIXELS))
    for layer in (layer for layer in model.modules() if isinstance(layer, NORMS)):
        layer.running_var.fill_(1 - layer.eps)
    of = {layer.weight: own for layer, own in levels_of(model, levels)}
    for parameter in model.parameters():
        if parameter in of:
            low, [step] = 0.0, floats(reader.whole(1, 2**16))
            whole = [code - of[parameter] // 2 for code in reader.counted(parameter.numel(), of[parameter])]
        else:
            low, step = floats(reader.whole(2, 2**16))
            whole = reader.whole(parameter.numel(), VECTOR_LEVELS)
        parameter.data = low + step * torch.tensor(whole, dtype=torch.float32).view(parameter.shape)
    return model.eval(), mean, std


def checksum(name: str, levels: int, body: bytes) -> bytes:
    return crc_hqx(name.replace(" ", "").encode() + bytes([levels]) + body, 0).to_bytes(2, "little")


def halves(*values: Tensor) -> list[int]:
    return np.array([float(value) for value in values], np.float16).view(np.uint16).tolist()


def floats(codes: list[int]) -> list[float]:
    return np.array(codes, np.uint16).view(np.float16).astype(np.float32).tolist()
