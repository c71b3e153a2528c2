"""Hidden states that predict supervised tokens, and the batches in which rows go through a model for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from equipoise.data.formatting import IGNORE, Rendered


class States(NamedTuple):
    """States [N, D] that predict `labels` [N], row after row; `counts` says how many of them each row has."""

    hidden: torch.Tensor
    labels: torch.Tensor
    counts: list[int]


@torch.no_grad()  # not inference_mode: what a layer caches in that can never be trained through
def supervised_states(model: Any, batch: Sequence[Rendered]) -> States:
    """Run rows through the backbone of `model`, a model without PEFT's wrapper, on its own device."""
    device = model.device
    ids = pad_sequence([torch.tensor(row.input_ids) for row in batch], batch_first=True).to(device)
    labels = pad_sequence([torch.tensor(row.labels) for row in batch], True, IGNORE)[:, 1:]
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row.input_ids) for row in batch])[:, None]
    hidden = model.base_model(input_ids=ids, attention_mask=mask.long().to(device), use_cache=False)
    where = labels != IGNORE
    return States(hidden.last_hidden_state[:, :-1][where.to(device)], labels[where], where.sum(1).tolist())


def row_batches(rows: Sequence[Rendered], tokens: int) -> Iterator[list[int]]:
    """Numbers of the rows, longest first, so that a batch pads little and memory that is too small shows at once."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids)):
        if batch and len(rows[batch[0]].input_ids) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
