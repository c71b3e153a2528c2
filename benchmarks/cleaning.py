#!/usr/bin/env python3
"""How fast `data clean` is, and what memory it takes, as the number of rows grows.

Rows in five schemas, 35 to 100 words each, of 50,000 words drawn by Zipf's law; of 100 rows 5 are broken, 10 exact
duplicates, and 5 near duplicates (one word of an earlier row changed). Every size runs in a process of its own. Memory
is the peak of the process less that of the same process with 100 rows, over the rows: what grows. Exits 1 if it is more
than 1.5 KB a row at the largest size, or if a planted row is not listed.

    python benchmarks/cleaning.py                         # 10,000 and 100,000 rows
    python benchmarks/cleaning.py --rows 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT = 1500  # bytes a row
WORDS = 50_000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--against", action="store_true", help="with 1,000 held-out questions")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def row(schema: int, question: list[str], answer: list[str]) -> dict[str, object]:
    q, a = " ".join(question), " ".join(answer)
    if schema == 0:
        return {"instruction": q, "input": "", "output": a, "license": "mit"}
    if schema == 1:
        return {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}], "language": "en"}
    if schema == 2:
        return {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
    if schema == 3:
        return {"prompt": q, "completion": a}
    return {"prompt": q, "chosen": a, "rejected": " ".join(answer[::-1])}


def plant(path: Path, count: int) -> dict[str, int]:
    """Write `count` rows; return how many are broken, exact and near duplicates."""
    rng = np.random.default_rng(0)
    names = [f"w{i}" for i in range(WORDS)]
    planted = {"broken": 0, "duplicate": 0, "near-duplicate": 0}
    kept: list[tuple[int, list[str], list[str]]] = []
    with path.open("w") as file:
        for number in range(count):
            kind = number % 100
            if kind >= 5 and kind < 10:
                file.write('{"prompt": "cut off\n')
                planted["broken"] += 1
                continue
            schema, question, answer = kept[int(rng.integers(len(kept)))] if kept and kind >= 85 else (-1, [], [])
            if schema >= 0 and kind < 95:
                planted["duplicate"] += 1
            elif schema >= 0:
                question = [*question]
                question[int(rng.integers(1, len(question) - 1))] = f"changed{number}"
                planted["near-duplicate"] += 1
            else:
                ranks = np.minimum(rng.zipf(1.2, int(rng.integers(35, 101))), WORDS) - 1
                words = [names[rank] for rank in ranks]
                schema, question, answer = number % 5, words[:15], words[15:]
                if len(kept) < 20_000:
                    kept.append((schema, question, answer))
            file.write(json.dumps(row(schema, question, answer)) + "\n")
    return planted


def worker(folder: Path, against: bool) -> None:
    from equipoise.pipelines.cleaning import clean
    from equipoise.pipelines.cleaning_settings import CleaningSettings

    settings = CleaningSettings(against=(str(folder / "held_out.jsonl"),) if against else ())
    started, busy = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        report = clean([folder / "rows.jsonl"], folder / "out", settings)
    wall, busy = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"wall": wall, "busy": busy, "peak": peak, "dropped": report["dropped"], "kept": report["kept"]}))


def measure(count: int, against: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted = plant(folder / "rows.jsonl", count)
        rng = np.random.default_rng(1)
        held = [{"question": " ".join(f"h{i}" for i in rng.integers(0, 9999, 15))} for _ in range(1000)]
        (folder / "held_out.jsonl").write_text("".join(json.dumps(each) + "\n" for each in held))
        command = [sys.executable, __file__, "--worker", str(folder), *(["--against"] if against else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return {"planted": planted, **json.loads(done.stdout)}


def main() -> int:
    args = arguments()
    if args.worker:
        worker(args.worker, args.against)
        return 0
    base, ok, growth = measure(100, args.against)["peak"], True, 0.0
    print("rows       wall s  cpu s  rows/s of cpu  peak MB  bytes a row that grow  listed of planted")
    for count in sorted(args.rows):
        found = measure(count, args.against)
        dropped, planted = found["dropped"], found["planted"]
        growth = (found["peak"] - base) / count
        # a near duplicate of a near duplicate of another row, or of two words at once, need not be one of the kept row
        listed = ", ".join(f"{name} {dropped.get(name, 0)} of {n}" for name, n in planted.items())
        ok &= all(dropped.get(name, 0) >= planted[name] for name in ("broken", "duplicate"))
        ok &= dropped.get("near-duplicate", 0) >= 0.99 * planted["near-duplicate"]
        print(
            f"{count:<10,} {found['wall']:6.1f} {found['busy']:6.1f}  {count / found['busy']:13,.0f}"
            f"  {found['peak'] / 1e6:7.0f}  {growth:21,.0f}  {listed}",
            flush=True,
        )
    return 0 if ok and growth <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
