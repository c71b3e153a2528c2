"""From a flat table of results to verdicts: means with intervals, tests, checks, and plain sentences. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from equipoise.metrics.statistics import holm, mean_interval
from equipoise.protocols.contrasts import describe, difference_of, is_share
from equipoise.protocols.definitions import PROTOCOLS, Claim
from equipoise.protocols.hypotheses import judge_claims
from equipoise.protocols.safety import safety, shares_of_sft, trade_off, variances
from equipoise.protocols.scores import ItemScore, Scores, canonical, ordered, pivot
from equipoise.records import IN_NATS, Prediction, Result

SCHEMA_VERSION = 1


def analyze(
    results: Iterable[Result],
    *,
    protocol: str | None = None,
    margin: float = 0.05,
    alpha: float = 0.05,
    safety_threshold: float = 0.95,
    predictions: Iterable[Prediction | ItemScore] = (),
    unmeasured: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Analyse a table of results, paired by seed, whatever arms and tasks it holds.

    Args:
        protocol: a letter of `PROTOCOLS`; its claims are all listed, those that the table cannot test too. Without one,
            Protocol A's are tested as far as the table allows.
        margin: of equivalence on retention, in the unit of the values (0.05 is 5 points).
        safety_threshold: for retention over the untrained model's (method `untrained`).
        predictions: item-level scores; with them there are intervals that cover other items too (bootstrap over seeds
            and items), and a single seed can be tested over its items.
        unmeasured: tasks that the untrained model leaves no room to measure, each with the reason; claims about them
            are not judged.

    Returns:
        What `analysis.json` holds: `arms`, `seeds`, `tasks`, `untrained`, `hypotheses`, `safety`,
        `correction_share_of_sft`, `comparisons` (all pairs on all tasks), `variances`, `trade_off`, `notes`.

    Raises:
        UserError: no trained method in the table, or two values for one cell of it.
    """
    scores = pivot(results, predictions)
    claims = _claims(scores, protocol or "a")
    unmeasured = dict(unmeasured or {})
    found = {
        "schema_version": SCHEMA_VERSION,
        "protocol": protocol,
        "seeds": scores.seeds,
        "tasks": scores.tasks,
        "arms": {arm: {task: _summary(scores, arm, task) for task in scores.values[arm]} for arm in scores.arms},
        "untrained": scores.untrained,
        "hypotheses": judge_claims(
            scores, claims, margin=margin, alpha=alpha, whole=protocol is not None, unmeasured=unmeasured
        ),
        "cannot_tell": unmeasured,
        "safety": {} if "retention" in unmeasured else safety(scores, threshold=safety_threshold),
        "correction_share_of_sft": shares_of_sft(scores),
        "comparisons": comparisons(scores),
        "variances": variances(scores, alpha=alpha),
        "trade_off": trade_off(scores),
    }
    return found | {"notes": [*scores.notes, *_notes(scores, found)]}


def _claims(scores: Scores, protocol: str) -> list[Claim]:
    """List a protocol's claims; those about `r-eaft` are tested on its detached form where only that was trained."""
    claims, detached = PROTOCOLS[protocol].claims, "r-eaft-detached"
    if scores.find("r-eaft") or not scores.find(detached):
        return list(claims)
    return [
        replace(claim, arm=detached, text=claim.text.replace("r-eaft", detached)) if claim.arm == "r-eaft" else claim
        for claim in claims
    ]


def _summary(scores: Scores, arm: str, task: str) -> dict[str, Any]:
    mean = mean_interval(scores.by_seed(arm, task))
    values = [scores.of(arm, task).get(seed) for seed in scores.seeds]
    ci = None if mean.ci is None else list(mean.ci)
    return {
        "mean": mean.mean,
        "variance": mean.variance,
        "ci": ci,
        "n_seeds": mean.n,
        "values": values,
        "note": mean.note,
    }


def comparisons(scores: Scores) -> list[dict[str, Any]]:
    """Compare all pairs of arms on every task, two-sided; p-values are adjusted by Holm's method within a task."""
    rows = []
    for task in scores.tasks:
        arms = [arm for arm in scores.arms if scores.of(arm, task)]
        family = []
        for i, first in enumerate(arms):
            for second in arms[i + 1 :]:
                a, b = ordered(first, second)
                row = difference_of(scores, a, b, task, "two-sided")
                family.append({"task": task, "a": a, "b": b} | row | {"sentence": describe(scores, a, b, task, row)})
        for row, adjusted in zip(family, holm([row["p"] for row in family])):
            row["p_holm"] = adjusted
        rows += family
    return rows


def _notes(scores: Scores, found: dict[str, Any]) -> list[str]:
    """Say what a reader has to know to take the numbers for what they are."""
    notes = []
    if len(scores.seeds) == 1:
        notes.append("One seed: what another seed would give is not known.")
    elif scores.seeds:
        over = f"Student's t over {len(scores.seeds)} seeds on the same items"
        notes.append(f"Intervals are 95%, {over}; they say nothing of other items.")
    for task in scores.tasks:
        with_task = [arm for arm in scores.arms if scores.of(arm, task)]
        still = [arm for arm in with_task if found["arms"][arm][task]["variance"] == 0]
        if still:
            which = "no arm varies" if still == with_task else f"{', '.join(still)} {_do(still)} not vary"
            notes.append(f"{task}: {which} over seeds, so there is no interval and no test by it.")
        short = [arm for arm in with_task if len(scores.of(arm, task)) < len(scores.seeds)]
        if short:
            notes.append(
                f"{task}: {', '.join(short)} {_do(short)} not have all seeds; pairs are made of shared seeds alone."
            )
        if task in scores.falling and task not in IN_NATS:  # of which it is said where the unit is
            notes.append(f"{task}: less is better.")
    if "retention" in scores.tasks and not is_share(scores, "retention"):
        notes.append("retention is not a share from 0 to 1: the margin of equivalence is taken in its own unit.")
    tested = sum(row["p"] is not None for row in found["hypotheses"])
    if tested > 1:
        notes.append(
            f"p-values of the hypotheses are adjusted by Holm's method over the {tested} that could be tested."
        )
    return notes + [row["sentence"] for row in found["variances"] if _is_of_interest(row)]


def _do(arms: Sequence[str]) -> str:
    return "does" if len(arms) == 1 else "do"


def _is_of_interest(row: dict[str, Any]) -> bool:
    """Tell whether a comparison of variances is one that the R-EAFT report makes claims of."""
    named = canonical(row["a"]) == "r-eaft" and canonical(row["b"]) in ("sft", "eaft")
    return named and row["task"] == "correction" and row["ratio"] is not None
