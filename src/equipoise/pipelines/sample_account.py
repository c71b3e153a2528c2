"""What a file of samples holds, model by model: how much can be read, how far samples agree, how right they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from equipoise.console import table
from equipoise.metrics.entities import Pair, exact, micro, sentence_f1
from equipoise.records import Sample
from equipoise.signals.samples import PseudoLabel, pseudo_label

Gold = Mapping[str, Sequence[Pair]]


def account(samples: Sequence[Sample], gold: Gold | None = None) -> dict[str, dict[str, Any]]:
    """Numbers of each model, in order of appearance; shares are of its samples.

    `agreement` is the mean over inputs of the share of samples that say what most of them say (None with one sample an
    input); `logprob` the mean per token in nats; `f1` and `label_f1` are strict micro F1 of the samples and of the
    answers that most of them give, on inputs that `gold` has.
    """
    return {model: _of_model([s for s in samples if s.model == model], gold or {}) for model in _models(samples)}


def agreements(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """For every two models, over the inputs that both answered: mean F1 between their labels, and the share of equal
    ones."""
    labels = {model: _labels([s for s in samples if s.model == model]) for model in _models(samples)}
    out = []
    for one, other in combinations(labels, 2):
        both = [(labels[one][id].entities, labels[other][id].entities) for id in labels[one] if id in labels[other]]
        if both:
            f1 = float(np.mean([sentence_f1(a, b) for a, b in both]))
            same = float(np.mean([exact(a, b) for a, b in both]))
            out.append({"models": [one, other], "inputs": len(both), "f1": f1, "same": same})
    return out


def show(samples: Sequence[Sample], gold: Gold | None = None) -> None:
    """Print a row a model, and a row for every two models that answered the same inputs."""
    numbers = account(samples, gold)
    columns = ["model", "samples", "inputs", "unreadable", "empty", "cut off", "thinking", "entities", "log p / token"]
    rows = [
        [
            model,
            str(n["samples"]),
            str(n["inputs"]),
            *(f"{n[name]:.1%}" for name in ("unreadable", "empty", "cut_off", "thinking")),
            _number(n["entities"]),
            _number(n["logprob"]),
        ]
        for model, n in numbers.items()
    ]
    for name, title in (("agreement", "agreement"), ("f1", "F1"), ("label_f1", "F1 of labels")):
        if any(n[name] is not None for n in numbers.values()):
            columns.append(title)
            for row, n in zip(rows, numbers.values()):
                row.append(_number(n[name]))
    table("samples", columns, rows)
    between = agreements(samples)
    if between:
        rows = [[" and ".join(b["models"]), str(b["inputs"]), f"{b['f1']:.3f}", f"{b['same']:.1%}"] for b in between]
        table("labels of two models", ["models", "inputs of both", "F1", "equal"], rows)


def _models(samples: Sequence[Sample]) -> list[str]:
    return list(dict.fromkeys(sample.model for sample in samples))


def _labels(samples: Sequence[Sample]) -> dict[str, PseudoLabel]:
    by_input: dict[str, list[Sample]] = {}
    for sample in samples:
        by_input.setdefault(sample.id, []).append(sample)
    return {id: pseudo_label(some) for id, some in by_input.items()}


def _of_model(samples: list[Sample], gold: Gold) -> dict[str, Any]:
    labels = _labels(samples)
    readable = [s for s in samples if s.entities is not None]
    tokens = [s.logprob / s.tokens for s in samples if s.logprob is not None and s.tokens]
    several = [label.signals["exact"] for label in labels.values() if label.samples > 1]
    said = [(_pairs(s), gold[s.id]) for s in samples if s.id in gold]
    voted = [(label.entities, gold[id]) for id, label in labels.items() if id in gold]
    return {
        "samples": len(samples),
        "inputs": len(labels),
        "unreadable": 1 - len(readable) / len(samples),
        "empty": sum(not s.entities for s in readable) / len(samples),
        "cut_off": sum(s.finish == "length" for s in samples) / len(samples),
        "thinking": sum(s.thinking > 0 for s in samples) / len(samples),
        "entities": _mean([len(s.entities or ()) for s in readable]),
        "logprob": _mean(tokens),
        "agreement": _mean(several),
        "f1": micro(said).f1 if said else None,
        "label_f1": micro(voted).f1 if voted else None,
    }


def _pairs(sample: Sample) -> list[Pair]:
    return [(entity.type, entity.text) for entity in sample.entities or ()]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
