"""Makes a run directory of cleaning, SFT and DPO: simulated answers, analysed as real ones, and hostile strings."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equipoise.evaluation.instruct_analysis import analyse, flat_results

HOSTILE = '<script>alert("x")</script>'
STOPPED = "the loss has come to rest: it would fall by less than 0.5% of what it fell"
FORMS = ("bare", "json", "list")
RIGHT = {"untrained": 0.02, "sft": 0.4, "dpo": 0.7}  # how often an answer is exact
LOSS = {"untrained": 3.2, "sft": 0.9, "dpo": 1.1}  # nats a token
MARGIN = {"untrained": -1.0, "sft": 1.0, "dpo": 9.0}  # nats a pair
DROPPED = {"broken": 4, "duplicate": 20, "licence": 6, "near-duplicate": 12, "overlap": 3}
STEPS = 60


def make_instruct_run(
    path: Path,
    seeds: Sequence[int] = (1, 2, 3),
    stages: Sequence[str] = ("sft", "dpo"),
    n: int = 60,
    *,
    pairs: bool = True,
    by: str | None = "form",
) -> Path:
    """Fill `path` with what a finished run leaves, and return it; `n` test questions and as many pairs."""
    (path / "clean").mkdir(parents=True)
    (path / "config.yaml").write_text(_config(seeds, stages, by), encoding="utf-8")
    write_json(path / "manifest.json", {"schema_version": 1, "device": "cpu", "versions": {"python": "3.11.9"}})
    write_json(path / "data.json", _data(n, pairs))
    write_jsonl(path / "clean" / "dropped.jsonl", _dropped())
    cells = [{"method": "untrained", "seed": seeds[0], "seconds": 0.0}]
    for seed in seeds:
        for stage in stages:
            place = path / "cells" / stage / f"seed-{seed}"
            place.mkdir(parents=True)
            _train(place, stage, seed)
            cell = {"method": stage, "seed": seed, "seconds": 31.0, "steps": STEPS, "dropped": 0, "anomalies": []}
            cells.append(cell | ({"stopped": STOPPED} if stage == "sft" and seed == seeds[0] else {}))
    write_jsonl(path / "cells.jsonl", cells)
    measured = [("untrained", seeds[0]), *((stage, seed) for stage in stages for seed in seeds)]
    answers = [row for stage, seed in measured for row in _answers(stage, seed, n, by)]
    scored = [row for stage, seed in measured for row in _pairs(stage, seed, n)] if pairs else []
    write_jsonl(path / "predictions.jsonl", answers)
    write_jsonl(path / "pairs.jsonl", scored)
    write_json(path / "instruct.json", analyse(answers, scored, by=by) | {"cells": cells})
    write_json(path / "results.json", [row.model_dump() for row in flat_results(answers, scored)])
    return path


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")


def write_jsonl(path: Path, rows: Sequence[dict]) -> None:
    path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")


def _config(seeds: Sequence[int], stages: Sequence[str], by: str | None) -> str:
    lines = ["pipeline: instruct", "name: instructions", f"description: '{HOSTILE}'", "model: {path: testbed}"]
    lines += [f"seeds: {list(seeds)}", f"evaluation: {{by: {by or 'null'}}}"]
    return "\n".join([*lines, *(f"{s}: {'{epochs: 1}' if s in stages else 'null'}" for s in ("sft", "dpo"))]) + "\n"


def _data(n: int, pairs: bool) -> dict:
    rows_in = 600
    spread = {"p5": 14, "p50": 24, "p95": 42, "max": 56}
    report = {
        "rows_in": rows_in, "kept": rows_in - sum(DROPPED.values()),
        "kept_by_kind": {"examples": 400, "pairs": 155}, "dropped": DROPPED, "changed": {"control": 7},
        "schemas": {"alpaca": 300, "preference": 155, "messages": 145}, "licences": {"cc-by-4.0": 555},
        "languages": {"en": 400, f"odd {HOSTILE}": 155},
        "lengths": {"unit": "words", "before": spread, "after": spread},
    }  # fmt: skip
    held = report | {"rows_in": n, "kept": n, "dropped": {}, "changed": {}}
    counts = {"train": {"instructions": 400, "pairs": 155 * pairs}}
    counts |= {name: {"instructions": n, "pairs": n * pairs} for name in ("validation", "test")}
    return {"counts": counts, "cleaning": {"validation": held, "test": held, "train": report}}


def _dropped() -> list[dict]:
    rows = []
    for rule, count in DROPPED.items():
        for i in range(count):
            twin = {"twin": f"/deep/folder/alpaca.json:{i + 7}"} if "duplicate" in rule else {}
            rows.append({
                "source": f"/deep/folder/{rule}.jsonl:{i + 1}", "id": None, "rule": rule, "field": "",
                "reason": f"a duplicate of {twin['twin']}" if twin else f"reason of {rule}",
                "excerpt": f"{rule} {i} {HOSTILE}", **twin,
            })  # fmt: skip
    return rows


def _answers(stage: str, seed: int, n: int, by: str | None) -> list[dict]:
    rng = np.random.default_rng([seed, *stage.encode()])
    rows = []
    for i in range(n):
        form, right = FORMS[i % 3], bool(rng.random() < RIGHT[stage])
        gold = {"bare": f"np.call_{i}", "json": f'{{"call": "np.call_{i}"}}', "list": f"- np.call_{i}\n- np.other"}[
            form
        ]
        tokens = 8 + i % 5
        rows.append({
            "method": stage, "seed": seed, "id": f"q-{i}", "prompt": f"Question {i}? {HOSTILE if i == 3 else ''}",
            "gold": gold, "output": gold if right else f"{stage} says {HOSTILE}", "exact": int(right),
            "nll": tokens * float(LOSS[stage] + rng.normal(0, 0.2)), "tokens": tokens, "length": tokens + 3 - right,
            "cut": not right and i % 7 == 0, "group": f"fact-{i // 3}", **({"part": form} if by else {}),
        })  # fmt: skip
    return rows


def _pairs(stage: str, seed: int, n: int) -> list[dict]:
    rng = np.random.default_rng([seed, *stage.encode(), 1])
    rows = []
    for i in range(n):
        chosen = -12.0 - i % 9
        rows.append({
            "method": stage, "seed": seed, "id": f"p-{i}", "chosen_logprob": chosen,
            "rejected_logprob": chosen - float(MARGIN[stage] + rng.normal(0, 3)), "chosen_tokens": 9,
            "rejected_tokens": 14, "reference_chosen_logprob": None, "reference_rejected_logprob": None,
            "group": f"fact-{i // 3}", "part": FORMS[i % 3],
        })  # fmt: skip
    return rows


def _train(place: Path, stage: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    done = (np.arange(STEPS) + 1) / STEPS
    noise = rng.normal(0, 0.03, STEPS)
    if stage == "sft":
        steps = [{"loss": 0.6 + 2.6 * math.exp(-4 * d) + e} for d, e in zip(done, noise)]
        validation = [{"step": i, "mean_example_loss": 0.9 + 2.2 * math.exp(-4 * i / STEPS)} for i in (20, 40, 60)]
    else:
        steps = [
            {
                "loss": 0.693 - 0.5 * d + e, "rewards/chosen": 0.2 * d + e, "rewards/rejected": -2.0 * d,
                "rewards/margins": 2.2 * d + e, "rewards/accuracies": min(1.0, 0.5 + 0.5 * d),
            }
            for d, e in zip(done, noise)
        ]  # fmt: skip
        validation = [{"step": i, "accuracy": 0.6 + 0.3 * i / STEPS, "margin": 9.0 * i / STEPS} for i in (30, 60)]
    write_jsonl(
        place / "metrics.jsonl",
        [{"step": i + 1, **{k: float(v) for k, v in row.items()}} for i, row in enumerate(steps)],
    )
    write_jsonl(place / "validation.jsonl", validation)


if __name__ == "__main__":
    make_instruct_run(Path(sys.argv[1]), seeds=[int(seed) for seed in sys.argv[2:]] or (1, 2, 3), n=300)
