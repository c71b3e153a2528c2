"""How likely a model finds given answers: log-probabilities, compared between the right answer and another one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from equipoise.data.formatting import answer_parts
from equipoise.evaluation.knowledge import Item, Task, scorer_for
from equipoise.evaluation.tokens import BATCH_TOKENS, TokenReader
from equipoise.metrics.text import plain
from equipoise.models.head import gathered, output_head
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.models.prefixes import Tree, hidden_states, longest_shared, shares_prefixes
from equipoise.records import Message, Preference
from equipoise.signals.tokens import token_statistics


@dataclass(frozen=True)
class Continuations:
    """Token ids of a prompt, and of the answers that may follow it."""

    prompt: list[int]
    answers: tuple[list[int], ...]


@dataclass(frozen=True)
class Likelihood:
    """Log-probability of an answer given its prompt, in nats, summed over its tokens."""

    logp: float
    tokens: int


class LikelihoodReader:
    """Reads how likely continuations are, without gradient: a prompt is computed once, the head on answers alone.

    Args:
        batch_tokens: positions, padding included, that go through the model at once; a longer row goes alone.

    Raises:
        UserError: the model's logits are not one linear map of the hidden state.
    """

    def __init__(self, loaded: Loaded, *, batch_tokens: int = BATCH_TOKENS):
        reader = TokenReader(loaded)
        self.model, self.formula, self.batch_tokens = reader.model, reader.formula, batch_tokens
        self.shared = longest_shared(self.model) if shares_prefixes(self.model) else 0

    @torch.no_grad()
    def read(
        self, asked: Sequence[Continuations], *, on_batch: Callable[[int], None] | None = None
    ) -> list[list[Likelihood]]:
        """For each prompt, in order, the likelihood of each of its answers.

        Args:
            on_batch: told after each batch how many answers it had.
        """
        rows = [row for n, each in enumerate(asked) for row in self._rows(n, each)]
        found: list[list[Likelihood]] = [[Likelihood(0.0, 0)] * len(each.answers) for each in asked]
        for batch in _batches(rows, self.batch_tokens):
            for row, logps in zip(batch, self._logps(batch)):
                for answer, logp, count in zip(row.answers, logps, row.counts, strict=True):
                    found[row.asked][answer] = Likelihood(logp, count)
            if on_batch is not None:
                on_batch(sum(len(row.answers) for row in batch))
        return found

    def _rows(self, number: int, asked: Continuations) -> list[_Row]:
        tree = Tree.of(asked.prompt, asked.answers)
        if len(tree) <= self.shared or len(asked.answers) == 1:
            return [_Row.of(number, range(len(asked.answers)), len(asked.prompt), tree)]
        trees = (Tree.of(asked.prompt, [ids]) for ids in asked.answers)
        return [_Row.of(number, [i], len(asked.prompt), tree) for i, tree in enumerate(trees)]

    def _logps(self, batch: Sequence[_Row]) -> list[list[float]]:
        """Sums of the log-probabilities of each row's answers, in float64."""
        hidden = hidden_states(self.model, [row.tree for row in batch])
        weight, bias, trained = output_head(self.model)
        at = torch.tensor([n for n, row in enumerate(batch) for _ in row.places], device=hidden.device)
        places = torch.tensor([place for row in batch for place in row.places], device=hidden.device)
        labels = torch.tensor([label for row in batch for label in row.labels])
        with gathered(weight, bias):
            read = token_statistics(
                hidden[at, places].to(weight.device, weight.dtype),
                weight,
                labels.to(weight.device),
                bias=bias,
                logit_scale=self.formula.logit_scale,
                softcap=self.formula.softcap,
                row_ids=None if trained is None else trained.ids,
                rows=None if trained is None else trained.rows,
            )
        nlls = read.nll.double().cpu().split([len(row.places) for row in batch])
        return [[-float(nll[part].sum()) for part in row.parts] for row, nll in zip(batch, nlls)]


@dataclass(frozen=True)
class _Row:
    """A tree with the places whose states predict its answers' tokens, and which of them each answer consists of."""

    asked: int
    answers: Sequence[int]
    tree: Tree
    places: list[int]
    labels: list[int]
    parts: list[list[int]]

    @classmethod
    def of(cls, asked: int, answers: Sequence[int], prompt: int, tree: Tree) -> _Row:
        end = len(tree.trunk)
        places, labels = [*range(prompt - 1, end - 1)], tree.trunk[prompt:]
        common, parts, start = [*range(len(labels))], [], end
        for branch in tree.branches:
            parts.append([*common, *range(len(labels), len(labels) + len(branch))])
            places += [end - 1, *range(start, start + len(branch) - 1)][: len(branch)]
            labels = labels + branch
            start += len(branch)
        return cls(asked, answers, tree, places, labels, parts)

    @property
    def counts(self) -> list[int]:
        return [len(part) for part in self.parts]


