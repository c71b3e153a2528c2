"""Makes a run directory of Protocol A with seeded, plausible numbers and hostile strings, as a grid leaves it."""

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = [42, 123, 456, 789, 2024]
NATS = ("drift", "held-out")
TASKS = ["correction", "generalisation", "efficacy", "locality", "retention", "held-out", "drift"]
COUNTS = {"correction": 50, "generalisation": 100, "efficacy": 50, "locality": 59, "retention": 12}
COUNTS |= {"held-out": 48, "drift": 48}
UNTRAINED = dict(zip(TASKS, (0.0, 0.0, 0.02, 1.0, 1.0, 2.3586, 0.0)))
KNOWN = {"correction": (50, 0), "generalisation": (100, 0), "efficacy": (50, 1), "locality": (60, 59)}
KNOWN |= {"retention": (25, 12), "functions": (8, 0)}
LEVELS = {
    "sft": (0.94, 0.81, 0.96, 0.71, 0.78, 2.52, 0.214),
    "eaft": (0.47, 0.38, 0.62, 0.96, 0.99, 2.71, 0.623),
    "r-eaft": (0.91, 0.78, 0.95, 0.86, 0.93, 2.46, 0.142),
    "r-eaft-detached": (0.88, 0.75, 0.93, 0.90, 0.95, 2.44, 0.131),
    "dft": (0.22, 0.17, 0.44, 0.97, 1.0, 2.37, 0.021),
}
WEIGHTINGS = {"sft": "sft", "eaft": "eaft", "r-eaft": "r-eaft", "r-eaft-detached": "r-eaft", "dft": "dft"}
KNOWLEDGE = ["confident-wrong", "stable", "uncertain", "unknown"]
HOSTILE = '<script>alert("x")</script>'
HOSTILE_LINK = "<img src=http://evil.example/x.png onerror=alert(1)>"
SELECTION = {"prefers_old": 10.0, "seed": 0, "limit": 50, "rows": 245, "preferred": 90, "margins": {}}
SELECTION["ids"] = [f"api-{item:03d}" for item in range(50)]
FUNCTION = (
    'def mean(values):\n    """Return the mean."""',
    "\n    return sum(values) / len(values)",
    "\n    total = 0\n    for v in values:\n        total += v\n",
)
CALLS = [
    ("stack two data frames on top of each other", "pandas", "a.append(b)", "pd.concat([a, b])"),
    ("fill missing values forwards", "pandas", 'df.fillna(method="ffill")', "df.ffill()"),
    ("draw a random integer", "numpy", "np.random.randint(10)", "rng.integers(10)"),
    ("read a list of rows as a frame", "polars", "pl.from_rows(rows)", 'pl.DataFrame(rows, orient="row")'),
    ("parse a UTC time stamp", "python", "datetime.utcfromtimestamp(t)", "datetime.fromtimestamp(t, UTC)"),
]


def make_run(path: Path, arms: Iterable[str] = tuple(LEVELS), seeds: Iterable[int] = tuple(SEEDS)) -> Path:
    """Fill `path` with everything a finished Protocol A leaves, and return it."""
    rng, arms, seeds = np.random.default_rng(7), list(arms), list(seeds)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(_config(arms, seeds), encoding="utf-8")
    _json(path / "manifest.json", _manifest())
    scores = {
        arm: {task: _scores(rng, LEVELS[arm][i], len(seeds), share=task not in NATS) for i, task in enumerate(TASKS)}
        for arm in arms
    }
    _json(path / "analysis.json", _analysis(arms, seeds, scores))
    results = [_result("untrained", 0, task, UNTRAINED[task]) for task in TASKS]
    results += [
        _result(arm, s, task, scores[arm][task][i]) for arm in arms for i, s in enumerate(seeds) for task in TASKS
    ]
    results += [_result("untrained", 0, "drift", 0.0) | {"task": "drift/code", "n": 24}]
    _json(path / "results.json", results)
    _jsonl(path / "predictions.jsonl", _predictions(arms, seeds))
    _jsonl(path / "changes.jsonl", _changes(arms, seeds))
    _json(path / "selection.json", SELECTION)
    _json(path / "schedule.json", {"learning_rate": 1e-3, "epochs": 30, "note": "", "warning": None})
    tokens = _tokens(rng, arms)
    _jsonl(path / "tokens.jsonl", tokens)
    _json(path / "detection.json", _detection(tokens))
    _json(path / "missed.json", _missed())
    for arm in arms:
        for seed in seeds:
            folder = path / "cells" / arm / f"seed-{seed}"
            folder.mkdir(parents=True)
            _jsonl(folder / "metrics.jsonl", _metrics(rng, arm))
    return path


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")


