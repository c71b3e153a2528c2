"""The tables of an adaptation's page: arms, comparisons, stages."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from equipoise.report.confidence_words import number, percent
from equipoise.report.page import mapping
from equipoise.report.reading import Rows
from equipoise.report.synthetic_reading import UNTRAINED, SyntheticRun
from equipoise.report.synthetic_words import points, probability, relation, span

RELATIONS = {"better": "better", "worse": "worse", "open": "not told apart"}


def cell(label: str, text: str = "", spread: str = "") -> dict[str, str]:
    """Make one cell of a table: on a phone its label stands beside it."""
    return {"label": label, "text": text, "range": spread}


def arms(found: SyntheticRun) -> list[dict[str, Any]]:
    """Give a row an arm: F1 of both domains and their changes, readable answers, KL, time."""
    analysis, rows = found.analysis, []
    for name, by_domain in (analysis.get("scores") or {}).items():
        cells = []
        for domain in ("target", "source"):
            scores = mapping(by_domain.get(domain))
            change = mapping(mapping(mapping(analysis.get("changes")).get(name)).get(domain))
            cells += [_score(f"{domain} F1", scores.get("f1")), _change(f"{domain} change", change)]
        cells.append(_score("readable", mapping(by_domain.get("target")).get("valid")))
        cells += [_kl(found, name), _time(found, name)]
        rows.append({"arm": name, "words": in_words(found, name), "primary": name == found.primary, "cells": cells})
    return rows


def in_words(found: SyntheticRun, name: str) -> str:
    """Say what an arm does, by the recipe; empty where that does not tell."""
    arm = mapping(mapping(found.run.config.get("arms")).get(name))
    method, plan = arm.get("method", "grpo" if arm else ""), mapping(arm.get("curriculum"))
    if method == UNTRAINED:
        return "the untrained model"
    if method == "sft":
        return "fine-tuning on all labels"
    if method != "grpo":
        return ""
    threshold = plan.get("threshold")
    which = "" if threshold is None else f" of confidence from {threshold:g}"
    if plan.get("pacing") == "none":
        return f"RL, {'all ' if threshold is None else ''}labels{which} at once"
    order = {"reverse": "least sure first", "random": "in random order"}.get(plan.get("order", ""), "surest first")
    return f"RL, labels{which} {order}" + (", confidence renewed at each stage" if plan.get("dynamic") else "")


def _score(label: str, scores: Any) -> dict[str, str]:
    if not scores or scores.get("mean") is None:
        return cell(label)
    ends = [scores.get("low"), scores.get("high")]
    bounds = [min(max(end, 0.0), 1.0) for end in ends if end is not None]
    return cell(label, percent(scores["mean"]), " to ".join(f"{100 * end:.1f}" for end in bounds))


def _change(label: str, row: Mapping[str, Any]) -> dict[str, str]:
    return cell(label, points(row["estimate"]), span(row)) if row else cell(label)


def _of_cells(found: SyntheticRun, arm: str, key: str) -> list[float]:
    values = [row.get(key) for row in found.analysis.get("cells") or [] if row.get("method") == arm]
    return [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def _kl(found: SyntheticRun, arm: str) -> dict[str, str]:
    kl, forward = _of_cells(found, arm, "kl"), _of_cells(found, arm, "forward_kl")
    spread = f"held out {fmean(forward):.3f}" if forward else ""
    return cell("KL", f"{fmean(kl):.3f}" if kl else "", spread if kl else "")


def _time(found: SyntheticRun, arm: str) -> dict[str, str]:
    seconds = _of_cells(found, arm, "seconds") if arm != UNTRAINED else []
    return cell("training", f"{fmean(seconds):,.0f} s" if seconds else "")


def contrasts(found: SyntheticRun) -> list[dict[str, Any]]:
    """Give a row for each arm that the one in question is compared with, on the target."""
    return [
        {
            "against": row["against"],
            "kind": {"better": "yes", "worse": "no", "open": "open"}[relation(row)],
            "cells": [
                cell("difference, points", points(row["estimate"]), span(row)),
                cell("over seeds alone", span(row, "ci")),
                cell("p", probability(row.get("p"))),
                cell("p after Holm", probability(row.get("p_holm"))),
            ],
            "word": "not tested" if row.get("p_holm") is None else RELATIONS[relation(row)],
            "note": row.get("note") or "",
        }
        for row in found.analysis.get("contrasts") or []
    ]


STAGES = {
    "share": ("labels in use", percent),
    "reward": ("reward", number),
    "target/f1": ("target F1, dev", percent),
    "source/f1": ("source F1, dev", percent),
    "kl": ("KL", number),
    "target/valid": ("readable, dev", percent),
    "entropy": ("entropy, nats", number),
    "equal_share_first": ("equal groups", percent),
}


def stages(found: SyntheticRun) -> list[dict[str, Any]]:
    """Give a row a stage of the arm in question: means over its steps and seeds, and the dev scores at its end."""
    steps, validation = found.steps.get(found.primary) or {}, found.validation.get(found.primary) or {}
    numbers = sorted({row["stage"] for rows in steps.values() for row in rows if row.get("stage") is not None})
    table = []
    for stage in numbers:
        of = {seed: [row for row in rows if row.get("stage") == stage] for seed, rows in steps.items()}
        ends = [_last(validation.get(seed) or [], rows) for seed, rows in of.items() if rows]
        spans = [row["step"] for rows in of.values() for row in rows]
        cells = []
        for key, (label, write) in STAGES.items():
            rows = ends if "/" in key else [row for rows in of.values() for row in rows]
            values = [row[key] for row in rows if isinstance(row.get(key), int | float)]
            value = (max(values) if key == "share" else fmean(values)) if values else None
            cells.append(cell(label, "" if value is None else write(value)))
        table.append(
            {"stage": f"{stage + 1} of {len(numbers)}", "steps": f"{min(spans):,} to {max(spans):,}", "cells": cells}
        )
    return table


def _last(validation: Rows, steps: Rows) -> dict[str, Any]:
    """Give the last validation that falls within these steps."""
    first, last = steps[0]["step"], steps[-1]["step"]
    return next((row for row in reversed(validation) if first <= row["step"] <= last), {})
