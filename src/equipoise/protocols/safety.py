"""What correction costs: safety score and checks, correction as a share of SFT's, variances, the trade-off."""

from typing import Any

import numpy as np

from equipoise.metrics.statistics import bootstrap_interval, mean_interval, ratio_interval, variance_ratio_test
from equipoise.protocols.contrasts import is_share
from equipoise.protocols.scores import Scores, ordered
from equipoise.protocols.wording import count, number, p_value


def safety(scores: Scores, *, threshold: float) -> dict[str, Any]:
    """Give each arm's safety score, its mean retention over the untrained model's, and the checks of the R-EAFT report.

    - retention: the score reaches `threshold`.
    - forgetting: not even the worst seed loses more than 1 - `threshold` of the untrained model's retention.
    - variance: correction varies over seeds no more than SFT's does. That compares two sample variances as they are;
      with few seeds it says little, and the p-value of the F test stands beside it.

    Without an untrained model in the table its retention is taken for 1, the most a share can be: what passes then
    would pass anyway, and what fails is left open (None).
    """
    known = "retention" in scores.untrained
    base = scores.untrained.get("retention", 1.0)
    if not known and not is_share(scores, "retention"):
        return {}
    if base <= 0:
        scores.notes.append("The untrained model retains nothing, so there is no safety score.")
        return {}
    table = {}
    for arm in scores.arms:
        retention = scores.by_seed(arm, "retention")
        if retention:
            checks = [*_kept(retention, base, known, threshold), _steady(scores, arm)]
            table[arm] = {"score": float(np.mean(retention)) / base, "threshold": threshold, "checks": checks}
    if table and not known:
        taken = "safety scores take its retention for 100%, and so are the least they can be"
        scores.notes.append(f"The table has no untrained model: {taken}.")
    return table


def _kept(retention: list[float], base: float, known: bool, threshold: float) -> list[dict[str, Any]]:
    score, worst = float(np.mean(retention)) / base, 1 - min(retention) / base
    limit = round(1 - threshold, 12)
    of = "of what the untrained model does" if known else "of everything"
    lost = f"the worst of {count(len(retention), 'seed')} loses {number(max(worst, 0.0), share=True)} {of}"
    return [
        {
            "name": "retention",
            "passed": _passed(score >= threshold - 1e-12, known),
            "value": score,
            "limit": threshold,
            "sentence": f"keeps {number(score, share=True)} {of}; {number(threshold, share=True)} is asked for",
        },
        {
            "name": "forgetting",
            "passed": _passed(worst <= limit + 1e-12, known),
            "value": worst,
            "limit": limit,
            "sentence": f"{lost}; {number(limit, share=True)} is allowed",
        },
    ]


def _passed(passed: bool, known: bool) -> bool | None:
    return passed if known or passed else None


def _steady(scores: Scores, arm: str) -> dict[str, Any]:
    sft = scores.find("sft")
    own = mean_interval(scores.by_seed(arm, "correction")).variance if scores.of(arm, "correction") else None
    limit = mean_interval(scores.by_seed(sft, "correction")).variance if sft and scores.of(sft, "correction") else None
    check = {"name": "variance", "passed": None, "value": own, "limit": limit}
    if arm == sft:
        return check | {"sentence": "the others are measured against it"}
    if own is None or limit is None:
        return check | {"sentence": "not to be told: that takes two seeds of this arm and of sft"}
    p = variance_ratio_test(scores.by_seed(arm, "correction"), scores.by_seed(sft or "", "correction")).p
    text = f"correction varies over seeds by {own:.2g} (sample variance), sft's by {limit:.2g}"
    shown = "" if p is None else f"; {p_value(p)} for a difference"
    return check | {"passed": own <= limit * (1 + 1e-9), "p": p, "sentence": text + shown}


def shares_of_sft(scores: Scores) -> dict[str, Any]:
    """Give each arm's correction as a share of SFT's, with an interval; `method` says which.

    Where there are item-level scores, that is a bootstrap over seeds and items at once, else Fieller's over seeds.
    """
    sft = scores.find("sft")
    table = {}
    for arm in scores.arms:
        if sft is None or arm == sft:
            continue
        x, y = scores.pair(arm, sft, "correction")
        if not x:
            continue
        ratio = ratio_interval(x, y)
        row = {"mean": ratio.ratio, "ci": ratio.ci and list(ratio.ci), "n": ratio.n, "note": ratio.note}
        table[arm] = (
            row | {"method": f"Fieller, {count(ratio.n, 'pair')} of seeds"} | _share_over_items(scores, arm, sft)
        )
    return table


