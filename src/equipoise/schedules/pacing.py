"""How much of the data is in use after a given part of the training: one rising function for each pacing."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

Pacing = Literal["none", "bins", "linear", "root", "quadratic", "log", "exponential", "geometric", "step"]

STEEPNESS = 10.0  # of `log` and `exponential`, as published

# From the part of the way that is done, p in [0, 1], and the share s at the start, to the share in use. `root` is of
# Platanios et al. (2019); `log`, `exponential` and `step` are of Wu, Dyer and Neyshabur (2021), `log` scaled so that it
# starts at s; `geometric` is of Penha and Hauff (2020), the same factor at every step.
PACINGS: Mapping[str, Callable[[float, float], float]] = {
    "none": lambda p, s: 1.0,
    "linear": lambda p, s: s + (1 - s) * p,
    "root": lambda p, s: math.sqrt(s * s + (1 - s * s) * p),
    "quadratic": lambda p, s: s + (1 - s) * p * p,
    "log": lambda p, s: s + (1 - s) * math.log1p(math.expm1(STEEPNESS) * p) / STEEPNESS,
    "exponential": lambda p, s: s + (1 - s) * math.expm1(STEEPNESS * p) / math.expm1(STEEPNESS),
    "geometric": lambda p, s: s ** (1 - p),
    "step": lambda p, s: s if p < 1 else 1.0,
}


def paced(pacing: str, done: float, start: float) -> float:
    """Give the share in use, kept to [start, 1], when the part `done` of the way is behind; past its end, all of it.

    >>> [round(paced("linear", done, 0.1), 2) for done in (0, 0.5, 1, 2)]
    [0.1, 0.55, 1.0, 1.0]
    """
    if done >= 1:
        return 1.0
    return min(1.0, max(start, PACINGS[pacing](max(0.0, done), start)))
