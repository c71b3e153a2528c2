"""Out of memory: cut a micro-batch into smaller ones that together are the same optimizer step."""

from __future__ import annotations

from typing import Any

import torch

PER_ROW = ("input_ids", "labels", "attention_mask", "position_ids", "row_index")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the host ran out of memory."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )


def documents(batch: dict[str, Any]) -> int:
    """How many pieces a micro-batch can be cut into: rows, pairs of rows, or packed documents in its one row."""
    if "ref_chosen_logps" in batch:
        return int(batch["ref_chosen_logps"].shape[0])
    if "attention_mask" in batch:
        return int(batch["input_ids"].shape[0])
    return int((batch["position_ids"] == 0).sum())


def split_batch(batch: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    """Cut a collated micro-batch into at most `pieces`, in order, each as if it had been collated by itself."""
    pieces = min(pieces, documents(batch))
    if pieces <= 1:
        return [batch]
    if "ref_chosen_logps" in batch:
        return _split_pairs(batch, pieces)
    return _split_rows(batch, pieces) if "attention_mask" in batch else _split_packed(batch, pieces)


def _split_rows(batch: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    return [
        _narrowed({name: value[rows.to(value.device)] for name, value in batch.items() if name in PER_ROW})
        for rows in torch.arange(documents(batch)).tensor_split(pieces)
    ]


def _split_pairs(batch: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    """All better answers stand before all worse ones; what is told once a pair has half as many rows."""
    pairs = documents(batch)
    out = []
    for chosen in torch.arange(pairs).tensor_split(pieces):
        both = torch.cat([chosen, chosen + pairs])
        part = {n: v[(both if len(v) == 2 * pairs else chosen).to(v.device)] for n, v in batch.items()}
        out.append(_narrowed(part))
    return out


def _narrowed(part: dict[str, Any]) -> dict[str, Any]:
    width = int(part["attention_mask"].sum(1).max())  # padding that only longer rows needed goes
    return {name: value[:, :width] if value.ndim == 2 else value for name, value in part.items()}


def _split_packed(batch: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    positions = batch["position_ids"][0]
    starts = (positions == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], positions.shape[0]]
    out = []
    for chosen in torch.arange(len(starts)).tensor_split(pieces):
        first, last = int(chosen[0]), int(chosen[-1])
        part = {
            name: batch[name][:, starts[first] : ends[last]]
            for name in ("input_ids", "labels", "position_ids", "seq_idx")
            if name in batch
        }
        lengths = torch.tensor([e - s for s, e in zip(starts, ends)][first : last + 1])
        if "cu_seq_lens_q" in batch:
            edges = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
            part["cu_seq_lens_q"] = part["cu_seq_lens_k"] = edges.to(batch["cu_seq_lens_q"])
            part["max_length_q"] = part["max_length_k"] = int(lengths.max())
            part["seq_idx"] = part["seq_idx"] - part["seq_idx"][:, :1]
        if "row_index" in batch:
            part["row_index"] = batch["row_index"][first : last + 1]
        out.append(part)
    return out
