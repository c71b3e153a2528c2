"""Whether reinforcement learning only games its reward: the reward rises while what it should stand for falls."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from equipoise.errors import UserError

Reason = Literal["f1", "entropy", "empty"]
Step = tuple[int, float, float | None, float | None]  # number, reward, entropy, share of answers that are not empty


@dataclass(frozen=True)
class CollapseSettings:
    """What counts as collapse.

    Args:
        window: steps at the start, and up to now, that are compared.
        z: how many standard errors the reward must have risen.
        drop: fall of the held-out F1 from its best that is too much.
        checks: measurements of F1 in a row that must show it.
        entropy: share of the first window's entropy below which the policy is stuck.
        empty: fall of the share of non-empty answers that is too much.

    Raises:
        UserError: a value is out of its range.
    """

    window: int = 10
    z: float = 2.0
    drop: float = 0.1
    checks: int = 2
    entropy: float = 0.05
    empty: float = 0.2

    def __post_init__(self) -> None:
        whole = {name: getattr(self, name) >= least for name, least in (("window", 2), ("checks", 1))}
        shares = {name: 0 < getattr(self, name) <= 1 for name in ("drop", "entropy", "empty")}
        for name, fine in {**whole, **shares, "z": 0 <= self.z < math.inf}.items():
            if not fine:
                raise UserError(
                    f"{name} cannot be {getattr(self, name)!r}",
                    where=f"collapse.{name}",
                    fix="see the ranges in docs/curriculum.md, or leave it out",
                    docs="docs/curriculum.md#collapse",
                )


@dataclass(frozen=True)
class Verdict:
    """A collapse: seen after which step, by which reason code, in a sentence, with the numbers."""

    reason: Reason
    step: int
    sentence: str
    numbers: dict[str, float]


class CollapseWatch:
    """Told of every step, it says when training collapsed; after that it says the same again.

    A higher reward alone is what training is for, and less entropy comes with it. It is collapse if beside it the F1 on
    held-out labels falls well below its best; or if entropy is all but gone, or answers become empty, while that F1 (if
    it is measured) is not above where it began.
    """

    def __init__(self, settings: CollapseSettings):
        self.settings = settings
        self.verdict: Verdict | None = None
        self.first: list[Step] = []
        self.recent: deque[Step] = deque(maxlen=settings.window)
        self.at_best: list[Step] = []  # the window that ended at the best F1, or the first if that came sooner
        self.f1: list[float] = []  # first, best and latest
        self.low = 0

    def add(
        self,
        step: int,
        reward: float,
        target_f1: float | None = None,
        entropy: float | None = None,
        non_empty: float | None = None,
    ) -> Verdict | None:
        """Take one optimizer step into account; numbers that are not finite say nothing.

        Args:
            reward: mean over the step's answers.
            target_f1: F1 on held-out labels after the step, where it was measured.
            entropy: mean over the tokens of the answers, in nats.
            non_empty: share of the answers that name an entity.
        """
        if self.verdict is not None:
            return self.verdict
        if math.isfinite(reward):
            row = (step, reward, _finite(entropy), _finite(non_empty))
            self.recent.append(row)
            if len(self.first) < self.settings.window:
                self.first.append(row)
        if (f1 := _finite(target_f1)) is not None:
            self._measured(f1)
        self.verdict = self._fallen(step) or self._stuck(step) or self._emptied(step)
        return self.verdict

    def _measured(self, f1: float) -> None:
        if not self.f1 or f1 >= self.f1[1]:
            self.at_best, self.low = list(self.recent) if len(self.recent) == self.settings.window else [], 0
        else:
            self.low = self.low + 1 if f1 < self.f1[1] - self.settings.drop else 0
        self.f1 = [self.f1[0], max(self.f1[1], f1), f1] if self.f1 else [f1, f1, f1]

    # ---- the tests

    def _fallen(self, step: int) -> Verdict | None:
        if self.low < self.settings.checks or not self._risen(self.at_best or self.first):
            return None
        return self._say(
            "f1", step, "the held-out F1 fell from {best_f1:.3f} to {f1:.3f}", {"best_f1": self.f1[1], "f1": self.f1[2]}
        )

    def _stuck(self, step: int) -> Verdict | None:
        before, now = _mean(self.first, 2), _mean(self.recent, 2)
        if before is None or now is None or now >= self.settings.entropy * before or not self._in_vain():
            return None
        numbers = {"first_entropy": before, "entropy": now}
        return self._say("entropy", step, "the entropy fell from {first_entropy:.3g} to {entropy:.3g} nats", numbers)

    def _emptied(self, step: int) -> Verdict | None:
        before, now = _mean(self.first, 3), _mean(self.recent, 3)
        if before is None or now is None or before - now <= self.settings.empty or not self._in_vain():
            return None
        numbers = {"first_non_empty": before, "non_empty": now}
        words = "answers that name anything fell from {first_non_empty:.0%} to {non_empty:.0%}"
        return self._say("empty", step, words, numbers)

    def _in_vain(self) -> bool:
        gained = bool(self.f1) and self.f1[2] > self.f1[0]
        return not gained and self._risen(self.first)

    def _risen(self, since: list[Step]) -> bool:
        """Whether the reward of the last window is surely above that of another, of which no step is shared."""
        if len(self.recent) < self.settings.window or len(since) < 2 or since[-1][0] >= self.recent[0][0]:
            return False
        before, now = (np.array([row[1] for row in rows]) for rows in (since, self.recent))
        error = math.hypot(*(x.std(ddof=1) / math.sqrt(len(x)) for x in (before, now)))
        return float(now.mean() - before.mean()) > self.settings.z * error

    def _say(self, reason: Reason, step: int, what: str, numbers: dict[str, float]) -> Verdict:
        since = self.at_best or self.first if reason == "f1" else self.first
        rewards = {"first_reward": _mean(since, 1) or 0.0, "reward": _mean(self.recent, 1) or 0.0}
        numbers = rewards | numbers
        words = "the reward rose from {first_reward:.3f} to {reward:.3f} while " + what
        return Verdict(reason, step, words.format(**numbers), numbers)

    # ---- going on after a break

    def state_dict(self) -> dict[str, Any]:
        """Everything that was learned from the run, as plain JSON."""
        return {
            "verdict": None if self.verdict is None else dict(vars(self.verdict)),
            "first": [list(row) for row in self.first],
            "recent": [list(row) for row in self.recent],
            "at_best": [list(row) for row in self.at_best],
            "f1": list(self.f1),
            "low": self.low,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, with the settings of that run."""
        self.verdict = None if state["verdict"] is None else Verdict(**state["verdict"])
        self.first, self.at_best = ([(i, r, e, n) for i, r, e, n in state[name]] for name in ("first", "at_best"))
        self.recent = deque(((i, r, e, n) for i, r, e, n in state["recent"]), maxlen=self.settings.window)
        self.f1, self.low = list(state["f1"]), state["low"]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _mean(rows: list[Step] | deque[Step], column: int) -> float | None:
    values = [value for row in rows if (value := row[column]) is not None]
    return math.fsum(values) / len(values) if values else None
