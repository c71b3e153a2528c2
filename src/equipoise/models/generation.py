"""Greedy generation for many short prompts at once: sorted by length, batched, finished rows leave."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from equipoise.data.formatting import end_of_turn_ids


def generate_greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int = 64,
    batch_tokens: int = 8192,
) -> list[str]:
    """The model's greedy answers to tokenised prompts, in the prompts' order, without special tokens.

    Equal to `model.generate(do_sample=False)` on one prompt at a time. An answer ends at an end-of-sequence or
    end-of-turn token, or after `max_new_tokens`. `batch_tokens` bounds prompts plus answers of one batch.
    """
    stops = sorted(stop_ids(model, tokenizer))
    answers: list[list[int]] = [[] for _ in prompts]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for rows in _batches(prompts, max_new_tokens, batch_tokens):
                for row, ids in zip(rows, _greedy(model, [prompts[r] for r in rows], stops, max_new_tokens)):
                    answers[row] = ids
    finally:
        model.train(training)
    return tokenizer.batch_decode(answers, skip_special_tokens=True) if answers else []


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Token ids that end an answer, by the generation config, the tokenizer and the chat template."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    out = set(end_of_turn_ids(tokenizer))
    return out | ({configured} if isinstance(configured, int) else set(configured or ()))


def _batches(prompts: Sequence[list[int]], new: int, batch_tokens: int) -> Iterator[list[int]]:
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    while order:
        width = len(prompts[order[0]]) + new
        count = max(batch_tokens // width, 1)
        yield order[:count]
        order = order[count:]


def _greedy(model: Any, prompts: list[list[int]], stops: list[int], new: int) -> list[list[int]]:
    from transformers import DynamicCache

    device = model.device
    width = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, width - len(prompt) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's own signature hides it
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}
    stop = torch.tensor(stops, device=device)
    rows = torch.arange(len(prompts), device=device)  # which prompt each row of the batch belongs to
    out: list[list[int]] = [[] for _ in prompts]
    for _ in range(new):
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        logits = model(**inputs, use_cache=True, **last_only).logits
        chosen = logits[:, -1].argmax(-1).to(device)  # a model spread over devices may answer on its last
        going = ~torch.isin(chosen, stop)
        for row, token, alive in zip(rows.tolist(), chosen.tolist(), going.tolist()):
            if alive:
                out[row].append(token)
        if not going.all():
            keep = going.nonzero().flatten()
            if keep.numel() == 0:
                break
            cache.batch_select_indices(keep)
            rows, chosen, mask, positions = rows[keep], chosen[keep], mask[keep], positions[keep]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1)
        positions = positions[:, -1:] + 1
    return out
