"""What the pseudo-labels of an adaptation are worth: in sentences, and signal by signal."""

from typing import Any

from equipoise.report.confidence_words import number, percent
from equipoise.report.page import mapping
from equipoise.report.synthetic_reading import SyntheticRun
from equipoise.report.synthetic_tables import cell

SIGNALS = {
    "exact": "share of the samples that say exactly the label",
    "consensus": "how alike the samples are: mean entity F1 of all pairs",
    "votes": "mean share of the samples that have each entity of the label",
    "logprob": "mean probability of the answer's tokens",
    "entropy": "1 less the entropy over different answers",
    "combined": "mean of exact (per entity), consensus, votes and logprob",
    "calibrated": "the confidence that training goes by",
}


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
                _measured("AUROC gain", row.get("auroc_gain"), _signed),
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


def account(found: SyntheticRun) -> list[str]:
    """Say in sentences how many labels there are, how many are right, empty, or were left out."""
    told, quality = found.first_quality, mapping(found.first_quality.get("quality"))
    if not told:
        return []
    said = [f"{told['n']:,} pseudo-labels (target, {told['split']} split) have a right answer beside them"]
    if quality.get("right") is None:
        return [said[0] + " or none: their worth is not known."]
    said[0] += f"; {percent(quality['right'])} are exactly right"
    said[0] += f", and their entities have an F1 of {percent(quality['f1'])}." if quality.get("f1") is not None else "."
    if quality.get("empty") is not None and quality.get("gold_empty") is not None:
        share, truth = percent(quality["empty"]), percent(quality["gold_empty"])
        said.append(f"{share} of these labels say that there is nothing to find; the truth is {truth}.")
    if quality.get("valid") is not None:
        said.append(f"{percent(quality['valid'])} of all samples could be read.")
    if told.get("left_out"):
        said.append(f"{told['left_out']:,} labels were left out of training: unreadable, or too many empty ones.")
    rights = [mapping(one.get("quality")).get("right") for one in found.quality.values()]
    known = [right for right in rights if right is not None]
    if len(known) > 1:
        first = next(iter(found.quality))
        said.append(
            f"Each of {len(known)} seeds drew samples of its own: {percent(min(known))} to {percent(max(known))} of "
            f"their labels are right. What is shown here is of seed {first}."
        )
    return said
