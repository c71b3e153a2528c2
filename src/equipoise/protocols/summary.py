"""SUMMARY.md: the verdicts first in plain words, then the table, the checks, and what to bear in mind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.protocols.before_after import known_of, unmeasured
from equipoise.protocols.markdown import bullets, markdown_table, one_line, text_only
from equipoise.protocols.wording import bounded, count, difference, interval, number, p_value
from equipoise.records import IN_NATS


def summary(analysis: dict[str, Any], *, title: str | None = None) -> str:
    """Write an analysis as Markdown."""
    name = f"Protocol {analysis['protocol'].upper()}" if analysis.get("protocol") else "Comparison of methods"
    sections = {
        "Verdicts": verdicts(analysis),
        "Cannot be measured": bullets(unmeasured(analysis)),
        "Means over seeds": f"With 95% interval, and s², the sample variance.{_units(analysis)}\n\n{means(analysis)}",
        "Safety": _checks(analysis),
        "Correction as a share of sft's": _shares(analysis),
        "All pairs": _pairs(analysis),
        "Notes": bullets(analysis["notes"]),
    }
    parts = [f"# {one_line(title or name)}", _scope(analysis)]
    parts += [f"## {heading}\n\n{body}" for heading, body in sections.items() if body]
    return text_only("\n\n".join(parts)) + "\n"


def analyze_table(path: Path, out: Path | None = None, *, margin: float = 0.05) -> str:
    """Analyse a table made elsewhere; write `analysis.json` and `SUMMARY.md` into `out` if given; return the summary.

    Raises:
        UserError: the file is at fault, or `out` cannot be written.
    """
    from equipoise.protocols.analysis import analyze
    from equipoise.protocols.tables import read_table_and_notes

    table = read_table_and_notes(path)
    analysis = analyze(table.results, margin=margin)
    analysis["notes"] += table.notes
    text = summary(analysis, title=f"Comparison of methods: {Path(path).name}")
    if out is not None:
        from equipoise.journal import write_atomic, write_json

        write_json(out / "analysis.json", analysis)
        write_atomic(out / "SUMMARY.md", text)
    return text


def _scope(analysis: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, analysis["seeds"]))
    return f"{count(len(analysis['arms']), 'arm')}, {count(len(analysis['seeds']), 'seed')} ({seeds})."


def verdicts(analysis: dict[str, Any]) -> str:
    """List every claim with its verdict; without claims, what each method changed, and how every pair compares."""
    rows = analysis["hypotheses"]
    changed = [sentence for said in analysis.get("before_and_after", {}).values() for sentence in said]
    lines = [f"**{row['id']}, {row['claim']}: {row['verdict']}.** {row['sentence']}" for row in rows]
    if analysis["trade_off"]["sentence"]:
        lines.append(analysis["trade_off"]["sentence"])
    return bullets(lines if rows else [*changed, *(row["sentence"] for row in analysis["comparisons"]), *lines])


def means(analysis: dict[str, Any], n: Mapping[str, int] | None = None) -> str:
    """Write the table of means over seeds with intervals and variances, the untrained model first.

    Args:
        n: items of each task, to stand beside its name.
    """
    tasks = analysis["tasks"]
    rows = []
    if analysis["untrained"]:
        rows.append(["untrained", *(_untrained(analysis, task) for task in tasks)])
    for arm, by_task in analysis["arms"].items():
        rows.append([arm, *(_cell(analysis, by_task.get(task), task) for task in tasks)])
    return markdown_table(["arm", *(_head(analysis, task, (n or {}).get(task)) for task in tasks)], rows)


def _units(analysis: dict[str, Any]) -> str:
    """Say in what unit the columns are that are no shares of all questions."""
    kept = [task for task in analysis["tasks"] if known_of(analysis, task)]
    nats = [task for task in analysis["tasks"] if task in IN_NATS]
    said = f" Of what the untrained model knew: {', '.join(kept)}." if kept else ""
    return said + (f" In nats per token, less is better: {', '.join(nats)}." if nats else "")


def _head(analysis: dict[str, Any], task: str, n: int | None) -> str:
    known = known_of(analysis, task)
    if known:
        return f"{task} (n = {known} known{', cannot tell' if task in analysis['cannot_tell'] else ''})"
    if n is None and task not in IN_NATS:
        n = analysis.get("known", {}).get(task, {}).get("asked")
    unit = ", nats" if task in IN_NATS else ""
    return f"{task}{unit}" if n is None else f"{task}{unit} (n = {n})"


def _share(analysis: dict[str, Any], task: str) -> bool:
    values = [value for by_task in analysis["arms"].values() for value in by_task.get(task, {}).get("values", [])]
    return task not in IN_NATS and all(0 <= value <= 1 for value in values if value is not None)


def _untrained(analysis: dict[str, Any], task: str) -> str:
    known = known_of(analysis, task)
    return f"knew {known}" if known else _number(analysis, task, analysis["untrained"].get(task))


def _number(analysis: dict[str, Any], task: str, value: float | None) -> str:
    if task in IN_NATS and value is not None:
        return f"{value:.3f}"
    return number(value, share=_share(analysis, task))


def _cell(analysis: dict[str, Any], row: dict[str, Any] | None, task: str) -> str:
    if row is None:
        return "–"
    share = _share(analysis, task)
    ci = interval(bounded(row["ci"]) if share else row["ci"], share=share)
    text = _number(analysis, task, row["mean"]) + ci
    return text if row["variance"] is None else f"{text}, s² {row['variance']:.2g}"


def _checks(analysis: dict[str, Any]) -> str:
    if not analysis["safety"]:
        return ""
    rows = []
    for arm, found in analysis["safety"].items():
        checks = [f"{_passed(check['passed'])}: {check['sentence']}" for check in found["checks"]]
        rows.append([arm, f"{found['score']:.3f}", *checks])
    head = ["arm", "safety score", "retention", "forgetting", "variance"]
    return "Retention over the untrained model's, and three checks.\n\n" + markdown_table(head, rows)


def _passed(passed: bool | None) -> str:
    return {True: "pass", False: "fail", None: "open"}[passed]


def _shares(analysis: dict[str, Any]) -> str:
    lines = []
    for arm, row in analysis["correction_share_of_sft"].items():
        if row["mean"] is None:
            lines.append(f"{arm}: {row['note']}")
            continue
        why = "" if row["ci"] else f"; {row['note']}"
        lines.append(
            f"{arm}: {number(row['mean'], share=True)}{interval(row['ci'], share=True)} ({row['method']}{why})"
        )
    return bullets(lines)


def _pairs(analysis: dict[str, Any]) -> str:
    if not analysis["hypotheses"]:
        return ""  # they stand first then
    rows = [_pair(analysis, row) for row in analysis["comparisons"] if row["p"] is not None]
    head = ["task", "", "against", "difference", "t", "p", "p after Holm"]
    words = "Differences over seeds with 95% intervals; p two-sided, adjusted within a task."
    return f"{words}\n\n{markdown_table(head, rows)}" if rows else ""


def _pair(analysis: dict[str, Any], row: dict[str, Any]) -> list[str]:
    share = _share(analysis, row["task"])
    gap = difference(row["estimate"], share=share) + interval(row["ci"], share=share)
    t = "" if row["t"] is None else f"{row['t']:.2f}"
    return [
        row["task"],
        row["a"],
        row["b"],
        gap,
        t,
        *(p_value(row[k]).removeprefix("p ").removeprefix("= ") for k in ("p", "p_holm")),
    ]
