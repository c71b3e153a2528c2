"""How a model ranks the two answers of preference pairs, by itself and relative to a reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from equipoise.console import say
from equipoise.data.formatting import Rendered, supervise
from equipoise.data.rendered_pairs import RenderedPair, render_pairs
from equipoise.errors import UserError
from equipoise.evaluation.tokens import TokenReader
from equipoise.models.loading import Loaded
from equipoise.records import PreferencePair
from equipoise.signals.tokens import TokenStatistics


@dataclass(frozen=True)
class PairScore:
    """Log-probabilities of both answers, end of turn included, summed over their tokens, in nats.

    `reference_*` are those of the model that a preference training started from, where one was given.
    """

    id: str
    chosen_logprob: float
    rejected_logprob: float
    chosen_tokens: int
    rejected_tokens: int
    reference_chosen_logprob: float | None = None
    reference_rejected_logprob: float | None = None


def score_pairs(
    loaded: Loaded,
    pairs: Sequence[PreferencePair],
    *,
    reference: Sequence[PairScore] | None = None,
    max_length: int = 1024,
    batch_tokens: int = 4096,
) -> list[PairScore]:
    """Score pairs, in order. A pair that training would leave out, as one longer than `max_length`, has no score.

    Args:
        reference: scores of the same pairs by the reference model, in any order.
        batch_tokens: positions, padding included, that go through the model at once.

    Raises:
        UserError: no pair can be scored, the reference lacks one, a log-probability is not a finite number, or the
            model's logits are not one linear map of the hidden state.
    """
    data = render_pairs(loaded.tokenizer, pairs, max_length=max_length, max_bad_share=1.0)
    if data.dropped:
        say(f"{len(data.dropped)} pairs not scored, first: {data.dropped[0][0]} ({data.dropped[0][1]})")
    read = TokenReader(loaded, batch_tokens=batch_tokens).read(row for pair in data.rows for row in _sides(pair))
    scores = [_score(name, chosen, rejected) for name, chosen, rejected in zip(data.ids, read, read)]
    return scores if reference is None else _joined(scores, reference)


def summarise_pairs(scores: Sequence[PairScore], *, beta: float = 0.1) -> dict[str, float]:
    """Numbers over all pairs; a tie counts as half right.

    `accuracy` ranks by summed, `accuracy_per_token` by mean log-probability; `margin` and `margin_per_token` are the
    mean differences in nats, `ties` the share of pairs whose sums are equal. With a reference there are the rewards of
    DPO too, `beta` times what policy and reference differ by: `reward_chosen`, `reward_rejected`, `reward_margin`, and
    `reward_accuracy`, which TRL calls `rewards/accuracies` and in which it counts a tie as wrong.

    Raises:
        UserError: there is no score, or some have a reference and others none.
    """
    if not scores:
        raise UserError("there is no pair to summarise")
    sums = [(s.chosen_logprob, s.rejected_logprob) for s in scores]
    means = [(s.chosen_logprob / s.chosen_tokens, s.rejected_logprob / s.rejected_tokens) for s in scores]
    found = {
        "pairs": float(len(scores)),
        "accuracy": _accuracy(sums),
        "accuracy_per_token": _accuracy(means),
        "ties": _mean(chosen == rejected for chosen, rejected in sums),
        "margin": _mean(chosen - rejected for chosen, rejected in sums),
        "margin_per_token": _mean(chosen - rejected for chosen, rejected in means),
        "chosen_logprob": _mean(chosen for chosen, _ in sums),
        "rejected_logprob": _mean(rejected for _, rejected in sums),
        "chosen_tokens": _mean(s.chosen_tokens for s in scores),
        "rejected_tokens": _mean(s.rejected_tokens for s in scores),
    }
    rewards = [_rewards(score, beta) for score in scores]
    known = [reward for reward in rewards if reward is not None]
    if not known:
        return found
    if len(known) < len(scores):
        raise UserError(f"{len(scores) - len(known)} of {len(scores)} pairs have no reference")
    return found | {
        "reward_chosen": _mean(chosen for chosen, _ in known),
        "reward_rejected": _mean(rejected for _, rejected in known),
        "reward_margin": _mean(chosen - rejected for chosen, rejected in known),
        "reward_accuracy": _accuracy(known),
    }


def _sides(pair: RenderedPair) -> list[Rendered]:
    sides = [pair.prompt + answer for answer in (pair.chosen, pair.rejected)]
    return [supervise(ids, range(len(pair.prompt), len(ids)), None) for ids in sides]


def _score(name: str, chosen: TokenStatistics, rejected: TokenStatistics) -> PairScore:
    better, worse = (-float(side.nll.double().sum()) for side in (chosen, rejected))
    if not (math.isfinite(better) and math.isfinite(worse)):
        raise UserError(
            f"the model gives pair {name} a log-probability that is not a finite number",
            where="model.dtype",
            fix="use fp32 or bf16, or check the weights",
        )
    return PairScore(name, better, worse, len(chosen.nll), len(rejected.nll))


def _joined(scores: Sequence[PairScore], reference: Sequence[PairScore]) -> list[PairScore]:
    by_id = {score.id: score for score in reference}
    missing = [score.id for score in scores if score.id not in by_id]
    if missing:
        raise UserError(
            f"the reference has no score for {len(missing)} of {len(scores)} pairs, for example {missing[0]}",
            fix="score the same pairs with the reference model, with the same max_length",
        )
    return [
        replace(
            score,
            reference_chosen_logprob=by_id[score.id].chosen_logprob,
            reference_rejected_logprob=by_id[score.id].rejected_logprob,
        )
        for score in scores
    ]


def _rewards(score: PairScore, beta: float) -> tuple[float, float] | None:
    chosen, rejected = score.reference_chosen_logprob, score.reference_rejected_logprob
    if chosen is None or rejected is None:
        return None
    return beta * (score.chosen_logprob - chosen), beta * (score.rejected_logprob - rejected)


def _accuracy(pairs: Iterable[tuple[float, float]]) -> float:
    return _mean((chosen > rejected) + (chosen == rejected) / 2 for chosen, rejected in pairs)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
