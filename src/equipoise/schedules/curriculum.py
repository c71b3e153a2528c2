"""The surest first: which rows a training step may use, and which of them it draws. Pure, seeded, resumable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import UserError
from equipoise.metrics.graded import Floats, probabilities
from equipoise.schedules.pacing import Pacing, paced

Order = Literal["confident", "reverse", "random"]
Indices = NDArray[np.int64]
EPSILON = 1e-9  # 0.07 * 100 is a little over 7


class Pick(NamedTuple):
    """A row that a step trains on: of the target, or of the source domain that is replayed."""

    kind: Literal["target", "source"]
    index: int


@dataclass(frozen=True)
class Schedule:
    """In which order and how fast rows come into use.

    Args:
        pacing: how the share in use grows; `none` uses everything at once, `bins` the shares of `bins` for equal parts
            of the run.
        start: share at the first step; not of `bins`, whose first says it.
        full: the part of the run after which everything is in use; not of `bins`.
        bins: rising shares, the last one 1.
        stages: equal parts of the run that results are told by and a dynamic curriculum is ordered anew at; with
            `bins`, these are the stages.
        order: the surest rows first, the least sure first, or any.
        threshold: rows of less confidence are never used.
        replay: share of source rows in all rows trained on.
        dynamic: whether confidence is measured again at each stage.

    Raises:
        UserError: a value is out of its range.
    """

    pacing: Pacing = "linear"
    start: float = 0.1
    full: float = 0.8
    bins: tuple[float, ...] = (0.1, 0.2, 0.4, 1.0)
    stages: int = 4
    order: Order = "confident"
    threshold: float | None = None
    replay: float = 0.05
    dynamic: bool = False

    def __post_init__(self) -> None:
        bins = self.bins
        good = {
            "pacing": self.pacing in get_args(Pacing),
            "start": 0 < self.start <= 1,
            "full": 0 < self.full <= 1,
            "bins": bins and all(0 < a < b for a, b in zip((1e-9, *bins), bins)) and bins[-1] == 1,
            "stages": self.stages >= 1,
            "order": self.order in get_args(Order),
            "threshold": self.threshold is None or 0 <= self.threshold <= 1,
            "replay": 0 <= self.replay < 1,
        }
        for name, fine in good.items():
            if not fine:
                raise UserError(
                    f"{name} cannot be {getattr(self, name)!r}",
                    where=f"curriculum.{name}",
                    fix="see the ranges in docs/curriculum.md, or leave it out",
                    docs="docs/curriculum.md#settings",
                )


class Curriculum:
    """Says for every step which rows are in use and which are drawn.

    Each step draws rows of which it has drawn least so far, ties by the seed, so that no row comes twice before all in
    use have come once. Rows that come into use join at the level of the others and are not caught up on: every draw is
    even over what is in use. `batch` depends on the settings, the confidences, the seed and the step alone.

    Args:
        confidence: that the label of each target row is right [n], in [0, 1].
        total_steps: of the whole run.
        batch: rows of a step.
        replay_size: how many source rows there are to replay; 0 for none.

    Raises:
        UserError: no rows, none above the threshold, a confidence outside [0, 1], or nothing to do.
    """

    def __init__(
        self,
        settings: Schedule,
        confidence: ArrayLike,
        *,
        total_steps: int,
        batch: int,
        seed: int,
        replay_size: int = 0,
    ):
        if total_steps < 1 or batch < 1:
            raise UserError(f"a curriculum needs steps and rows in them, not {total_steps} steps of {batch} rows")
        self.settings, self.total_steps, self.size, self.seed = settings, total_steps, batch, seed
        self.replay_size = replay_size
        self.orders: list[tuple[int, Floats]] = [(0, probabilities(confidence))]
        if settings.threshold is not None and not (self.orders[0][1] >= settings.threshold).any():
            raise UserError(
                f"no pseudo-label is as sure as the threshold of {settings.threshold:g}; "
                f"the surest has {self.orders[0][1].max():.3g}",
                where="curriculum.threshold",
                fix="set a lower threshold, or leave it out",
            )
        self._forget()

    def _forget(self) -> None:
        """Start the account of what was drawn from the beginning; it is worked out again when it is asked for."""
        n = len(self.orders[0][1])
        self._drawn: list[Indices] = []
        self._used = np.zeros(n, dtype=np.int64)
        self._before = np.zeros(n, dtype=bool)
        self._ranked: dict[int, Indices] = {}

    # ---- how much is in use

    def share(self, step: int) -> float:
        """The share of the rows (above the threshold) that is in use at a step, counted from 0; 1 at the last."""
        s = self.settings
        if s.pacing == "bins":
            return s.bins[self.stage(step)]
        end = s.full * (self.total_steps - 1)
        return paced(s.pacing, step / end if end > 0 else 1.0, s.start)

    def stage(self, step: int) -> int:
        """The number of the stage that a step is in, from 0; the last step is always in the last stage."""
        count = self._stages
        return count - 1 if step >= self.total_steps - 1 else step * count // self.total_steps

    def stages(self) -> list[tuple[int, float]]:
        """First step and share at it of each stage that has steps."""
        numbers = [self.stage(step) for step in range(self.total_steps)]
        first = [step for step in range(self.total_steps) if step == 0 or numbers[step] != numbers[step - 1]]
        return [(step, self.share(step)) for step in first]

    @property
    def _stages(self) -> int:
        return len(self.settings.bins) if self.settings.pacing == "bins" else self.settings.stages

    def due(self, step: int) -> bool:
        """Whether a dynamic curriculum wants confidences measured anew before this step."""
        return self.settings.dynamic and step > 0 and self.stage(step) != self.stage(step - 1)

    # ---- which rows

    def pool(self, step: int) -> list[int]:
        """The target rows in use at a step, in the order in which they came into use."""
        return self._pool(step).tolist()

    def _pool(self, step: int) -> Indices:
        ranked = self._ranking(step)
        least = min(len(ranked), self.size)  # a step of few rows has others than one row again and again
        return ranked[: max(least, math.ceil(self.share(step) * len(ranked) - EPSILON))]

    def _ranking(self, step: int) -> Indices:
        number = max(i for i, (since, _) in enumerate(self.orders) if since <= step)
        if number not in self._ranked:
            self._ranked[number] = self._rank(self.orders[number][1])
        return self._ranked[number]

    def _rank(self, confidence: Floats) -> Indices:
        """Rows above the threshold in order, ties at random but always alike."""
        s = self.settings
        ties = np.random.default_rng([self.seed, 0]).permutation(len(confidence))
        sign = {"confident": -1, "reverse": 1, "random": 0}[s.order]
        ranked = np.lexsort((ties, sign * confidence))
        if s.threshold is None:
            return ranked
        sure = confidence >= s.threshold
        if not sure.any():  # the policy became unsure of everything: go on with the surest rather than with nothing
            sure = confidence == confidence.max()
        return ranked[sure[ranked]]

    def batch(self, step: int, attempt: int = 0) -> list[Pick]:
        """The rows of a step, target first, then replayed ones.

        Args:
            attempt: 1 and up give other rows for the same step, in the place of those that taught nothing. They are not
                counted as drawn.
        """
        replayed = range(self._replayed(step), self._replayed(step + 1))
        targets = self._targets(step, attempt, self.size - len(replayed))
        sources = [self._source(i, step, attempt) for i in replayed]
        return [*(Pick("target", int(i)) for i in targets), *(Pick("source", i) for i in sources)]

    def _targets(self, step: int, attempt: int, count: int) -> Indices:
        while len(self._drawn) <= step:
            self._draw_next()
        if attempt == 0:
            return self._drawn[step]
        pool = self._pool(step)
        used = np.zeros(len(self._used), dtype=np.int64)
        for earlier in range(attempt):
            used[self._targets(step, earlier, count)] += 1
        return self._least(pool, used, step, attempt, count)

    def _draw_next(self) -> None:
        step, pool, within = len(self._drawn), self._pool(len(self._drawn)), np.zeros(len(self._used), dtype=bool)
        within[pool] = True
        stayed, new = within & self._before, within & ~self._before
        if stayed.any():
            self._used[new] = np.maximum(self._used[new], self._used[stayed].min())
        count = self.size - (self._replayed(step + 1) - self._replayed(step))
        drawn = self._least(pool, self._used, step, 0, count)
        np.add.at(self._used, drawn, 1)
        self._drawn.append(drawn)
        self._before = within

    def _least(self, pool: Indices, used: Indices, step: int, attempt: int, count: int) -> Indices:
        """The least used rows of the pool, ties by the seed; in turns, if there are fewer than are wanted."""
        keys = used[pool] + np.random.default_rng([self.seed, 1, step, attempt]).random(len(pool))
        return np.resize(pool[np.argsort(keys)], count) if count else pool[:0]

    def _replayed(self, step: int) -> int:
        """How many source rows all steps before this one hold."""
        return math.floor(step * self.size * self.settings.replay + EPSILON) if self.replay_size else 0

    def _source(self, number: int, step: int, attempt: int) -> int:
        """The source row of a running number: pass after pass over all of them, each in an order of its own."""
        turn, place = divmod(number, self.replay_size)
        spread = [self.seed, 2, turn] if attempt == 0 else [self.seed, 3, step, attempt]
        return int(np.random.default_rng(spread).permutation(self.replay_size)[place])

    # ---- confidence measured anew, and going on after a break

    def update(self, step: int, confidence: ArrayLike) -> None:
        """Order the rows by new confidences [n] from this step on.

        Raises:
            UserError: not one confidence for each row, or a step before the last update.
        """
        new = probabilities(confidence)
        if len(new) != len(self.orders[0][1]):
            raise UserError(f"{len(new)} new confidences for {len(self.orders[0][1])} rows")
        if step < self.orders[-1][0]:
            raise UserError(f"confidences of step {step} come after those of step {self.orders[-1][0]}")
        if self.orders[-1][0] == step:
            self.orders.pop()
        self.orders.append((step, new))
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """All confidences that were in use and since which step, as plain JSON; the rest follows from the settings."""
        return {"orders": [[step, confidence.tolist()] for step, confidence in self.orders]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, with the settings and the seed of that run.

        Raises:
            UserError: the state is of another number of rows.
        """
        orders: Sequence[tuple[int, Any]] = [(int(step), probabilities(values)) for step, values in state["orders"]]
        if len(orders[0][1]) != len(self.orders[0][1]):
            raise UserError(f"the curriculum was saved for {len(orders[0][1])} rows, not {len(self.orders[0][1])}")
        self.orders = list(orders)
        self._forget()
