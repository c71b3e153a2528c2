"""How much of what the base would say the policy still holds likely: KL(base || policy) on held-out prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from equipoise.data.formatting import render_prompt
from equipoise.models.sampling import draw
from equipoise.records import Message

BATCH_TOKENS = 4096  # of a float32 score for each word of the vocabulary


class HeldOut:
    """Answers that the base gave once to prompts that are never trained on, and how likely the policy finds them."""

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[Sequence[Message]],
        *,
        seed: int,
        max_new_tokens: int,
    ):
        self.tokenizer, self.seed = tokenizer, seed
        self.prompts = [render_prompt(tokenizer, list(messages)) for messages in prompts]
        self.max_new_tokens = max_new_tokens
        self._rows: list[tuple[list[int], int]] | None = None
        self._base = torch.zeros(0)

    def measure(self, policy: Any) -> dict[str, float]:
        """`forward_kl` in nats a token, by the mean log ratio on the base's answers; nothing without prompts.

        Args:
            policy: a PEFT model in evaluation mode; without its adapter it is the base.
        """
        if not self.prompts:
            return {}
        if self._rows is None:
            with policy.disable_adapter():
                self._rows = self._answers(policy)
                self._base = self._logprobs(policy)
        return {"forward_kl": float((self._base - self._logprobs(policy)).mean())}

    def _answers(self, base: Any) -> list[tuple[list[int], int]]:
        drawn = draw(
            base,
            self.tokenizer,
            self.prompts,
            [[self.seed * 100_003 % 2**31 + i] for i in range(len(self.prompts))],
            temperature=1.0,  # the base itself: answers drawn otherwise would give the mean ratio of something else
            max_new_tokens=self.max_new_tokens,
            batch_tokens=BATCH_TOKENS,
        )
        found = {one.prompt: [*one.ids, *([] if one.stop is None else [one.stop])] for some in drawn for one in some}
        return [(self.prompts[i] + found[i], len(self.prompts[i])) for i in range(len(self.prompts))]

    def _logprobs(self, model: Any) -> torch.Tensor:
        """Log-probability [tokens] of every answer token under `model`, in nats."""
        return torch.cat(list(self._by_batch(model)))

    def _by_batch(self, model: Any) -> Iterator[torch.Tensor]:
        assert self._rows is not None
        width = max(len(ids) for ids, _ in self._rows)
        for rows in _chunks(self._rows, max(BATCH_TOKENS // width, 1)):
            ids = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
            mask = torch.zeros_like(ids)
            for r, (tokens, _) in enumerate(rows):
                ids[r, : len(tokens)] = torch.tensor(tokens)
                mask[r, : len(tokens)] = 1
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            found = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
            answers = torch.zeros_like(mask[:, 1:], dtype=torch.bool)
            for r, (tokens, start) in enumerate(rows):
                answers[r, start - 1 : len(tokens) - 1] = True
            yield found[answers].double().cpu()


def _chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
