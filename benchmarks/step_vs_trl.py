#!/usr/bin/env python3
"""Seconds of a training step and peak memory beside TRL's SFTTrainer: LoRA on all linear layers, short rows, one batch.

  trl         trl.SFTTrainer, cross entropy
  trl-default the same with gradient checkpointing, as SFTConfig has it by default: less memory for a second forward
  r-eaft      ours
  r-eaft-tail ours, with the tail probability read in the head's pass

Each side is a process of its own with the model loaded once. In every round each makes a few steps in turn while the
others wait, so that a busy machine disturbs all alike; medians over rounds are compared. `cpu s` is the processor time
of a step, which other programs disturb less. Peak memory is the process's, the loaded model included.

    python benchmarks/step_vs_trl.py FOLDER_OF_A_MODEL --rounds 5
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

SIDES = ("trl", "trl-default", "r-eaft", "r-eaft-tail")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"], help="of the weights; both sides alike")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def rendered(loaded: Any, count: int) -> list[Any]:
    from equipoise.data.formatting import render
    from equipoise.testbed.examples import load_facts

    return [render(loaded.tokenizer, example) for example in load_facts("testbed:api_change")[0][:count]]


def trainer(side: str, loaded: Any, rows: list[Any], folder: str) -> Any:
    """A trainer whose `training_step` takes a batch of `rows`."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    data = Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
    options = {
        "model": loaded.model,
        "args": SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=len(rows),
            report_to=[],
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=side == "trl-default",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        ),
        "train_dataset": data,
        "processing_class": loaded.tokenizer,
        "peft_config": LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"),
    }
    if not side.startswith("trl"):
        from equipoise.objectives.weighting import weighting
        from equipoise.training.head import Objective, attach

        attach(loaded.model, Objective(weighting(side)))
    return SFTTrainer(**options)


def step(side: str, made: Any, batch: dict[str, Any]) -> None:
    """One forward and backward, the clipping and the optimizer's step."""
    import torch

    if side.startswith("trl"):
        loss = made.compute_loss(made.model, dict(batch))
    else:
        loss = made.model(**batch, fused_objective=True, num_items=None)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(made.model.parameters(), 1.0)
    made.optimizer.step()
    made.optimizer.zero_grad()


def work(args: argparse.Namespace) -> None:
    """Load, then make `--steps` steps for every line read, and answer each with their times."""
    import torch

    from equipoise.models.loading import load_model
    from equipoise.models.settings import ModelSettings

    torch.set_num_threads(args.threads)
    loaded = load_model(ModelSettings(path=args.model, dtype=args.dtype))
    rows = rendered(loaded, args.batch)
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(args.worker, loaded, rows, folder)
        made.create_optimizer()
        made.model.train()
        if made.args.gradient_checkpointing:  # as `Trainer.train` does
            made.model.gradient_checkpointing_enable(made.args.gradient_checkpointing_kwargs)
        batch = made.data_collator([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
        batch = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        step(args.worker, made, batch)
        print(
            json.dumps({"tokens": int(batch["attention_mask"].sum()), "v": loaded.model.config.vocab_size}), flush=True
        )
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(args.steps):
                step(args.worker, made, batch)
            spent = (time.perf_counter() - wall) / args.steps, (time.process_time() - cpu) / args.steps
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"wall": spent[0], "cpu": spent[1], "peak_mib": peak}), flush=True)


def main() -> None:
    args = arguments()
    if args.worker:
        work(args)
        return
    workers = {
        side: subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], "--worker", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in SIDES
    }
    said = {side: json.loads(_line(worker)) for side, worker in workers.items()}
    print(f"batch of {args.batch}: {said['trl']['tokens']} tokens, V = {said['trl']['v']:,}, {args.dtype}")
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            found[side].append(json.loads(_line(worker)))
    for worker in workers.values():
        worker.communicate()
    middle = {s: {k: statistics.median(row[k] for row in rows) for k in rows[0]} for s, rows in found.items()}
    print(f"{'side':14s}{'wall s':>9s}{'/ trl':>7s}{'cpu s':>9s}{'/ trl':>7s}{'peak MiB':>10s}{'/ trl':>7s}")
    for side, row in middle.items():
        cells = [f"{row[k]:{w}}{row[k] / middle['trl'][k]:7.2f}" for k, w in zip(row, ("9.3f", "9.3f", "10.0f"))]
        print(f"{side:14s}{''.join(cells)}")


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    while line := worker.stdout.readline():
        if line.startswith("{"):
            return line
    raise SystemExit("a side ended before it answered; see its error above")


if __name__ == "__main__":
    main()
