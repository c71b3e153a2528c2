"""The tables of an adaptation's page: arms, comparisons, label signals, stages."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from equipoise.report.confidence_words import number, percent
from equipoise.report.page import mapping
from equipoise.report.synthetic_reading import UNTRAINED, Rows, SyntheticRun
from equipoise.report.synthetic_words import points, probability, relation, span

RELATIONS = {"better": "better", "worse": "worse", "open": "not told apart"}
SIGNALS = {
    "exact": "share of the samples that say exactly the label",
    "consensus": "how alike the samples are: mean entity F1 of all pairs",
    "votes": "mean share of the samples that have each entity of the label",
    "logprob": "mean probability of the answer's tokens",
    "entropy": "1 less the entropy over different answers",
    "combined": "mean of exact (per entity), consensus, votes and logprob",
}


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
                cell("difference", f"{points(row['estimate'])} points", span(row)),
                cell("over seeds alone", span(row, "ci")),
                cell("p", probability(row.get("p"))),
                cell("p after Holm", probability(row.get("p_holm"))),
            ],
            "word": RELATIONS[relation(row)],
            "note": row.get("note") or "",
        }
        for row in found.analysis.get("contrasts") or []
    ]


def signals(found: SyntheticRun) -> list[dict[str, Any]]:
    """Give a row a signal of the labels: how well it tells right from wrong, by several measures."""
    account = found.first_quality
    by_name = mapping(mapping(account.get("quality")).get("signals"))
    return [
        {
            "name": name,
            "words": SIGNALS.get(name, ""),
            "used": name == account.get("signal"),
            "cells": [
                _measured("AUROC", row.get("auroc"), number),
                _measured("AUROC less exact's", row.get("auroc_gain"), _signed),
                _measured("AURC", row.get("aurc"), number),
                _measured("Brier score", row.get("brier"), number),
                cell("follows F1", _rank(row.get("f1_rank"))),
                cell("follows length", _rank(row.get("entities_rank"))),
            ],
        }
        for name, row in by_name.items()
    ]


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _rank(value: Any) -> str:
    return "" if value is None else f"{value:+.2f}".replace("-", "−")


def _measured(label: str, scores: Any, write: Any) -> dict[str, str]:
    if not scores or scores.get("mean") is None:
        return cell(label)
    ends = [scores.get("low"), scores.get("high")]
    return cell(label, write(scores["mean"]), "" if None in ends else " to ".join(write(end) for end in ends))


def label_account(found: SyntheticRun) -> list[str]:
    """Say in sentences how many labels there are, how many are right, empty, or were left out."""
    account, quality = found.first_quality, mapping(found.first_quality.get("quality"))
    if not account:
        return []
    said = [f"{account['n']:,} pseudo-labels (target, {account['split']} split) have a right answer beside them"]
    if quality.get("right") is None:
        return [said[0] + " or none: their worth is not known."]
    said[0] += f"; {percent(quality['right'])} are exactly right"
    said[0] += f", and their entities have an F1 of {percent(quality['f1'])}." if quality.get("f1") is not None else "."
    if quality.get("empty") is not None and quality.get("gold_empty") is not None:
        share, truth = percent(quality["empty"]), percent(quality["gold_empty"])
        said.append(f"{share} of these labels say that there is nothing to find; the truth is {truth}.")
    if quality.get("valid") is not None:
        said.append(f"{percent(quality['valid'])} of all samples could be read.")
    if account.get("left_out"):
        said.append(f"{account['left_out']:,} labels were left out of training: unreadable, or too many empty ones.")
    rights = [mapping(one.get("quality")).get("right") for one in found.quality.values()]
    known = [right for right in rights if right is not None]
    if len(known) > 1:
        first = next(iter(found.quality))
        said.append(
            f"Each of {len(known)} seeds drew samples of its own: {percent(min(known))} to {percent(max(known))} of "
            f"their labels are right. What is shown here is of seed {first}."
        )
    return said


STAGES = {
    "share": ("labels in use", percent),
    "reward": ("reward", number),
    "target/f1": ("target F1, dev", percent),
    "source/f1": ("source F1, dev", percent),
    "kl": ("KL", number),
    "target/valid": ("readable, dev", percent),
    "entropy": ("entropy, nats", number),
    "equal_share": ("equal groups", percent),
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
        table.append({"stage": stage + 1, "steps": f"{min(spans):,} to {max(spans):,}", "cells": cells})
    return table


def _last(validation: Rows, steps: Rows) -> dict[str, Any]:
    """Give the last validation that falls within these steps."""
    first, last = steps[0]["step"], steps[-1]["step"]
    return next((row for row in reversed(validation) if first <= row["step"] <= last), {})
