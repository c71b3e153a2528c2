#!/usr/bin/env python3
"""Log-probabilities of answers beside lm-evaluation-harness and beside a bare forward pass, in one process.

The updates of the testbed in code form, each with its new and its old call. All three take turns on the same rows;
a row is one prompt with one answer. The harness pads and batches as it does by default, the bare pass has the rows
sorted by length.

    pip install "lm-eval[hf]"
    python benchmarks/likelihood_vs_lm_eval.py --model FOLDER --items 100 --threads 1
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from equipoise.evaluation.knowledge import Task, item_of
from equipoise.evaluation.likelihood import LikelihoodReader, choices
from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings
from equipoise.testbed.examples import load_facts


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or name of a causal language model")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32, help="rows at once, of the harness and of the bare pass")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def bare(model: Any, rows: list[list[int]], batch: int) -> None:
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            ids = pad_sequence([torch.tensor(row) for row in part], batch_first=True)
            mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in part])[:, None]
            model(input_ids=ids, attention_mask=mask.long(), use_cache=False)


def harness(loaded: Loaded, texts: list[tuple[str, str]], batch: int) -> Callable[[], list[float]]:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch)
    requests: Any = [SimpleNamespace(args=pair) for pair in texts]
    return lambda: [logp for logp, _ in lm.loglikelihood(requests, disable_tqdm=True)]


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    loaded = load_model(ModelSettings(path=args.model, dtype=args.dtype, device="cpu"))
    items = [item_of(row) for row in load_facts("testbed:api_change", ask="code")[0][: args.items]]
    chosen = choices(loaded.tokenizer, [Task("updates", tuple(items))])
    texts = [(item.conversation[-1].content, text) for item in items for text in (item.gold, item.old or "")]
    rows = sorted([c.prompt + answer for c in chosen.continuations for answer in c.answers], key=len, reverse=True)
    theirs = harness(loaded, texts, args.batch)
    work: dict[str, Callable[[], Any]] = {
        "equipoise": lambda: LikelihoodReader(loaded).read(
            choices(loaded.tokenizer, [Task("updates", tuple(items))]).continuations
        ),
        "lm-evaluation-harness": theirs,
        "bare forward pass": lambda: bare(loaded.model, rows, args.batch),
    }
    bare(loaded.model, rows[-args.batch :], args.batch)  # warm up
    found: dict[str, Any] = {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(args.rounds):
        for name, job in work.items():
            wall, processor, found[name] = timed(job)
            times[name].append((wall, processor))
    ours = [answer.logp for each in found["equipoise"] for answer in each]
    apart = [abs(a - b) for a, b in zip(ours, found["lm-evaluation-harness"], strict=True)]
    seconds = {name: [statistics.median(part) for part in zip(*each)] for name, each in times.items()}
    report = {
        "rows": len(rows),
        "largest_difference_nats": max(apart),
        "seconds_wall_and_processor": seconds,
        "rows_per_processor_second": {name: len(rows) / processor for name, (_, processor) in seconds.items()},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
