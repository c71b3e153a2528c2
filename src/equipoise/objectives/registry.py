"""The registry behind `equipoise.weighting`: names, validated parameters, and the statistics a weighting reads."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, get_args, get_type_hints

from torch import Tensor

from equipoise.errors import UserError
from equipoise.objectives.recent import RecentShock
from equipoise.signals.tokens import shock_ratio

STATISTICS = ("nll", "h", "entropy", "tail", "topk_entropy", "recent")


@dataclass(frozen=True)
class Range:
    """The values a parameter may take; ends are excluded where `open`."""

    low: float
    high: float = math.inf
    open: bool = False

    def holds(self, value: float) -> bool:
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        sign = "above" if self.open else "at least"
        return f"{sign} {self.low:g}" + (f" and below {self.high:g}" if self.high < math.inf else "")


Positive = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1, open=True)]
Count = Annotated[int, Range(1)]


@dataclass(frozen=True)
class Weighting:
    """A weight for each token from the statistics it reads: `weighting(nll [N], h [N]) -> w [N]`.

    Attributes:
        name: as in `weighting(name)`; for a function of your own, its name.
        function: the plain function, elementwise over tokens and differentiable where the objective is to be.
        params: its parameters.
        reads: which of `STATISTICS` it takes.
        top_k: over how many logits topk_entropy is to be taken, or None.
        recent: what it remembers of the tokens it was told of by `observe`, where it reads that; part of the state of
            a run.
    """

    name: str
    function: Callable[..., Tensor]
    params: dict[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ("nll", "h")
    recent: RecentShock | None = field(default=None, compare=False)

    @property
    def top_k(self) -> int | None:
        return self.params["k"] if "topk_entropy" in self.reads else None

    def __call__(
        self,
        nll: Tensor,
        h: Tensor,
        topk_entropy: Tensor | None = None,
        *,
        entropy: Tensor | None = None,
        tail: Tensor | None = None,
    ) -> Tensor:
        """The weights [N] of tokens, from statistics [N] of which those it does not read may be left out.

        Raises:
            UserError: one that it reads is missing.
        """
        given = {"nll": nll, "h": h, "topk_entropy": topk_entropy, "entropy": entropy, "tail": tail}
        given["recent"] = self.recent
        missing = [name for name in self.reads if given[name] is None]
        if missing:
            raise UserError(f"weighting {self.name!r} reads {' and '.join(missing)}, and got none")
        return self.function(*(given[name] for name in self.reads))

    def observe(self, nll: Tensor, h: Tensor) -> None:
        """Take in the tokens of an optimizer step, [N] each, once it was made."""
        if self.recent is not None:
            self.recent.add(shock_ratio(nll, h))


_REGISTRY: dict[str, Callable[..., Tensor]] = {}


def register(name: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Make a function a weighting: positional arguments name the statistics it reads, keywords the parameters."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _REGISTRY[name] = function
        return function

    return add


def names() -> list[str]:
    """All registered weightings, sorted."""
    return sorted(_REGISTRY)


def weighting(name: str, **params: Any) -> Weighting:
    """A weighting by name.

    Args:
        name: one of `equipoise.objectives.weighting.names()`: sft, dft, eaft, eaft-topk, r-eaft, r-eaft-tail,
            r-eaft-recent, focal, profit, stm.
        params: its parameters; what is not given keeps its default (see the weighting's own docstring).

    Raises:
        UserError: an unknown name or parameter (the nearest known one is suggested), or a value out of range.
    """
    if name not in _REGISTRY:
        raise UserError(f"there is no weighting {name!r}", fix=_suggestion(name, names()))
    if params.get("tau") == "auto":
        raise UserError(
            "tau: auto is a number that hangs on the model, and has to be found first",
            where=f"weighting {name!r}",
            fix="use it in the recipe of a knowledge update or of a protocol, whose run finds it; elsewhere give the "
            "tau of equipoise.evaluation.own_tokens.resolve_tau",
            docs="docs/objective.md#tau-auto",
        )
    function = _REGISTRY[name]
    signature = inspect.signature(function).parameters.values()
    known = {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}
    hints = get_type_hints(function, include_extras=True)
    for key, value in params.items():
        if key not in known:
            raise UserError(
                f"weighting {name!r} has no parameter {key!r}",
                fix=_suggestion(key, sorted(known)),
                docs="docs/own-model.md#another-objective",
            )
        _check(f"{name}.{key}", value, hints[key])
    values = known | params
    reads = tuple(p.name for p in signature if p.name in STATISTICS)
    recent = RecentShock(values["window"]) if "recent" in reads else None
    return Weighting(name, partial(function, **values), values, reads, recent)


def as_weighting(given: Weighting | str | Callable[[Tensor, Tensor], Tensor]) -> Weighting:
    """A Weighting from a name, a Weighting, or a plain function `w(nll, h)`."""
    if isinstance(given, Weighting):
        return given
    if isinstance(given, str):
        return weighting(given)
    if not callable(given):
        raise UserError(
            f"{given!r} is not a weighting", fix=f"use one of {', '.join(names())}, or a function w(nll, h)"
        )
    return Weighting(getattr(given, "__name__", type(given).__name__), given)


def _check(what: str, value: Any, hint: Any) -> None:
    optional = type(None) in get_args(hint)
    if value is None and optional:
        return
    kind, allowed = get_args(get_args(hint)[0] if optional else hint)[:2]
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise UserError(f"{what} must be {'a whole' if kind is int else 'a'} number, not {value!r}")
    if not math.isfinite(value) or not allowed.holds(value):
        raise UserError(f"{what} must be finite and {allowed}, not {value!r}")


def _suggestion(word: str, known: list[str]) -> str:
    if not known:
        return "leave it out: this weighting has no parameters"
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.4)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}"
