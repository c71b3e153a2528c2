"""A language-model head read in chunks: logits for a few hundred tokens at a time, statistics for a few rows of those.

A chunk is as many tokens as make the matrix product efficient; a block is as many rows as stay near the cache while the
elementwise arithmetic passes over them. No [N, V] tensor ever exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MIB = 2**20
# Below exp's underflow in float64 too, so that a logit of -inf counts as probability 0 and 0 * log 0 as 0.
FLOOR = -1e4


@dataclass(frozen=True)
class Head:
    """An `lm_head` ready to project: everything in one dtype, plus what the model does to its logits.

    weight [V, D]; bias [V] or None; rows [r, D] stand in for weight[row_ids]. Logits are
    `softcap * tanh(scale * z / softcap)`, or `scale * z` without a cap (Gemma 2 caps; Cohere and Granite scale).
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    row_ids: Tensor | None = None
    rows: Tensor | None = None

    def project(self, hidden: Tensor, out: Tensor) -> Tensor:
        """Raw logits of `hidden [c, D]` into `out [c, V]`, before scale and cap."""
        if self.bias is None:
            torch.mm(hidden, self.weight.t(), out=out)
        else:
            torch.addmm(self.bias, hidden, self.weight.t(), out=out)
        if self.rows is not None and self.row_ids is not None:
            replaced = hidden @ self.rows.t()
            out[:, self.row_ids] = replaced if self.bias is None else replaced + self.bias[self.row_ids]
        return out


@dataclass(frozen=True)
class Plan:
    """How many tokens are projected at once, and how many rows of logits are worked on at once."""

    chunk: int
    block: int

    @staticmethod
    def make(tokens: int, vocab: int, dtype: torch.dtype, device: torch.device, limit: int | None = None) -> Plan:
        """Sizes that keep logits under 160 MiB on a CPU (512 MiB elsewhere); `limit` caps the tokens in a chunk."""
        row = vocab * dtype.itemsize
        if device.type == "cpu":
            # From 256 tokens on, the product gains less than touching fresh memory costs, but for small vocabularies.
            # Smaller blocks suit the cache (8% at 24 MiB), larger ones a busy machine: threads meet after every pass.
            most, block_bytes = min(160 * MIB // row, max(256, 16 * MIB // row)), 24 * MIB
        else:
            most, block_bytes = 512 * MIB // row, 256 * MIB
        most = max(1, min(limit or tokens, tokens, most))
        chunk = math.ceil(tokens / math.ceil(tokens / most)) if tokens else 1
        block = max(1, block_bytes // (vocab * statistics_dtype(dtype).itemsize))
        return Plan(chunk, min(block, chunk))

    def chunks(self, tokens: int) -> Iterator[slice]:
        for start in range(0, tokens, self.chunk):
            yield slice(start, min(start + self.chunk, tokens))

    def blocks(self, rows: int) -> Iterator[slice]:
        for start in range(0, rows, self.block):
            yield slice(start, min(start + self.block, rows))


class Scratch:
    """Work space for one block, reused over all blocks: fresh memory costs more than the arithmetic on it."""

    def __init__(self, head: Head, plan: Plan, dtype: torch.dtype):
        make = lambda: torch.empty(plan.block, head.weight.shape[0], dtype=dtype, device=head.weight.device)  # noqa: E731
        self.shifted = make() if head.weight.dtype != dtype else None
        self.exponentials, self.product = make(), make()
        self.squashed = make() if head.softcap is not None else None


@dataclass(frozen=True)
class Block:
    """Softmax statistics of a few rows of logits; vectors are [rows] and `shifted`, `exponentials` [rows, V]."""

    shifted: Tensor  # logits minus their maximum, floored
    exponentials: Tensor
    squashed: Tensor | None  # tanh(scale * z / softcap)
    total: Tensor  # sum of the exponentials
    log_total: Tensor
    nll: Tensor
    entropy: Tensor
    correct: Tensor  # no token scores higher than the label
    tail: Tensor | None  # probability of all tokens that score no higher than the label


def read_block(raw: Tensor, labels: Tensor, head: Head, scratch: Scratch, *, tail: bool = False) -> Block:
    """Statistics of raw logits `[rows, V]`; works in `raw` itself when its precision is that of the statistics."""
    rows = len(raw)
    x = raw if scratch.shifted is None else scratch.shifted[:rows].copy_(raw)
    if head.scale != 1.0:
        x.mul_(head.scale)
    squashed = None
    if head.softcap is not None and scratch.squashed is not None:
        squashed = torch.tanh(x.div_(head.softcap), out=scratch.squashed[:rows])
        torch.mul(squashed, head.softcap, out=x)
    x.sub_(x.amax(-1, keepdim=True))
    label_score = x.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    x.clamp_(min=FLOOR)
    e = torch.exp(x, out=scratch.exponentials[:rows])
    total = e.sum(-1)
    log_total = total.log()
    mean = torch.mul(e, x, out=scratch.product[:rows]).sum(-1).div_(total)
    below = _tail(x, label_score, e, total, scratch.product[:rows]) if tail else None
    # Both terms are at least 0, so a sure token's tiny entropy does not drown in cancellation.
    return Block(x, e, squashed, total, log_total, log_total - label_score, log_total - mean, label_score >= 0, below)


def _tail(shifted: Tensor, label_score: Tensor, exponentials: Tensor, total: Tensor, out: Tensor) -> Tensor:
    """The share of `total` at scores up to the label's, [rows]; scores are compared, since probabilities underflow."""
    rows, vocab = shifted.shape
    # Three passes over what stays in a core's cache take a third less time than over the whole block.
    strip = max(1, MIB // (vocab * shifted.element_size())) if shifted.device.type == "cpu" else max(rows, 1)
    found = torch.empty_like(total)
    for start in range(0, rows, strip):
        here = slice(start, min(start + strip, rows))
        counted = torch.le(shifted[here], label_score[here].unsqueeze(-1), out=out[: here.stop - start])
        torch.sum(counted.mul_(exponentials[here]), -1, out=found[here])
    return found.div_(total)


def topk_entropy(shifted: Tensor, k: int) -> Tensor:
    """Entropy in nats of the k largest logits' own softmax, [rows]."""
    top = shifted.topk(min(k, shifted.shape[-1]), dim=-1, sorted=False).values
    log_p = top.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """At least float32; float64 stays float64."""
    return torch.promote_types(dtype, torch.float32)


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of the matrix products: autocast's where autocast is on, else that of the hidden states."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype
