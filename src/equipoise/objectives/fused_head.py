"""The fused head: a weighted loss and its gradient from hidden states, with no [N, V] tensor and no recomputation.

The gradient of any loss of nll and entropy needs two numbers a token, `a = dL/dnll` and `b = dL/dH`:
`dL/dz_j = p_j * (a - b * (H + log p_j)) - a * [j = y]`. They come from autograd over [N] tensors, so the forward
has the gradient while a chunk of logits is at hand; backward only scales it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from equipoise.errors import UserError
from equipoise.objectives.sweep import Job, Sweep
from equipoise.objectives.weighting import Weighting, as_weighting
from equipoise.signals.checks import check_head, supervised_positions
from equipoise.signals.logits import Head, compute_dtype


class TokenLoss(NamedTuple):
    """A loss and what it was made of; only `loss` has a gradient. [N] tensors hold 0 at ignored positions."""

    loss: Tensor  # scalar, at least float32
    nll: Tensor  # [N] nats
    entropy: Tensor  # [N] nats; divide by ln V for h
    weights: Tensor  # [N]
    correct: Tensor  # [N] bool: no token scores higher than the label
    tail: Tensor | None = None  # [N] probability of all tokens at least as unlikely as the label, where asked for


def fused_linear_loss(
    hidden: Tensor,
    lm_head: Tensor,
    labels: Tensor,
    weighting: Weighting | str | Callable[[Tensor, Tensor], Tensor],
    *,
    bias: Tensor | None = None,
    num_items: int | float | Tensor | None = None,
    detach_weights: bool = True,
    normalize: str = "tokens",
    ignore_index: int = -100,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    row_ids: Tensor | None = None,
    rows: Tensor | None = None,
    tail: bool = False,
) -> TokenLoss:
    """Weighted next-token loss from hidden states: `sum w * nll / D`.

    Logits are `softcap * tanh(logit_scale * (hidden @ lm_head.T + bias) / softcap)`, or without the tanh when there is
    no cap. Only supervised positions are projected. Whatever requires grad gets its gradient: two matrix products for a
    frozen head, three for one that trains. Where gradients are off, only the statistics are computed. The gradient is
    computed in the forward, so a second derivative does not exist and asking for one is an error.

    Args:
        hidden: [N, D] (or [..., D]), the states that predict the labels (shifted by the caller).
        lm_head: [V, D]. Under autocast the products run in autocast's dtype, else in that of `hidden`.
        labels: [N] (or [...]), integer; `ignore_index` where a position does not count.
        weighting: from `equipoise.weighting`, its name, or a function `w(nll, h)`, elementwise over tokens.
        bias: [V].
        num_items: D with normalize="tokens": supervised tokens of the whole optimizer step, over micro-batches and
            ranks. By default those of this call.
        detach_weights: keep the gradient from flowing through the weights.
        normalize: "tokens", or "weights" for D = 1e-6 + sum of the weights of this call (attached, one more product).
        row_ids, rows: [r] and [r, D]: `rows` stand in for `lm_head[row_ids]` and receive the gradient; the head is
            then frozen.
        tail: return the tail probability too, also where the weighting does not read it (see `token_statistics`).

    Returns:
        TokenLoss(loss, nll, entropy, weights, correct, tail), vectors in the shape of the labels.

    Raises:
        UserError: input that does not fit together; a label outside the vocabulary.

    >>> states, head = torch.zeros(2, 8, requires_grad=True), torch.ones(16, 8)
    >>> out = fused_linear_loss(states, head, torch.tensor([3, -100]), "sft")
    >>> round(out.loss.item(), 4), out.nll.shape
    (2.7726, torch.Size([2]))
    """
    check_head(hidden, lm_head, labels, bias)
    _check_options(normalize, num_items, logit_scale, softcap)
    if (rows is None) != (row_ids is None):
        raise UserError("rows and row_ids belong together", fix="pass both, or neither")
    if rows is not None and row_ids is not None:
        _check_rows(row_ids, rows, lm_head)
        lm_head = lm_head.detach()
    inputs = (hidden, lm_head, bias, rows)
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    flat = labels.reshape(-1)
    job = Job(
        weighting=as_weighting(weighting),
        keep=supervised_positions(flat, lm_head.shape[0], ignore_index),
        num_items=num_items,
        detach=detach_weights,
        by_weights=normalize == "weights",
        scale=float(logit_scale),
        softcap=softcap,
        row_ids=row_ids,
        wanted=wanted,
        tail=tail,
    )
    out = _FusedLinearLoss.apply(hidden.reshape(-1, hidden.shape[-1]), lm_head, bias, rows, flat, job)
    columns: list[Any] = [None if column is None else column.view(labels.shape) for column in out[1:]]
    return TokenLoss(out[0], *columns)


class _FusedLinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Any, rows: Any, labels: Tensor, job: Job) -> Any:
        dtype, keep = compute_dtype(hidden), job.keep
        with torch.autocast(hidden.device.type, enabled=False):
            states = (hidden if keep is None else hidden[keep]).to(dtype)
            targets = labels if keep is None else labels[keep]
            cast = [None if t is None else t.to(dtype) for t in (bias, rows)]
            head = Head(weight.to(dtype), cast[0], job.scale, job.softcap, job.row_ids, cast[1])
            sweep = Sweep(job, head, states, targets, [job.wanted and need for need in ctx.needs_input_grad[:4]])
            loss, divisor = sweep.run()
        ctx.save_for_backward(divisor, keep, *sweep.gradients())
        ctx.dtypes = [None if t is None else t.dtype for t in (hidden, weight, bias, rows)]
        ctx.tokens = len(labels)
        columns = [sweep.nll, sweep.entropy, sweep.weights, sweep.correct, sweep.others.get("tail")]
        if keep is not None:
            columns = [None if c is None else c.new_zeros(len(labels)).index_copy_(0, keep, c) for c in columns]
        ctx.mark_non_differentiable(*(c for c in columns if c is not None))
        return loss, *columns

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> Any:
        if torch.is_grad_enabled():  # only create_graph=True comes here so, and would get a gradient without a graph
            raise UserError(
                "the fused head has no second derivative, and the gradient was asked for with create_graph=True",
                fix="use REAFTLoss on full logits",
            )
        divisor, keep, *summed = ctx.saved_tensors
        factor = grad_loss / divisor
        # float32 until the incoming scale is in: an fp16 loss scale of 65,536 would come too late otherwise.
        scaled = [None if g is None else (g * factor).to(dtype) for g, dtype in zip(summed, ctx.dtypes)]
        if scaled[0] is not None and keep is not None:
            kept = scaled[0]
            scaled[0] = kept.new_zeros(ctx.tokens, kept.shape[1]).index_copy_(0, keep, kept)
        return *scaled, None, None


def _check_options(normalize: str, num_items: Any, logit_scale: float, softcap: float | None) -> None:
    if normalize not in ("tokens", "weights"):
        raise UserError(f"normalize is {normalize!r}", fix="use 'tokens' or 'weights'")
    if normalize == "weights" and num_items is not None:
        raise UserError(
            "normalize='weights' divides by the weights of this call, so num_items has no meaning with it",
            fix="leave num_items out, or use normalize='tokens'",
        )
    if isinstance(num_items, (int, float)) and not (math.isfinite(num_items) and num_items > 0):
        raise UserError(f"num_items must be above 0, not {num_items!r}")
    for name, value in (("logit_scale", logit_scale), ("softcap", softcap)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} must be finite and above 0, not {value!r}")


def _check_rows(row_ids: Tensor, rows: Tensor, lm_head: Tensor) -> None:
    vocab, width = lm_head.shape
    if row_ids.dim() != 1 or row_ids.dtype != torch.long or rows.shape != (len(row_ids), width):
        raise UserError(
            f"rows {tuple(rows.shape)} and row_ids {tuple(row_ids.shape)} {row_ids.dtype} do not fit an lm_head "
            f"{tuple(lm_head.shape)}",
            fix="pass row_ids [r], torch.long, and rows [r, D]",
        )
    ids = row_ids.tolist()
    if len(set(ids)) < len(ids) or any(not 0 <= i < vocab for i in ids):
        raise UserError(f"row_ids must be different tokens from 0 to {vocab - 1}")
