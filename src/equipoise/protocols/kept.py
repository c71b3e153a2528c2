"""What training changed, item by item, against what the untrained model knew: kept, lost, gained or never known."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from equipoise.protocols.scores import UNTRAINED, ItemScore
from equipoise.records import KEEP_TASKS, Prediction, Preference

COMPARED = {"correction": "efficacy", "generalisation": "paraphrase efficacy", "locality": "preference kept"}
FEWEST = 5  # fewer known items tell nothing about what was kept


class Key(NamedTuple):
    """Names one question whatever model answers it."""

    task: str
    item: str
    phrasing: int


def item_scores(predictions: Iterable[Prediction], preferences: Iterable[Preference]) -> list[ItemScore]:
    """List the scores of all items: of generated answers, and 1 where a right answer is the likelier one."""
    scores = [
        ItemScore(row.method, row.seed, row.task, row.item, row.phrasing, row.score, row.published_score)
        for row in predictions
    ]
    return scores + [
        ItemScore(row.method, row.seed, COMPARED[row.task], row.item, row.phrasing, float(row.margin > 0))
        for row in preferences
    ]


def untrained_scores(scores: Iterable[ItemScore]) -> dict[Key, float]:
    """Return the untrained model's score on each question."""
    return {Key(row.task, row.item, row.phrasing): row.score for row in scores if row.method == UNTRAINED}


def known_only(scores: Sequence[ItemScore], before: Mapping[Key, float]) -> list[ItemScore]:
    """Leave out the questions of keep tasks that the untrained model did not answer right: nothing can be lost there.

    Without an untrained model, all rows stay.
    """
    if not before:
        return list(scores)
    return [
        row for row in scores if row.task not in KEEP_TASKS or before.get(Key(row.task, row.item, row.phrasing)) == 1.0
    ]


def knowledge(before: Mapping[Key, float]) -> dict[str, dict[str, int]]:
    """Count for each task how many questions were asked and how many the untrained model answered right."""
    counts: dict[str, dict[str, int]] = {}
    for key, score in before.items():
        count = counts.setdefault(key.task, {"asked": 0, "right": 0})
        count["asked"] += 1
        count["right"] += score == 1.0
    return counts


def cannot_tell(counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """Return, for each task on which the untrained model leaves nothing to measure, why, and what to do instead."""
    reasons = {}
    for task, count in counts.items():
        asked, right = count["asked"], count["right"]
        if task in KEEP_TASKS and right < min(FEWEST, asked):
            reasons[task] = (
                f"the untrained model got {right} of {asked} right, too few to see what is lost; "
                "give rows that the model knows, or ask them in the form that it uses (data.ask)"
            )
        elif task not in KEEP_TASKS and right == asked:
            reasons[task] = (
                f"the untrained model got all {asked} right before training, so nothing can be corrected; "
                "choose rows that it gets wrong (data.select)"
            )
    return reasons


def change_of(before: float, after: float) -> str:
    """Name what became of an answer: `kept`, `lost`, `gained` or `never known`."""
    if before == 1.0:
        return "kept" if after == 1.0 else "lost"
    return "gained" if after == 1.0 else "never known"


def changes(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """List each answer of a trained model beside the untrained model's, both in full.

    Answers to keep tasks that stayed right or stayed wrong are left out.
    """
    before = {Key(row.task, row.item, row.phrasing): row for row in predictions if row.method == UNTRAINED}
    rows = []
    for row in predictions:
        first = before.get(Key(row.task, row.item, row.phrasing))
        if row.method == UNTRAINED or first is None:
            continue
        change = change_of(first.score, row.score)
        if row.task in KEEP_TASKS and change in ("kept", "never known"):
            continue
        shown = row.model_dump(include={"method", "seed", "task", "item", "phrasing", "form", "prompt", "gold", "old"})
        rows.append(shown | {"change": change, "before": first.output, "after": row.output, "cut": row.cut})
    return rows


def cut_off(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Return the share of each method's answers that ran out of tokens before they ended."""
    cuts: dict[str, list[bool]] = {}
    for row in predictions:
        cuts.setdefault(row.method, []).append(row.cut)
    return {method: sum(each) / len(each) for method, each in cuts.items()}
