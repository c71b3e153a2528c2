"""When training has nothing more to gain: a plateau, overfitting, divergence or losses that are no numbers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from equipoise.errors import UserError
from equipoise.schedules.blocks import Blocks

Reason = Literal["plateau", "overfitting", "divergence", "non-finite"]
LEAST = 8  # blocks in a window; below that their spread says little
SIGMAS = 6.0  # a loss this far above its start is no noise


@dataclass(frozen=True)
class StoppingSettings:
    """What the rule asks for before it stops a run.

    Args:
        floor: share of the distinct supervised tokens that must have been seen before a plateau or overfitting stops.
        delta: a window that still wins this share of the whole fall of the loss is worth its compute.
        z: how many standard errors are added to the gain before it is called too small.
        unsure: a check counts only if z standard errors are below this multiple of `delta`, however the gain looks.
        checks: how many checks in a row must agree; there is one whenever a block of steps is full.
        window: share of the steps since warm-up in each of the two windows.
        block: steps of the first blocks; they grow with the run.
        k: the fall of the loss counts as at least this many standard deviations of a step's loss.
        rise_z: how many standard errors of the paired rise of the validation losses are taken off it.
        rises: validations in a row whose lower bound must be above zero.
        divergence: a loss above this multiple of the first one is divergence.
        non_finite: losses in a row that are no finite numbers.
        restarts: how often a plateau before the floor restarts the learning rate instead.

    Raises:
        UserError: a value is out of its range.
    """

    floor: float = 1.0
    delta: float = 0.03
    z: float = 1.0
    unsure: float = 5.0
    checks: int = 5
    window: float = 0.33
    block: int = 8
    k: float = 2.0
    rise_z: float = 1.645
    rises: int = 2
    divergence: float = 1.5
    non_finite: int = 5
    restarts: int = 0

    def __post_init__(self) -> None:
        positive = {name: getattr(self, name) > 0 for name in ("delta", "z", "unsure", "k", "rise_z")}
        whole = {name: getattr(self, name) >= 1 for name in ("checks", "rises", "non_finite")}
        ranges = {"floor": 0 <= self.floor <= 1, "window": 0.2 <= self.window <= 0.5, "divergence": self.divergence > 1}
        bounds = {"block": self.block >= 2, "restarts": self.restarts >= 0}
        for name, good in {**positive, **whole, **ranges, **bounds}.items():
            value = getattr(self, name)
            if not good or not math.isfinite(value):
                raise UserError(
                    f"{name} cannot be {value!r}",
                    where=f"training.stopping.{name}",
                    fix="see the ranges in docs/stopping.md, or leave it out",
                    docs="docs/stopping.md#settings",
                )


@dataclass(frozen=True)
class Verdict:
    """Stop, or restart the learning rate: after which step, by which reason code, in a sentence, with the numbers."""

    action: Literal["stop", "restart"]
    reason: Reason
    step: int
    sentence: str
    numbers: dict[str, float]


class Stopping:
    """Told of every step and every validation, it says when to stop; after that it says the same again.

    Args:
        total_tokens: distinct supervised tokens of the training data.
        warmup_steps: steps before the learning rate is at its height; no curve is judged by them.
    """

    def __init__(self, settings: StoppingSettings, *, total_tokens: int, warmup_steps: int = 0):
        if total_tokens < 1 or warmup_steps < 0:
            raise UserError(f"nothing to stop: {total_tokens} supervised tokens, {warmup_steps} steps of warm-up")
        self.settings, self.total_tokens, self.warmup_steps = settings, total_tokens, warmup_steps
        self.verdict: Verdict | None = None
        self.step, self.seen, self.streak, self.broken = 0, 0, 0, 0
        self.restarted: list[int] = []
        self.blocks = Blocks(settings.block)
        self.start = Blocks(2 * settings.block)  # the first block of it is where the loss began
        self.recent: deque[tuple[float, int]] = deque(maxlen=2 * settings.block)
        self.best: list[float] | None = None
        self.best_step, self.rising = 0, 0

    @property
    def past_floor(self) -> bool:
        """Whether enough distinct supervised tokens were seen and warm-up is over."""
        return self.seen >= self.settings.floor * self.total_tokens and self.step >= self.warmup_steps

    # ---- what happens in training

    def add(self, step: int, loss: float, tokens: int, fresh: int) -> Verdict | None:
        """Take one optimizer step into account.

        Args:
            loss: mean over the step's supervised tokens.
            tokens: how many these are; a step without any says nothing of the loss.
            fresh: supervised tokens of examples that were not seen before.
        """
        if self.verdict is not None:
            return self.verdict
        self.step = step
        self.seen += fresh
        if not math.isfinite(loss):
            self.broken += 1
            return self._non_finite() if self.broken >= self.settings.non_finite else None
        self.broken = 0
        if tokens < 1:
            return None
        self.recent.append((loss, tokens))
        if not self.start.closed:
            self.start.add(loss, tokens)
        elif self._diverged():
            return self._stopped(
                "divergence",
                {"loss": self._recent_loss(), "first_loss": self.start.closed[0].mean},
                "the loss of the last {n} steps, {loss:.4g}, is far above the {first_loss:.4g} it began with",
                n=len(self.recent),
            )
        if step > self.warmup_steps and self.blocks.add(loss, tokens):
            self._check()
        return self._on_plateau() if self.streak >= self.settings.checks else None

    def validate(self, step: int, losses: Sequence[float]) -> Verdict | None:
        """Take the losses [n] of the validation examples into account, always in the same order.

        Raises:
            UserError: not as many losses as at the first validation.
        """
        if self.verdict is not None:
            return self.verdict
        now = np.asarray(losses, dtype=np.float64)
        if self.best is None:
            if len(now) and np.isfinite(now).all():
                self.best, self.best_step = now.tolist(), step
            return None
        best = np.asarray(self.best)
        if len(now) != len(best):
            raise UserError(f"{len(now)} validation losses, where {len(best)} are compared with")
        if not np.isfinite(now).all():
            return None
        rise, error = _paired(now - best)
        if rise < 0:
            self.best, self.best_step, self.rising = now.tolist(), step, 0
            return None
        self.rising = self.rising + 1 if rise - self.settings.rise_z * error > 0 else 0
        if self.rising < self.settings.rises or not self.past_floor:
            return None
        self.step = max(self.step, step)
        return self._stopped(
            "overfitting",
            {"rise": rise, "error": error, "best_step": self.best_step},
            "the loss on {n} validation examples is {rise:.4g} ± {error:.2g} above that after step {best_step}, "
            "the best so far",
            n=len(now),
        )

    # ---- the tests

    def _check(self) -> None:
        found = self.gain()
        if found is not None:
            gain, margin = found[0], self.settings.z * found[1]
            sure = margin < self.settings.unsure * self.settings.delta  # a fall hidden by noise can look like a rise
            self.streak = self.streak + 1 if sure and gain + margin < self.settings.delta else 0

    def gain(self) -> tuple[float, float] | None:
        """The normalised drop g between the last two windows, and its standard error; None after too few steps.

        The error is that of the two means; the scale is taken as known.
        """
        found = self.blocks.windows(self.settings.window, LEAST)
        if found is None or not self.start.closed:
            return None
        before, now, sigma = found
        size = 1e-9 * abs(now.mean) + 1e-300  # rounding is no gain where nothing moves at all
        scale = max(self.start.closed[0].mean - now.mean, self.settings.k * sigma, size)
        return (before.mean - now.mean) / scale, math.hypot(before.error, now.error) / scale

    def _diverged(self) -> bool:
        if len(self.recent) < (self.recent.maxlen or 0):
            return False
        first = self.start.closed[0]
        noise = math.sqrt(first.deviation / first.tokens)
        limit = max((self.settings.divergence - 1) * abs(first.mean), SIGMAS * noise)
        return self._recent_loss() > first.mean + limit

    def _recent_loss(self) -> float:
        return sum(loss * tokens for loss, tokens in self.recent) / sum(tokens for _, tokens in self.recent)

    # ---- what is said

    def _on_plateau(self) -> Verdict | None:
        if self.past_floor:
            return self._stopped("plateau", *self._plateau_words())
        left = self.settings.restarts - len(self.restarted) - 1
        if left < 0:
            return None
        numbers, words = self._plateau_words()
        self.restarted.append(self.step)
        self.blocks, self.streak = Blocks(self.settings.block), 0
        sentence = words.format(**numbers) + f": the learning rate starts again, {left} restarts left"
        return Verdict("restart", "plateau", self.step, sentence, numbers)

    def _plateau_words(self) -> tuple[dict[str, float], str]:
        found = self.gain()
        assert found is not None
        return (
            {"gain": found[0], "error": found[1], "seen": self.seen / self.total_tokens},
            "the last window of steps won {gain:.2%} ± {error:.2%} of the whole fall of the loss, surely less than "
            f"{self.settings.delta:.2%}; {{seen:.0%}} of the supervised tokens were seen",
        )

    def _non_finite(self) -> Verdict:
        return self._stopped("non-finite", {"losses": self.broken}, "{losses} losses in a row were no finite numbers")

    def _stopped(self, reason: Reason, numbers: dict[str, float], words: str, **more: Any) -> Verdict:
        self.verdict = Verdict("stop", reason, self.step, words.format(**numbers, **more), numbers)
        return self.verdict

    # ---- going on after a break

    def state_dict(self) -> dict[str, Any]:
        """Everything that was learned from the run, as plain JSON values that give back the same bits."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            **{name: list(value) if isinstance(value, list) else value for name, value in plain.items()},
            "verdict": None if self.verdict is None else vars(self.verdict) | {"numbers": dict(self.verdict.numbers)},
            "blocks": self.blocks.state_dict(),
            "start": self.start.state_dict(),
            "recent": [list(pair) for pair in self.recent],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, with the settings of that run."""
        for name in _PLAIN:
            value = state[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)
        self.verdict = None if state["verdict"] is None else Verdict(**state["verdict"])
        self.blocks.load_state_dict(state["blocks"])
        self.start.load_state_dict(state["start"])
        self.recent.clear()
        self.recent.extend((loss, tokens) for loss, tokens in state["recent"])


_PLAIN = ("step", "seen", "streak", "broken", "restarted", "best", "best_step", "rising")


def _paired(rises: np.ndarray) -> tuple[float, float]:
    """Mean and standard error; a single pair has no error that is known, so it is infinite."""
    if len(rises) < 2:
        return float(rises.mean()), math.inf
    return float(rises.mean()), float(rises.std(ddof=1)) / math.sqrt(len(rises))
