"""Many short sequences one after the other in a row, without padding; attention alone sees them apart."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equipoise.errors import UserError

NAME = "equipoise_packed"


@dataclass(frozen=True)
class Packing:
    """Which sequences stand in which row: R rows of N tokens hold S sequences of at most T tokens.

    Attributes:
        spread: [S x T] for each place of the padded sequences, the token among R x N that stands there.
        gather: [R x N] for each token, its place among S x T.
        padding: [S x T] bool, the places that no token has.
        filler: [R x N] bool, the tokens that no sequence has, at the end of shorter rows.
        positions: [R, N] of each token in its sequence.
    """

    spread: Tensor
    gather: Tensor
    padding: Tensor
    filler: Tensor
    positions: Tensor
    width: int

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]], device: Any = None) -> Packing:
        """For rows that hold sequences of these lengths; what a shorter row lacks is filled at its end.

        >>> Packing.of([[2, 1], [2]]).positions.tolist()
        [[0, 1, 0], [0, 1, 0]]
        """
        total = max(sum(row) for row in lengths)
        width = max(length for row in lengths for length in row)
        count = sum(len(row) for row in lengths)
        spread = torch.zeros(count, width, dtype=torch.long)
        padding = torch.ones(count, width, dtype=torch.bool)
        filler = torch.ones(len(lengths), total, dtype=torch.bool)
        gather, positions = torch.zeros(2, len(lengths), total, dtype=torch.long)
        at = 0
        for r, row in enumerate(lengths):
            start = 0
            for length in row:
                steps = torch.arange(length)
                spread[at, :length] = r * total + start + steps
                padding[at, :length] = False
                gather[r, start : start + length] = at * width + steps
                filler[r, start : start + length] = False
                positions[r, start : start + length] = steps
                at, start = at + 1, start + length
        moves = [part.flatten().to(device) for part in (spread, gather, padding, filler)]
        return cls(moves[0], moves[1], moves[2], moves[3], positions.to(device), width)


@contextmanager
def packed(model: Any, packing: Packing) -> Iterator[None]:
    """Let the attention of `model` see the sequences of rows `[R, N]` apart, causally, each without padding before it.

    The model is called with `input_ids [R, N]`, `position_ids=packing.positions`, no mask and no cache.

    Raises:
        UserError: its attention cannot be replaced, or is of a kind that needs more than queries, keys and values.
    """
    from transformers import AttentionInterface

    config = model.config.get_text_config()
    own = config._attn_implementation
    AttentionInterface.register(NAME, _Attention(packing, own))
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = own


class _Attention:
    """What the model calls in the place of its own attention: spread out, attend as the model would, gather."""

    def __init__(self, packing: Packing, own: str):
        self.packing, self.own = packing, own

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        from transformers import AttentionInterface

        if kwargs.get("position_bias") is not None:
            raise UserError(
                f"{type(module).__name__} adds a bias by position, which packed rows do not have",
                where="model.path",
                fix="train the runs one by one",
            )
        kwargs.pop("position_ids", None)  # of the packed rows, by which flash attention would look for documents
        kwargs.pop("is_causal", None)
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        attend: Any = AttentionInterface().get_interface(self.own, eager)  # pyright: ignore[reportArgumentType]
        q, k, v = (self._spread(x) for x in (query, key, value))
        slow = q.device.type == "cpu" and q.dtype == torch.bfloat16  # five times slower than float32 in its backward
        if slow:
            q, k, v = q.float(), k.float(), v.float()
        with torch.autocast(q.device.type, enabled=False) if slow else nullcontext():
            out, _ = attend(module, q, k, v, self._mask(q, kwargs.get("sliding_window")), **kwargs)
        return self._gather(out.to(query.dtype), query), None

    def _spread(self, x: Tensor) -> Tensor:
        """[R, H, N, d] to [S, H, T, d]."""
        heads, size = x.shape[1], x.shape[3]
        tokens = x.transpose(1, 2).reshape(-1, heads * size)
        places = _Move.apply(tokens, self.packing.spread, self.packing.gather, self.packing.filler)
        return places.view(-1, self.packing.width, heads, size).transpose(1, 2)

    def _gather(self, out: Tensor, query: Tensor) -> Tensor:
        """[S, T, H, d] to [R, N, H, d]."""
        places = out.reshape(len(self.packing.spread), -1)
        tokens = _Move.apply(places, self.packing.gather, self.packing.spread, self.packing.padding)
        return tokens.view(query.shape[0], query.shape[2], out.shape[2], -1)

    def _mask(self, q: Tensor, window: int | None) -> Tensor | None:
        """None where causality says it all, else what is added to the scores [1, 1, T, T]."""
        width = self.packing.width
        if self.own != "eager" and (window is None or window >= width):
            return None
        at = torch.arange(width, device=q.device)
        apart = at[:, None] - at[None]
        hidden = (apart < 0) | (apart >= (window or width))
        scores = torch.zeros(1, 1, width, width, dtype=q.dtype, device=q.device)
        return scores.masked_fill_(hidden, torch.finfo(q.dtype).min)


class _Move(torch.autograd.Function):
    """`x[to]`, whose gradient is moved `back`, and is zero at what was read for nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to: Tensor, back: Tensor, unread: Tensor) -> Tensor:
        ctx.save_for_backward(back, unread)
        return x.index_select(0, to)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        back, unread = ctx.saved_tensors
        return gradients[0].index_select(0, back).masked_fill_(unread[:, None], 0), None, None, None
