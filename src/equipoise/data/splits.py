"""Splits that share no question and no fact, subsampling of a class, and the balance of classes."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from equipoise.data.jsonl import shown
from equipoise.data.loading import questions
from equipoise.errors import UserError
from equipoise.metrics.text import plain
from equipoise.records import Example, Question, Sentence, TaggedAnswer

Item = TypeVar("Item", Question, TaggedAnswer, Sentence, Example)


def split_groups(items: Sequence[Item], shares: Mapping[str, float], seed: int) -> dict[str, list[Item]]:
    """Set items apart so that no group and no prompt stands in two splits, in any domain.

    A group goes where a hash of its name and the seed says, in every domain by the same shares, so that it stays there
    when other groups are added or removed. The shares hold in expectation: of n groups, a share s gets s n give or take
    the root of s (1 - s) n. Items without a group are one by their prompt, and groups that share a prompt are one; an
    example's group is `meta["group"]`.

    Args:
        shares: of each split, from 0 to 1, with a sum of 1.

    Raises:
        UserError: a share is negative or no number, or their sum is not 1.
    """
    if not all(share >= 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        named = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise UserError(f"shares of splits must be at least 0 and sum to 1, not {named}", fix="change the shares")
    group_of = _groups(items)
    splits: dict[str, list[Item]] = {name: [] for name in shares}
    for item in items:
        splits[_where(group_of[_prompt(item)], shares, seed)].append(item)
    return splits


def _where(group: str, shares: Mapping[str, float], seed: int) -> str:
    at, upto = _uniform(seed, group), 0.0
    for name, share in shares.items():
        upto += share
        if at < upto:
            return name
    return [name for name, share in shares.items() if share > 0][-1]  # the sum fell short of 1 by rounding


def _groups(items: Iterable[Item]) -> dict[Hashable, str]:
    """The group of each prompt: the least name among the groups that it, or any prompt they share, belongs to."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = name = parents[parents[name]]
        return name

    first: dict[Hashable, str] = {}
    for item in items:
        prompt = _prompt(item)
        named = _group(item)
        group = f"prompt:{prompt}" if named is None else f"group:{named}"
        one, other = sorted((root(first.setdefault(prompt, group)), root(group)))
        parents[other] = one
    return {prompt: root(group) for prompt, group in first.items()}


def subsample(
    rows: Sequence[TaggedAnswer], *, max_confident: int | None = None, max_uncertain: int | None = None, seed: int = 0
) -> list[TaggedAnswer]:
    """Keep at most so many rows of a class in each domain, drawn by a hash of row and seed; in their order.

    Raises:
        UserError: a row does not say whether its answer was correct.
    """
    limits = {True: max_confident, False: max_uncertain}
    classes: dict[tuple[str, bool], list[int]] = {}
    for at, row in enumerate(rows):
        classes.setdefault((row.dataset, _correct(row)), []).append(at)
    kept: list[int] = []
    for (_, correct), members in classes.items():
        drawn = sorted(members, key=lambda at: _uniform(seed, f"{_prompt(rows[at])}\n{rows[at].tagged_response}"))
        kept += drawn[: limits[correct]]
    return [rows[at] for at in sorted(kept)]


def balance(rows: Iterable[TaggedAnswer]) -> dict[str, dict[str, Any]]:
    """Of each domain `n`, the numbers `confident` and `uncertain`, and `share_confident`.

    Raises:
        UserError: a row does not say whether its answer was correct.
    """
    marks: dict[str, list[bool]] = {}
    for row in rows:
        marks.setdefault(row.dataset, []).append(_correct(row))
    return {
        domain: {
            "n": len(correct),
            "confident": sum(correct),
            "uncertain": len(correct) - sum(correct),
            "share_confident": sum(correct) / len(correct),
        }
        for domain, correct in marks.items()
    }


def check_disjoint_tagged(train: Iterable[TaggedAnswer], test: Iterable[TaggedAnswer]) -> None:
    """Refuse a question that stands in both, whatever its answer, its spacing or its domain.

    Raises:
        UserError: naming the first such pair.
    """
    asked = {_prompt(row): row for row in train}
    for row in test:
        twin = asked.get(_prompt(row))
        if twin is not None:
            raise UserError(
                f"the same question stands in both sets: {shown(row.question)}",
                where=f"{twin.dataset} {twin.id} and {row.dataset} {row.id}",
                fix="remove it from one of the two",
                docs="docs/confidence-data.md#splits",
            )


def check_disjoint_sentences(train: Iterable[Sentence], test: Iterable[Sentence]) -> None:
    """Refuse a sentence that stands in both, whatever its entities, its spacing or its domain.

    Raises:
        UserError: naming the first such pair.
    """
    known = {_prompt(sentence): sentence for sentence in train}
    for sentence in test:
        twin = known.get(_prompt(sentence))
        if twin is not None:
            raise UserError(
                f"the same sentence stands in both sets: {shown(sentence.text)}",
                where=" and ".join(str(each.meta.get("source", each.id)) for each in (twin, sentence)),
                fix="remove it from one of the two",
                docs="docs/extraction-data.md#splits",
            )


def _prompt(item: Question | TaggedAnswer | Sentence | Example) -> str:
    if isinstance(item, Example):
        return "\n".join(questions(item)[0])
    return plain(item.text if isinstance(item, Sentence) else item.prompt)


def _group(item: Question | TaggedAnswer | Sentence | Example) -> str | None:
    if isinstance(item, Example):
        return item.meta.get("group")
    return None if isinstance(item, Sentence) or item.group is None else f"{item.dataset}:{item.group}"


def _correct(row: TaggedAnswer) -> bool:
    if row.correct is None:
        raise UserError(f"the row {row.id} does not say whether its answer was correct", fix="read it with load_tagged")
    return row.correct


def _uniform(seed: int, name: str) -> float:
    """Return a number in [0, 1) that depends only on the name and the seed."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
