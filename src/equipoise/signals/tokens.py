"""What a model knows about each token, read from its head without ever holding all the logits."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from equipoise.signals.checks import check_head, supervised_positions
from equipoise.signals.logits import Head, Plan, Scratch, compute_dtype, read_block, statistics_dtype, topk_entropy


class TokenStatistics(NamedTuple):
    """Statistics of N tokens, each [N] (or the shape of the labels); at ignored positions 0, and -1 for `argmax`."""

    nll: Tensor  # nats
    entropy: Tensor  # nats
    argmax: Tensor  # the token the model would say
    logp_argmax: Tensor  # its log-probability, nats
    topk_entropy: Tensor | None = None  # nats, of the k largest logits' own softmax
    tail: Tensor | None = None  # probability of all tokens at least as unlikely as the label, ties included


def normalized_entropy(entropy: Tensor, vocab_size: int) -> Tensor:
    """Entropy in nats as a share of its maximum `ln V`: 0 is sure, 1 knows nothing."""
    return entropy / math.log(vocab_size)


def shock_ratio(nll: Tensor, h: Tensor, eps: float = 1e-6) -> Tensor:
    """How wrong a token is for how sure the model was: `nll / (h + eps)`, the shock ratio of R-EAFT.

    Args:
        nll: nats, any shape.
        h: normalized entropy, same shape.

    >>> shock_ratio(torch.tensor([8.0, 0.5]), torch.tensor([0.1, 0.5]), eps=0.0)
    tensor([80.,  1.])
    """
    return nll / (h + eps)


@torch.no_grad()
def token_statistics(
    hidden: Tensor,
    lm_head: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
    top_k: int | None = None,
    tail: bool = False,
    ignore_index: int = -100,
    row_ids: Tensor | None = None,
    rows: Tensor | None = None,
) -> TokenStatistics:
    """Statistics of each label under the model, without gradient.

    Args:
        hidden: [N, D] (or [..., D]), the state that predicts each label.
        lm_head: [V, D].
        labels: [N] (or [...]); positions with `ignore_index` are not projected.
        chunk: at most so many tokens are projected at once; by default chosen for the device.
        top_k: also return the entropy over the k largest logits.
        tail: also return the tail probability, `sum of p_j over all j with p_j <= p_y`. Were y drawn from p, then
            P(tail <= d) <= d for every d, whatever the vocabulary: a threshold on it is a false-alarm rate.
        row_ids, rows: [r] and [r, D]: `rows` stand in for `lm_head[row_ids]`.

    Raises:
        UserError: shapes, dtypes or devices that do not fit; a label outside the vocabulary.
    """
    check_head(hidden, lm_head, labels, bias)
    vocab, flat = lm_head.shape[0], labels.reshape(-1)
    keep = supervised_positions(flat, vocab, ignore_index)
    dtype = compute_dtype(hidden)
    states, targets = hidden.reshape(-1, hidden.shape[-1]), flat
    if keep is not None:
        states, targets = states[keep], targets[keep]
    with torch.autocast(hidden.device.type, enabled=False):
        bias, rows = (None if t is None else t.to(dtype) for t in (bias, rows))
        head = Head(lm_head.to(dtype), bias, logit_scale, softcap, row_ids, rows)
        columns = _read(states.to(dtype), targets, head, chunk, top_k, tail)
    spread = [_spread(column, keep, flat, -1 if name == "argmax" else 0) for name, column in columns.items()]
    return TokenStatistics(**{name: column.view(labels.shape) for name, column in zip(columns, spread)})


def _read(
    states: Tensor, targets: Tensor, head: Head, chunk: int | None, top_k: int | None, tail: bool
) -> dict[str, Tensor]:
    tokens, dtype = len(states), statistics_dtype(states.dtype)
    on_demand = {"topk_entropy": top_k, "tail": tail}
    names = ["nll", "entropy", "argmax", "logp_argmax", *(name for name, asked in on_demand.items() if asked)]
    columns = {name: states.new_zeros(tokens, dtype=targets.dtype if name == "argmax" else dtype) for name in names}
    plan = Plan.make(tokens, head.weight.shape[0], states.dtype, states.device, chunk)
    if not tokens:
        return columns
    scratch = Scratch(head, plan, dtype)
    logits = states.new_empty(plan.chunk, head.weight.shape[0])
    for here in plan.chunks(tokens):
        raw = head.project(states[here], logits[: here.stop - here.start])
        for rows in plan.blocks(len(raw)):
            at = slice(here.start + rows.start, here.start + rows.stop)
            block = read_block(raw[rows], targets[at], head, scratch, tail=tail)
            columns["nll"][at], columns["entropy"][at] = block.nll, block.entropy
            columns["argmax"][at], columns["logp_argmax"][at] = block.shifted.argmax(-1), -block.log_total
            if top_k:
                columns["topk_entropy"][at] = topk_entropy(block.shifted, top_k)
            if block.tail is not None:
                columns["tail"][at] = block.tail
    return columns


def _spread(values: Tensor, keep: Tensor | None, like: Tensor, fill: int) -> Tensor:
    return values if keep is None else values.new_full(like.shape, fill).index_copy_(0, keep, values)
