"""What stopping in time saves and costs on the testbed's instructions: two finished instruct runs, paired by seed.

equipoise run instruct seeds=[1,2,3,4,5] dpo=null --out runs/whole
equipoise run instruct seeds=[1,2,3,4,5] dpo=null "sft.stopping={}" --out runs/stopped
python benchmarks/stopping_testbed.py runs/whole runs/stopped
"""

import sys
from pathlib import Path

import numpy as np

from equipoise.evaluation.instruct_analysis import ANSWERS
from equipoise.journal import read_journal
from equipoise.metrics.resampling import bootstrap_interval
from equipoise.metrics.statistics import compare


def rows_of(run: Path) -> dict[int, list[dict]]:
    """What the SFT model of each seed answered, sorted by question."""
    found: dict[int, list[dict]] = {}
    for row in read_journal(run / "predictions.jsonl").rows:
        if row["method"] == "sft":
            found.setdefault(row["seed"], []).append(row)
    return {seed: sorted(rows, key=lambda row: row["id"]) for seed, rows in found.items()}


def steps_of(run: Path) -> dict[int, int]:
    """Optimizer steps of SFT by seed."""
    return {row["seed"]: row["steps"] for row in read_journal(run / "cells.jsonl").rows if row["method"] == "sft"}


def gap(both: np.ndarray) -> float:
    """The mean over seeds of stopped less whole, of ratios of sums over facts."""
    total = both.sum(1)
    return float((total[:, 0] / total[:, 1] - total[:, 2] / total[:, 3]).mean())


def main(whole: Path, stopped: Path) -> None:
    """Print steps, and for each measure both means and the paired difference."""
    before, after = rows_of(whole), rows_of(stopped)
    seeds = sorted(before.keys() & after.keys())
    steps = [(steps_of(stopped)[seed], steps_of(whole)[seed]) for seed in seeds]
    for seed, (used, full) in zip(seeds, steps):
        log = read_journal(stopped / "cells" / "sft" / f"seed-{seed}" / "stopping.jsonl").rows
        print(f"seed {seed}: {used} of {full} steps ({used / full:.0%}) {log[-1]['reason'] if log else 'to the end'}")
    print(f"steps used: {sum(u for u, _ in steps) / sum(f for _, f in steps):.0%}")
    for measure in ANSWERS:
        groups = {row["group"]: n for n, row in enumerate({r["group"]: r for r in before[seeds[0]]}.values())}
        sums = np.zeros((len(seeds), len(groups), 4))
        for s, seed in enumerate(seeds):
            for at, side in ((0, after), (2, before)):
                for row in side[seed]:
                    sums[s, groups[row["group"]], at : at + 2] += measure.over(row), measure.under(row)
        total = sums.sum(1)
        x, y = total[:, 0] / total[:, 1], total[:, 2] / total[:, 3]
        ci, test = bootstrap_interval(sums, gap).ci, compare(x, y) if len(seeds) > 1 else None
        spread = "" if ci is None else f" [{ci[0]:+.4f}, {ci[1]:+.4f}] over seeds and facts"
        p = "" if test is None or test.p_two_sided is None else f", paired t p = {test.p_two_sided:.3f}"
        print(f"{measure.name}: stopped {x.mean():.4f}, whole {y.mean():.4f}, difference {gap(sums):+.4f}{spread}{p}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