def _batches(rows: Sequence[_Row], tokens: int) -> list[list[_Row]]:
    """Rows by length, longest first, in batches within the bound.

    Rows with branches go by themselves: one that is too long for a sliding window must not be under their mask.
    """
    out: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: (len(row.answers) > 1, -len(row.tree))):
        first = out[-1][0] if out else row
        mixed = (len(first.answers) > 1) != (len(row.answers) > 1)
        if not out or mixed or len(first.tree) * (len(out[-1]) + 1) > tokens:
            out.append([])
        out[-1].append(row)
    return out


def distractors(items: Sequence[Item], answers: Mapping[str, str] | None = None) -> dict[str, str]:
    """A wrong answer, by id, for each item that has no old one, as far as there is any.

    It is the model's own where `answers` (greedy ones, of the untrained model) has one that differs, else another
    item's right answer of the same kind: if there are such, one that begins with the same name (`np`), then the one
    nearest in length.
    """
    kinds = [(scorer_for(item.gold.strip()), item.form) for item in items]
    found = {}
    for item, kind in zip(items, kinds):
        if item.old is not None or item.id in found:
            continue
        right = {plain(answer) for answer in (item.gold, *item.accepted)}
        own = (answers or {}).get(item.id, "")
        lead = item.gold[: len(item.gold) - len(item.gold.lstrip())]
        if own.strip() and plain(own) not in right:
            found[item.id] = lead + own.strip()
            continue
        others = {other.gold.strip() for other, k in zip(items, kinds) if k == kind and plain(other.gold) not in right}
        if others:
            nearest = min(others, key=lambda text: (_name(text) != _name(item.gold), _apart(text, item.gold), text))
            found[item.id] = lead + nearest
    return found


def _name(answer: str) -> str:
    return re.split(r"\W", answer.strip(), maxsplit=1)[0]


def _apart(one: str, other: str) -> int:
    return abs(len(one.strip()) - len(other.strip()))


@dataclass(frozen=True)
class Choices:
    """Items with a right and another answer each, tokenised once for all the models that are asked."""

    items: list[tuple[str, Item]]
    continuations: list[Continuations]
    without: list[str]  # ids of items that have no other answer


def choices(tokenizer: Any, tasks: Sequence[Task], others: Mapping[str, str] | None = None) -> Choices:
    """The right answer of each item against its old one; where it has none, against `others[id]`.

    Raises:
        UserError: a prompt cannot be rendered.
    """
    out = Choices([], [], [])
    for task in tasks:
        for item in task.items:
            other = item.old if item.old is not None else (others or {}).get(item.id)
            if other is None:
                out.without.append(item.id)
                continue
            parts = [
                answer_parts(tokenizer, [*item.conversation, _answer(text)], form=item.form)
                for text in (item.gold, other)
            ]
            out.items.append((task.name, replace(item, old=other)))
            out.continuations.append(Continuations(parts[0].prompt, tuple(part.answer for part in parts)))
    return out


def _answer(text: str) -> Message:
    return Message(role="assistant", content=text)


def preferences(
    loaded: Loaded,
    chosen: Choices,
    *,
    method: str,
    seed: int,
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[int], None] | None = None,
) -> list[Preference]:
    """How likely a model finds both answers of each item, in order."""
    read = LikelihoodReader(loaded, batch_tokens=batch_tokens).read(chosen.continuations, on_batch=on_batch)
    return [
        Preference(
            method=method,
            seed=seed,
            task=task,
            item=item.id,
            phrasing=item.phrasing,
            form=item.form,
            new=item.gold,
            old=item.old or "",
            logp_new=new.logp,
            logp_old=old.logp,
            tokens_new=new.tokens,
            tokens_old=old.tokens,
        )
        for (task, item), (new, old) in zip(chosen.items, read, strict=True)
    ]


def preferences_stack(
    stack: LoraStack,
    tokenizer: Any,
    chosen: Choices,
    *,
    runs: Sequence[tuple[str, int]],
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[Preference]]:
    """What `preferences` gives for each run of a stack.

    Args:
        runs: method and seed of each.
    """
    return [
        preferences(
            Loaded(stack.model_of(n), tokenizer, method), chosen, method=method, seed=seed, batch_tokens=batch_tokens
        )
        for n, (method, seed) in enumerate(runs)
    ]
