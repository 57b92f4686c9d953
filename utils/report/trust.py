"""How far an accuracy can be trusted: its interval."""

import math
from statistics import NormalDist


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval, in %, of the accuracies that `correct` of `total` speak for (Wilson 1927, "Probable inference, the
    law of succession, and statistical inference"). Unlike p ± 2 standard errors it never leaves 0 to 100.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / total
    middle, half = p + z**2 / (2 * total), z * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    low, high = ((middle + side * half) / (1 + z**2 / total) for side in (-1, 1))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)
