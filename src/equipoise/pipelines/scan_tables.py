"""The account of a scan: counts by class, tables by field, where the tokens lie, and the examples to list."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.pipelines.scan_readings import Floats, Reading, Row, logp_new
from equipoise.records import Example
from equipoise.signals.classes import (
    CLASSES,
    CONCLUSIONS,
    CONFLICT,
    STABLE,
    Thresholds,
    classify,
    conclusion,
    contradiction,
    flagged_at,
    reread,
    separating_delta,
    separating_tau,
)

PREFERENCES = ("the outdated answer", "neither", "the new answer")  # which one the model prefers
PREFERS = math.log(10)  # nats between the two from which on it does
PUBLISHED_TAU = 5.0
SHOWN = 80  # tokens of a listed example, about the one that contradicts most
MOST_VALUES, LONGEST_VALUE = 12, 60  # of a field of meta that gets a table
CELLS, H_RANGE, NLL_RANGE = 48, (-5.0, 0.0), (-4.0, 1.6)  # of the plane: log10 of h and of nll
DIGITS = 5


class Tally:
    """Takes row after row.

    Args:
        vocab: V, by which h is normalized.
        top: how many of the rows that contradict the model most are listed.
        decode: the text of a token id.
        trusted: whether the second reading, after examples, says what is form alone.
    """

    def __init__(
        self, vocab: int, thresholds: Thresholds, top: int, decode: Callable[[int], str], *, trusted: bool = False
    ):
        self.vocab, self.thresholds, self.top, self.decode, self.trusted = vocab, thresholds, top, decode, trusted
        self._first: list[Reading] = []
        self._classes: list[NDArray[np.int8]] = []
        self._worst = np.zeros(len(CLASSES), int)  # rows by the class of their most surprising token
        self._conclusions = dict.fromkeys(CONCLUSIONS, 0)
        self._with_conflict = 0
        self._old = dict.fromkeys(PREFERENCES, 0)
        self._fields: dict[str, dict[str, dict[str, Any]] | None] = {}
        self._heap: list[tuple[float, int, dict[str, Any]]] = []

    def add(self, row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
        """Take a row with its readings. Returns what `examples.jsonl` and `tokens.jsonl` say of it."""
        assert row.first is not None
        first, example = row.first, row.example
        classes, read = self._classes_of(row)
        against = np.where(classes == CONFLICT, contradiction(read.nll, read.h, self.vocab), 0.0)
        at, counts = int(read.nll.argmax()), np.bincount(classes, minlength=len(CLASSES))
        concluded = conclusion(classes, read.nll, self.thresholds)
        summary = {
            "item": example.id,
            "source": example.meta.get("source"),
            "conclusion": concluded,
            "tokens": len(first.nll),
            "class": CLASSES[classes[at]],
            "most_surprising": at,
            "nll": _rounded(first.nll.mean()),
            "h": _rounded(first.h.mean()),
            **{name: int(n) for name, n in zip(CLASSES, counts)},
            "contradiction": _rounded(against.max()),
            "read_after": [shot.id for shot in row.shots],
            **self._preference(row),
        }
        self._first.append(first)
        self._classes.append(classes)
        self._worst[classes[at]] += 1
        self._conclusions[concluded] += 1
        self._with_conflict += int(counts[CONFLICT] > 0)
        self._by_field(example, counts)
        if counts[CONFLICT] and self.top:
            kept = {"row": row, "summary": summary, "read": read, "classes": classes, "at": against}
            # Of two alike the earlier one stays, and the number keeps dicts from being compared.
            heapq.heappush(self._heap, (float(against.max()), -len(self._first), kept))
            if len(self._heap) > self.top:
                heapq.heappop(self._heap)
        arrays = {
            "item": example.id,
            "nll": _column(first.nll, DIGITS),
            "h": _column(first.h, 2 * DIGITS),
            "nll_shown": None if row.shown is None else _column(row.shown.nll, DIGITS),
            "h_shown": None if row.shown is None else _column(row.shown.h, 2 * DIGITS),
            "class": [CLASSES[c] for c in classes],
        }
        return summary, arrays

    def _classes_of(self, row: Row) -> tuple[NDArray[np.int8], Reading]:
        """The class of each token, and what it is by: the second reading where the first was not sure of the token."""
        assert row.first is not None
        first, shown = row.first, row.shown
        before = classify(first.nll, first.h, self.vocab, self.thresholds)
        if shown is None or not self.trusted:
            return before, first
        again = (before != STABLE) & ~np.isnan(shown.nll)
        said = [b if use else a for use, a, b in zip(again, first.said, shown.said)]
        nll, h, logp = (
            np.where(again, b, a)
            for a, b in ((first.nll, shown.nll), (first.h, shown.h), (first.logp_said, shown.logp_said))
        )
        after = reread(before, shown.nll, shown.logp_said, self.thresholds, ends=row.ends, opens=row.opens)
        return after, Reading(nll, h, said, logp)

    def _preference(self, row: Row) -> dict[str, Any]:
        """How much likelier the new answer is than the outdated one, in nats; nothing where there is none."""
        if row.logp_old is None:
            return {}
        margin = logp_new(row, self.trusted) - row.logp_old
        name = PREFERENCES[0 if margin <= -PREFERS else 1 if margin < PREFERS else 2]
        self._old[name] += 1
        return {"margin_over_old": _rounded(margin)}

    def _by_field(self, example: Example, counts: NDArray[np.int64]) -> None:
        for name, value in example.meta.items():
            if name == "source":  # the line of the row
                continue
            held = self._fields.setdefault(name, {})
            if held is None or not isinstance(value, str) or not 0 < len(value) <= LONGEST_VALUE:
                continue
            row = held.setdefault(value, {"examples": 0, "with_conflict": 0, "tokens": np.zeros(len(CLASSES), int)})
            row["examples"] += 1
            row["with_conflict"] += int(counts[CONFLICT] > 0)
            row["tokens"] += counts
            if len(held) > MOST_VALUES:
                self._fields[name] = None

    def result(self) -> dict[str, Any]:
        """What `scan.json` says of the tokens."""
        nll, h = (np.concatenate([getattr(read, name) for read in self._first]) for name in ("nll", "h"))
        classes = np.concatenate(self._classes)
        counts = np.bincount(classes, minlength=len(CLASSES))
        return {
            "vocabulary": self.vocab,
            "thresholds": {
                **self.thresholds.model_dump(),
                "surprising_nll": _rounded(self.thresholds.surprising),
                "sure_h": self.thresholds.sure_h(self.vocab),
            },
            "n_tokens": len(nll),
            "n_examples": len(self._first),
            "conclusions": dict(self._conclusions),
            "old": self._old if any(self._old.values()) else None,
            "tokens": dict(zip(CLASSES, counts.tolist())),
            "examples": dict(zip(CLASSES, self._worst.tolist())),
            "examples_with_conflict": self._with_conflict,
            "mean_nll": _rounded(nll.mean()),
            "mean_h": _rounded(h.mean()),
            "tau": separating_tau(nll, h, classes),
            "delta": self._delta(classes),
            "flagged_at_published_tau": flagged_at(nll, h, PUBLISHED_TAU),
            "by": {name: _table(held) for name, held in self._fields.items() if held and len(held) > 1},
            "plane": {
                "cells": CELLS,
                "log10_h": H_RANGE,
                "log10_nll": NLL_RANGE,
                "counts": {name: _plane(nll[classes == c], h[classes == c]) for c, name in enumerate(CLASSES)},
            },
            "listed": [
                self._listed(row) for _, _, row in sorted(self._heap, key=lambda found: found[:2], reverse=True)
            ],
        }

    def _delta(self, classes: NDArray[np.int8]) -> dict[str, Any] | None:
        tails = [read.tail for read in self._first if read.tail is not None]
        return separating_delta(np.concatenate(tails), classes) if len(tails) == len(self._first) else None

    def _listed(self, row: dict[str, Any]) -> dict[str, Any]:
        held: Row = row["row"]
        read: Reading = row["read"]
        targets, classes, at = held.targets, row["classes"], int(row["at"].argmax())
        start = max(0, min(at - SHOWN // 4, len(targets) - SHOWN))
        tokens = [
            {
                "token": self.decode(targets[i]),
                "nll": _rounded(read.nll[i]),
                "h": _rounded(read.h[i]),
                "class": CLASSES[classes[i]],
                "expected": None if read.said[i] == targets[i] else self.decode(read.said[i]),
            }
            for i in range(start, min(start + SHOWN, len(targets)))
        ]
        return {**row["summary"], "prompt": held.example.prompt, "at": at - start, "start": start, "shown": tokens}


def _table(held: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [
        {"value": value, **row, "tokens": dict(zip(CLASSES, row["tokens"].tolist()))} for value, row in held.items()
    ]
    return sorted(rows, key=lambda row: (-row["examples"], row["value"]))


def _plane(nll: Floats, h: Floats) -> list[list[int]]:
    """Cells of a grid over log10 h and log10 nll that hold tokens, as [column, row, count]; the edges take the rest."""
    columns, rows = (
        np.clip((np.log10(np.maximum(values, 1e-9)) - low) / (high - low) * CELLS, 0, CELLS - 1).astype(int)
        for values, (low, high) in ((h, H_RANGE), (nll, NLL_RANGE))
    )
    cells, counts = np.unique(np.stack([columns, rows]), axis=1, return_counts=True)
    return [[int(x), int(y), int(n)] for (x, y), n in zip(cells.T, counts)]


def _column(values: Floats, digits: int) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values.astype(float).round(digits)]


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)
