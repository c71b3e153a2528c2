#!/usr/bin/env python3
"""What the journal costs: samples drawn into a file against the same samples drawn into memory.

Both draw with the same model, seeds and batches and read the answers; one also writes each answer as it ends. The two
take turns, `--rounds` times, after one of each to warm up, and the quickest of each are compared, as other work on the
machine only adds. A small model is the hard case: its steps are short. Exits 1 if the journal costs more than 5%.
`--clock processor` counts processor time of all threads instead of the wall's, where the machine is too busy for that.

    python benchmarks/journal_cost.py
    python benchmarks/journal_cost.py --model Qwen/Qwen2.5-0.5B-Instruct --inputs 40 --folder /mnt/slow-disk
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 1.05


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed:ner")
    parser.add_argument("--inputs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    return parser.parse_args()


def versions(args: argparse.Namespace, folder: Path) -> tuple[Callable[[], int], Callable[[], int]]:
    """Bare and journalled drawing; each returns how many samples it drew."""
    from equipoise.models.backends.hf import Embedded
    from equipoise.models.loading import load_model
    from equipoise.models.settings import ModelSettings
    from equipoise.pipelines.sampling import draw_samples, sample_inputs
    from equipoise.pipelines.sampling_settings import SamplingSettings
    from equipoise.testbed import ner

    loaded = load_model(ModelSettings(path=args.model))
    settings = SamplingSettings(
        samples=args.samples, batch_tokens=args.batch_tokens, max_new_tokens=args.max_new_tokens
    )
    backend = Embedded(lambda: loaded, settings)
    sentences = ner.load("target", "train")[: args.inputs]
    given = {"types": ner.TYPES["target"], "settings": settings, "model_name": args.model, "seed": 1}
    count = iter(range(10**6))

    def bare() -> int:
        return len(draw_samples(backend, sentences, **given))

    def journalled() -> int:
        return len(sample_inputs(backend, sentences, journal_path=folder / f"{next(count)}.jsonl", **given))

    return bare, journalled


def main() -> int:
    args = arguments()
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        both = versions(args, Path(folder))
        seconds: tuple[list[float], list[float]] = ([], [])
        for round_ in range(args.rounds + 1):
            for version, times in zip(both, seconds):
                started = clock()
                drawn = version()
                if round_:
                    times.append(clock() - started)
    bare, journalled = (min(times) for times in seconds)
    ratio = journalled / bare
    pairs = ", ".join(f"{b / a:.3f}" for a, b in zip(*seconds))
    print(f"{drawn} samples; bare {bare:.3f} s, journalled {journalled:.3f} s, ratio {ratio:.3f} (rounds: {pairs})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
