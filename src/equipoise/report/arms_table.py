"""The table of arms: answers in one part, likelihoods and drift in another; each column says its unit and its n."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from equipoise.records import IN_NATS, KEEP_TASKS
from equipoise.report import tables
from equipoise.report.arms import Arm
from equipoise.report.page import MARKS, mapping
from equipoise.report.reading import RunData

BLIND = MARKS["blind"]


def arms_tables(run: RunData, analysis: Mapping[str, Any], arms: Mapping[str, Arm]) -> list[dict[str, Any]]:
    """Lay out the means of every arm, on ten tasks at most five side by side."""
    if not analysis:
        return []
    likelihood = [task for task in analysis["tasks"] if task in tables.BY_LIKELIHOOD]
    answered = [task for task in analysis["tasks"] if task not in likelihood]
    parts = [("By its answers", answered), ("By likelihood: nothing is generated", likelihood)]
    made = [_table(run, analysis, arms, title, tasks) for title, tasks in parts if tasks]
    for part in made[1:]:
        part |= {"shares": False, "safety": False}
    return made


def _table(
    run: RunData, analysis: Mapping[str, Any], arms: Mapping[str, Arm], title: str, tasks: list[str]
) -> dict[str, Any]:
    shares = analysis.get("correction_share_of_sft") or {}
    rows = [
        {
            "arm": arms[name],
            "values": [_value(analysis, task, scores.get(task)) for task in tasks],
            "share": tables.value("correction, share of SFT's", shares.get(name), highest=math.inf),
            "safety": tables.safety(analysis, name),
        }
        for name, scores in analysis["arms"].items()
    ]
    return {
        "title": title,
        "heads": [{"task": task, "notes": _notes(run, analysis, task)} for task in tasks],
        "rows": rows,
        "untrained": [_untrained(analysis, task) for task in tasks],
        "shares": any(mapping(share).get("mean") is not None for share in shares.values()),
        "safety": any(row["safety"] for row in rows),
    }


def _value(analysis: Mapping[str, Any], task: str, scores: Any) -> tables.Value:
    found = tables.value(task, scores)
    if found.mean is None or task not in mapping(analysis.get("cannot_tell")):
        return found
    return replace(found, text=f"{BLIND} {found.text}", mean=None)  # nothing is drawn of what tells nothing


def _notes(run: RunData, analysis: Mapping[str, Any], task: str) -> list[str]:
    """Say below the name of a task what its n is, its unit where it is no share, and whether it tells anything."""
    known, n = mapping(mapping(analysis.get("known")).get(task)), tables.item_counts(run).get(task)
    if task in IN_NATS:
        notes = ["nats per token, less is better"] + ([f"n = {n} texts"] if n else [])
    elif task in KEEP_TASKS and known:
        notes = [f"n = {known['right']} of {known['asked']} that the untrained model knew"]
    else:
        n = known.get("asked", n)
        notes = [] if n is None else [f"n = {n}"]
    return notes + ([f"{BLIND} {tables.CANNOT_TELL}"] if task in mapping(analysis.get("cannot_tell")) else [])


def _untrained(analysis: Mapping[str, Any], task: str) -> tables.Value:
    known = mapping(mapping(analysis.get("known")).get(task))
    if task in KEEP_TASKS and known:  # it is what the others are measured against
        return tables.Value(task, None, f"knew {known['right']} of {known['asked']}", "", None, None)
    return tables.value(task, (analysis.get("untrained") or {}).get(task))
