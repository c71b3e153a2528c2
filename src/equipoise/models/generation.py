"""Greedy generation for many short prompts at once: sorted by length, batched, finished rows leave."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from equipoise.data.formatting import end_of_turn_ids
from equipoise.models.text_stop import StopWhen, TextStop


@dataclass
class Generated:
    """One greedy answer.

    Attributes:
        ids: its tokens, without the one that ended it.
        stop: the token that ended it, or None where its text or `max_new_tokens` did.
        by_text: its text ended it, with the last token of `ids`.
        logprob: summed log-probability of `ids` and of `stop`, in nats.
        watched: logits of the watched tokens where the answer ended: those that `stop` was chosen from, or, without a
            stop, those after the last token.
    """

    ids: list[int] = field(default_factory=list)
    stop: int | None = None
    by_text: bool = False
    logprob: float = 0.0
    watched: list[float] = field(default_factory=list)

    @property
    def cut(self) -> bool:
        """Whether it was over only because it had `max_new_tokens`."""
        return self.stop is None and not self.by_text


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int = 64,
    batch_tokens: int = 8192,
    stop_on: Sequence[int] = (),
    watch: Sequence[int] = (),
    stop_when: StopWhen | None = None,
    on_batch: Callable[[Sequence[int]], None] | None = None,
) -> list[Generated]:
    """Greedy answers to tokenised prompts, in the prompts' order.

    Equal to `model.generate(do_sample=False)` on one prompt at a time. An answer ends at an end-of-sequence or
    end-of-turn token or one of `stop_on`, or after `max_new_tokens`. `batch_tokens` bounds prompts plus answers of one
    batch. Log-probabilities and logits are float32.

    Args:
        stop_when: ends an answer as soon as it is true of its prompt's number and its text so far; what the last token
            has too much stays in the answer.
        on_batch: called after each batch with the numbers of its prompts.
    """
    stops = sorted(stop_ids(model, tokenizer) | set(stop_on))
    answers = [Generated() for _ in prompts]
    over = None if stop_when is None else TextStop(tokenizer, stop_when, answers)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for rows in batches(prompts, max_new_tokens, batch_tokens):
                mine = [answers[r] for r in rows]
                _greedy(model, [prompts[r] for r in rows], stops, max_new_tokens, watch, mine, over)
                if on_batch is not None:
                    on_batch(rows)
    finally:
        model.train(training)
    return answers


def generate_greedy(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], *, max_new_tokens: int = 64, batch_tokens: int = 8192
) -> list[str]:
    """The texts of `generate`, without special tokens."""
    answers = generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens)
    return tokenizer.batch_decode([answer.ids for answer in answers], skip_special_tokens=True) if answers else []


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Token ids that end an answer, by the generation config, the tokenizer and the chat template."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    out = set(end_of_turn_ids(tokenizer))
    return out | ({configured} if isinstance(configured, int) else set(configured or ()))


def left_padded(prompts: Sequence[list[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions (each B x T) of prompts that end together."""
    width = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, width - len(prompt) :] = 1
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def last_only(model: Any) -> dict[str, int]:
    """Return what to pass to `forward` for the logits of the last position alone, where the model supports it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's own signature hides it
    if "logits_to_keep" not in inspect.signature(base.forward).parameters:
        return {}
    head = base.get_output_embeddings()
    if head is not None and _contiguous not in head._forward_pre_hooks.values():
        head.register_forward_pre_hook(_contiguous)
    return {"logits_to_keep": 1}


def _contiguous(head: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Make the last position of each row contiguous before it reaches the head.

    PyTorch 2.13 computes `linear` of a non-contiguous 3-D input with a frozen weight as a batched product, for which a
    CPU copies the weight once for each row: 200 times slower in bfloat16, and 56 MB a row for SmolLM2-135M.
    """
    return (inputs[0].contiguous(), *inputs[1:])


def batches(prompts: Sequence[list[int]], new: int, batch_tokens: int) -> Iterator[list[int]]:
    """Positions of prompts to answer together, longest first; prompts and `new` tokens stay within the bound."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    while order:
        width = len(prompts[order[0]]) + new
        count = max(batch_tokens // width, 1)
        yield order[:count]
        order = order[count:]


def _greedy(
    model: Any,
    prompts: list[list[int]],
    stops: list[int],
    new: int,
    watch: Sequence[int],
    answers: list[Generated],
    over: TextStop | None,
) -> None:
    """Fill in `answers`; one step more than `new` where the logits after the last token are wanted."""
    from transformers import DynamicCache

    device = model.device
    ids, mask, positions = left_padded(prompts, device)
    cache = DynamicCache(config=model.config)
    options = last_only(model)
    stop = torch.tensor(stops, device=device)
    watched = torch.tensor(list(watch), dtype=torch.long, device=device)
    left = answers  # those still in the batch, row by row
    for step in range(new + bool(watch)):
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        # a model spread over devices may answer on its last
        logits = model(**inputs, use_cache=True, **options).logits[:, -1].float().to(device)
        chosen = logits.argmax(-1)
        ended = torch.isin(chosen, stop)
        logprobs = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
        for answer, token, end, logprob, seen in zip(
            left, chosen.tolist(), ended.tolist(), logprobs.tolist(), logits[:, watched].tolist()
        ):
            answer.watched = seen  # the last position's remain
            if step == new:
                continue
            answer.logprob += logprob
            if end:
                answer.stop = token
            else:
                answer.ids.append(token)
                answer.by_text = over is not None and over(answer)
        if over is not None:
            ended |= torch.tensor([answer.by_text for answer in left], device=device)
        if ended.any():
            keep = (~ended).nonzero().flatten()
            if keep.numel() == 0:
                break
            cache.batch_select_indices(keep)
            left = [left[i] for i in keep.tolist()]
            chosen, mask, positions = chosen[keep], mask[keep], positions[keep]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1)
        positions = positions[:, -1:] + 1
