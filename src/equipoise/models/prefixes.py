"""Several continuations of one prompt in one row of a batch: it is computed once, and they do not see each other."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Tree:
    """Token ids of a trunk, and of the branches that each continue it."""

    trunk: list[int]
    branches: tuple[list[int], ...]

    @classmethod
    def of(cls, prompt: list[int], continuations: Sequence[list[int]]) -> Tree:
        """The tree of a prompt and its continuations; what they begin with alike belongs to the trunk.

        >>> Tree.of([1, 2], [[3, 4], [3, 5, 6]])
        Tree(trunk=[1, 2, 3], branches=([4], [5, 6]))
        """
        alike = 0
        if len(continuations) > 1:
            alike = next(
                (i for i, tokens in enumerate(zip(*continuations)) if len(set(tokens)) > 1),
                min(map(len, continuations)),
            )
        return cls(prompt + continuations[0][:alike], tuple(ids[alike:] for ids in continuations))

    def __len__(self) -> int:
        return len(self.trunk) + sum(map(len, self.branches))


def hidden_states(model: Any, trees: Sequence[Tree]) -> Tensor:
    """Last hidden states [B, T, D] of trees, each laid out as its trunk and then its branches, padded to T.

    Args:
        model: a causal language model without an adapter's wrapper, for which `shares_prefixes` is true, or trees with
            one branch each.
    """
    device = model.device
    ids = _padded([tree.trunk + [i for branch in tree.branches for i in branch] for tree in trees])
    lengths = torch.tensor([len(tree) for tree in trees])
    there = torch.arange(ids.shape[1]) < lengths[:, None]
    if all(len(tree.branches) == 1 for tree in trees):
        given: dict[str, Any] = {"attention_mask": there.long().to(device)}
    else:
        owners = _padded([[0] * len(t.trunk) + [n for n, b in enumerate(t.branches, 1) for _ in b] for t in trees])
        positions = _padded(
            [[*range(len(t.trunk)), *(len(t.trunk) + i for b in t.branches for i in range(len(b)))] for t in trees]
        )
        seen = _visible(owners, there)
        scores = torch.zeros(seen.shape, dtype=model.dtype).masked_fill_(~seen, torch.finfo(model.dtype).min)
        given = {"attention_mask": scores[:, None].to(device), "position_ids": positions.to(device)}
    return model.base_model(input_ids=ids.to(device), use_cache=False, **given).last_hidden_state


def _visible(owners: Tensor, there: Tensor) -> Tensor:
    """[B, T, T]: which token (row) sees which (column): what comes before it in its own branch and in the trunk."""
    width = owners.shape[1]
    before = torch.ones(width, width, dtype=torch.bool).tril()
    own = (owners[:, None] == owners[:, :, None]) | (owners[:, None] == 0)
    return (before & own & there[:, None]) | torch.eye(width, dtype=torch.bool)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def longest_shared(model: Any) -> int:
    """Up to how many tokens a row may hold branches: a sliding window sees less than the mask of a tree says."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    return window if isinstance(window, int) else 1 << 30


@torch.no_grad()
def shares_prefixes(model: Any) -> bool:
    """Find out on a few tokens whether a model computes the branches of a tree as it does whole rows.

    Those with a recurrent state, or with a bias by distance in their attention, do not.
    """
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return False
    vocab = model.get_input_embeddings().weight.shape[0]
    trunk, *branches = [[i * 7 % vocab for i in range(at, at + 4)] for at in (1, 11, 21)]
    try:
        shared = hidden_states(model, [Tree(trunk, tuple(branches))])[0]
    except (RuntimeError, ValueError, TypeError):  # a mask that the model, or its attention, does not take
        return False
    whole = hidden_states(model, [Tree(trunk + branch, ([],)) for branch in branches])
    again = torch.cat([whole[0], whole[1, len(trunk) :]]).float()
    apart = (shared.float() - again).abs().max() / again.abs().max().clamp(min=1e-6)
    return bool(apart <= (1e-3 if shared.dtype == torch.float32 else 5e-2))
