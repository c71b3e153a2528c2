"""The claims of a protocol, tested as one family."""

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.metrics.statistics import holm, mean_interval
from equipoise.protocols.contrasts import BLANK, alike, describe, difference_of, is_share
from equipoise.protocols.definitions import Claim
from equipoise.protocols.scores import Scores
from equipoise.protocols.wording import did, difference, interval, number, p_value

SUPPORTED, NOT_SUPPORTED, UNDECIDED, UNTESTED = "supported", "not supported", "undecided", "cannot be tested"
CANNOT_TELL = "cannot tell"  # the measure is at its floor or ceiling


def judge_claims(
    scores: Scores,
    claims: Sequence[Claim],
    *,
    margin: float,
    alpha: float,
    whole: bool,
    unmeasured: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Test the claims and adjust their p-values by Holm's method, over those that can be tested.

    Superiority is tested one-sided, as the report that made Protocol A's claims registered it. Intervals are two-sided,
    and a claim is supported only where its interval lies above zero too: what is shown must not contradict the verdict.

    Args:
        margin: within which two arms count as alike, in the unit of the values.
        whole: list every claim, also one whose arms are not in the table.
        unmeasured: tasks that cannot be measured, each with the reason. Claims about them are not judged, and neither
            is superiority where both arms are at the floor.
    """
    rows = []
    for claim in claims:
        absent, blind = _absent(scores, claim), _blind(scores, claim, unmeasured or {})
        if blind and (whole or not absent):
            row = BLANK | {"test": "none", "problem": blind, "unit": "seed"}
            sentence = f"Not judged: {blind}."
            rows.append({"id": claim.id, "claim": claim.text, "verdict": CANNOT_TELL} | row | {"sentence": sentence})
        elif not absent:
            rows.append(_tested(scores, claim, margin, alpha))
        elif whole:
            row = BLANK | {"test": "none", "problem": absent, "unit": "seed", "sentence": f"Not tested: {absent}."}
            rows.append({"id": claim.id, "claim": claim.text, "verdict": UNTESTED} | row)
    tested = sum(row["p"] is not None for row in rows)
    for row, adjusted in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = adjusted
        if row["p"] is not None:
            _judge(row, alpha, f"after Holm over {tested} of {len(rows)} claims")
    return rows


def _absent(scores: Scores, claim: Claim) -> str | None:
    for name in (claim.arm, claim.other):
        arm = scores.find(name)
        if arm is None:
            return f"there is no arm {name}"
        if not scores.of(arm, claim.task):
            return f"{arm} has no {claim.task}"
    return None


def _blind(scores: Scores, claim: Claim, unmeasured: Mapping[str, str]) -> str | None:
    """Say why the claim's task shows nothing, if it does not."""
    if claim.task in unmeasured:
        return f"{claim.task} cannot be measured here, since {unmeasured[claim.task]}"
    arms = [scores.of(scores.find(name), claim.task) for name in (claim.arm, claim.other)]
    if claim.task in scores.falling or not all(arms):
        return None
    values = {value for arm in arms for value in arm.values()}
    if values == {0}:
        return f"both arms are at the floor of {claim.task} (0%), so there is no difference to see"
    if values == {1} and is_share(scores, claim.task) and not claim.alike:
        return f"both arms are at the ceiling of {claim.task} (100%); compare after fewer epochs or at a lower rate"
    return None


def _tested(scores: Scores, claim: Claim, margin: float, alpha: float) -> dict[str, Any]:
    a, b = scores.find(claim.arm) or "", scores.find(claim.other) or ""
    start = {"id": claim.id, "claim": claim.text, "verdict": UNTESTED}
    if not claim.alike:
        row = difference_of(scores, a, b, claim.task, "greater")
        return start | row | {"sentence": describe(scores, a, b, claim.task, row)}
    row = alike(scores, a, b, claim.task, margin, alpha) | {"margin": margin}
    claim_text = f"{claim.text}, within {_width(margin, is_share(scores, claim.task))}"
    return start | row | {"claim": claim_text, "sentence": _alike_sentence(scores, a, b, claim.task, row, margin)}


def _alike_sentence(scores: Scores, a: str, b: str, task: str, row: dict[str, Any], margin: float) -> str:
    share = is_share(scores, task)
    mean_a, mean_b = (number(mean_interval(scores.by_seed(arm, task)).mean, share=share) for arm in (a, b))
    text = f"{a} {did(task, row['estimate'])} {b}: {mean_a} against {mean_b}"
    text += f", difference {difference(row['estimate'], share=share)}"
    if row["problem"]:
        return f"{text}. There is no test of equivalence: {row['problem']}."
    text += f", 90% interval{interval(row['ci'], share=share)} against a margin of {_width(margin, share)}"
    return f"{text}, TOST {p_value(row['p'])}."


def _width(margin: float, share: bool) -> str:
    return f"{100 * margin:g} points" if share else f"{margin:g}"


def _judge(row: dict[str, Any], alpha: float, family: str) -> None:
    """Set the verdict: refuted only where the interval of the difference leaves no room for the claim."""
    low, high = row["ci"] or (float("-inf"), float("inf"))
    limit = row.get("margin")
    refuted = high <= 0 if limit is None else (low >= limit or high <= -limit)
    said = f"({'one-sided ' if limit is None else ''}{p_value(row['p_holm'])} {family})"
    if row["p_holm"] < alpha and (limit is not None or row["ci"] is None or low > 0):
        row["verdict"], end = SUPPORTED, f"The claim holds {said}."
    elif refuted:
        more = "" if limit is None else ": they differ by more than the margin"
        row["verdict"], end = NOT_SUPPORTED, f"The claim does not hold{more}."
    else:
        row["verdict"], end = UNDECIDED, f"That is open {said}."
    row["sentence"] += f" {end}"
