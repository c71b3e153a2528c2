"""Gradients of the head's products, summed in float32 whatever the dtype of the logits' gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.signals.logits import MIB, Head, statistics_dtype

# With rows scaled to an L1 norm near this, fp16 holds a probability of 1/V well enough and sums stay below 65,504.
HALF_SCALE = 512.0
TILE_BYTES = 32 * MIB


def wide_mm(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b`, summed and (on CUDA) returned in at least float32."""
    if a.dtype not in (torch.float16, torch.bfloat16):
        return a @ b
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    if a.dtype == torch.bfloat16:
        return (a @ b).float()
    # fp16 on a CPU has no fast product and would overflow on the way out: go through float32, a strip at a time.
    out = torch.zeros(len(a), b.shape[1])
    strip = max(1, TILE_BYTES // (4 * max(len(a), b.shape[1])))
    for start in range(0, a.shape[1], strip):
        here = slice(start, start + strip)
        out.addmm_(a[:, here].float(), b[here].float())
    return out


class Gradients:
    """Sums, over chunks of logits, the gradients with respect to hidden states, head, bias and stand-in rows.

    `scale [c]` takes a row of the logits' gradient back to its true size (fp16 only; None elsewhere).
    """

    def __init__(self, head: Head, hidden: Tensor, needs: Sequence[bool]):
        self.head = head
        dtype = statistics_dtype(hidden.dtype)
        likes = (hidden, head.weight, head.bias, head.rows)
        made = [
            None if not need or like is None else torch.zeros_like(like, dtype=dtype)
            for need, like in zip(needs, likes, strict=True)
        ]
        self.hidden, self.weight, self.bias, self.rows = made

    def add(self, here: slice, states: Tensor, d_logits: Tensor, scale: Tensor | None) -> None:
        """One chunk: `states [c, D]`, `d_logits [c, V]` (overwritten at the stand-in rows)."""
        head = self.head
        replaced = None
        if head.rows is not None and head.row_ids is not None:
            replaced = d_logits[:, head.row_ids]
            d_logits.index_fill_(1, head.row_ids, 0)
        if self.hidden is not None:
            target = self.hidden[here]
            if d_logits.dtype == target.dtype:
                torch.mm(d_logits, head.weight, out=target)
            else:
                target.copy_(wide_mm(d_logits, head.weight))
            if replaced is not None and head.rows is not None:
                target.add_(wide_mm(replaced, head.rows))
            if scale is not None:
                target.mul_(scale.unsqueeze(1))
        if self.weight is not None:
            _add_outer(self.weight, d_logits, states, scale)
        if self.rows is not None and replaced is not None:
            _add_outer(self.rows, replaced, states, scale)


def _add_outer(total: Tensor, d_logits: Tensor, states: Tensor, scale: Tensor | None) -> None:
    """total [V, D] += (scale * d_logits).T @ states, a strip of the vocabulary at a time where a copy is needed."""
    if total.dtype == d_logits.dtype:
        total.addmm_(d_logits.t(), states)
        return
    largest = None
    if scale is not None:
        largest = scale.max()
        states = (states * (scale / largest).unsqueeze(1)).to(states.dtype)
    strip = max(1, TILE_BYTES // (4 * total.shape[1]))
    for start in range(0, len(total), strip):
        part = wide_mm(d_logits[:, start : start + strip].t(), states)
        total[start : start + strip].add_(part if largest is None else part * largest)
