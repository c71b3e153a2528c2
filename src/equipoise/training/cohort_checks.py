"""What runs must have in common to share a base and its batches, and how many of them fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from equipoise.data.formatting import Formatted
from equipoise.disk import fits_a_folder
from equipoise.errors import UserError
from equipoise.training.cohort_member import CohortRun
from equipoise.training.settings import TrainSettings

SHARED = ("batch_size", "gradient_accumulation", "gradient_checkpointing", "precision", "max_length")
SHARED_LORA = ("r", "alpha", "target_modules")
RESERVE = 0.15  # of the free memory, for fragments and what the libraries take
ONE_BY_ONE = "train this run by itself with `training.sft.train`"


def check_runs(runs: Sequence[CohortRun]) -> None:
    """Check what can be told before anything is loaded or rendered.

    Raises:
        UserError: there is no run, a name stands twice or is no folder's, or settings are such that runs cannot share.
    """
    if not runs:
        raise UserError("a cohort needs at least one run")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "a cohort trains in one process, and this one is one of several",
            where="WORLD_SIZE",
            fix=f"start it without torchrun or accelerate launch, or {ONE_BY_ONE}",
        )
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1 or not all(map(fits_a_folder, name.split("/"))):
            raise UserError(
                f"{name!r} cannot be the name of a run" + (", for it stands twice" if names.count(name) > 1 else ""),
                fix="give each run its own name, a path such as sft/seed-42",
            )
    first = runs[0]
    for run in runs:
        _check_alone(run)
        for field, one, two in _pairs(first.settings, run.settings):
            if one != two:
                raise UserError(
                    f"the runs of a cohort must agree in {field}: {run.name} has {two!r}, {first.name} has {one!r}",
                    where=f"{run.name}: training.{field}",
                    fix="give them the same, or train them in two cohorts",
                )


def _pairs(one: TrainSettings, two: TrainSettings) -> Iterable[tuple[str, Any, Any]]:
    yield from ((name, getattr(one, name), getattr(two, name)) for name in SHARED)
    yield from ((f"lora.{name}", getattr(one.lora, name), getattr(two.lora, name)) for name in SHARED_LORA)


def _check_alone(run: CohortRun) -> None:
    s = run.settings
    wrong = {
        "lora": (s.lora is None, "a cohort trains adapters; full fine-tuning has nothing to share"),
        "packing": (s.packing, "packed rows mix examples, which a cohort keeps apart"),
        "precision": (s.precision == "fp16", "fp16 needs a loss scale, which the runs would share"),
        "optimizer": (s.optimizer != "adamw_torch", f"a cohort knows adamw_torch, not {s.optimizer!r}"),
        "stopping.restarts": (
            s.stopping is not None and s.stopping.restarts > 0,
            "a restart of the learning rate shuffles anew in a way that only the single trainer knows",
        ),
        "tensorboard": (s.tensorboard, "a cohort writes metrics.jsonl, not TensorBoard's files"),
    }
    for field, (found, why) in wrong.items():
        if found:
            raise UserError(why, where=f"{run.name}: training.{field}", fix=f"change it, or {ONE_BY_ONE}")


def check_model(model: Any) -> None:
    """Check that runs can share this base.

    Raises:
        UserError: it brings an adapter, mixes the rows of a batch, or has dropout of its own.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        raise UserError(
            "the runs of a cohort start with new adapters, and this model brings one",
            where="model.adapter",
            fix="merge it into its base with `equipoise export`, and start from the merged model",
        )
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise UserError(
            "a mixture of experts sorts tokens by expert, so a cohort cannot tell which run a token is of",
            where="model.path",
            fix="train the runs one by one",
        )
    loose = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
    loose += [n for n, m in model.named_modules() if _rate(m, "attention_dropout") > 0]
    if loose:
        raise UserError(
            f"the base has dropout of its own ({loose[0]}), which all runs would draw from one stream",
            where="model.path",
            fix="set the dropout rates in its config.json to 0; training.lora.dropout belongs to each run",
        )


def _rate(module: Any, name: str) -> float:
    value = getattr(module, name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def runs_that_fit(
    model: Any, parameters: int, data: Iterable[Formatted], settings: TrainSettings, memory_gb: float | None
) -> int:
    """How many runs can be trained at once, by arithmetic; at least one.

    A run takes 16 bytes a parameter (weight, gradient, Adam's two moments) and, for each token of a micro-batch, the
    inside of every layer: about 14 hidden sizes and 3 of the feed-forward, or with checkpointing one hidden size.

    Args:
        parameters: of one run's adapter.
        memory_gb: free for the cohort beside the base, 10^9 bytes; None asks the device.
    """
    config = model.config.get_text_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    wide = getattr(config, "intermediate_size", None) or 4 * hidden
    inside = (14 * hidden + 3 * wide) * (2 if settings.precision == "bf16" or model.dtype != torch.float32 else 4)
    each = layers * hidden * 4 + inside if settings.gradient_checkpointing else layers * inside
    longest = max(len(row.input_ids) for rows in data for row in rows.rows)
    one = 16 * parameters + each * longest * settings.batch_size
    free = _free(model.device) if memory_gb is None else memory_gb * 1e9
    return max(1, int(free * (1 - RESERVE) / one))


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # for the next who asks
        return float(torch.cuda.mem_get_info(device)[0] + held)
    import psutil

    return float(psutil.virtual_memory().available)


def names_in(plan: Mapping[str, Any]) -> list[str]:
    """The runs of a stored plan, in its order."""
    return [name for cohort in plan["cohorts"] for name in cohort]
