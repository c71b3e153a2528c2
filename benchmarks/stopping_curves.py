"""Loss curves whose truth is known, to try stopping rules on: each with a whole fall of about 1, and noise of its own.

Training noise is AR(1). A validation sees 200 examples of very different difficulty, each with small moves of its own,
and a jitter that all examples share, because the weights move: that one is part of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS, EVERY, EXAMPLES = 2000, 50, 200
EPOCH = 200  # steps until every supervised token was seen once

KINDS = {
    "exponential": "exponential decay",
    "power": "power-law decay",
    "noisy": "decay under strong AR(1) noise",
    "flat": "flat",
    "overfit": "validation loss falls, then rises",
    "rising": "both losses rise from the start",
    "step-down": "plateau, then a late step down",
    "step-up": "plateau, then a step up",
}


@dataclass(frozen=True)
class Curve:
    """One run to its end.

    Attributes:
        train: loss of each step [STEPS], with its noise.
        tokens: supervised tokens of each step [STEPS].
        examples: validation losses [STEPS / EVERY, EXAMPLES].
        truth: expected validation loss at each validation [STEPS / EVERY].
    """

    train: Floats
    tokens: NDArray[np.int64]
    examples: Floats
    truth: Floats


def curve(kind: str, seed: int) -> Curve:
    """Draw the curve of this kind and seed; the same one each time."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    base, falls, rises = _shapes(kind, rng)
    noisy = kind == "noisy"
    sigma = rng.uniform(0.15, 0.4) if noisy else np.exp(rng.uniform(np.log(0.02), np.log(0.15)))
    memory = rng.uniform(0.8, 0.97) if noisy else rng.uniform(0.0, 0.7)
    tokens = rng.integers(200, 800, STEPS)
    train = base + falls + _autoregressive(rng, memory) * sigma * np.sqrt(500 / tokens)
    at = np.arange(EVERY, STEPS + 1, EVERY) - 1
    truth = (base + falls + rises)[at] + rng.normal(0, 0.003, len(at))
    hard = rng.gamma(2.0, 0.4, EXAMPLES)
    moves = rng.normal(0, 0.1, (len(at), EXAMPLES))
    return Curve(train, tokens, truth[:, None] + (hard - hard.mean()) + moves, truth)


def _shapes(kind: str, rng: np.random.Generator) -> tuple[float, Floats, Floats]:
    """What the loss ends at, what training takes off, and what is added on validation alone."""
    t = np.arange(STEPS, dtype=np.float64)
    nothing = np.zeros(STEPS)
    base = rng.uniform(1.0, 2.0)
    decay = np.exp(-t / np.exp(rng.uniform(np.log(40), np.log(600))))
    power = (1 + t / np.exp(rng.uniform(np.log(5), np.log(50)))) ** -rng.uniform(0.3, 1.0)
    when = int(rng.uniform(0.3, 0.7) * STEPS)
    after = np.where(t >= when, 1 - np.exp(-np.maximum(t - when, 0) / 40), 0.0)
    if kind == "exponential":
        return base, decay, nothing
    if kind == "power":
        return base, power, nothing
    if kind == "noisy":
        return base, decay if rng.random() < 0.5 else power, nothing
    if kind == "flat":
        return base, nothing, nothing
    if kind == "overfit":
        return base, decay, rng.uniform(0.2, 1.5) * (t / STEPS) ** 2
    if kind == "rising":
        return base, rng.uniform(0.2, 1.0) * t / STEPS, nothing
    early = np.exp(-t / rng.uniform(40, 120))
    if kind == "step-down":
        return base, 0.6 * early + 0.4 * (1 - after), nothing
    return base, early + rng.uniform(0.1, 0.4) * after, nothing


def _autoregressive(rng: np.random.Generator, memory: float) -> Floats:
    """AR(1) of variance 1 [STEPS]."""
    shocks = rng.normal(0, 1, STEPS)
    out = np.empty(STEPS)
    out[0] = shocks[0]
    scale = np.sqrt(1 - memory**2)
    for i in range(1, STEPS):
        out[i] = memory * out[i - 1] + scale * shocks[i]
    return out
