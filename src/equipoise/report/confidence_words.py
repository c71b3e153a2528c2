"""What a confidence-tokens run found, in sentences: is the token right, does it sort, what can be promised."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from equipoise.report.page import Verdict


def findings(analysis: Mapping[str, Any]) -> list[Verdict]:
    """Give the findings that the analysis has the numbers for, over all domains together."""
    metrics = {method: by_task.get("overall") or {} for method, by_task in (analysis.get("metrics") or {}).items()}
    token, after = metrics.get("confidence-token") or {}, metrics.get("calibrated") or {}
    found = [
        _beats(
            "Is the token right more often than always saying C?",
            token.get("validation_accuracy"),
            (metrics.get("always-confident") or {}).get("validation_accuracy"),
            "The token is right after {a} of answers; always saying C would be right after {b}.",
            percent,
        ),
        _beats(
            "Does p sort right answers from wrong ones better than the sequence log-probability?",
            token.get("auroc"),
            (metrics.get("sequence-logprob") or {}).get("auroc"),
            "AUROC {a} for p, {b} for the sequence log-probability; 0.5 is chance, 1 sorts perfectly.",
            number,
        ),
        _truth(
            token.get("calibration_error"),
            after.get("calibration_error"),
            (analysis.get("perfect_calibration") or {}).get("overall"),
        ),
        _promise(analysis),
        _moved((metrics.get("untrained") or {}).get("answer_accuracy"), token),
    ]
    return [one for one in found if one]


def percent(value: float) -> str:
    """Write a share: 0.061 is 6.1%."""
    return f"{100 * value:.1f}%"


def number(value: float) -> str:
    """Write a number between 0 and 1 with three decimals."""
    return f"{value:.3f}"


def with_interval(scores: Mapping[str, Any], write: Any) -> str:
    """Write a mean, with its interval where there is one."""
    if scores.get("low") is None or scores.get("high") is None:
        return write(scores["mean"])
    return f"{write(scores['mean'])} [{write(scores['low']).rstrip('%')}, {write(scores['high']).rstrip('%')}]"


def _beats(claim: str, ours: Any, base: Any, sentence: str, write: Any) -> Verdict | None:
    """Compare two means by their intervals over seeds; where these meet, nothing is said."""
    if not ours or not base or ours.get("mean") is None or base.get("mean") is None:
        return None
    low, high = _ends(ours)
    base_low, base_high = _ends(base)
    kind = word = "yes" if low > base_high else "no" if high < base_low else "open"
    said = sentence.format(a=with_interval(ours, write), b=with_interval(base, write))
    if kind == "open":
        return Verdict(claim, kind, "no difference shown", said)
    if ours.get("low") is None:  # nothing says how far another training run would lie from this one
        return Verdict(claim, "open", f"{word}, in one run", said, "One seed, so there is no interval.")
    return Verdict(claim, kind, word, said)


def _ends(scores: Mapping[str, Any]) -> tuple[float, float]:
    low, high = scores.get("low"), scores.get("high")
    return (scores["mean"] if low is None else low), (scores["mean"] if high is None else high)


def _truth(raw: Any, after: Any, perfect: Any) -> Verdict | None:
    if not raw or raw.get("mean") is None:
        return None
    sentence = f"Calibration error {with_interval(raw, number)} as it comes"
    last = raw
    if after and after.get("mean") is not None:
        sentence, last = f"{sentence}, {with_interval(after, number)} after calibration", after
    claim = "Do its probabilities mean what they say?"
    if not perfect or perfect.get("mean") is None:
        return Verdict(claim, "none", "measured", f"{sentence}.")
    sentence += f". A perfectly calibrated model would show {with_interval(perfect, number)} with as many questions."
    within = last["mean"] <= _ends(perfect)[1]
    return Verdict(claim, "yes" if within else "open", "within chance" if within else "more than chance", sentence)


def promise(row: Mapping[str, Any]) -> str:
    """Say what one seed's threshold promises and what it kept on test questions, or that there is none."""
    learnt = row.get("calibration") or {}
    if row.get("threshold") is None:
        n = f" from {learnt['n']:,} calibration questions" if learnt.get("n") else ""
        return f"No threshold could be certified{n}: none promises {_wanted(row)}. Do not abstain by this token."
    test = row.get("test") or {}
    kept = _kept(test) if test.get("coverage") else "answers no test question"
    bound = learnt.get("upper_bound")
    seen = (
        "" if bound is None else f" On {learnt['n']:,} calibration questions the error was bounded by {percent(bound)}."
    )
    return f"From p = {row['threshold']:.3f} on it {kept}; promised {_wanted(row)}.{seen}"


def _wanted(row: Mapping[str, Any]) -> str:
    return f"at most {100 * row['target_error']:g}% with confidence {100 * (1 - row['delta']):g}%"


def _kept(test: Mapping[str, Any]) -> str:
    return f"answers {100 * test['coverage']:.0f}% of {test['n']:,} test questions with {percent(test['error'])} errors"


def _promise(analysis: Mapping[str, Any]) -> Verdict | None:
    rows = analysis.get("abstention") or []
    if not rows:
        return None
    claim = "Can it abstain so that what it answers is right often enough?"
    held = [row for row in rows if row.get("threshold") is not None and (row.get("test") or {}).get("coverage")]
    if len(rows) == 1 or not held:
        sentence = promise(rows[0])
    else:
        covered, wrong = (fmean(row["test"][key] for row in held) for key in ("coverage", "error"))
        whose = (
            f"{len(rows)} seeds" if len(held) == len(rows) else f"the {len(held)} of {len(rows)} seeds it was found for"
        )
        sentence = (
            f"With a certified threshold it answers {100 * covered:.0f}% of test questions with {percent(wrong)} "
            f"errors (mean of {whose}); promised {_wanted(rows[0])}."
        )
    return Verdict(claim, *_kept_in(held, len(rows)), sentence, guarantee(analysis))


def _kept_in(held: list[Mapping[str, Any]], seeds: int) -> tuple[str, str]:
    """Give kind and word for how many thresholds were found and kept their promise on test questions."""
    kept = sum(row["test"]["error"] <= row["target_error"] for row in held)
    if not held:
        return "open", "not certified"
    if kept < len(held):
        return ("open", f"kept in {kept} of {seeds}") if kept else ("no", "not kept")
    return ("yes", "kept") if kept == seeds else ("open", f"certified in {kept} of {seeds}")


def guarantee(analysis: Mapping[str, Any]) -> str:
    """Say how often the promise holds when the calibration questions are drawn anew."""
    found = analysis.get("guarantee")
    if not found:
        return ""
    return (
        f"Drawn anew {found['splits']:,} times, the threshold kept its promise {percent(found['held'])} of the time; "
        f"wanted: at least {percent(found['wanted'])}."
    )


def _moved(before: Any, token: Mapping[str, Any]) -> Verdict | None:
    after = token.get("answer_accuracy")
    if not before or not after or before.get("mean") is None or after.get("mean") is None:
        return None
    points = f"{100 * (after['mean'] - before['mean']):+.1f}".replace("-", "−")
    sentence = f"{percent(before['mean'])} of answers were right before training, {percent(after['mean'])} after."
    missing = token.get("token_missing_rate")
    if missing and missing.get("mean") is not None:
        sentence += f" After {percent(missing['mean'])} of answers neither token came."
    return Verdict("Did training move the answers themselves?", "none", f"{points} points", sentence)
