"""Single answers of an instruct run, side by side: the same question to every stage."""

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from equipoise.report.instruct_reading import LABELS, UNTRAINED, InstructRun

SHOWN, TEXT = 5, 600  # rows of a kind; characters of a text
Row = Mapping[str, Any]


def answers(found: InstructRun) -> list[dict[str, Any]]:
    """Give questions of the first seed by what became of them: gained, lost, never right; of each part some."""
    by_stage = _of_first_seed(found.answers)
    asked = [name for name in found.stages if name in by_stage]
    if UNTRAINED not in asked or len(asked) < 2:
        return []
    shared = [key for key in by_stage[asked[0]] if all(key in by_stage[name] for name in asked)]
    questions = [[by_stage[name][key] for name in asked] for key in shared]
    kinds = {
        "right in the end, not before": lambda right: right[-1] and not right[0],
        "right once, wrong in the end": lambda right: any(right) and not right[-1],
        "never right": lambda right: not any(right),
        "right all along": all,
    }
    groups = []
    for title, belongs in kinds.items():
        some = [rows for rows in questions if belongs([bool(row["exact"]) for row in rows])]
        shown = [_shown(rows, asked) for rows in _spread(some)[:SHOWN]]
        groups.append({"title": title, "rows": shown, "n": len(some), "of": len(questions)})
    return groups


def _of_first_seed(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Rows by stage and id; the untrained model has one seed of its own."""
    by_stage: dict[str, dict[str, Row]] = {}
    first: dict[str, Any] = {}
    for row in rows:
        stage = str(row["method"])
        if row.get("seed") == first.setdefault(stage, row.get("seed")):
            by_stage.setdefault(stage, {})[str(row["id"])] = row
    return by_stage


def _spread(questions: list[list[Row]]) -> list[list[Row]]:
    """The same questions, their parts taking turns."""
    by_part: dict[str, list[list[Row]]] = {}
    for rows in questions:
        by_part.setdefault(str(rows[0].get("part")), []).append(rows)
    turns = chain.from_iterable(zip_longest(*by_part.values()))
    return [rows for rows in turns if rows is not None]


def _shown(rows: Sequence[Row], asked: Sequence[str]) -> dict[str, Any]:
    return {
        "prompt": _cut(rows[0]["prompt"]),
        "part": str(rows[0].get("part", "")),
        "gold": _cut(rows[0]["gold"]),
        "said": [
            {
                "stage": LABELS[name],
                "text": _cut(row["output"]),
                "right": bool(row["exact"]),
                "note": "cut at the limit" if row["cut"] else "",
            }
            for name, row in zip(asked, rows, strict=True)
        ],
    }


def sanity(found: InstructRun) -> dict[str, Any] | None:
    """Give the prompts for people to read, with the answers of the first seed of every stage side by side."""
    by_id: dict[str, dict[str, Row]] = {}
    for row in found.sanity or []:
        name = str(row["method"] if "method" in row else row["model"])
        by_id.setdefault(str(row.get("id", row["prompt"])), {}).setdefault(name, row)
    asked = list(dict.fromkeys([*LABELS, *(name for by in by_id.values() for name in by)]))
    asked = [name for name in asked if any(name in by for by in by_id.values())]
    rows = [
        {
            "prompt": _cut(next(iter(by.values()))["prompt"]),
            "kind": "open" if all(row.get("passed") is None for row in by.values()) else "checkable",
            "said": [{"stage": LABELS.get(name, name), **_said(by.get(name))} for name in asked],
        }
        for by in by_id.values()
    ]
    return {"stages": [_passed(name, by_id) for name in asked], "rows": rows} if rows else None


def _passed(name: str, by_id: Mapping[str, Mapping[str, Row]]) -> tuple[str, str]:
    """Name a stage, and say how many of its checks it passed."""
    checks = [row["passed"] for by in by_id.values() if (row := by.get(name)) and row.get("passed") is not None]
    return LABELS.get(name, name), f"{sum(checks)} of {len(checks)} right" if checks else ""


def _said(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"text": "", "right": None, "note": ""}
    return {"text": _cut(row["output"]), "right": row.get("passed"), "note": str(row.get("problem") or "")}


def _cut(text: Any) -> str:
    text = str(text)
    return text if len(text) <= TEXT else text[:TEXT] + "…"
