"""How far one model's predictions of the next token have moved from another's, without ever holding all the logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from equipoise.errors import UserError
from equipoise.signals.logits import FLOOR, MIB, Head, statistics_dtype

LOGITS_BYTES = 64 * MIB  # of each buffer of logits; on a CPU larger ones gain nothing


class Divergence(NamedTuple):
    """Of N tokens, each [N], in nats: KL(p || q) of the whole distributions, and the label's nll under both."""

    kl: Tensor
    nll_p: Tensor
    nll_q: Tensor


@torch.no_grad()
def forward_kl(
    hidden_p: Tensor, head_p: Head, hidden_q: Tensor, head_q: Head, labels: Tensor, *, chunk: int | None = None
) -> Divergence:
    """KL(p || q) at N positions, over the whole vocabulary, without gradient.

    Logits are those of the model in its own precision; everything after them is float32 at least. Equal states and
    heads give exactly 0. Where q knows more tokens than p, p gives these no probability.

    Args:
        hidden_p, hidden_q: [N, D] and [N, E], states that predict the same tokens.
        head_p, head_q: heads of V tokens and of V or more.
        labels: [N], each below V.
        chunk: at most so many positions are projected at once.

    Raises:
        UserError: the shapes do not fit, or q knows fewer tokens than p.
    """
    vocab_p, vocab_q = len(head_p.weight), len(head_q.weight)
    if not len(hidden_p) == len(hidden_q) == len(labels):
        raise UserError(f"{len(hidden_p)} and {len(hidden_q)} states for {len(labels)} labels")
    if vocab_q < vocab_p:
        raise UserError(
            f"a vocabulary of {vocab_q:,} tokens lacks some of the {vocab_p:,} that it is compared with",
            fix="compare a model with the one that it was trained from",
        )
    dtype = statistics_dtype(torch.promote_types(head_p.weight.dtype, head_q.weight.dtype))
    head_p, head_q = _in_its_dtype(head_p), _in_its_dtype(head_q)
    rows = max(1, min(len(labels), chunk or len(labels), LOGITS_BYTES // (vocab_q * dtype.itemsize)))
    out = Divergence(*(hidden_p.new_zeros(len(labels), dtype=dtype) for _ in range(3)))
    work, log_p, log_q = (hidden_p.new_empty(rows * vocab, dtype=dtype) for vocab in (vocab_q, vocab_p, vocab_q))
    for start in range(0, len(labels), rows):
        at = slice(start, min(start + rows, len(labels)))
        p, q = _log_softmax(hidden_p[at], head_p, work, log_p), _log_softmax(hidden_q[at], head_q, work, log_q)
        out.nll_p[at] = -p.gather(1, labels[at, None])[:, 0]
        out.nll_q[at] = -q.gather(1, labels[at, None])[:, 0]
        weights = torch.exp(p, out=_room(work, len(p), vocab_p))
        # Rounding can take the sum of two near distributions some 1e-7 below 0.
        out.kl[at] = p.sub_(q[:, :vocab_p]).mul_(weights).sum(-1).clamp_(min=0)
    return out


def _log_softmax(hidden: Tensor, head: Head, work: Tensor, room: Tensor) -> Tensor:
    """Log-probabilities [rows, V], in `room`; `work` is for the logits."""
    z, out = (_room(buffer, len(hidden), len(head.weight)) for buffer in (work, room))
    with torch.autocast(hidden.device.type, enabled=False):
        if head.weight.dtype == z.dtype:
            head.project(hidden.to(z.dtype), z)
        else:  # the lower precision fits into the room of the higher one, from where it is widened
            raw = _room(room.view(head.weight.dtype), len(hidden), len(head.weight))
            z.copy_(head.project(hidden.to(head.weight.dtype), raw))
    if head.scale != 1.0:
        z.mul_(head.scale)
    if head.softcap is not None:
        z.div_(head.softcap).tanh_().mul_(head.softcap)
    torch.log_softmax(z, -1, out=out)
    return out.clamp_(min=FLOOR)  # of a logit of -inf: 0 * log 0 counts as 0


def _room(buffer: Tensor, rows: int, vocab: int) -> Tensor:
    return buffer[: rows * vocab].view(rows, vocab)


def _in_its_dtype(head: Head) -> Head:
    bias, rows = (None if t is None else t.to(head.weight.dtype) for t in (head.bias, head.rows))
    return Head(head.weight, bias, head.scale, head.softcap, head.row_ids, rows)
