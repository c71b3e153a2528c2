"""Numbers as readers want them: verdicts with a mark, the table of arms with intervals, what was run in one line."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from equipoise.records import IN_NATS
from equipoise.report.page import Verdict, mapping
from equipoise.report.reading import RunData

# Shape, word and colour say the same, so that none of them has to be seen.
CANNOT_TELL = "cannot tell"
KINDS = {"supported": "yes", "not supported": "no", "undecided": "open", CANNOT_TELL: "blind"}
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
ASKED = {"code": "asked as code to complete", "chat": "asked in chat", "both": "asked in chat and as code to complete"}
BY_LIKELIHOOD = ("efficacy", "paraphrase efficacy", "preference kept", *IN_NATS)  # nothing is generated for them
TASK_WORDS = {
    "correction": "updated facts answered with the new answer, trained phrasing",
    "generalisation": "the same facts in phrasings never trained on",
    "locality": "related facts that must not move",
    "retention": "unrelated skills that must survive",
    "functions": "functions that must still be completed, scored by unit tests",
    "general": "general questions that have nothing to do with the updates",
    "efficacy": "updates whose new answer is likelier than the outdated one, trained phrasing",
    "paraphrase efficacy": "the same in phrasings never trained on",
    "preference kept": "related facts whose right answer is still likelier than a wrong one",
    "held-out": "mean nll of texts never trained on",
    "stability": "exp(-drift) on held-out texts: 100% is the untrained model, 80% a forward KL of 0.22 nats per token",
    "drift": "forward KL from the untrained model on those texts; 0 is unmoved",
}


@dataclass(frozen=True)
class Value:
    """One cell of the table of arms; `low`, `high` and `mean` as shares from 0 to 1 unless `share` is false."""

    task: str
    mean: float | None
    text: str
    interval: str
    low: float | None
    high: float | None
    share: bool = True


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


def _details(row: Mapping[str, Any]) -> str:
    test = str(row.get("test") or "")
    parts = ["" if test == "none" else test]
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
    """Format one mean with its interval, a share cut at 0 and `highest`; a bare number has none."""
    if not isinstance(scores, Mapping):
        scores = {"mean": scores}
    mean, ci, share = scores["mean"], scores.get("ci"), task not in IN_NATS
    if mean is None:
        return Value(task, None, "–", "", None, None, share)
    text = f"{100 * mean:.1f}%" if share else f"{mean:.3f}"
    if not ci or None in ci:
        return Value(task, mean, text, "", None, None, share)
    low, high = (min(max(end, 0.0), highest) if share else max(end, 0.0) for end in ci)
    between = f"{100 * low:.1f} to {100 * high:.1f}" if share else f"{low:.3f} to {high:.3f}"
    return Value(task, mean, text, between, low, high, share)


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
    """Say in one line what was run: model, how it was asked, items, arms, seeds, schedule, device."""
    analysis = analysis or {}
    model = run.config.get("model")
    model = model.get("path") if isinstance(model, Mapping) else model
    parts = [f"Model {Path(str(model)).name if Path(str(model)).is_absolute() else model}"] if model else []
    parts += [ASKED[ask]] if (ask := mapping(run.config.get("data")).get("ask")) in ASKED else []
    chosen = _chosen(mapping(run.selection))
    known = mapping(analysis.get("known"))
    counts = {task: mapping(known.get(task)).get("asked", n) for task, n in item_counts(run).items()}
    counts = {task: n for task, n in counts.items() if task.partition("/")[0] not in BY_LIKELIHOOD}
    parts += [chosen] if chosen else []
    parts += [f"{n} {task} items" for task, n in counts.items() if not (chosen and task == "correction")]
    seeds = analysis.get("seeds")
    arms, seeds = len(run.arms), len(seeds) if isinstance(seeds, list) else 0
    parts += [_count(arms, "arm")] if arms else []
    parts += [_count(seeds, "seed")] if seeds else []
    parts += _schedule(run)
    parts += [f"device {run.manifest['device']}"] if run.manifest.get("device") else []
    return " · ".join(parts)


def _chosen(selection: Mapping[str, Any]) -> str:
    """Say how many updates were taken of how many that the model contradicts."""
    try:
        return (
            f"{len(selection['ids'])} updates, of the {selection['preferred']} (among {selection['rows']}) whose old "
            f"answer the untrained model found more than {selection['prefers_old']:g} times as likely"
        )
    except (LookupError, TypeError, ValueError):
        return ""


def _schedule(run: RunData) -> list[str]:
    """Name learning rate and epochs, and the thresholds, with the word `auto` where the run chose them."""
    training = mapping(run.config.get("training"))
    words = {"learning_rate": "learning rate {:g}", "epochs": "{:g} epochs"}
    parts = [
        text.format(training[key]) + (" (auto)" if key in run.schedule else "")
        for key, text in words.items()
        if isinstance(training.get(key), int | float)
    ]
    taus = [row for row in run.thresholds or [] if isinstance(mapping(row).get("tau"), int | float)]
    return parts + [f"tau {row['tau']:.3g} (auto)" for row in taus]


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