def _jsonl(path: Path, rows: Iterable[dict]) -> None:
    path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")


def _config(arms: list[str], seeds: list[int]) -> str:
    lines = ["name: protocol-a", f"description: '{HOSTILE}'", "protocol: a", "model:", "  path: testbed", "arms:"]
    for arm in arms:
        params = "{tau: 5.0, alpha: 3.0}" if WEIGHTINGS[arm] == "r-eaft" else "{}"
        lines += [f"  {arm}:", f"    name: {WEIGHTINGS[arm]}", f"    params: {params}"]
    return "\n".join([*lines, f"seeds: {seeds}", "training:", "  epochs: auto", "  learning_rate: auto"]) + "\n"


def _manifest() -> dict:
    versions = {"python": "3.11.9", "equipoise": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"}
    data = {"testbed:api_change": "0f" * 32, "testbed:api_fact": "1e" * 32}
    return {"schema_version": 1, "seed": 42, "device": "cpu", "versions": versions, "data": data, "note": HOSTILE}


def _scores(rng: np.random.Generator, level: float, n: int, *, share: bool) -> list[float]:
    return [
        round(float(v), 4) for v in np.clip(level + rng.normal(0, 0.02 if share else 0.004, n), 0, 1 if share else None)
    ]


def _summary(values: list[float]) -> dict:
    mean, n = float(np.mean(values)), len(values)
    variance = float(np.var(values, ddof=1)) if n > 1 else None
    half = 2.776 * math.sqrt(variance / n) if variance is not None else None
    interval = None if half is None else [mean - half, mean + half]
    return {"mean": mean, "variance": variance, "ci": interval, "n_seeds": n, "values": values}


def _hypothesis(key: str, claim: str, test: str, verdict: str, sentence: str, **numbers: Any) -> dict:
    blank = dict.fromkeys(["estimate", "ci", "t", "p", "p_holm", "effect_size"])
    return {"id": key, "claim": claim, "test": test, **blank, **numbers, "verdict": verdict, "sentence": sentence}


def _analysis(arms: list[str], seeds: list[int], scores: dict) -> dict:
    h1 = {"estimate": -0.03, "ci": [-0.051, -0.009], "t": -3.9, "p": 0.991, "p_holm": 0.991, "effect_size": -1.74}
    h2 = {"estimate": 0.15, "ci": [0.11, 0.19], "t": 4.2, "p": 0.93, "p_holm": 0.97, "effect_size": 2.1}
    h3 = {"estimate": 0.44, "ci": [0.41, 0.47], "t": 28.5, "p": 4.5e-6, "p_holm": 1.35e-5, "effect_size": 12.7}
    low = "R-EAFT corrects 3.0 points less than SFT (interval 0.9 to 5.1 points, 5 seeds), so the claim does not hold."
    hypotheses = [
        _hypothesis("H1", "R-EAFT corrects more than SFT", "paired t, one-sided", "not supported", low, **h1),
        _hypothesis("H2", "R-EAFT and SFT retain alike, within 5 points", "TOST", "undecided", "Too few seeds.", **h2),
        _hypothesis(
            "H3", "R-EAFT corrects more than EAFT", "paired t", "supported", "44 points more, p < 0.001.", **h3
        ),
        _hypothesis(
            "H4", f"Variance {HOSTILE}", "F", "cannot be tested", "Every seed retained all: nothing to divide by."
        ),
    ]
    blind = "Not judged: functions cannot be measured here, since the untrained model got 0 of 8 right."
    hypotheses.append(_hypothesis("H5", "Functions are kept", "none", "cannot tell", blind))
    safety = {arm: _safety(_summary(scores[arm]["retention"])) for arm in arms}
    means = {arm: {task: _summary(scores[arm][task]) for task in TASKS} for arm in arms}
    share = {arm: {"mean": means[arm]["correction"]["mean"] / 0.94, "ci": [0.9, 1.0]} for arm in arms if arm != "sft"}
    return {
        "arms": means,
        "seeds": seeds,
        "tasks": TASKS,
        "untrained": UNTRAINED,
        "hypotheses": hypotheses,
        "safety": safety,
        "correction_share_of_sft": share,
        "known": {task: {"asked": asked, "right": right} for task, (asked, right) in KNOWN.items()},
        "cannot_tell": {"functions": f"the untrained model got 0 of 8 right; ask {HOSTILE} instead"},
        "notes": ["Interval: Student's t over seeds, 95%.", f"A note with {HOSTILE}"],
    }


def _safety(retention: dict) -> dict:
    score = retention["mean"]
    checks = [
        {"name": "retention", "passed": score >= 0.95, "value": score, "limit": 0.95, "sentence": "Keeps its skills."},
        {"name": "forgetting", "passed": score >= 0.9, "value": 1 - score, "limit": 0.1, "sentence": "Forgets little."},
        {"name": "variance", "passed": True, "value": retention["variance"], "limit": 0.01, "sentence": "Steady."},
    ]
    return {"score": score, "threshold": 0.95, "checks": checks}


def _result(method: str, seed: int, task: str, value: float) -> dict:
    metric = {"drift": "forward_kl", "held-out": "nll"}.get(task, "accuracy")
    flat = {"method": method, "seed": seed, "task": task, "metric": metric}
    return {**flat, "value": value, "n": COUNTS[task], "higher_is_better": task not in NATS}


def _call(item: int) -> tuple[str, str, str, str]:
    task, library, old, gold = CALLS[item % len(CALLS)]
    suffix = "" if item < len(CALLS) else f"  # {item}"
    return task, library, old, gold + suffix


def _prediction(method: str, seed: int, item: int) -> dict:
    task, library, old, gold = _call(item)
    wrong = method in {"untrained", "dft"} or (method == "eaft" and item % 2)
    output = HOSTILE if item == 3 and method == "sft" else (old if wrong else gold)
    return {
        "method": method,
        "seed": seed,
        "task": "correction",
        "item": f"api-{item:03d}",
        "phrasing": 0,
        "prompt": f"With {library}, how do I {task}? {HOSTILE if item == 0 else ''}",
        "gold": gold,
        "output": output,
        "score": float(output == gold),
        "published_score": None,
    }


def _predictions(arms: list[str], seeds: list[int]) -> list[dict]:
    cells = [("untrained", 0), *((arm, seed) for arm in arms for seed in seeds)]
    return [_prediction(method, seed, item) for method, seed in cells for item in range(COUNTS["correction"])]


def _changes(arms: list[str], seeds: list[int]) -> list[dict]:
    """Corrections as the predictions have them, and rows to keep: one that all seeds lose, one that only one loses."""
    rows = []
    for arm in arms:
        for i, seed in enumerate(seeds):
            rows += [_change(_prediction(arm, seed, item), seed) for item in range(COUNTS["correction"])]
            rows.append(_kept(arm, seed, "fact-tokyo", "Which city is the capital of Japan?", "Tokyo", "Asakusa"))
            if i == 1:
                rows.append(_kept(arm, seed, "fact-week", "How many days has a week?", "seven", f"one {HOSTILE_LINK}"))
            rows.append(_kept(arm, seed, "fact-sum", "# add up a list\nvalue =", "sum(data)", "sum(data)", was="0"))
            rows.append(_kept(arm, seed, "function-mean", *FUNCTION, task="retention"))
    return rows


def _change(row: dict, seed: int) -> dict:
    shown = {key: row[key] for key in ("method", "task", "item", "phrasing", "prompt", "gold")}
    rest = {"seed": seed, "form": "chat", "old": "the_old(call)", "before": "the_old(call)", "cut": False}
    return shown | rest | {"change": "gained" if row["score"] else "never known", "after": row["output"]}


def _kept(
    method: str, seed: int, item: str, prompt: str, gold: str, after: str, *, was: str = "", task: str = "locality"
) -> dict:
    row = {"method": method, "seed": seed, "task": task, "item": item, "phrasing": 0, "prompt": prompt, "gold": gold}
    row |= {"form": "text" if "\n" in prompt else "chat", "old": None, "cut": task == "retention"}
    return row | {"change": "gained" if was else "lost", "before": was or gold, "after": after}


def _weight(arm: str, nll: float, h: float) -> float:
    shock = nll / (h + 1e-6)
    boosted = 1 + 3 * min(shock / 5, 10)
    return {"sft": 1.0, "eaft": h, "dft": math.exp(-nll)}.get(arm, boosted if shock > 5 else h)


def _tokens(rng: np.random.Generator, arms: list[str]) -> list[dict]:
    rows = []
    for item in range(COUNTS["correction"]):
        knowledge = "confident-wrong" if item % 5 else KNOWLEDGE[1 + item // 5 % 3]
        pieces = ["pd", ".", "concat", "([", "a", ",", " b", "])", "<|im_end|>"]
        if item == 0:
            knowledge, pieces[2] = "confident-wrong", HOSTILE
        for position, token in enumerate(pieces):
            conflict = position == (0 if item % 7 == 0 else 2) and knowledge != "stable"
            rows.append(_token(rng, arms, f"api-{item:03d}", knowledge, position, token, conflict))
    return rows


def _token(rng, arms, item, knowledge, position, token, conflict) -> dict:
    surprise, spread = (9.0, 0.02) if conflict and knowledge == "confident-wrong" else (0.02, 0.01)
    if knowledge in {"uncertain", "unknown"}:
        surprise, spread = (4.0, 0.45) if conflict else (0.3, 0.05)
    nll = float(surprise * np.exp(rng.normal(0, 0.35 if conflict else 1.2)))
    h = float(min(1.0, spread * np.exp(rng.normal(0, 0.8))))
    after = {arm: {"nll": nll * (0.03 if arm != "eaft" else 0.4), "h": h * 0.6} for arm in arms}
    return {
        "item": item,
        "knowledge": knowledge,
        "position": position,
        "token": token,
        "nll": nll,
        "h": h,
        "shock": nll / (h + 1e-6),
        "is_conflict": bool(conflict),
        "weights": {arm: _weight(arm, nll, h) for arm in arms},
        "after": after,
    }


def _curve(score: np.ndarray, truth: np.ndarray, cuts: np.ndarray) -> tuple[list[float], list[float]]:
    flagged = [score > cut for cut in cuts]
    hits = [float((f & truth).sum()) for f in flagged]
    precision = [hit / f.sum() if f.any() else 1.0 for hit, f in zip(hits, flagged)]
    return [float(p) for p in precision], [hit / truth.sum() for hit in hits]


def _side(rows: list[dict]) -> dict:
    truth = np.array([row["is_conflict"] and row["knowledge"] == "confident-wrong" for row in rows])
    shock, nll = np.array([row["shock"] for row in rows]), np.array([row["nll"] for row in rows])
    taus, cuts = np.geomspace(0.5, 2000, 40), np.geomspace(0.05, 15, 40)
    precision, recall = _curve(shock, truth, taus)
    alone = dict(zip(["precision", "recall"], _curve(nll, truth, cuts)))
    nll_only = {"thresholds": cuts.tolist(), **alone, "average_precision": 0.71}
    side = {"taus": taus.tolist(), "precision": precision, "recall": recall, "chance": float(truth.mean())}
    return {**side, "nll_only": nll_only, "average_precision": 0.83}


def _detection(tokens: list[dict]) -> dict:
    top: dict[str, dict] = {}
    for row in tokens:
        top[row["item"]] = max(top.get(row["item"], row), row, key=lambda r: (r["is_conflict"], r["shock"]))
    return {"by_token": _side(tokens), "by_fact": _side(list(top.values())), "tau_in_use": 5.0, "vocab_size": 4096}


def _missed() -> list[dict]:
    rows = [(3, 4, 0.31, 1.9, 6.1), (17, 3, 0.008, 0.03, 3.75), (29, 5, 0.44, 2.1, 4.8)]
    return [
        {
            "item": f"api-{item:03d}",
            "prompt": f"With {_call(item)[1]}, how do I {_call(item)[0]}? {HOSTILE_LINK}",
            "gold": _call(item)[3],
            "old": _call(item)[2],
            "seeds": seeds,
            "h": h,
            "nll": nll,
            "shock": shock,
        }
        for item, seeds, h, nll, shock in rows
    ]


def _metrics(rng: np.random.Generator, arm: str) -> list[dict]:
    steps, start = np.arange(1, 211), {"sft": 1.6, "eaft": 0.05, "dft": 0.2}.get(arm, 20.0)
    fade = np.exp(-steps / 45) + 0.004
    noise = np.exp(rng.normal(0, 0.15, steps.size))
    high = {"sft": 1.0, "eaft": 0.06, "dft": 0.8}.get(arm, 4.0)
    rows = []
    for i, step in enumerate(steps):
        row = {"step": int(step), "epoch": float(step / 7), "loss": float(start * fade[i] * noise[i])}
        row |= {"learning_rate": 1e-3 * (1 - step / 211), "grad_norm": float(fade[i] * 4), "entropy": 0.05}
        row |= {"shocked_share": float(min(1, 0.3 * fade[i] * noise[i])), "token_accuracy": float(1 - fade[i] * 0.4)}
        row |= {"mean_weight": 1.0 if arm == "sft" else float(high * (0.4 + fade[i]) * noise[i]), "seconds": 0.05}
        rows.append({**row, "tokens": 72})
    return rows


if __name__ == "__main__":
    print(make_run(Path(sys.argv[1])))
