"""Sampling of many answers at once: a prompt is read once for all of its samples, and finished rows leave the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from equipoise.errors import UserError
from equipoise.models.generation import last_only, left_padded, stop_ids


@dataclass
class Drawn:
    """One sampled answer.

    Attributes:
        prompt: which of the prompts it answers.
        sample: which of that prompt's seeds drew it.
        ids: its tokens, without the one that ended it.
        stop: the token that ended it, or None where `max_new_tokens` did.
        logprobs: of each of `ids` and of `stop`, in nats, under the model itself: temperature 1, whole vocabulary.
    """

    prompt: int
    sample: int
    ids: list[int] = field(default_factory=list)
    stop: int | None = None
    logprobs: list[float] = field(default_factory=list)


@dataclass
class _Row:
    """An answer under way, and the uniform numbers in [0, 1) that choose its tokens."""

    drawn: Drawn
    uniform: list[float]


def draw(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    seeds: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
    batch_tokens: int = 8192,
) -> Iterator[list[Drawn]]:
    """Draw one answer for each seed of each tokenised prompt; yields those that end together, as they do.

    A row's tokens are chosen by its own generator: one uniform number a token, put through the inverse of the
    cumulative distribution. So an answer hangs on prompt and seed alone, up to rounding, in which batch shapes differ.
    Temperature 0 is greedy. `batch_tokens` bounds prompts plus answers of one batch.

    Raises:
        UserError: the model's scores are not finite.
    """
    stops = sorted(stop_ids(model, tokenizer))
    training = model.training
    model.eval()
    try:
        for batch in _batches([len(p) for p in prompts], [len(s) for s in seeds], max_new_tokens, batch_tokens):
            rows = [
                _Row(Drawn(p, s), np.random.default_rng(seeds[p][s]).random(max_new_tokens).tolist())
                for p, samples in batch
                for s in samples
            ]
            yield from _draw_batch(model, prompts, batch, rows, stops, temperature, top_p)
    finally:
        model.train(training)


Batch = list[tuple[int, list[int]]]  # prompts, each with its samples


def _batches(lengths: list[int], samples: list[int], new: int, batch_tokens: int) -> Iterator[Batch]:
    """Prompts alike in length, longest first; the samples of one prompt are parted only where they fill a batch."""
    batch: Batch = []
    rows = room = 0
    for prompt in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        most = max(batch_tokens // (lengths[prompt] + new), 1)
        for start in range(0, samples[prompt], most):
            some = list(range(start, min(start + most, samples[prompt])))
            if batch and rows + len(some) > room:
                yield batch
                batch, rows = [], 0
            if not batch:
                room = most  # the first is the longest
            batch.append((prompt, some))
            rows += len(some)
    if batch:
        yield batch


@torch.inference_mode()
def _draw_batch(
    model: Any,
    prompts: Sequence[list[int]],
    batch: Batch,
    rows: list[_Row],
    stops: list[int],
    temperature: float,
    top_p: float,
) -> Iterator[list[Drawn]]:
    from transformers import DynamicCache

    device = model.device
    ids, mask, positions = left_padded([prompts[p] for p, _ in batch], device)
    cache, options, stop = DynamicCache(config=model.config), last_only(model), torch.tensor(stops, device=device)
    spread = torch.tensor([i for i, (_, samples) in enumerate(batch) for _ in samples], device=device)
    last = len(rows[0].uniform) - 1
    for step in range(last + 1):
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        # a model spread over devices may answer on its last
        logits = model(**inputs, use_cache=True, **options).logits[:, -1].float().to(device)
        if step == 0:  # from one row a prompt to one row a sample
            cache.batch_select_indices(spread)
            logits, mask, positions = logits[spread], mask[spread], positions[spread]
        chosen = choose(logits, [row.uniform[step] for row in rows], temperature, top_p)
        ended = torch.isin(chosen, stop)
        logprobs = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
        _note(rows, chosen.tolist(), ended.tolist(), logprobs.tolist())
        over = ended if step < last else torch.ones_like(ended)
        if over.any():
            yield [row.drawn for row, gone in zip(rows, over.tolist()) if gone]
            keep = (~over).nonzero().flatten()
            if keep.numel() == 0:
                return
            cache.batch_select_indices(keep)
            rows = [rows[i] for i in keep.tolist()]
            chosen, mask, positions = chosen[keep], mask[keep], positions[keep]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1)
        positions = positions[:, -1:] + 1


def _note(rows: list[_Row], tokens: list[int], ended: list[bool], logprobs: list[float]) -> None:
    for row, token, end, logprob in zip(rows, tokens, ended, logprobs):
        check_finite(logprob)
        row.drawn.logprobs.append(logprob)
        if end:
            row.drawn.stop = token
        else:
            row.drawn.ids.append(token)


def check_finite(logprob: float) -> None:
    """Refuse the scores that a token with this log-probability was chosen from, if they are not finite (UserError)."""
    if not math.isfinite(logprob):
        raise UserError(
            "the model's scores are not finite numbers, so nothing can be drawn from them",
            where="model.dtype",
            fix="use fp32 or bf16, or check the weights",
        )


def choose(logits: torch.Tensor, uniform: list[float], temperature: float, top_p: float) -> torch.Tensor:
    """Tokens (B) from scores (B x V): the first whose cumulative probability exceeds the row's uniform number."""
    if temperature == 0:
        return logits.argmax(-1)
    kind = torch.float32 if logits.device.type == "mps" else torch.float64  # sums over a large vocabulary round
    p = (logits.to(kind) / temperature).softmax(-1)
    if top_p < 1:
        p = _nucleus(p, top_p)
    cumulative = p.cumsum(-1)
    at = torch.tensor(uniform, dtype=kind, device=logits.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, at, right=True)[:, 0].clamp(max=p.shape[-1] - 1)


def _nucleus(p: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2020)."""
    ordered, order = p.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return p.masked_fill(outside.gather(-1, order.argsort(-1)), 0)
