"""What a model thinks of every supervised token of some examples: nll, normalized entropy, shock and its own choice."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from equipoise.data.formatting import IGNORE, Rendered, Unusable, render
from equipoise.models.loading import Loaded
from equipoise.records import Example
from equipoise.signals.tokens import shock_ratio

LOGITS_MB = 256  # at once; what limits a batch


def token_rows(loaded: Loaded, examples: Iterable[Example], *, max_length: int = 1024) -> Iterator[dict[str, Any]]:
    """Yield one row a supervised token, in the order of examples and positions.

    nll is in nats, h in [0, 1] over the whole vocabulary. `is_conflict` marks the first token at which the answer
    leaves the model's greedy one: until there both agree, so the choice under teacher forcing is the greedy choice.
    `knowledge` is the class that the example's meta names, if it does. Examples that training would leave out, such as
    those longer than `max_length`, have no rows.
    """
    loaded.model.eval()
    vocab = loaded.model.get_output_embeddings().weight.shape[0]
    limit = max(1, LOGITS_MB * 2**20 // (4 * vocab))  # tokens
    batch: list[tuple[Example, Rendered]] = []
    for example in examples:
        try:
            rendered = render(loaded.tokenizer, example, max_length=max_length)
        except Unusable:
            continue
        longest = max(len(row.input_ids) for _, row in [*batch, (example, rendered)])
        if batch and longest * (len(batch) + 1) > limit:
            yield from _read(loaded, batch)
            batch = []
        batch.append((example, rendered))
    if batch:
        yield from _read(loaded, batch)


@torch.no_grad()
def _read(loaded: Loaded, batch: list[tuple[Example, Rendered]]) -> Iterator[dict[str, Any]]:
    device = loaded.model.device
    ids = pad_sequence([torch.tensor(row.input_ids) for _, row in batch], batch_first=True).to(device)
    lengths = torch.tensor([len(row.input_ids) for _, row in batch], device=device)
    mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    # The model's own logits, so that a scale or a cap of its head is in them.
    logits = loaded.model(input_ids=ids, attention_mask=mask.long()).logits
    for (example, row), scores in zip(batch, logits):
        labels = torch.tensor(row.labels)[1:]
        where = (labels != IGNORE).nonzero().flatten()
        yield from _rows(
            example, scores[where.to(scores.device)].float().log_softmax(-1).cpu(), labels[where], loaded.tokenizer
        )


def _rows(example: Example, logp: torch.Tensor, targets: torch.Tensor, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Rows of one example from log-probabilities [N, V] and the tokens [N] that it has there."""
    nll = -logp.gather(1, targets[:, None]).squeeze(1)
    h = torch.special.entr(logp.exp()).sum(-1) / math.log(logp.shape[1])
    shock = shock_ratio(nll, h)
    disagrees = (logp.argmax(-1) != targets).tolist()
    first = disagrees.index(True) if True in disagrees else None
    for i, target in enumerate(targets.tolist()):
        yield {
            "item": example.id,
            "knowledge": example.meta.get("knowledge"),
            "position": i,
            "token": tokenizer.decode([target]),
            "nll": nll[i].item(),
            "h": h[i].item(),
            "shock": shock[i].item(),
            "is_conflict": i == first,
        }
