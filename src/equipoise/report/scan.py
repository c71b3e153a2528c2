"""The page of a scan: what the data's tokens are to the model, and the examples that contradict it most."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from equipoise.errors import UserError
from equipoise.journal import write_atomic
from equipoise.report.heat import VISIBLE, heat_scale, token_cell
from equipoise.report.page import environment, frame, mapping, part, sequence
from equipoise.report.reading import RunData, read_json
from equipoise.report.svg import INK, MUTED, Panel, panel, plain_log

SCAN = "scan.json"
# Colours that differ in lightness too, for those who do not see all hues.
COLOURS = {
    "stable": "#56B4E9",
    "uncertain": "#0072B2",
    "conflict": "#D55E00",
    "unknown": "#7F7F7F",
    "form": "#009E73",
}
WORDS = {
    "stable": "sure of it, and right",
    "uncertain": "not sure, but it is among what was expected",
    "conflict": "sure of something else",
    "unknown": "not sure, and it was not expected",
    "form": "not expecting it as it is asked, but does once other rows have shown the form",
}
ROWS = {
    "known": ("stable", "expects it as it is asked"),
    "form": ("form", "expects it once other rows have shown the form of the answers"),
    "contradicted": ("conflict", "says something else, in this form too"),
    "unknown": ("unknown", "does not expect it, and is not decided for anything else"),
}
SUMMARY = (
    *("data", "sha256", "model", "vocabulary", "thresholds", "n_tokens", "n_examples", "n_dropped", "tau"),
    *("examples_with_conflict", "mean_nll", "conclusions", "form", "old"),
)
LONGEST_PROMPT = 600


def build_scan_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a scan, from what lies in its folder, and return its path (default: `report.html` there).

    Raises:
        UserError: the folder does not exist or holds no scan.
    """
    if not (folder / SCAN).is_file():
        raise UserError("this folder holds no scan", where=str(folder), fix=f"expected {SCAN} in it")
    target = out or folder / "report.html"
    write_atomic(target, render(folder))
    return target


def render(folder: Path) -> str:
    """Render the page; the same folder gives the same bytes."""
    run = RunData(folder)
    config = folder / "config.yaml"
    run.config_text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    found = read_json(run, SCAN, dict) or {}
    return environment().get_template("scan.html").render(
        **frame(run) | {"title": f"Scan of {found.get('data', folder.name)}"},
        summary=part(run, SCAN, lambda: {name: found[name] for name in SUMMARY}),
        words=WORDS,
        colours=COLOURS,
        rows=part(run, SCAN, lambda: conclusions(found)),
        preferred=mapping(found.get("old")),
        shares=part(run, SCAN, lambda: shares(found)),
        advice=part(run, SCAN, lambda: dict(found["suggestion"])),
        plane=part(run, SCAN, lambda: plane(found)),
        listed=part(run, SCAN, lambda: [example(row) for row in found["listed"]], empty_is_content=True),
        tables=part(run, SCAN, lambda: tables(found), empty_is_content=True),
        heat_scale=heat_scale(),
    )  # fmt: skip


def shares(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes with their tokens and shares."""
    return [
        {
            "name": name,
            "words": words,
            "colour": COLOURS[name],
            "tokens": found["tokens"][name],
            "share": found["tokens"][name] / found["n_tokens"],
        }
        for name, words in WORDS.items()
    ]


def conclusions(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the rows are to the model, with their number and share."""
    return [
        {
            "name": name,
            "words": words,
            "colour": COLOURS[like],
            "rows": found["conclusions"][name],
            "share": found["conclusions"][name] / found["n_examples"],
        }
        for name, (like, words) in ROWS.items()
    ]


def plane(found: Mapping[str, Any]) -> Panel:
    """Every token by entropy and nll, with the borders of the classes."""
    return panel("plane", f"Entropy and nll of {found['n_tokens']} tokens", lambda axes: _draw(axes, found), height=300)


def _draw(axes: Axes, found: Mapping[str, Any]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    grid = found["plane"]
    (h0, h1), (n0, n1) = grid["log10_h"], grid["log10_nll"]
    most = max((n for cells in grid["counts"].values() for _, _, n in cells), default=1)
    for name, cells in grid["counts"].items():
        if not cells:
            continue
        columns, rows, counts = np.array(cells, float).T
        h = 10 ** (h0 + (columns + 0.5) * (h1 - h0) / grid["cells"])
        nll = 10 ** (n0 + (rows + 0.5) * (n1 - n0) / grid["cells"])
        axes.scatter(h, nll, s=2 + 34 * np.log1p(counts) / np.log1p(most), c=COLOURS[name], lw=0, alpha=0.85, zorder=3)
    axes.set_xlim(10**h0, 10**h1)
    axes.set_ylim(10**n0, 10**n1)
    limits = found["thresholds"]
    axes.axvline(limits["sure_h"], color=INK, lw=1)
    axes.axhline(limits["surprising_nll"], color=INK, lw=1)
    tau = mapping(found.get("tau")).get("tau")
    if tau:
        at = np.geomspace(10**h0, 10**h1, 50)
        axes.plot(at, tau * (at + 1e-6), color=MUTED, lw=1, ls="--", scalex=False, scaley=False)
    axes.set_xlabel("normalized entropy h (unsure →)")
    axes.set_ylabel("nll (wrong →)", labelpad=1)
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)


def example(row: Mapping[str, Any]) -> dict[str, Any]:
    """One listed example as a line of coloured tokens, with what the model expected at the worst of them."""
    shown = row["shown"]
    worst = shown[row["at"]]
    prompt = row["prompt"]
    return {
        "item": row["item"],
        "source": row.get("source"),
        "prompt": prompt if len(prompt) <= LONGEST_PROMPT else prompt[:LONGEST_PROMPT] + " …",
        "contradiction": row["contradiction"],
        "conflicts": row["conflict"],
        "tokens": row["tokens"],
        "cut": len(shown) < row["tokens"],
        "start": row["start"],
        "says": _visible(worst["token"]),
        "expected": None if worst["expected"] is None else _visible(worst["expected"]),
        "cells": [_cell(token) for token in shown],
    }


def _cell(token: Mapping[str, Any]) -> Any:
    expected = token["expected"]
    more = f", {token['class']}" + ("" if expected is None else f"; expected {_visible(expected)}")
    return token_cell({**token, "is_conflict": token["class"] == "conflict"}, token["nll"], token["h"], more)


def _visible(text: str) -> str:
    return text.translate(VISIBLE) or "∅"


def tables(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each field of `meta` that has a few values."""
    out = []
    for name, rows in mapping(found.get("by")).items():
        lines = []
        for row in sequence(rows):
            total = sum(row["tokens"].values())
            lines.append({**row, "n_tokens": total, "shares": {c: n / total for c, n in row["tokens"].items()}})
        out.append({"name": name, "rows": lines})
    return out
