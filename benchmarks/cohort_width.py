#!/usr/bin/env python3
"""Tokens per second and peak memory of a cohort by its number of runs, beside the single trainer.

Every number is a process of its own; rows are random text of one length, all supervised. On a CPU the clock is
processor time, which other work on the machine hardly moves; on a GPU it is wall time.

    python benchmarks/cohort_width.py                                   # the testbed's model, one thread
    python benchmarks/cohort_width.py --shape qwen2.5-1.5b --dtype bfloat16 --device cuda --length 128 \
        --batch 1 --accumulation 8                                      # what a GPU is for
    python benchmarks/cohort_width.py --plot docs/images/cohort-width.svg
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

SHAPES = {
    "qwen2.5-0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "qwen2.5-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
}
SHARED: dict[str, Any] = {"vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True}
WARM = 2  # steps that are not counted


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 5, 15, 45])
    parser.add_argument("--shape", default="testbed", choices=["testbed", *SHAPES])
    parser.add_argument("--length", type=int, default=40, help="tokens of a row")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8, help=f"optimizer steps, of which {WARM} warm up")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, help="an SVG of tokens per second by runs")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def base(args: argparse.Namespace) -> Any:
    """The model: the testbed's, or one of random weights with the testbed's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from equipoise.models.loading import Loaded, load_model
    from equipoise.models.settings import ModelSettings

    if args.shape == "testbed":
        return load_model(ModelSettings(path="testbed", device=args.device))
    torch.manual_seed(0)
    config = Qwen2Config(**SHARED, **SHAPES[args.shape])
    model = Qwen2ForCausalLM(config).to(args.device, getattr(torch, args.dtype)).eval()
    return Loaded(model, load_model(ModelSettings(path="testbed", device="cpu")).tokenizer, args.shape)


def rows(args: argparse.Namespace, vocab: int) -> Any:
    import torch

    from equipoise.data.formatting import Formatted, Rendered

    drawn = torch.Generator().manual_seed(1)
    count = args.steps * args.batch * args.accumulation
    ids = torch.randint(0, vocab, (count, args.length), generator=drawn).tolist()
    return Formatted([Rendered(row, list(row)) for row in ids], [f"row-{i}" for i in range(count)])


def worker(args: argparse.Namespace) -> dict[str, float]:
    """Train so many runs as a cohort, or for 0 one run with the single trainer; seconds a step, peak memory."""
    import torch

    from equipoise.models.quiet import quiet
    from equipoise.training.cohort import CohortRun, train_cohort
    from equipoise.training.settings import ObjectiveSettings, TrainSettings
    from equipoise.training.sft import train

    if args.device == "cpu":
        torch.set_num_threads(1)
    with quiet():
        loaded = base(args)
        data = rows(args, loaded.model.config.vocab_size)
        settings = TrainSettings(
            epochs=1, batch_size=args.batch, gradient_accumulation=args.accumulation, checkpoint_every=None
        )
        objective, clock = ObjectiveSettings(name="r-eaft", params={"tau": 5.0}), Clock(args.device)
        with tempfile.TemporaryDirectory() as folder:
            if args.worker == 0:
                more: Any = {"folder": folder, "seed": 1, "on_step": lambda row: clock.tick(row["step"])}
                train(loaded, data, objective=objective, settings=settings, keep_base=False, **more)
            else:
                runs = [CohortRun(f"run-{i}", data, objective, settings, seed=i) for i in range(args.worker)]
                train_cohort(loaded, runs, folder=folder, on_step=lambda _, row: clock.tick(row["step"]))
    tokens = max(args.worker, 1) * args.batch * args.accumulation * args.length
    return {"tokens_per_second": tokens / statistics.median(clock.steps()), "peak_gb": peak(args.device)}


class Clock:
    """When each optimizer step was first heard of."""

    def __init__(self, device: str):
        self.device, self.marks = device, {}

    def tick(self, step: int) -> None:
        import torch

        if step not in self.marks:
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.marks[step] = time.perf_counter() if self.device == "cuda" else time.process_time()

    def steps(self) -> list[float]:
        times = [self.marks[step] for step in sorted(self.marks)][WARM - 1 :]
        return [b - a for a, b in pairwise(times)]


def peak(device: str) -> float:
    """Of the process, or of the GPU's memory, in 10^9 bytes."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def draw(found: dict[int, dict[str, float]], alone: float, path: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cohort"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.plot(list(found), [row["tokens_per_second"] for row in found.values()], marker="o", label="cohort")
    axes.axhline(alone, linestyle="--", color="gray", label="single trainer")
    axes.set(xlabel="runs in the cohort", ylabel="tokens per second, all runs", title=title, xscale="log")
    axes.set_xticks(list(found), [str(runs) for runs in found])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    args = arguments()
    if args.worker is not None:
        print(json.dumps(worker(args)))
        return
    found: dict[int, dict[str, float]] = {}
    for runs in (0, *args.runs):
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(runs)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[runs] = row = json.loads(done.stdout.splitlines()[-1])
        name = "single trainer" if runs == 0 else f"cohort of {runs}"
        times = row["tokens_per_second"] / found[0]["tokens_per_second"]
        rate, memory = f"{row['tokens_per_second']:10.0f} tokens/s", f"{row['peak_gb']:6.2f} GB"
        print(f"{name:15} {rate}  {times:5.2f}x  {memory}", flush=True)
    if args.plot:
        alone = found.pop(0)["tokens_per_second"]
        where = "GPU" if args.device == "cuda" else "one CPU thread, processor time"
        draw(found, alone, args.plot, f"{args.shape}, {args.dtype}, {where}")


if __name__ == "__main__":
    main()
