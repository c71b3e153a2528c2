"""Greedy answers of all runs of a stack to the same prompts, in shared batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from equipoise.models.generation import Generated, batches, last_only, left_padded, stop_ids
from equipoise.models.lora_stack import LoraStack
from equipoise.models.text_stop import StopWhen, TextStop


def generate_stacked(
    stack: LoraStack,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int = 64,
    batch_tokens: int = 8192,
    stop_when: StopWhen | None = None,
    on_batch: Callable[[Sequence[int]], None] | None = None,
) -> list[list[Generated]]:
    """For each run its greedy answers to tokenised prompts, in the prompts' order.

    As `generation.generate` gives them with the run's adapter. `batch_tokens` bounds prompts plus answers of one batch,
    of all runs together; a batch holds at least one prompt for each run.
    """
    stops = sorted(stop_ids(stack.base, tokenizer))
    answers = [[Generated() for _ in prompts] for _ in range(len(stack))]
    text = None if stop_when is None else TextStop(tokenizer, stop_when, *answers)
    training = stack.model.training
    stack.model.eval()
    try:
        with torch.inference_mode(), stack.running() as model:
            for rows in batches(prompts, max_new_tokens, batch_tokens // len(stack)):
                chosen = [prompts[r] for r in rows]
                _greedy(model, chosen, stops, max_new_tokens, [[mine[r] for r in rows] for mine in answers], text)
                if on_batch is not None:
                    on_batch(rows)
    finally:
        stack.model.train(training)
    return answers


def _greedy(
    model: Any,
    prompts: list[list[int]],
    stops: list[int],
    new: int,
    answers: list[list[Generated]],
    text: TextStop | None,
) -> None:
    """Fill in `answers [R][m]`. Each run keeps as many rows as the run with most unended answers needs."""
    from transformers import DynamicCache

    runs, device = len(answers), model.device
    shared = _shared(prompts)
    cache = DynamicCache(config=model.config)
    if shared:
        start = torch.tensor(prompts[0][:shared], device=device).repeat(runs, 1)
        model.base_model(input_ids=start, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prompts))
    ids, mask, positions = (part.repeat(runs, 1) for part in left_padded([p[shared:] for p in prompts], device))
    mask, positions = torch.cat([mask.new_ones(len(mask), shared), mask], 1), positions + shared
    options = last_only(model)
    stop = torch.tensor(stops, device=device)
    left = [answer for mine in answers for answer in mine]  # row by row
    ended = torch.zeros(len(left), dtype=torch.bool, device=device)
    for _ in range(new):
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        logits = model(**inputs, use_cache=True, **options).logits[:, -1].float().to(device)
        chosen = logits.argmax(-1)
        logprobs = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
        over = ended.tolist()
        ended = ended | torch.isin(chosen, stop)
        for answer, token, past, end, logprob in zip(left, chosen.tolist(), over, ended.tolist(), logprobs.tolist()):
            if past:
                continue
            answer.logprob += logprob
            if end:
                answer.stop = token
            else:
                answer.ids.append(token)
                answer.by_text = text is not None and text(answer)
        if text is not None:
            ended |= torch.tensor([answer.by_text for answer in left], device=device)
        open_ones = (~ended).view(runs, -1)
        most = int(open_ones.sum(1).max())
        if most == 0:
            break
        if most < open_ones.shape[1]:
            order = open_ones.int().argsort(dim=1, descending=True, stable=True)[:, :most]
            keep = (order + torch.arange(runs, device=device)[:, None] * open_ones.shape[1]).flatten()
            cache.batch_select_indices(keep)
            left = [left[i] for i in keep.tolist()]
            chosen, mask, positions, ended = chosen[keep], mask[keep], positions[keep], ended[keep]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1)
        positions = positions[:, -1:] + 1


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with alike, such as a template's: a run reads them once. The last stays out."""
    alike = 0
    for column in zip(*(prompt[:-1] for prompt in prompts)):
        if len(set(column)) > 1:
            break
        alike += 1
    return alike
