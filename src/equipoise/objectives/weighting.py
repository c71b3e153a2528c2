"""The weightings: how much each supervised token counts, given how wrong (nll) and how sure (h) the model is.

A weighting is one function below: positional arguments name the statistics it reads, keyword arguments are parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equipoise.objectives.recent import RecentShock
from equipoise.objectives.registry import (
    Count,
    NonNegative,
    Positive,
    Probability,
    Weighting,
    as_weighting,
    names,
    register,
    weighting,
)
from equipoise.signals.tokens import shock_ratio

# Added to the sum of weights where a loss is divided by it, as the published scripts do.
WEIGHT_SUM_EPS = 1e-6

__all__ = ["WEIGHT_SUM_EPS", "Weighting", "as_weighting", "names", "register", "weighting"]


@register("sft")
def sft(nll: Tensor) -> Tensor:
    """Plain supervised fine-tuning: `w = 1`.

    When to use: nothing the model knows needs protection, or as the arm to compare with.

    >>> weighting("sft")(torch.tensor([0.1, 8.0]), torch.tensor([0.5, 0.1]))
    tensor([1., 1.])
    """
    return torch.ones_like(nll)


@register("dft")
def dft(nll: Tensor) -> Tensor:
    """Dynamic fine-tuning: `w = p_y = exp(-nll)`, always detached.

    Source: Wu et al., "On the Generalization of SFT" (arXiv:2508.05629), the token-level loss.
    When to use: demonstrations that are mostly right and close to what the model would say. A confident error gets
    next to no gradient, so it does not correct one.

    >>> weighting("dft")(torch.tensor([0.0, 2.0]), torch.tensor([0.5, 0.1]))
    tensor([1.0000, 0.1353])
    """
    return nll.detach().neg().exp()


@register("eaft")
def eaft(h: Tensor, *, power: Positive = 1.0) -> Tensor:
    """Entropy-adaptive fine-tuning: `w = h**power` over the full vocabulary.

    Args:
        power: above 1 protects what the model is sure of more, below 1 less.

    Source: Diao et al., "Entropy-Adaptive Fine-Tuning" (arXiv:2601.02151), with the exact entropy.
    When to use: new knowledge beside much that must stay; what the model is sure of is left alone, right or wrong.

    >>> weighting("eaft", power=2.0)(torch.tensor([0.1, 8.0]), torch.tensor([0.5, 0.1]))
    tensor([0.2500, 0.0100])
    """
    if power == 1:
        return h
    # Below power 1 the slope at h = 0 is infinite, and 0 * inf would make the gradient NaN.
    return h.clamp(min=1e-12) ** power


@register("eaft-topk")
def eaft_topk(topk_entropy: Tensor, *, k: Count = 20, divisor: Positive | None = None, power: Positive = 1.0) -> Tensor:
    """EAFT by the entropy of the k likeliest tokens: `w = (H_k / divisor)**power`, always detached.

    Args:
        k: how many logits count; their softmax is taken among themselves.
        divisor: `ln k` by default. LLaMA-Factory divides by 3, Axolotl's loss by nothing (1).
        power: exponent, the `eaft_alpha` of both.

    Source: Diao et al. (arXiv:2601.02151), top-K approximation.
    When to use: to reproduce runs of those trainers; `eaft` costs no more here and needs no k.

    >>> weighting("eaft-topk", k=4)(torch.zeros(1), torch.zeros(1), topk_entropy=torch.tensor([0.6931]))
    tensor([0.5000])
    """
    return (topk_entropy.detach() / (divisor or math.log(max(k, 2)))) ** power


@register("r-eaft")
def r_eaft(
    nll: Tensor,
    h: Tensor,
    *,
    tau: Positive = 5.0,
    alpha: NonNegative = 3.0,
    eps: Positive = 1e-6,
    clamp: Positive = 10.0,
) -> Tensor:
    """Resilient EAFT: correct what the model is confidently wrong about, protect what else it is sure of.

    With `shock = nll / (h + eps)`: `w = 1 + alpha * min(shock / tau, clamp)` where shock > tau, else `w = h`.

    Args:
        tau: above this shock a token counts as a confident conflict. It depends on the vocabulary: a calibrated token
            has a shock near ln V (11.9 at 152 k), so at 5 many merely uncertain tokens count as shocked.
        alpha: strength of the correction; shocked weights run from 1 + alpha to 1 + alpha * clamp. 0 means no
            correction, which is eaft (not the formula's limit, which would give shocked tokens a weight of 1).
        eps: keeps the ratio finite.
        clamp: largest shock / tau that still raises the weight.

    Source: R-EAFT technical report (2026-02-16).
    When to use: updates that contradict what the model is sure of, among much that must not move.

    >>> weighting("r-eaft")(torch.tensor([0.1, 8.0]), torch.tensor([0.5, 0.1]))
    tensor([ 0.5000, 31.0000])
    """
    if alpha == 0:
        return h
    shock = shock_ratio(nll, h, eps)
    return torch.where(shock > tau, 1 + alpha * (shock / tau).clamp(max=clamp), h)


@register("r-eaft-tail")
def r_eaft_tail(
    h: Tensor,
    entropy: Tensor,
    tail: Tensor,
    *,
    delta: Probability = 0.05,
    alpha: NonNegative = 3.0,
    sure: Positive = 2.0,
    clamp: Positive = 10.0,
) -> Tensor:
    """R-EAFT with a calibrated test: correct where the target is in the model's tail and the model is sure.

    With tail = the probability of all tokens at least as unlikely as the target:
    `w = 1 + alpha * min(ln tail / ln delta, clamp)` where tail < delta and entropy <= sure, else `w = h`. The tail
    gives no gradient: it jumps where two tokens change places, and is flat between.

    Args:
        delta: the false-alarm rate: of tokens that the model itself would write, at most this share is corrected,
            whatever its vocabulary.
        alpha: strength of the correction; weights run from 1 + alpha, at delta, to 1 + alpha * clamp. 0 is eaft.
        sure: nats of entropy up to which the model counts as sure; 2.0 is an effective choice among e^2 = 7.4 tokens.
            In nats, and not as h, so that tokens that cannot occur change nothing.
        clamp: largest ln tail / ln delta that still raises the weight.

    Source: this project's, after R-EAFT (technical report, 2026-02-16), whose threshold depends on the vocabulary.
    When to use: as r-eaft, on a model whose vocabulary or calibration tau was not tuned for.

    >>> w, tail = weighting("r-eaft-tail"), torch.tensor([0.05**2, 0.05**2, 0.5])
    >>> w(torch.zeros(3), torch.tensor([0.1, 0.5, 0.1]), entropy=torch.tensor([0.4, 5.0, 0.4]), tail=tail)
    tensor([7.0000, 0.5000, 0.1000])
    """
    if alpha == 0:
        return h
    surprise = (tail.detach().log() / math.log(delta)).clamp(max=clamp)
    return torch.where((tail < delta) & (entropy <= sure), 1 + alpha * surprise, h)


@register("r-eaft-recent")
def r_eaft_recent(
    nll: Tensor,
    h: Tensor,
    recent: RecentShock,
    *,
    quantile: Probability = 0.5,
    tau: Positive = 5.0,
    alpha: NonNegative = 3.0,
    eps: Positive = 1e-6,
    clamp: Positive = 10.0,
    window: Count = 1024,
) -> Tensor:
    """R-EAFT with a threshold that moves: tau is a quantile of the shocks of the tokens trained on lately.

    So the share of tokens that count as conflicts stays near `1 - quantile` throughout, also when none is left.

    Args:
        quantile: a lower one makes a *soft* threshold, a higher one a *hard* one.
        tau: the threshold until 64 tokens have been seen.
        window: how many tokens are remembered; a new optimizer step is weighted by the steps before it.

    Source: the R-EAFT technical report (2026-02-16) names dynamic thresholds and does not define them; this definition
        is this project's.
    When to use: to ask whether a threshold can set itself (Protocol S).

    >>> w = weighting("r-eaft-recent", quantile=0.9, tau=100.0)
    >>> w(torch.tensor([0.1, 8.0]), torch.tensor([0.5, 0.1]))
    tensor([0.5000, 0.1000])
    >>> w.observe(torch.arange(100.0) / 10, torch.ones(100)); w(torch.tensor([0.1, 8.0]), torch.tensor([0.5, 0.1]))
    tensor([ 0.5000, 27.9358])
    """
    return r_eaft(nll, h, tau=max(recent.quantile(quantile, tau), eps), alpha=alpha, eps=eps, clamp=clamp)


@register("focal")
def focal(nll: Tensor, *, gamma: NonNegative = 2.0) -> Tensor:
    """Focal loss: `w = (1 - p_y)**gamma`.

    Args:
        gamma: 0 is sft; higher leaves more of what is already right.

    Source: Lin et al., "Focal Loss for Dense Object Detection" (arXiv:1708.02002), eq. 4.
    When to use: to spend the gradient on tokens not yet learned, whether or not the model is sure of something else.

    >>> weighting("focal")(torch.tensor([0.6931, 20.0]), torch.tensor([0.5, 0.1]))
    tensor([0.2500, 1.0000])
    """
    # -expm1 keeps 1 - p exact near p = 1; the clamp keeps the slope finite there for gamma < 1.
    return (-torch.expm1(-nll)).clamp(min=1e-12) ** gamma


@register("profit")
def profit(nll: Tensor, *, threshold: Probability = 0.1) -> Tensor:
    """ProFit's mask: `w = 1` where `p_y > threshold`, else 0; always detached.

    Args:
        threshold: the paper tunes it for each model; 0.1 is this project's choice, not the paper's.

    Source: Liu et al., "ProFit" (arXiv:2601.09195).
    When to use: one reference answer of many good ones, where unlikely tokens are style. It corrects no error.

    >>> weighting("profit", threshold=0.5)(torch.tensor([0.1, 8.0]), torch.tensor([0.5, 0.1]))
    tensor([1., 0.])
    """
    return (nll.detach() < -math.log(threshold)).to(nll.dtype)


@register("stm")
def stm(nll: Tensor, *, max_perplexity: Positive = 2.5) -> Tensor:
    """Selective token masking: `w = 1` where the token's perplexity `exp(nll) <= max_perplexity`, else 0; detached.

    Source: Wu et al., "Mitigating Forgetting in LLM Fine-Tuning via Low-Perplexity Token Learning" (arXiv:2501.14315).
    The paper takes perplexities once, from the model before training; here they are the current ones.
    When to use: adapting format or style while general skill must stay. It corrects no error.

    >>> weighting("stm")(torch.tensor([0.1, 8.0]), torch.tensor([0.5, 0.1]))
    tensor([1., 0.])
    """
    return (nll.detach() <= math.log(max_perplexity)).to(nll.dtype)
