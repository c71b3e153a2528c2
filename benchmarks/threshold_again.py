#!/usr/bin/env python3
"""Does a threshold at the median shock generalise better than SFT? Protocol S found so by looking; here it is asked.

Named before the runs (LOG.md, 2026-11-21): at Protocol S's learning rate, `soft` answers more updates in phrasings
that were never trained on than `sft` does, on two sets of updates that Protocol S did not train on, with new seeds.
One-sided paired t over seeds, Holm over the two sets. Beside it, not tested: what each arm does at other learning
rates, since a difference at one rate can be one of step size.

usage: python benchmarks/threshold_again.py [--seeds 1 2 3 4 5] [--rates 3e-4 1e-3 3e-3] [--out runs/threshold-again]
"""

import argparse
import json
from pathlib import Path

from equipoise.catalogue import find
from equipoise.journal import read_journal, write_jsonl
from equipoise.metrics.resampling import bootstrap_interval
from equipoise.metrics.statistics import compare, holm
from equipoise.protocols.knowledge import run_protocol
from equipoise.protocols.scores import pivot
from equipoise.protocols.single import resolve_grid
from equipoise.records import Prediction, Result
from equipoise.testbed.examples import load_facts

ARMS = {"sft": {"name": "sft"}}
ARMS |= {name: {"name": "r-eaft", "params": {"tau": tau}} for name, tau in (("tau-5", 5.0), ("tau-1", 1.0))}
ARMS |= {"soft": {"name": "r-eaft-recent", "params": {"quantile": 0.5}}}
TASKS = ("correction", "generalisation", "locality", "retention")
NAMED = "1e-3"  # Protocol S's


def sets_of_updates(folder: Path) -> dict[str, list[str]]:
    """What is trained on: the API changes beyond the fifty of Protocol S, and the news of the archive."""
    rest = folder / "api_changes.jsonl"
    rows, _ = load_facts("testbed:api_change")
    write_jsonl(rest, (row.model_dump() for row in rows[50:]))
    return {
        "other API changes": [f"data.updates={rest}", "data.limit=null"],
        "news": ["data.updates=testbed:archive:confident-wrong", "data.keep=testbed:archive:stable", "data.limit=null"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--rates", nargs="+", default=["3e-4", NAMED, "3e-3"])
    parser.add_argument("--out", type=Path, default=Path("runs/threshold-again"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    asked = {}
    print(f"| updates | learning rate | arm | {' | '.join(TASKS)} |\n|{'---|' * 7}")
    for place, (name, data) in enumerate(sets_of_updates(options.out).items()):
        for rate in options.rates:
            folder = options.out / f"set-{place + 1}-{rate}"
            changes = [*data, f"seeds={options.seeds}", f"training.learning_rate={rate}", f"name={folder.name}"]
            changes += [f"arms={json.dumps(ARMS)}", "protocol=null"]
            analysis = run_protocol(resolve_grid(find("protocol-s"), changes), folder)
            for arm, tasks in analysis["arms"].items():
                cells = " | ".join(f"{100 * tasks[task]['mean']:.1f}" for task in TASKS)
                print(f"| {name} | {rate} | {arm} | {cells} |", flush=True)
            asked[name, rate] = difference(folder)
    tests = {key: compare(*scores, alternative="greater") for key, (scores, _) in asked.items()}
    named = [key for key in tests if key[1] == NAMED]
    adjusted = dict(zip(named, holm([tests[key].p for key in named])))
    print("\nsoft against sft in phrasings never trained on, points; the interval is over seeds and items")
    for key, (_, (low, high)) in asked.items():
        said = f"p {tests[key].p:.2g} one-sided, {adjusted[key]:.2g} after Holm" if key in adjusted else "not tested"
        print(f"{', '.join(key)}: {100 * tests[key].estimate:+.1f} [{100 * low:.1f}, {100 * high:.1f}]; {said}")


def difference(folder: Path) -> tuple[tuple[list[float], list[float]], tuple[float, float]]:
    """The generalisation of soft and of sft by seed, and the interval of their difference over seeds and items."""
    results = [Result.model_validate(row) for row in json.loads((folder / "results.json").read_text(encoding="utf-8"))]
    answers = [Prediction.model_validate(row) for row in read_journal(folder / "predictions.jsonl").rows]
    scores = pivot(results, answers)
    x, y = scores.item_pair("soft", "sft", "generalisation")
    return scores.pair("soft", "sft", "generalisation"), bootstrap_interval(x - y).ci


if __name__ == "__main__":
    main()
