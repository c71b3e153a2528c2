#!/usr/bin/env python3
"""Where do the methods differ, and does forgetting show? Protocol A with one seed over learning rates and epochs.

The defaults of `protocol-a` and `demo` were chosen from this table; it is in LOG.md.

usage: python benchmarks/sweep_testbed.py [--rates 5e-4 1e-3 2e-3 5e-3] [--epochs 20] [--seeds 42] [--out runs/sweep]
"""

import argparse
import json
from pathlib import Path

from equipoise.catalogue import find
from equipoise.protocols.knowledge import run_protocol
from equipoise.protocols.single import resolve_grid

TASKS = ("correction", "generalisation", "locality", "retention")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", nargs="+", default=["5e-4", "1e-3", "2e-3", "5e-3"])
    parser.add_argument("--epochs", nargs="+", default=["20"])
    parser.add_argument("--seeds", default="[42]")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    options = parser.parse_args()
    print(f"| learning rate | epochs | arm | {' | '.join(TASKS)} |\n|{'---|' * 7}")
    for rate in options.rates:
        for epochs in options.epochs:
            changes = [f"training.learning_rate={rate}", f"training.epochs={epochs}", f"seeds={options.seeds}"]
            changes.append("training.checkpoint_every=null")
            folder = options.out / f"lr-{rate}-epochs-{epochs}"
            run_protocol(resolve_grid(find("protocol-a"), changes), folder)
            analysis = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
            for arm, tasks in analysis["arms"].items():
                cells = " | ".join(f"{100 * tasks[task]['mean']:.1f}" for task in TASKS)
                print(f"| {rate} | {epochs} | {arm} | {cells} |", flush=True)


main()
