#!/usr/bin/env python3
"""What the journal costs: samples drawn into a file against the same samples drawn and thrown away.

Both draw with the same model, seeds and batches; the journalled one also reads the answers, writes each as it ends and
waits for the disk. The two take turns, `--rounds` times, after one of each to warm up, and the medians are compared. A
small model is the hard case, as its steps are short. Exits 1 if the journal costs more than 5%.

    python benchmarks/journal_cost.py
    python benchmarks/journal_cost.py --model Qwen/Qwen2.5-0.5B-Instruct --inputs 40 --folder /mnt/slow-disk
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 1.05


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed:ner")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    return parser.parse_args()


def versions(args: argparse.Namespace, folder: Path) -> tuple[Callable[[], int], Callable[[], int]]:
    """Bare and journalled drawing; each returns how many samples it drew."""
    from equipoise.data.extraction import prompt
    from equipoise.models.backends.hf import Embedded
    from equipoise.models.backends.interface import Request
    from equipoise.models.loading import load_model
    from equipoise.models.settings import ModelSettings
    from equipoise.pipelines.sampling import sample_inputs, sample_seed
    from equipoise.pipelines.sampling_settings import SamplingSettings
    from equipoise.records import Message
    from equipoise.testbed import ner

    loaded = load_model(ModelSettings(path=args.model))
    settings = SamplingSettings(
        samples=args.samples, batch_tokens=args.batch_tokens, max_new_tokens=args.max_new_tokens
    )
    sentences, types = ner.load("target", "train")[: args.inputs], ner.TYPES["target"]
    backend = Embedded(lambda: loaded, settings)
    requests = [
        Request((s.id, k), (Message(role="user", content=prompt(s.text, types)),), sample_seed(1, s.id, args.model, k))
        for s in sentences
        for k in range(args.samples)
    ]
    count = iter(range(10**6))

    def bare() -> int:
        return sum(len(some) for some in backend.sample(requests))

    def journalled() -> int:
        path = folder / f"samples-{next(count)}.jsonl"
        given = {"types": types, "settings": settings, "model_name": args.model, "seed": 1}
        return len(sample_inputs(backend, sentences, journal_path=path, **given))

    return bare, journalled


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        both = versions(args, Path(folder))
        seconds: tuple[list[float], list[float]] = ([], [])
        for round_ in range(args.rounds + 1):
            for version, times in zip(both, seconds):
                started = time.perf_counter()
                drawn = version()
                if round_:
                    times.append(time.perf_counter() - started)
    bare, journalled = (statistics.median(times) for times in seconds)
    ratio = journalled / bare
    pairs = ", ".join(f"{b / a:.3f}" for a, b in zip(*seconds))
    print(f"{drawn} samples; bare {bare:.3f} s, journalled {journalled:.3f} s, ratio {ratio:.3f} (rounds: {pairs})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
