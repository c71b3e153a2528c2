"""Makes a run directory of learning from own labels: simulated answers, analysed as real ones, and hostile strings."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equipoise.evaluation.extraction_analysis import analyse
from equipoise.evaluation.pseudo_labels import label_quality
from equipoise.metrics.entities import answer, counts
from equipoise.signals.samples import PseudoLabel

HOSTILE = '<script>alert("x")</script>'
WARNING = "reverse, seed 42, stopped early: the reward rose from 0.4 to 0.6 while the held-out F1 fell"
TYPES = {"target": ("dish", "cook"), "source": ("person", "place")}
CHOSEN = {"target": 0.45, "source": 0.9}  # how often an entity is found before training
GAINS = {  # and how much more often after it
    "sft": (0.12, -0.2),
    "all-at-once": (0.2, -0.05),
    "threshold": (0.18, -0.02),
    "curriculum": (0.28, -0.02),
    "dynamic": (0.27, -0.03),
    "random-order": (0.2, -0.04),
    "reverse": (0.05, -0.12),
}
PLANS = {
    "all-at-once": "{pacing: none, threshold: null, order: confident, dynamic: false}",
    "threshold": "{pacing: none, threshold: 0.5, order: confident, dynamic: false}",
    "dynamic": "{pacing: linear, threshold: null, order: confident, dynamic: true}",
    "random-order": "{pacing: linear, threshold: null, order: random, dynamic: false}",
    "reverse": "{pacing: linear, threshold: null, order: reverse, dynamic: false}",
}
STEPS, STAGES = 120, 4


def make_synthetic_run(
    path: Path, seeds: Sequence[int] = (42, 43, 44), arms: Sequence[str] = tuple(GAINS), n: int = 80
) -> Path:
    """Fill `path` with what a finished run leaves, and return it; `n` test sentences a domain."""
    rng, seeds = np.random.default_rng(3), list(seeds)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(_config(seeds, arms), encoding="utf-8")
    manifest = {"schema_version": 1, "device": "cpu", "versions": {"python": "3.11.9"}, "n": HOSTILE}
    write_json(path / "manifest.json", manifest)
    write_json(path / "data.json", _data(n))
    rows = [*_predictions("zero-shot", seeds[0], n), *(r for a in arms for s in seeds for r in _predictions(a, s, n))]
    write_jsonl(path / "predictions.jsonl", rows)
    _labels(path, rng)
    cells = [{"method": "zero-shot", "seed": seeds[0], "seconds": 0.01}]
    for arm in arms:
        for seed in seeds:
            place = path / "cells" / arm / f"seed-{seed}"
            place.mkdir(parents=True)
            cells.append(_train(rng, place, arm, seed))
    analysis = analyse(rows, primary="curriculum") | {"cells": cells, "warnings": [WARNING, f"odd {HOSTILE}"]}
    write_json(path / "synthetic.json", analysis)
    return path


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")


def write_jsonl(path: Path, rows: Sequence[dict]) -> None:
    path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")


def _config(seeds: list[int], arms: Sequence[str]) -> str:
    lines = ["pipeline: synthetic_rl", "name: own-labels", f"description: '{HOSTILE}'", "model: {path: testbed:ner}"]
    lines += ["sampling: {samples: 8}", "primary: curriculum", f"seeds: {seeds}", "arms:"]
    lines += ["  zero-shot: {method: zero-shot}"]
    plain = "{pacing: linear, threshold: null, order: confident, dynamic: false}"
    for arm in arms:
        method = "sft" if arm == "sft" else "grpo"
        lines += [f"  {arm}: {{method: {method}, curriculum: {PLANS.get(arm, plain)}}}"]
    return "\n".join(lines) + "\n"


def _sentence(domain: str, i: int) -> tuple[str, list[tuple[str, str]]]:
    kinds = TYPES[domain]
    gold = [(kinds[j % 2], f"Name {i} {j}") for j in range(i % 4)]
    text = f"Today {' and '.join(name for _, name in gold) or 'nobody'} came" + (f" {HOSTILE}" if i % 20 == 1 else "")
    return text, gold


def _predictions(arm: str, seed: int, n: int) -> list[dict]:
    rng = np.random.default_rng([seed, *arm.encode()])
    rows = []
    for place, domain in enumerate(("target", "source")):
        luck = rng.normal(0, 0.015)
        chance = CHOSEN[domain] + (GAINS[arm][place] + luck if arm in GAINS else 0)
        hard = np.random.default_rng(place).random((n, 4))  # the same sentences are hard for all
        for i in range(n):
            text, gold = _sentence(domain, i)
            found = [pair for j, pair in enumerate(gold) if 0.6 * hard[i, j] + 0.4 * rng.random() < chance]
            found += [(TYPES[domain][0], "Nobody")] if rng.random() < 0.1 else []
            valid = bool(rng.random() < (0.97 if arm in GAINS else 0.9))
            predicted = found if valid else []
            scored = counts(predicted, gold)
            rows.append({
                "method": arm, "seed": seed, "id": f"{domain}-{i}", "domain": domain, "valid": valid,
                "prompt": f"Extract the entities as JSON. Types: {', '.join(TYPES[domain])}.\n{text}",
                "output": answer(predicted) if valid else '{"dish": [', "problem": None if valid else "not JSON",
                "predicted": [list(p) for p in predicted], "gold": [list(p) for p in gold],
                "tp": scored.tp, "fp": scored.fp, "fn": scored.fn, "logprob": -1.0, "tokens": 9,
            })  # fmt: skip
    return rows


def _labels(path: Path, rng: np.random.Generator, n: int = 200) -> None:
    rows, labels, golds = [], [], []
    for i in range(n):
        text, gold = _sentence("target", i)
        sure = float(rng.beta(3, 1.5))
        right = bool(rng.random() < sure)
        own = gold if right else [*gold[1:], ("cook", "Wrong")]
        noise = rng.normal(0, [0.05, 0.08, 0.1, 0.2, 0.05])
        names = ("exact", "consensus", "votes", "logprob", "entropy")
        signals = {name: float(np.clip(sure + e, 0, 1)) for name, e in zip(names, noise)}
        signals["combined"] = float(np.mean(list(signals.values())))
        labels.append(PseudoLabel(f"train-{i}", tuple(own), signals, 8, 7))
        golds.append(gold)
        rows.append({
            "id": f"train-{i}", "text": text, "entities": [list(p) for p in own], "gold": [list(p) for p in gold],
            "signals": signals, "confidence": 0.1 + 0.85 * sure, "trained_on": i % 9 > 0,
        })  # fmt: skip
    write_jsonl(path / "pseudo_labels.jsonl", rows)
    write_json(path / "label_quality.json", {
        "split": "train", "n": n, "samples": 8, "signal": "combined", "empty": 0.1, "left_out": 22,
        "calibrator": {"kind": "platt", "n": 40, "slope": 1.2, "intercept": -0.1},
        "quality": label_quality(labels, golds, confidence={"calibrated": [row["confidence"] for row in rows]}),
    })  # fmt: skip


def _train(rng: np.random.Generator, place: Path, arm: str, seed: int) -> dict:
    gain, lost = GAINS[arm]
    done = (np.arange(STEPS) + 1) / STEPS
    steps = [
        {
            "step": i + 1, "stage": i * STAGES // STEPS, "share": _share(arm, d),
            "reward": float(0.5 + gain * d + rng.normal(0, 0.05)), "reward_target": 0.5, "loss": 0.1,
            "kl": float(0.1 * gain * d + abs(rng.normal(0, 0.002))), "entropy": float(0.4 - 0.2 * d),
            "equal_share_first": float(0.3 + 0.3 * d), "equal_share": float(0.1 + 0.1 * d), "length": 21.5,
            "valid": 0.95, "non_empty": float(0.7 + 0.1 * d),
        }
        for i, d in enumerate(done)
    ]  # fmt: skip
    if arm == "sft":
        steps = [{"step": row["step"], "loss": 1 - row["reward"]} for row in steps[: STEPS // 2]]
    write_jsonl(place / "metrics.jsonl", steps)
    at = range(0, len(steps) + 1, 15)
    validation = [
        {
            "step": i, "target/f1": 0.45 + gain * i / STEPS + float(rng.normal(0, 0.01)), "target/non_empty": 0.7,
            "target/valid": 0.9 + 0.0006 * i, "source/f1": 0.9 + lost * i / STEPS, "source/valid": 0.97,
            "forward_kl": 0.12 * gain * i / STEPS,
        }
        for i in at
    ]  # fmt: skip
    write_jsonl(place / "validation.jsonl", validation)
    cell = {"method": arm, "seed": seed, "seconds": 62.0 + seed % 7, "steps": len(steps)}
    stopped = WARNING if arm == "reverse" and seed == 42 else None
    return (
        cell
        if arm == "sft"
        else cell | {"stopped": stopped, "reward": 0.7, "kl": 0.1 * gain, "forward_kl": 0.12 * gain, "equal_share": 0.2}
    )


def _share(arm: str, done: float) -> float:
    return 1.0 if "none" in PLANS.get(arm, "") else min(1.0, 0.1 + 0.9 * float(done) / 0.8)


def _data(n: int) -> dict:
    counts = {name: {"train": 200, "dev": 40, "test": n} for name in TYPES}
    dropped = [{"where": "target.conll:9", "reason": f"unknown label {HOSTILE}"}]
    return {"counts": counts, "types": TYPES, "dropped": dropped, "notes": ["target: the first 320 sentences"]}


if __name__ == "__main__":
    make_synthetic_run(Path(sys.argv[1]), seeds=[int(seed) for seed in sys.argv[2:]] or (42, 43, 44), n=300)
