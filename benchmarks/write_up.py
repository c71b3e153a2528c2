#!/usr/bin/env python3
"""Put what was measured where people read it: the table and picture of a demo run, the table of Protocol A.

usage: python benchmarks/write_up.py runs/demo runs/protocol-a
"""

import json
import re
import sys
from pathlib import Path

from equipoise.report.picture import build_picture

ROOT = Path(__file__).parents[1]


def table(run: Path) -> str:
    """The means over seeds with their intervals, and the verdicts below, as Markdown."""
    analysis = json.loads((run / "analysis.json").read_text(encoding="utf-8"))
    tasks = analysis["tasks"]
    lines = ["| | " + " | ".join(tasks) + " |", "|---|" + "---:|" * len(tasks)]
    lines.append("| untrained | " + " | ".join(f"{100 * analysis['untrained'][task]:.1f}" for task in tasks) + " |")
    for arm, scores in analysis["arms"].items():
        lines.append(f"| {arm} | " + " | ".join(cell(scores[task]) for task in tasks) + " |")
    verdicts = [
        f"- {row['id']}, {row['claim']}: **{row['verdict']}**. {row['sentence']}" for row in analysis["hypotheses"]
    ]
    return "\n".join([*lines, "", *verdicts])


def cell(numbers: dict) -> str:
    """Mean and interval in %; the interval is cut at 0 and 100, which no share can leave."""
    mean = f"{100 * numbers['mean']:.1f}"
    if not numbers["ci"] or numbers["ci"][0] == numbers["ci"][1]:
        return mean
    low, high = (min(max(100 * bound, 0.0), 100.0) for bound in numbers["ci"])
    return f"{mean} [{low:.1f}, {high:.1f}]"


def put(file: Path, marker: str, text: str) -> None:
    """Replace what stands between the two comments named `marker`."""
    old = file.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
    if not pattern.search(old):
        sys.exit(f"{file}: no place marked {marker}")
    file.write_text(pattern.sub(lambda found: found[1] + text + "\n" + found[2], old), encoding="utf-8")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    demo, protocol = map(Path, sys.argv[1:])
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    build_picture(demo, ROOT / "docs" / "images" / "demo.png")
    put(ROOT / "README.md", "demo-table", table(demo))
    put(ROOT / "docs" / "choosing.md", "protocol-a", table(protocol))


main()
