"""One training example token by token, before and after training: coloured by nll, with the number written below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.colors import to_hex

from equipoise.report.arms import Arm

COLOURS = matplotlib.colormaps["YlOrRd"]
HOTTEST = 8.0  # nats; a token this surprising or more has the darkest colour
LONGEST = 80  # tokens shown of a long answer
VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Cell:
    """One token with its number and colours."""

    text: str
    number: str
    background: str
    ink: str
    tip: str
    conflict: bool


@dataclass(frozen=True)
class Line:
    """The example as one model sees it, and what that model answers (first seed), if it is known."""

    label: str
    colour: str | None
    cells: list[Cell]
    answer: str | None
    right: bool | None


@dataclass(frozen=True)
class Example:
    """The chosen example; `knowledge` says what the model knew of it, where the testbed tells."""

    item: str
    prompt: str | None
    gold: str | None
    knowledge: str | None
    lines: list[Line]
    cut: bool


def pick_item(tokens: Sequence[Mapping[str, Any]], arm: str | None) -> str | None:
    """Choose the item to show: of those with a confident conflict the most typical (median shock at the conflict).

    An item that `arm` left more surprising than it was is shown only if there is no other.
    """
    conflicts = [row for row in tokens if row.get("is_conflict")] or list(tokens)
    known_wrong = [row for row in conflicts if row.get("knowledge") == "confident-wrong"] or conflicts
    calmer = [row for row in known_wrong if _after(row, arm) is None or _after(row, arm) < row["nll"]] or known_wrong
    ranked = sorted(calmer, key=lambda row: (row["shock"], str(row["item"])))
    return str(ranked[len(ranked) // 2]["item"]) if ranked else None


def _after(row: Mapping[str, Any], arm: str | None) -> float | None:
    return ((row.get("after") or {}).get(arm) or {}).get("nll")


def heat_map(
    tokens: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]], arms: Mapping[str, Arm]
) -> Example | None:
    """Lay out one example before training and after each arm that was measured."""
    item = pick_item(tokens, "r-eaft" if "r-eaft" in arms else next(iter(arms), None))
    if item is None:
        return None
    whole = sorted((row for row in tokens if str(row["item"]) == item), key=lambda row: row["position"])
    rows = _window(whole)
    said = [row for row in predictions if str(row.get("item")) == item and row.get("task") == "correction"]
    lines = [_line("before training", None, rows, [(row["nll"], row["h"]) for row in rows], _said(said, "untrained"))]
    for name, arm in arms.items():
        values = [(row.get("after") or {}).get(name) for row in rows]
        if all(values):
            lines.append(
                _line(
                    f"after {arm.label}", arm.colour, rows, [(v["nll"], v["h"]) for v in values if v], _said(said, name)
                )
            )
    first = said[0] if said else {}
    return Example(
        item, first.get("prompt"), first.get("gold"), rows[0].get("knowledge"), lines, len(rows) < len(whole)
    )


def _window(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    conflict = next((i for i, row in enumerate(rows) if row.get("is_conflict")), 0)
    start = max(0, min(conflict - LONGEST // 4, len(rows) - LONGEST))
    return rows[start : start + LONGEST]


def _said(rows: Sequence[Mapping[str, Any]], method: str) -> Mapping[str, Any]:
    return next((row for row in rows if row.get("method") == method), {})


def _line(label: str, colour: str | None, rows: Sequence[Mapping], values: list, said: Mapping[str, Any]) -> Line:
    cells = [token_cell(row, nll, h) for row, (nll, h) in zip(rows, values)]
    score = said.get("score")
    return Line(label, colour, cells, said.get("output"), None if score is None else score >= 1)


def token_cell(row: Mapping[str, Any], nll: float, h: float, more: str = "") -> Cell:
    """Colour one token by its nll in nats; `more` goes to the end of its tip."""
    share = min(max(nll / HOTTEST, 0.0), 1.0)
    tip = f"nll {nll:.3g} nats, entropy h {h:.3g}, shock {nll / (h + 1e-6):.3g}{more}"
    return Cell(
        text=str(row["token"]).translate(VISIBLE) or "∅",
        number=f"{nll:.1f}" if nll >= 0.05 else "0",
        background=to_hex(COLOURS(0.85 * share)) if share > 0.01 else "#ffffe8",
        ink="#ffffff" if share > 0.7 else "#1f2328",
        tip=tip,
        conflict=bool(row.get("is_conflict")),
    )


def heat_scale() -> list[tuple[str, str]]:
    """Give (label, colour) for a legend of nll in nats."""
    marks = [("0", 0.0), ("1", 1.0), ("2", 2.0), ("4", 4.0), (f"≥ {HOTTEST:.0f}", HOTTEST)]
    return [(label, to_hex(COLOURS(0.85 * value / HOTTEST)) if value else "#ffffe8") for label, value in marks]
