"""From the finished cells of a grid to its results, analysis and summary; torch-free, and can be done again."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from equipoise.journal import read_journal, write_atomic, write_json, write_jsonl
from equipoise.metrics.detection import detection
from equipoise.protocols.analysis import analyze
from equipoise.protocols.before_after import before_and_after, cut_notes
from equipoise.protocols.kept import (
    COMPARED,
    cannot_tell,
    changes,
    cut_off,
    item_scores,
    knowledge,
    known_only,
    untrained_scores,
)
from equipoise.protocols.scores import UNTRAINED, ItemScore
from equipoise.protocols.summary import summary
from equipoise.records import KEEP_TASKS, Drift, Prediction, Preference, Result


def finish(
    folder: Path, *, protocol: str | None, margin: float, tau: float | None, rehearsed: bool = False
) -> dict[str, Any]:
    """Gather every finished cell of `folder` into results, tokens, analysis and `SUMMARY.md`; return the analysis.

    Args:
        rehearsed: whether the rows that locality is measured on were trained on too, which is then noted.
    """
    journalled = read_journal(folder / "cells.jsonl").rows
    rows = [row for row in journalled if "failed" not in row]
    cells = [row["cell"] for row in rows]
    results = [Result(**row) for cell in cells for row in _read(folder, cell, "results.json")]
    predictions = [Prediction(**row) for cell in cells for row in _rows(folder, cell, "predictions.jsonl")]
    compared = [Preference(**row) for cell in cells for row in _rows(folder, cell, "preferences.jsonl")]
    moved = [Drift(**row) for cell in cells for row in _rows(folder, cell, "drift.jsonl")]
    for name, each in (("predictions", predictions), ("preferences", compared), ("drift", moved)):
        if each:
            write_jsonl(folder / f"{name}.jsonl", [row.model_dump() for row in each])
    changed = changes(predictions)
    write_jsonl(folder / "changes.jsonl", changed)
    scores = item_scores(predictions, compared)
    answered = untrained_scores(scores)
    scores = known_only(scores, answered)
    results = of_what_was_known(results, scores)
    write_json(folder / "results.json", [row.model_dump() for row in results])
    before = _rows(folder, UNTRAINED, "tokens.jsonl")
    write_jsonl(folder / "tokens.jsonl", tokens_before_and_after(folder, before, cells))
    if {"sft", "r-eaft"} <= {row.method for row in results}:
        write_json(folder / "missed.json", missed(predictions, before))
    probes = _rows(folder, UNTRAINED, "probes.jsonl")
    if any(row["knowledge"] for row in probes):
        write_json(folder / "detection.json", detection(probes, tau_in_use=tau, vocab_size=rows[0]["vocab_size"]))
    counts = knowledge(answered)
    main = [row for row in results if row.metric != "exact" and "/" not in row.task]  # the rest is detail
    analysis = analyze(main, protocol=protocol, margin=margin, predictions=scores, unmeasured=cannot_tell(counts))
    analysis["cut_off"] = cut_off(predictions)
    analysis["known"] = counts
    notes = [f"{row['cell']} is left out: {row['failed']}." for row in journalled if "failed" in row]
    notes += (
        ["locality: asked of rows that were trained on too, so it says nothing about other facts."] if rehearsed else []
    )
    analysis["notes"] = [*notes, *cut_notes(analysis["cut_off"]), *analysis["notes"]]
    if not analysis["hypotheses"]:
        analysis["before_and_after"] = before_and_after(analysis, changed, rehearsed=rehearsed)
    write_json(folder / "analysis.json", analysis)
    write_atomic(folder / "SUMMARY.md", summary(analysis))
    return analysis


def of_what_was_known(results: Sequence[Result], scores: Iterable[ItemScore]) -> list[Result]:
    """Replace shares of right answers on keep tasks by shares of what the untrained model knew, and add preferences.

    Args:
        scores: without the questions that it did not know.
    """
    groups: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for row in scores:
        groups[row.method, row.seed, row.task].append(row.score)
    made = (*KEEP_TASKS, *COMPARED.values())
    kept = [row for row in results if row.task not in made or row.metric != "accuracy"]
    return kept + [
        Result(method=method, seed=seed, task=task, metric="accuracy", value=fmean(values), n=len(values))
        for (method, seed, task), values in groups.items()
        if task in made
    ]


def _read(folder: Path, cell: str, name: str) -> list[dict[str, Any]]:
    return json.loads((folder / "cells" / cell / name).read_text(encoding="utf-8"))


def _rows(folder: Path, cell: str, name: str) -> list[dict[str, Any]]:
    path = folder / "cells" / cell / name
    return read_journal(path).rows if path.exists() else []


def tokens_before_and_after(folder: Path, before: list[dict[str, Any]], cells: list[str]) -> list[dict[str, Any]]:
    """Put beside each training token of the untrained model its mean nll and h after training, by arm over seeds."""
    after: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    for cell in cells:
        if cell != UNTRAINED:
            after[cell.partition("/")[0]].append(_rows(folder, cell, "tokens.jsonl"))
    return [
        row
        | {"after": {arm: {k: fmean(run[i][k] for run in runs) for k in ("nll", "h")} for arm, runs in after.items()}}
        for i, row in enumerate(before)
    ]


def missed(predictions: list[Prediction], tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """List the items that sft corrects in more seeds than r-eaft does, with their most shocked token beforehand."""
    right: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    items: dict[str, Prediction] = {}
    for row in predictions:
        if row.task == "correction" and row.method in ("sft", "r-eaft"):
            right[row.item][row.method] += row.score == 1.0
            items[row.item] = row
    rows = []
    for item, counts in right.items():
        lost = counts["sft"] - counts["r-eaft"]
        if lost > 0:
            worst = max((t for t in tokens if t["item"] == item), key=lambda t: t["shock"], default=None)
            numbers = {k: worst[k] for k in ("h", "nll", "shock")} if worst else {}
            shown = {k: getattr(items[item], k) for k in ("item", "prompt", "gold", "old")}
            rows.append(shown | {"seeds": lost, **numbers})
    return sorted(rows, key=lambda row: -row["seeds"])
