"""Numbers as readers want them: verdicts with a mark, the table of arms with intervals, what was run in one line."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from equipoise.report.page import Verdict
from equipoise.report.reading import RunData

# Shape, word and colour say the same, so that none of them has to be seen.
KINDS = {"supported": "yes", "not supported": "no", "undecided": "open"}
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
TASK_WORDS = {
    "correction": "updated facts answered with the new answer, trained phrasing",
    "generalisation": "the same facts in phrasings never trained on",
    "locality": "related facts that must not move",
    "retention": "unrelated skills that must survive",
}


@dataclass(frozen=True)
class Value:
    """One cell of the table of arms; `low`, `high` and `mean` as shares from 0 to 1."""

    task: str
    mean: float | None
    text: str
    interval: str
    low: float | None
    high: float | None


def verdicts(analysis: Mapping[str, Any]) -> list[Verdict]:
    """Turn the hypotheses of an analysis into what is shown first."""
    return [
        Verdict(
            row["claim"],
            KINDS.get(row["verdict"], "none"),
            row["verdict"],
            row.get("sentence") or "",
            _details(row),
            id=row["id"],
        )
        for row in analysis.get("hypotheses") or []
    ]


def before_and_after(run: RunData) -> list[str]:
    """Say in a sentence for each arm and task what training changed: the verdicts of a run without a hypothesis."""
    analysis, counts = run.analysis or {}, item_counts(run)
    if analysis.get("hypotheses") != []:
        return []
    before = analysis["untrained"]
    return [
        f"{arm} answers {100 * scores[task]['mean']:.1f}% of {_questions(counts[task])} on {task} right"
        + (f"; before training it was {100 * before[task]:.1f}%." if task in before else ".")
        for arm, scores in analysis["arms"].items()
        for task in analysis["tasks"]
        if task in scores
    ]


def _questions(n: int) -> str:
    return "1 question" if n == 1 else f"{n} questions"


def _details(row: Mapping[str, Any]) -> str:
    parts = [str(row.get("test") or "")]
    if row.get("estimate") is not None:
        parts.append(f"difference {_points(row['estimate'])}{_interval_points(row.get('ci'))}")
    parts += [f"t = {row['t']:.2f}"] if row.get("t") is not None else []
    parts += [f"p for the claim {_p(row['p'])}"] if row.get("p") is not None else []
    parts += [f"{_p(row['p_holm'])} after Holm"] if row.get("p_holm") is not None else []
    parts += [f"effect size {row['effect_size']:.2f}"] if row.get("effect_size") is not None else []
    return parts[0] + "".join(f" · {part}".replace(" -", " −") for part in parts[1:])


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points".replace("-", "−")


def _interval_points(ci: Any) -> str:
    if not ci or None in ci:
        return ""
    return f" [{100 * ci[0]:+.1f}, {100 * ci[1]:+.1f}]".replace("-", "−")


def _p(value: float) -> str:
    if value >= 0.001 or value <= 0:
        return f"{value:.3f}"
    digits, exponent = f"{value:.1e}".split("e-")
    return f"{digits} · 10⁻{exponent.lstrip('0').translate(SUPERSCRIPTS)}"


def value(task: str, scores: Any, *, highest: float = 1.0) -> Value:
    """Format one mean with its interval, cut at 0 and `highest`; a bare number has none."""
    if scores is None:
        return Value(task, None, "–", "", None, None)
    if not isinstance(scores, Mapping):
        scores = {"mean": scores}
    mean, ci = scores["mean"], scores.get("ci")
    if mean is None:
        return Value(task, None, "–", "", None, None)
    if not ci or None in ci:
        return Value(task, mean, f"{100 * mean:.1f}%", "", None, None)
    low, high = (min(max(end, 0.0), highest) for end in ci)
    return Value(task, mean, f"{100 * mean:.1f}%", f"{100 * low:.1f} to {100 * high:.1f}", low, high)


def simple_analysis(run: RunData) -> dict[str, Any] | None:
    """Make do without an analysis: means over seeds of the flat table, without intervals or verdicts."""
    scores: dict[str, dict[str, dict[Any, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in run.results:
        if isinstance(row.get("value"), int | float) and row.get("metric", "accuracy") in ("accuracy", row.get("task")):
            scores[str(row.get("method"))][str(row.get("task"))][row.get("seed")] = float(row["value"])
    untrained = {task: fmean(by_seed.values()) for task, by_seed in scores.pop("untrained", {}).items()}
    if not scores and not untrained:
        return None
    tasks = list(dict.fromkeys(task for arm in [*scores.values(), untrained] for task in arm))
    seeds = list(dict.fromkeys(seed for arm in scores.values() for by in arm.values() for seed in by))
    arms = {
        arm: {
            task: {"mean": fmean(by.values()), "ci": None, "n_seeds": len(by), "values": [by.get(s) for s in seeds]}
            for task, by in by_task.items()
        }
        for arm, by_task in scores.items()
    }
    return {"arms": arms, "seeds": seeds, "tasks": tasks, "untrained": untrained, "hypotheses": [], "notes": []}


def what_was_run(run: RunData, analysis: Mapping[str, Any] | None) -> str:
    """Say in one line what was run: model, items, arms, seeds, device."""
    model = run.config.get("model")
    model = model.get("path") if isinstance(model, Mapping) else model
    counts = item_counts(run)
    parts = [f"Model {model}"] if model else []
    parts += [f"{n} {task} items" for task, n in counts.items()]
    seeds = (analysis or {}).get("seeds")
    arms, seeds = len(run.arms), len(seeds) if isinstance(seeds, list) else 0
    parts += [_count(arms, "arm")] if arms else []
    parts += [_count(seeds, "seed")] if seeds else []
    parts += [f"device {run.manifest['device']}"] if run.manifest.get("device") else []
    return " · ".join(parts)


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def item_counts(run: RunData) -> dict[str, int]:
    """Count the items of each task, as the flat table gives them."""
    return {str(row["task"]): row["n"] for row in run.results if isinstance(row.get("n"), int) and row.get("task")}


def missed(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Take what is shown of the items that one arm corrects and the other does not; numbers may be unknown."""
    if rows is None:
        return None
    words, numbers = ("item", "prompt", "gold", "old", "seeds"), ("h", "nll", "shock")
    return [
        {word: row.get(word, "") for word in words}
        | {key: None if row.get(key) is None else float(row[key]) for key in numbers}
        for row in rows
    ]


def safety(analysis: Mapping[str, Any], arm: str) -> dict[str, Any] | None:
    """Take an arm's safety score and checks, with the score as text."""
    found = (analysis.get("safety") or {}).get(arm)
    if not found:
        return None
    score = found.get("score")
    checks = [{key: check.get(key) for key in ("name", "passed", "sentence")} for check in found.get("checks") or []]
    return {
        "text": "–" if score is None else f"{score:.3f}",
        "threshold": found.get("threshold"),
        "checks": checks,
    }
