"""What a model thinks of tokens that it wrote itself: on these every flag is a false alarm, so they set thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data.formatting import IGNORE, Rendered
from equipoise.errors import UserError
from equipoise.evaluation.tokens import TokenReader
from equipoise.metrics.resampling import bootstrap_interval
from equipoise.models.loading import Loaded
from equipoise.models.sampling import draw
from equipoise.signals.tokens import normalized_entropy, shock_ratio

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]
TOKENS = 2000
LONGEST = 64  # tokens of a continuation: many short ones say more than a few long ones
TOGETHER = 32  # continuations between two looks at whether there are enough
PUBLISHED_TAU = 5.0
RESAMPLES = 1000


@dataclass(frozen=True)
class OwnTokens:
    """Statistics of sampled tokens, each [n]; `continuation` numbers the one that a token is of, counted from 0."""

    nll: Floats  # nats
    entropy: Floats  # nats
    h: Floats
    tail: Floats
    continuation: NDArray[np.int64]

    def shock(self, eps: float = 1e-6) -> Floats:
        """The shock of each token."""
        return shock_ratio(self.nll, self.h, eps)  # pyright: ignore[reportArgumentType, reportReturnType]

    def interval(
        self, values: Floats, statistic: Callable[[Floats], float] | None = None
    ) -> tuple[float, float] | None:
        """A 95% interval of the mean, or of `statistic`, of values of the tokens; None where all values are equal.

        Whole continuations are drawn anew, since tokens of one are alike.
        """
        groups = np.split(values, np.flatnonzero(np.diff(self.continuation)) + 1)
        of = statistic or (lambda drawn: float(drawn.mean()))
        if len(groups) == 1 or np.ptp(values) == 0:
            return None
        numbers = np.arange(len(groups))
        return bootstrap_interval(
            numbers, lambda drawn: of(np.concatenate([groups[int(i)] for i in drawn])), resamples=RESAMPLES
        ).ci


@dataclass(frozen=True)
class AutoTau:
    """A shock threshold that was found on a model's own tokens.

    Attributes:
        tau: at most `false_alarm` of the tokens have a larger shock.
        interval: 95%, over continuations; None where it cannot be told.
        n: tokens, of so many `continuations`.
        published: the share of the tokens that the published threshold of 5 flags.
    """

    tau: float
    false_alarm: float
    interval: tuple[float, float] | None
    n: int
    continuations: int
    published: float


def own_tokens(
    loaded: Loaded, prompts: Sequence[Sequence[int]], *, tokens: int = TOKENS, longest: int = LONGEST, seed: int = 0
) -> OwnTokens:
    """Have a model continue prompts at temperature 1, and read its statistics of what it wrote.

    The token that ends a continuation counts too. Prompts are taken in a seeded order, again and again where they are
    few, until there are `tokens` tokens.

    Args:
        prompts: token ids; those that leave no room for `longest` tokens are passed over.

    Raises:
        UserError: no prompt leaves room, or the model's scores are not finite.
    """
    positions = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None) or float("inf")
    fitting = [list(prompt) for prompt in prompts if prompt and len(prompt) + longest <= positions]
    if not fitting:
        raise UserError(
            f"none of {len(prompts)} prompts leaves the model room to write {longest} tokens of its own",
            fix="give shorter prompts, or a number for tau",
        )
    rows = _continue(loaded, fitting, tokens, longest, seed)
    reader = TokenReader(loaded, tail=True)
    read = list(reader.read(rows))
    names = ("nll", "entropy", "tail")
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(one, name).double().numpy() for one in read]) for name in names
    }
    numbers = np.repeat(np.arange(len(read)), [len(one.nll) for one in read])
    h: Any = normalized_entropy(columns["entropy"], reader.vocab)
    return OwnTokens(**columns, h=h, continuation=numbers)


def _continue(loaded: Loaded, prompts: list[list[int]], tokens: int, longest: int, seed: int) -> list[Rendered]:
    rng, rows, found = np.random.default_rng(seed), [], 0
    order = chain.from_iterable(rng.permutation(len(prompts)).tolist() for _ in count())
    while found < tokens:
        batch = [prompts[i] for i in islice(order, TOGETHER)]
        seeds = rng.integers(2**63, size=(len(batch), 1)).tolist()
        ended = draw(loaded.model, loaded.tokenizer, batch, seeds, max_new_tokens=longest)
        for one in sorted(chain.from_iterable(ended), key=lambda drawn: drawn.prompt):
            prompt, written = batch[one.prompt], one.ids + ([] if one.stop is None else [one.stop])
            rows.append(Rendered(prompt + written, [IGNORE] * len(prompt) + written))
            found += len(written)
    return rows


def auto_tau(own: OwnTokens, false_alarm: float, eps: float = 1e-6) -> AutoTau:
    """The smallest threshold that flags at most a share of `false_alarm` of a model's own tokens."""
    shock = own.shock(eps)

    def quantile(values: Floats) -> float:
        return float(np.quantile(values, 1 - false_alarm, method="higher"))

    return AutoTau(
        tau=quantile(shock),
        false_alarm=false_alarm,
        interval=own.interval(shock, quantile),
        n=len(shock),
        continuations=int(own.continuation[-1]) + 1,
        published=float((shock > PUBLISHED_TAU).mean()),
    )


def resolve_tau(
    loaded: Loaded, prompts: Sequence[Sequence[int]], *, false_alarm: float = 0.05, tokens: int = TOKENS, seed: int = 0
) -> AutoTau:
    """What `tau: auto` means for a model: the shock above which it finds a share of `false_alarm` of its own tokens.

    Args:
        prompts: token ids of what the model is to continue, best those of the training rows.

    Raises:
        UserError: as `own_tokens`.
    """
    return auto_tau(own_tokens(loaded, prompts, tokens=tokens, seed=seed), false_alarm)
