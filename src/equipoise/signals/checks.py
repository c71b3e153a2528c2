"""What the head functions demand of their input, said in the user's words."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.errors import UserError


def check_head(hidden: Tensor, lm_head: Tensor, labels: Tensor, bias: Tensor | None = None) -> None:
    """Shapes, dtypes and devices of a projection; raises UserError naming both sides of a mismatch."""
    if hidden.dim() < 2 or lm_head.dim() != 2 or hidden.shape[-1] != lm_head.shape[1]:
        raise UserError(
            f"hidden {tuple(hidden.shape)} and lm_head {tuple(lm_head.shape)} do not fit together",
            fix="pass hidden [N, D] and lm_head [V, D]; a quantized or sharded head must be gathered first",
        )
    if labels.shape != hidden.shape[:-1] or labels.dtype.is_floating_point:
        raise UserError(
            f"labels {tuple(labels.shape)} {labels.dtype} do not belong to hidden {tuple(hidden.shape)}",
            fix="pass one integer label for each hidden state, already shifted to the next token",
        )
    if lm_head.shape[0] < 2:
        raise UserError("a vocabulary of one token has no entropy", fix="pass an lm_head with at least two rows")
    if bias is not None and bias.shape != lm_head.shape[:1]:
        raise UserError(f"bias {tuple(bias.shape)} does not belong to lm_head {tuple(lm_head.shape)}")
    if not (hidden.is_floating_point() and lm_head.is_floating_point()):
        raise UserError(
            f"hidden is {hidden.dtype} and lm_head {lm_head.dtype}: both must be floating point",
            fix="keep the output head out of quantization (transformers does so by default)",
        )
    if not hidden.device == lm_head.device == labels.device:
        raise UserError(
            f"hidden is on {hidden.device}, lm_head on {lm_head.device} and labels on {labels.device}",
            fix="move hidden states and labels to the device of the head",
        )
    if hidden.dtype != lm_head.dtype and not torch.is_autocast_enabled(hidden.device.type):
        raise UserError(
            f"hidden is {hidden.dtype} and lm_head {lm_head.dtype}",
            fix="use torch.autocast, or cast one of them",
        )


def supervised_positions(labels: Tensor, vocab: int, ignore_index: int) -> Tensor | None:
    """Indices of the supervised positions of `labels [N]`, or None when that is all of them.

    Raises:
        UserError: a label outside the vocabulary.
    """
    supervised = labels != ignore_index
    wrong = supervised & ((labels < 0) | (labels >= vocab))
    # One transfer from the device for both questions.
    bad, every = torch.stack([wrong.any(), supervised.all()]).tolist()
    if bad:
        position = int(wrong.nonzero()[0])
        raise UserError(
            f"label {int(labels[position])} at position {position} is outside the vocabulary of {vocab} tokens",
            fix=f"use labels from 0 to {vocab - 1}, or {ignore_index} for positions that do not count; "
            "check that tokenizer and model belong together",
        )
    return None if every else supervised.nonzero().squeeze(1)
