#!/usr/bin/env python3
"""Runs of Protocol A on the testbed, training and evaluation: a cohort, a lean loop one by one, `equipoise run`.

The lean loop is what one would write by hand: the same layers with R = 1, AdamW, batches padded as the trainer pads
them, and the project's own batched generation. Sides take turns within one process, each run of the lean loop between
parts of the cohort's, so that other work on the machine slows both; processor time is given beside wall time.

    python benchmarks/cohort_speed.py --runs 15 --epochs 20            # the whole of it: minutes
    python benchmarks/cohort_speed.py --runs 15 --epochs 4 --rounds 3  # shares, quickly
    python benchmarks/cohort_speed.py --processes 3                    # and so many `equipoise run`, scaled to all
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from equipoise.data.formatting import IGNORE, Formatted, render_all
from equipoise.evaluation.knowledge import Task, evaluate, evaluate_stack
from equipoise.evaluation.settings import ScoringSettings
from equipoise.models.head import HeadFormula
from equipoise.models.loading import Loaded, load_model
from equipoise.models.lora_stack import LoraStack, stack_of
from equipoise.models.quiet import quiet
from equipoise.models.settings import ModelSettings
from equipoise.objectives.weighting import weighting
from equipoise.pipelines.knowledge_data import load_data, tasks
from equipoise.pipelines.settings import DataSettings
from equipoise.training.cohort import CohortRun, parameters_of_new, train_cohort, with_adapter
from equipoise.training.head import Objective, token_loss
from equipoise.training.settings import LoraSettings, ObjectiveSettings, TrainSettings

TAU = {"tau": 5.0, "alpha": 3.0}
ARMS = {
    "sft": ObjectiveSettings(name="sft"),
    "eaft": ObjectiveSettings(name="eaft", detach_weights=False),
    "r-eaft": ObjectiveSettings(name="r-eaft", params=TAU, detach_weights=False),
    "r-eaft-detached": ObjectiveSettings(name="r-eaft", params=TAU),
    "dft": ObjectiveSettings(name="dft"),
}
DATA = DataSettings(updates="testbed:api_change", keep="testbed:api_fact", skills="testbed:function", limit=50)


def planned(count: int, data: Formatted, epochs: int, precision: str) -> list[CohortRun]:
    """The cells of Protocol A in its order: arms by seed."""
    settings = TrainSettings.model_validate(
        {
            "epochs": epochs,
            "learning_rate": 1e-3,
            "batch_size": 8,
            "lora": LoraSettings(r=16, alpha=32).model_dump(),
            "checkpoint_every": None,
            "precision": precision,
        }
    )
    cells = [(arm, seed) for seed in (42, 123, 456, 789, 2024, *range(40)) for arm in ARMS]
    return [CohortRun(f"{arm}/seed-{seed}", data, ARMS[arm], settings, seed) for arm, seed in cells[:count]]


# ---- the lean loop


def lean_training(loaded: Loaded, run: CohortRun, data: Formatted) -> tuple[LoraStack, Any]:
    """One run, by hand: the stack of one with its parameters, and what takes its layers off again."""
    row = parameters_of_new(loaded, run)[None]
    context = with_adapter(loaded, run)
    adapted = context.__enter__()
    stack = LoraStack(adapted, row)
    formula, rule = HeadFormula.of(loaded.model), weighting(run.objective.name, **run.objective.params)
    objective = Objective(rule, run.objective.detach_weights, run.objective.normalize)
    settings = run.settings
    batches = -(-len(data.rows) // settings.batch_size)
    parameter = torch.nn.Parameter(stack.rows)
    optimizer = torch.optim.AdamW([parameter], lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (batches * settings.epochs))
    adapted.train()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16")
    for epoch in range(settings.epochs):
        order = torch.randperm(len(data.rows), generator=torch.Generator().manual_seed(run.seed + epoch)).tolist()
        for start in range(0, len(order), settings.batch_size):
            rows = [data.rows[i] for i in order[start : start + settings.batch_size]]
            width = max(len(row.input_ids) for row in rows)
            ids = torch.tensor([row.input_ids + [0] * (width - len(row.input_ids)) for row in rows])
            mask = torch.tensor([[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows])
            labels = torch.tensor([row.labels + [IGNORE] * (width - len(row.labels)) for row in rows])
            stack.grads.zero_()
            with stack.running() as base, autocast:
                hidden = base.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                items = int((labels[:, 1:] != IGNORE).sum())
                token_loss(base, hidden[:, :-1], labels[:, 1:], formula, objective, items)["loss"].backward()
            parameter.grad = stack.grads
            torch.nn.utils.clip_grad_norm_([parameter], 1.0)
            optimizer.step()
            schedule.step()
    return stack, context


def lean(loaded: Loaded, run: CohortRun, data: Formatted, asked: list[Task]) -> dict[str, list[float]]:
    stack, context = lean_training(loaded, run, data)
    trained = clock()
    with stack.running() as model:
        evaluate(
            Loaded(model, loaded.tokenizer, loaded.name), asked, method="lean", seed=run.seed, how=ScoringSettings()
        )
    context.__exit__(None, None, None)
    return {"training": trained, "end": clock()}


# ---- the clock


def clock() -> list[float]:
    """Wall and processor time."""
    return [time.perf_counter(), time.process_time()]


def since(start: list[float], end: list[float]) -> list[float]:
    return [b - a for a, b in zip(start, end)]


def cohort(loaded: Loaded, runs: list[CohortRun], asked: list[Task]) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        results = train_cohort(loaded, runs, folder=folder)
        trained = clock()
        with stack_of(loaded, [result.final for result in results]) as stack:
            evaluate_stack(stack, loaded, asked, runs=[(run.name, run.seed) for run in runs], how=ScoringSettings())
    return {"training": trained, "end": clock()}


def timed(work: Callable[[], dict[str, list[float]]]) -> dict[str, list[float]]:
    start = clock()
    marks = work()
    return {"training": since(start, marks["training"]), "evaluation": since(marks["training"], marks["end"])}


def added(parts: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: [sum(part[name][i] for part in parts) for i in (0, 1)] for name in parts[0]}


def process(epochs: int, seed: int) -> float:
    """Wall time of one `equipoise run` of the same work."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"training.epochs={epochs}", "training.checkpoint_every=null", f"seed={seed}"]
        command = [sys.executable, "-m", "equipoise.cli", "run", "knowledge-update", *options]
        started = time.perf_counter()
        subprocess.run([*command, "--out", str(Path(folder) / "run")], check=True, capture_output=True)
        return time.perf_counter() - started


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=15)
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--processes", type=int, default=0)
    options.add_argument("--lean-runs", type=int, default=0, help="how many lean runs to time; 0 for all")
    options.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options.add_argument("--lean-precision", default="fp32", choices=["fp32", "bf16"])
    given = options.parse_args()
    with quiet():
        measure(given)


