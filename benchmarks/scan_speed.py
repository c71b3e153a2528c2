#!/usr/bin/env python3
"""Tokens per second of a scan beside a bare forward pass: to the last hidden state, then one product with the head.

Random weights in the shape of Qwen2.5-0.5B, rows of `--length` tokens that are all supervised. Both take turns in one
process, on the same batches, and each round gives one ratio, of wall time and, on a CPU, of processor time.

    python benchmarks/scan_speed.py                                   # float32 on the CPU, one thread
    python benchmarks/scan_speed.py --device cuda --dtype bfloat16 --rows 64 --batch 16 --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="rows at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--layers", type=int, default=24)
    return parser.parse_args()


def model_of(args: argparse.Namespace) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=args.layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).to(args.device, getattr(torch, args.dtype)).eval()


def seconds(work: Callable[[], Any], device: str) -> tuple[float, float]:
    """Wall time and processor time."""
    start = time.perf_counter(), time.process_time()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    from equipoise.data.formatting import Rendered
    from equipoise.evaluation.tokens import TokenReader
    from equipoise.models.loading import Loaded

    model = model_of(args)
    ids = torch.randint(0, 151936, (args.rows, args.length))
    rows = [Rendered(row, row) for row in ids.tolist()]
    reader = TokenReader(Loaded(model, None, "random"), batch_tokens=args.batch * args.length)

    @torch.inference_mode()
    def bare() -> None:
        for batch in ids.split(args.batch):
            hidden = model.model(input_ids=batch.to(args.device), use_cache=False).last_hidden_state
            model.lm_head(hidden)

    def scan() -> None:
        for _ in reader.read(rows):
            pass

    for work in (bare, scan):
        seconds(work, args.device)
    walls, processor, tokens = [], [], ids.numel()
    for n in range(args.rounds):
        first, second = (bare, scan) if n % 2 == 0 else (scan, bare)
        took = {first: seconds(first, args.device)}
        took[second] = seconds(second, args.device)
        walls.append(took[bare][0] / took[scan][0])
        processor.append(took[bare][1] / took[scan][1])
        bare_rate, scan_rate = (tokens / took[work][0] for work in (bare, scan))
        print(f"round {n + 1}: bare {bare_rate:.0f} tokens/s, scan {scan_rate:.0f}", flush=True)
    for name, ratios in (("wall time", walls), *([("processor time", processor)] if args.device == "cpu" else [])):
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"scan / bare by {name}: median {statistics.median(ratios):.3f}, {args.rounds} rounds from {spread}")


if __name__ == "__main__":
    main()
