"""A loss curve in a bounded number of blocks, whose means give a standard error that autocorrelation does not fool."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

MOST = 64


class Block(NamedTuple):
    """Consecutive steps: how many, their tokens, the token-weighted mean loss, and the squared deviations from it."""

    steps: int
    tokens: int
    mean: float
    deviation: float  # sum of tokens * (loss - mean)^2

    def merged(self, other: Block) -> Block:
        """Both as one block (Chan, Golub and LeVeque 1983)."""
        tokens = self.tokens + other.tokens
        gap = other.mean - self.mean
        share = other.tokens / tokens
        deviation = self.deviation + other.deviation + gap * gap * self.tokens * share
        return Block(self.steps + other.steps, tokens, self.mean + gap * share, deviation)


class Window(NamedTuple):
    """Adjacent blocks: their token-weighted mean and its standard error."""

    mean: float
    error: float


class Blocks:
    """At most `MOST` blocks of equal length; when they are full, neighbours merge and the length doubles.

    Batch means whose batches grow with the run (Yeh and Schmeiser 2000): as long as blocks are much longer than the
    noise remembers, their means are nearly independent, and the spread between them is the error of the whole.
    """

    def __init__(self, length: int):
        self.length = length
        self.closed: list[Block] = []
        self.open: Block | None = None

    def add(self, loss: float, tokens: int) -> bool:
        """Add one step; True if it closed a block."""
        step = Block(1, tokens, loss, 0.0)
        self.open = step if self.open is None else self.open.merged(step)
        if self.open.steps < self.length:
            return False
        self.closed.append(self.open)
        self.open = None
        if len(self.closed) == MOST:
            self.closed = [one.merged(two) for one, two in zip(self.closed[::2], self.closed[1::2])]
            self.length *= 2
        return True

    def windows(self, share: float, least: int) -> tuple[Window, Window, float] | None:
        """The last two windows, each `share` of all blocks, and the noise of a single step within them.

        Their errors are widened by what neighbouring blocks still have in common. None before a window has `least`.
        """
        count = int(share * len(self.closed))
        if count < least:
            return None
        both = self.closed[-2 * count :]
        before, now = window(both[:count]), window(both[count:])
        alike = remembered(both[:count], both[count:])
        wider = math.sqrt((1 + alike) / (1 - alike))  # what AR(1) adds to the error of a mean
        return before._replace(error=before.error * wider), now._replace(error=now.error * wider), noise(both)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {"length": self.length, "closed": [list(b) for b in self.closed], "open": self.open and list(self.open)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.length = state["length"]
        self.closed = [Block(*values) for values in state["closed"]]
        self.open = Block(*state["open"]) if state["open"] else None


def window(blocks: Sequence[Block]) -> Window:
    """The token-weighted mean of at least two blocks, and its standard error from the spread between them."""
    tokens = sum(block.tokens for block in blocks)
    mean = sum(block.tokens * block.mean for block in blocks) / tokens
    spread = sum((block.tokens * (block.mean - mean)) ** 2 for block in blocks)
    return Window(mean, math.sqrt(spread * len(blocks) / (len(blocks) - 1)) / tokens)


def remembered(*windows: Sequence[Block]) -> float:
    """How much neighbouring block means still resemble each other: their lag-one correlation, from 0 to 0.9.

    The mean was estimated from the same blocks, which lowers the correlation by about (1 + 4r) / n; that is put back.
    """
    products = squares = 0.0
    for blocks in windows:
        middle = window(blocks).mean
        rest = [block.mean - middle for block in blocks]
        products += sum(one * two for one, two in pairwise(rest))
        squares += sum(one * one for one in rest)
    if squares == 0.0:
        return 0.0
    n = len(windows[0])
    return min(max((products / squares + 1 / n) / max(1 - 4 / n, 0.5), 0.0), 0.9)


def noise(blocks: Iterable[Block]) -> float:
    """The standard deviation of a step's loss about the mean of its block; 0 for blocks of one step."""
    blocks = list(blocks)
    steps = sum(block.steps for block in blocks)
    if steps == len(blocks):
        return 0.0
    variance = sum(block.deviation for block in blocks) / sum(block.tokens for block in blocks)
    return math.sqrt(variance * steps / (steps - len(blocks)))
