"""The tables of an instruct page: stages, what each changed, answers by part, cleaning, splits."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from equipoise.data.rules import RULES
from equipoise.report.confidence_words import percent
from equipoise.report.instruct_reading import DROPPED, LABELS, UNTRAINED, InstructRun
from equipoise.report.instruct_words import MEASURES, change, in_interval, judged
from equipoise.report.page import mapping, sequence
from equipoise.report.synthetic_tables import cell
from equipoise.report.tables import Value, value

SHOWN = 3  # rows left out, of each rule
SHARES = ("exact", "pairs", "pairs_per_token")


def stages(found: InstructRun) -> list[dict[str, Any]]:
    """Give a row a stage: each measure with its interval, steps and time of training."""
    scores = found.analysis.get("scores") or {}
    names = [name for name in MEASURES if any(name in by for by in scores.values())]
    rows = []
    for stage in (stage for stage in found.stages if stage in scores):
        own = [row for row in found.cells if row.get("method") == stage and stage != UNTRAINED]
        cells = [_score(name, scores[stage].get(name)) for name in names]
        if found.cells:
            steps, seconds = ([float(row[key]) for row in own if key in row] for key in ("steps", "seconds"))
            spread = f"{fmean(steps):,.0f} steps" if steps else ""
            cells.append(cell("training", f"{fmean(seconds):,.0f} s" if seconds else "", spread))
        rows.append({"stage": stage, "name": LABELS[stage], "cells": cells})
    return rows


def _score(name: str, scores: Any) -> dict[str, str]:
    measure = MEASURES[name]
    if not scores:
        return cell(measure.title)
    ends = [scores.get("low"), scores.get("high")]
    if None in ends:
        return cell(measure.title, measure.write(scores["mean"]))
    highest = 1.0 if name in SHARES else float("inf")
    ends = [measure.write(min(max(end, 0.0), highest)).rstrip("%") for end in ends]
    return cell(measure.title, measure.write(scores["mean"]), " to ".join(ends))


def changes(found: InstructRun) -> list[dict[str, Any]]:
    """Give a row for each two stages that are compared: what the later one changed, with intervals."""
    rows = sequence(found.analysis.get("changes"))
    names = [name for name in MEASURES if any(row["measure"] == name for row in rows)]
    table = []
    for stage, against in dict.fromkeys((row["stage"], row["against"]) for row in rows):
        cells = []
        for name in names:
            row = change(found, name, stage, against)
            made = cell(f"{MEASURES[name].title}, {MEASURES[name].unit}".removesuffix(", tokens"))
            if row:
                made |= {"text": MEASURES[name].change(row["estimate"]), "range": in_interval(name, row)}
                kind = "none" if MEASURES[name].higher_is_better is None else judged(name, row, "", "")[0]
                made |= {"kind": kind if kind in ("yes", "no") else ""}
            cells.append(made)
        table.append({"stage": LABELS[stage], "against": LABELS[against], "cells": cells})
    return table


def parts(found: InstructRun) -> list[dict[str, Any]]:
    """Give a row a part: how many questions, and the exact answers of each stage."""
    counts: dict[str, set[Any]] = {}
    for row in found.answers:
        counts.setdefault(str(row.get("part")), set()).add(str(row.get("id")))
    return [
        {"part": part, "n": f"{len(counts.get(part, ())):,}", "values": [_exact(by, stage) for stage in found.stages]}
        for part, by in (found.analysis.get("parts") or {}).items()
    ]


def _exact(by_stage: Mapping[str, Any], stage: str) -> Value:
    scores = by_stage.get(stage)
    if not scores:
        return value(LABELS[stage], None)
    return value(LABELS[stage], {"mean": scores["mean"], "ci": [scores.get("low"), scores.get("high")]})


# ---- data


def cleaning(found: InstructRun) -> list[dict[str, Any]]:
    """Give, for each folder of data that was cleaned, the rows of every rule; held-out data only where it lost rows."""
    reports = mapping(found.data.get("cleaning"))
    return [
        _account(name, reports[name])
        for name in sorted(reports, key=lambda name: name != "train")
        if name == "train" or reports[name]["dropped"]
    ]


def _account(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    rows_in = report["rows_in"]
    order = list(RULES)
    dropped = sorted(report["dropped"].items(), key=lambda entry: order.index(entry[0]) if entry[0] in RULES else 99)
    rows = [(rule, f"{n:,}", percent(n / rows_in), RULES.get(rule, "")) for rule, n in dropped]
    lengths = mapping(report.get("lengths"))
    return {
        "name": name,
        "rows": [
            ("read", f"{rows_in:,}", "100.0%", ""),
            *rows,
            ("kept", f"{report['kept']:,}", percent(report["kept"] / rows_in) if rows_in else "–", _kinds(report)),
        ],
        "changed": [f"{n:,} by {rule}" for rule, n in report["changed"].items()],
        "came": [
            (title, ", ".join(f"{word} {n:,}" for word, n in mapping(report.get(key)).items()))
            for title, key in (("schemas", "schemas"), ("licences of what stayed", "licences"),
                               ("languages of what stayed", "languages"))
            if report.get(key)
        ],
        "unit": str(lengths.get("unit", "")),
        "lengths": [
            {"when": when, "cells": [cell(share, f"{n:,}") for share, n in mapping(lengths.get(key)).items()]}
            for when, key in (("as read", "before"), ("in the end", "after"))
            if mapping(lengths.get(key))
        ],
    }  # fmt: skip


def _kinds(report: Mapping[str, Any]) -> str:
    kinds = mapping(report.get("kept_by_kind"))
    return ", ".join(f"{n:,} {'instructions' if kind == 'examples' else kind}" for kind, n in kinds.items())


def left_out(found: InstructRun) -> list[dict[str, Any]] | None:
    """Give the first rows that each rule left out of the training data, with their reasons."""
    if DROPPED in found.run.problems and not found.dropped:
        return None
    by_rule: dict[str, list[Mapping[str, Any]]] = {}
    for row in found.dropped:
        by_rule.setdefault(str(row["rule"]), []).append(row)
    return [
        {
            "source": _place(str(row.get("source", ""))),
            "rule": rule,
            "reason": _places(str(row.get("reason", "")), row.get("twin")),
            "excerpt": str(row.get("excerpt", "")),
        }
        for rule in sorted(by_rule, key=lambda rule: list(RULES).index(rule) if rule in RULES else 99)
        for row in by_rule[rule][:SHOWN]
    ]


def _place(source: str) -> str:
    """File and line, without the folders before it."""
    return source.replace("\\", "/").rsplit("/", 1)[-1]


def _places(reason: str, twin: Any) -> str:
    return reason.replace(twin, _place(twin)) if isinstance(twin, str) and twin else reason


def splits(found: InstructRun) -> list[tuple[str, str, str]]:
    """Give each split with its numbers of instructions and of pairs."""
    counts = found.data.get("counts") or {}
    return [(str(name), f"{by['instructions']:,}", f"{by['pairs']:,}") for name, by in counts.items()]