def measure(given: argparse.Namespace) -> None:
    loaded = load_model(ModelSettings(path="testbed", device="cpu"))
    loaded.model.requires_grad_(False)
    rows = load_data(DATA)
    data, asked = render_all(loaded.tokenizer, rows.updates), tasks(rows)
    few = given.lean_runs or given.runs
    ratios = []
    print(f"{given.runs} runs, {given.epochs} epochs, {torch.get_num_threads()} threads", flush=True)
    for _ in range(given.rounds):
        runs = planned(given.runs, data, given.epochs, given.precision)
        hand = planned(given.runs, data, given.epochs, given.lean_precision)[:few]
        half = few // 2
        before = [timed(lambda run=run: lean(loaded, run, data, asked)) for run in hand[:half]]
        ours = timed(lambda runs=runs: cohort(loaded, runs, asked))
        after = [timed(lambda run=run: lean(loaded, run, data, asked)) for run in hand[half:]]
        theirs = {name: [t * given.runs / few for t in times] for name, times in added(before + after).items()}
        for side, parts in (("lean", theirs), ("cohort", ours)):
            said = ", ".join(f"{name} {wall:.1f} s wall {cpu:.1f} s cpu" for name, (wall, cpu) in parts.items())
            print(f"{side}: {said}", flush=True)
        total = [[sum(part[i] for part in parts.values()) for i in (0, 1)] for parts in (ours, theirs)]
        ratios.append([a / b for a, b in zip(*total)])
        print("cohort / lean: {:.2f} of the wall time, {:.2f} of the processor time".format(*ratios[-1]), flush=True)
        if given.processes:
            each = [process(given.epochs, seed) for seed in range(given.processes)]
            print(f"one `equipoise run`: {', '.join(f'{t:.1f}' for t in each)} s")
            share = total[0][0] / (given.runs * statistics.mean(each))
            print(f"cohort / {given.runs} processes: {share:.2f} of the wall time")
    medians = [statistics.median(column) for column in zip(*ratios)]
    print(f"median of {given.rounds}: {medians[0]:.2f} wall, {medians[1]:.2f} processor")


if __name__ == "__main__":
    main()
