"""What a model thinks of every supervised token of some examples: nll, normalized entropy, shock and its own choice."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from equipoise.data.formatting import render
from equipoise.models.loading import Loaded
from equipoise.records import Example
from equipoise.signals.tokens import logit_statistics


@torch.no_grad()
def token_rows(
    loaded: Loaded, examples: Iterable[Example], *, max_length: int = 1024, eps: float = 1e-6
) -> Iterator[dict[str, Any]]:
    """Yield one row a supervised token, in order of examples and positions.

    `is_conflict` marks the first token at which the answer leaves the model's greedy one: until there both agree, so
    the choice under teacher forcing is the greedy choice. `knowledge` is taken from the example's meta, if it is known.
    """
    loaded.model.eval()
    log_v = math.log(loaded.model.get_output_embeddings().weight.shape[0])
    for example in examples:
        rendered = render(loaded.tokenizer, example, max_length=max_length)
        ids = torch.tensor([rendered.input_ids], device=loaded.model.device)
        labels = torch.tensor(rendered.labels, device=loaded.model.device)[1:]
        where = (labels != -100).nonzero().flatten()
        statistics = logit_statistics(loaded.model(input_ids=ids).logits[0, where], labels[where])
        h = (statistics.entropy / log_v).tolist()
        agrees = (statistics.argmax == labels[where]).tolist()
        first = agrees.index(False) if False in agrees else None
        for i, (nll, target) in enumerate(zip(statistics.nll.tolist(), labels[where].tolist())):
            yield {
                "item": example.id,
                "knowledge": example.meta.get("knowledge"),
                "position": i,
                "token": loaded.tokenizer.decode([target]),
                "nll": nll,
                "h": h[i],
                "shock": nll / (h[i] + eps),
                "is_conflict": i == first,
            }
