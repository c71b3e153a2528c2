"""The account of a scan: counts by class, tables by field, where the tokens lie, and the examples to list."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.records import Example
from equipoise.signals.classes import CLASSES, CONFLICT, Thresholds, classify, contradiction, flagged_at, separating_tau

Floats = NDArray[np.floating[Any]]
PUBLISHED_TAU = 5.0
SHOWN = 80  # tokens of a listed example, about the one that contradicts most
MOST_VALUES, LONGEST_VALUE = 12, 60  # of a field of meta that gets a table
CELLS, H_RANGE, NLL_RANGE = 48, (-5.0, 0.0), (-4.0, 1.6)  # of the plane: log10 of h and of nll
DIGITS = 5


class Tally:
    """Takes example after example.

    Args:
        vocab: V, by which h is normalized.
        top: how many of the examples that contradict the model most are listed.
        decode: the text of a token id.
    """

    def __init__(self, vocab: int, thresholds: Thresholds, top: int, decode: Callable[[int], str]):
        self.vocab, self.thresholds, self.top, self.decode = vocab, thresholds, top, decode
        self._nll: list[Floats] = []
        self._h: list[Floats] = []
        self._worst = np.zeros(len(CLASSES), int)  # examples by the class of their most surprising token
        self._with_conflict = 0
        self._fields: dict[str, dict[str, dict[str, Any]] | None] = {}
        self._heap: list[tuple[float, int, dict[str, Any]]] = []

    def add(
        self, example: Example, targets: list[int], nll: Floats, h: Floats, said: list[int]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Take one example; targets, nll, h and said (the model's own choice) are [n]. Returns its two rows."""
        classes = classify(nll, h, self.vocab, self.thresholds)
        against = np.where(classes == CONFLICT, contradiction(nll, h, self.vocab), 0.0)
        at, counts = int(nll.argmax()), np.bincount(classes, minlength=len(CLASSES))
        summary = {
            "item": example.id,
            "source": example.meta.get("source"),
            "tokens": len(nll),
            "class": CLASSES[classes[at]],
            "most_surprising": at,
            "nll": _rounded(nll.mean()),
            "h": _rounded(h.mean()),
            **{name: int(n) for name, n in zip(CLASSES, counts)},
            "contradiction": _rounded(against.max()),
        }
        self._nll.append(nll)
        self._h.append(h)
        self._worst[classes[at]] += 1
        self._with_conflict += int(counts[CONFLICT] > 0)
        self._by_field(example, counts)
        if counts[CONFLICT] and self.top:
            kept = {"example": example, "summary": summary, "columns": (targets, nll, h, said, classes), "at": against}
            # Of two alike the earlier one stays, and the number keeps dicts from being compared.
            heapq.heappush(self._heap, (float(against.max()), -len(self._nll), kept))
            if len(self._heap) > self.top:
                heapq.heappop(self._heap)
        arrays = {
            "item": example.id,
            "nll": nll.astype(float).round(DIGITS).tolist(),
            "h": h.astype(float).round(2 * DIGITS).tolist(),
            "class": [CLASSES[c] for c in classes],
        }
        return summary, arrays

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
        nll, h = np.concatenate(self._nll), np.concatenate(self._h)
        classes = classify(nll, h, self.vocab, self.thresholds)
        counts = np.bincount(classes, minlength=len(CLASSES))
        return {
            "vocabulary": self.vocab,
            "thresholds": {
                **self.thresholds.model_dump(),
                "surprising_nll": _rounded(self.thresholds.surprising),
                "sure_h": self.thresholds.sure_h(self.vocab),
            },
            "n_tokens": len(nll),
            "n_examples": len(self._nll),
            "tokens": dict(zip(CLASSES, counts.tolist())),
            "examples": dict(zip(CLASSES, self._worst.tolist())),
            "examples_with_conflict": self._with_conflict,
            "mean_nll": _rounded(nll.mean()),
            "mean_h": _rounded(h.mean()),
            "tau": separating_tau(nll, h, classes),
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

    def _listed(self, row: dict[str, Any]) -> dict[str, Any]:
        example: Example = row["example"]
        targets, nll, h, said, classes = row["columns"]
        at = int(row["at"].argmax())
        start = max(0, min(at - SHOWN // 4, len(targets) - SHOWN))
        tokens = [
            {
                "token": self.decode(targets[i]),
                "nll": _rounded(nll[i]),
                "h": _rounded(h[i]),
                "class": CLASSES[classes[i]],
                "expected": None if said[i] == targets[i] else self.decode(said[i]),
            }
            for i in range(start, min(start + SHOWN, len(targets)))
        ]
        return {**row["summary"], "prompt": example.prompt, "at": at - start, "start": start, "shown": tokens}


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


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)