def _share_over_items(scores: Scores, arm: str, sft: str) -> dict[str, Any]:
    both = scores.item_pair(arm, sft, "correction")
    if both is None or both[1].mean(axis=1).min() == 0:
        return {}

    def share(sample: np.ndarray) -> float:
        below = float(sample[..., 1].mean())
        return float(sample[..., 0].mean()) / below if below else 0.0

    drawn = bootstrap_interval(np.stack(both, axis=-1), share, resamples=2000)
    if drawn.ci is None:
        return {"ci": None, "note": drawn.note}
    over = "seeds and items" if len(both[0]) > 1 else "items"
    return {"ci": list(drawn.ci), "note": None, "method": f"bootstrap over {over}"}


def variances(scores: Scores, *, alpha: float = 0.05) -> list[dict[str, Any]]:
    """Compare the variances over seeds of all pairs of arms on every task by F, two-sided, and say what that shows."""
    rows = []
    for task in scores.tasks:
        arms = [arm for arm in scores.arms if len(scores.of(arm, task)) >= 2]
        pairs = [ordered(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]
        rows += [_variance(scores, a, b, task, alpha) for a, b in pairs]
    return rows


def _variance(scores: Scores, a: str, b: str, task: str, alpha: float) -> dict[str, Any]:
    x, y = scores.by_seed(a, task), scores.by_seed(b, task)
    result = variance_ratio_test(x, y)
    numbers = {"ratio": result.ratio, "ci": result.ci and list(result.ci), "p": result.p}
    row = {"task": task, "a": a, "b": b, "variance_a": result.variance_a, "variance_b": result.variance_b} | numbers
    if result.ratio is None:
        said = f"{a if result.variance_a == 0 else b} does not vary over seeds, so variances cannot be compared"
        same = f"neither {a} nor {b} varies over seeds, so there are no variances to compare"
        return row | {"sentence": f"{task}: {same if result.variance_a == result.variance_b else said}."}
    n = str(len(x)) if len(x) == len(y) else f"{len(x)} and {len(y)}"
    of = f"({result.variance_a:.6f} against {result.variance_b:.6f}, n = {n})"
    test = f"F({result.df[0]}, {result.df[1]}) = {result.ratio:.2f}, {p_value(result.p)}"
    if abs(result.ratio - 1) < 1e-6:
        return row | {"sentence": f"{task}: the variances of {a} and {b} over seeds are equal {of}."}
    change = f"{100 * abs(result.ratio - 1):.0f}% {'lower' if result.ratio < 1 else 'higher'}"
    verdict = "which is significant" if (result.p or 0) < alpha else "which is not significant"
    return row | {
        "sentence": f"{task}: the variance of {a} over seeds is {change} than that of {b} {of}, {verdict}: {test}."
    }


def trade_off(scores: Scores) -> dict[str, Any]:
    """Set correction against retention: the means, the points by seed, and which arms no other arm beats in both."""
    points = {}
    for arm in scores.arms:
        correction, retention = scores.of(arm, "correction"), scores.of(arm, "retention")
        seeds = [seed for seed in scores.seeds if seed in correction and seed in retention]
        if seeds:
            by_seed = [{"seed": s, "correction": correction[s], "retention": retention[s]} for s in seeds]
            points[arm] = {
                "correction": float(np.mean([correction[s] for s in seeds])),
                "retention": float(np.mean([retention[s] for s in seeds])),
                "seeds": by_seed,
            }
    beaten = {arm: [other for other in points if _beats(points[other], points[arm])] for arm in points}
    for arm, by in beaten.items():
        points[arm]["beaten_by"] = by
    return {"points": points, "sentence": _trade_off_sentence(beaten)}


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = [(one[task], other[task]) for task in ("correction", "retention")]
    return all(x >= y - 1e-12 for x, y in pairs) and any(x > y + 1e-12 for x, y in pairs)


def _trade_off_sentence(beaten: dict[str, list[str]]) -> str | None:
    if len(beaten) < 2:
        return None
    best = [arm for arm, by in beaten.items() if not by]
    outdone = [f"{arm} (by {' and '.join(by)})" for arm, by in beaten.items() if by]
    text = f"Correction against retention, by means over seeds: the best trade-offs are {', '.join(best)}"
    if len(best) == 1:
        text = f"Correction against retention, by means over seeds: the best is {best[0]}"
    return f"{text}; outdone or equalled in both: {', '.join(outdone)}." if outdone else f"{text}."
