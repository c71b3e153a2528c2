"""What training changed, item by item, against what the untrained model knew: kept, lost, gained or never known."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from equipoise.records import Prediction

UNTRAINED = "untrained"
KEEP_TASKS = ("locality", "retention")  # shares of what the untrained model knew
FEWEST = 5  # fewer known items tell nothing about what was kept


class Key(NamedTuple):
    """Names one question whatever model answers it."""

    task: str
    item: str
    phrasing: int
    form: str


def key_of(row: Prediction) -> Key:
    """Return the question that a row answers."""
    return Key(row.task, row.item, row.phrasing, row.form)


def untrained_answers(predictions: Iterable[Prediction]) -> dict[Key, Prediction]:
    """Return the untrained model's answer to each question."""
    return {key_of(row): row for row in predictions if row.method == UNTRAINED}


def known_only(predictions: Sequence[Prediction], before: dict[Key, Prediction]) -> list[Prediction]:
    """Leave out the questions of keep tasks that the untrained model did not answer right: nothing can be lost there.

    Without an untrained model, all rows stay.
    """
    if not before:
        return list(predictions)
    known = {key for key, row in before.items() if row.score == 1.0}
    return [row for row in predictions if row.task not in KEEP_TASKS or key_of(row) in known]


def knowledge(before: dict[Key, Prediction]) -> dict[str, dict[str, int]]:
    """Count for each task how many questions were asked and how many the untrained model answered right."""
    counts: dict[str, dict[str, int]] = {}
    for key, row in before.items():
        count = counts.setdefault(key.task, {"asked": 0, "right": 0})
        count["asked"] += 1
        count["right"] += row.score == 1.0
    return counts


def cannot_tell(counts: dict[str, dict[str, int]]) -> dict[str, str]:
    """Return, for each task on which the untrained model leaves nothing to measure, why, and what to do instead."""
    reasons = {}
    for task, count in counts.items():
        asked, right = count["asked"], count["right"]
        if task in KEEP_TASKS and right < min(FEWEST, asked):
            reasons[task] = (
                f"the untrained model answered {right} of {asked} questions right, too few to see what is lost; "
                "give rows that the model knows, or ask them in the form that it uses (data.ask)"
            )
        elif task not in KEEP_TASKS and right == asked:
            reasons[task] = (
                f"the untrained model answered all {asked} questions right before training, so nothing can be "
                "corrected; choose rows that it gets wrong (data.select)"
            )
    return reasons


def change_of(before: float, after: float) -> str:
    """Name what became of an answer: `kept`, `lost`, `gained` or `never known`."""
    if before == 1.0:
        return "kept" if after == 1.0 else "lost"
    return "gained" if after == 1.0 else "never known"


def changes(predictions: Iterable[Prediction], before: dict[Key, Prediction]) -> list[dict[str, Any]]:
    """List each answer of a trained model beside the untrained model's, both in full.

    Answers to keep tasks that stayed right or stayed wrong are counted elsewhere and left out.
    """
    rows = []
    for row in predictions:
        first = before.get(key_of(row))
        if row.method == UNTRAINED or first is None:
            continue
        change = change_of(first.score, row.score)
        if row.task in KEEP_TASKS and change in ("kept", "never known"):
            continue
        shown = row.model_dump(include={"method", "seed", "task", "item", "phrasing", "form", "prompt", "gold", "old"})
        rows.append(shown | {"change": change, "before": first.output, "after": row.output, "cut": row.cut})
    return rows
