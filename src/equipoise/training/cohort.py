"""Many LoRA runs on one frozen base, trained together in one pass, each as if it were alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from equipoise import journal
from equipoise.console import say
from equipoise.data.formatting import Formatted
from equipoise.errors import UserError
from equipoise.models.adapters import base_note
from equipoise.models.head import HeadFormula, verify
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack, parameters_of, slots
from equipoise.training import checkpoints
from equipoise.training.assembly import check_settings, lora_config, pick_precision
from equipoise.training.cohort_checks import ONE_BY_ONE, check_model, check_runs, names_in, runs_that_fit
from equipoise.training.cohort_loop import Cohort, Validate
from equipoise.training.cohort_member import CohortRun, Member, RunResult
from equipoise.training.interrupts import StopRequest
from equipoise.training.rng import restore_rng, rng_state
from equipoise.training.sft import check_ids, formatted, identity, quiet_training, write_model

__all__ = ["CohortRun", "RunResult", "train_cohort"]


def train_cohort(
    loaded: Loaded,
    runs: Sequence[CohortRun],
    *,
    folder: str | Path,
    validate: Validate | None = None,
    on_step: Callable[[str, dict[str, Any]], None] | None = None,
    memory_gb: float | None = None,
    checkpoints_in: str | Path | None = None,
) -> list[RunResult]:
    """Train all `runs`, as many at once as fit; the same call goes on with a folder that was cut off.

    Each run has its own adapter, data, order, objective, learning rate, schedule, dropout, clipping, optimizer and
    stopping rule, and ends with what `training.sft.train` gives, but for rounding. They share the base, batch size,
    accumulation, rank and targets of the adapter, and precision. `loaded.model` comes back as it was.

    Args:
        folder: a run leaves in `folder/NAME` what `train` leaves in its folder, but for checkpoints.
        validate: called as `validate(stack, names, step)` in eval mode when a run has ended an epoch.
        on_step: called with a run's name and each row of its `metrics.jsonl`.
        memory_gb: what the runs may take beside the base (10^9 bytes); by default what is free.
        checkpoints_in: where the checkpoints of the cohorts go; by default `cohorts` in `folder`.

    Returns:
        A result for each run, in their order. A run that met too many numbers that are none has an `error` in it and
        no `final/`; the others are not touched by it.

    Raises:
        UserError: runs that cannot share, data and model that do not go together, or another run's folder.
        Interrupted: SIGINT or SIGTERM; the step was finished and saved.
    """
    precision = check_cohort(loaded, runs)
    settings, folder = runs[0].settings, Path(folder)
    places = Path(checkpoints_in or folder / "cohorts")
    verify(loaded.model, HeadFormula.of(loaded.model), loaded.model.forward)
    base = base_note(loaded.model, loaded.name)
    data: dict[str, Formatted] = {}
    for run in runs:
        check_settings(loaded.model, run.settings)
        data[run.name] = rows = formatted(loaded.tokenizer, run.examples, run.settings)
        check_ids(loaded.model, ((name, row.input_ids) for name, row in zip(rows.ids, rows.rows)))
        (folder / run.name).mkdir(parents=True, exist_ok=True)
        said = identity(loaded, rows, run.objective, run.settings, run.seed, base)
        checkpoints.claim(folder / run.name, said)
    by_name = {run.name: run for run in runs}
    with quiet_training(), frozen(loaded.model):
        parameters = parameters_of_new(loaded, runs[0])
        fit = runs_that_fit(loaded.model, len(parameters), data.values(), settings, memory_gb)
        results: dict[str, RunResult] = {}
        for number, names in enumerate(_plan(places, [run.name for run in runs], fit), 1):
            mine = [by_name[name] for name in names]
            here = places / str(number)
            for result in _train_one(loaded, mine, data, folder, here, precision, base, validate, on_step):
                results[result.name] = result
    return [results[run.name] for run in runs]


def check_cohort(loaded: Loaded, runs: Sequence[CohortRun]) -> str:
    """Check that these runs can be trained together on this model; return the precision, `fp32` or `bf16`.

    Raises:
        UserError: what stands in the way.
    """
    check_runs(runs)
    check_model(loaded.model)
    check_settings(loaded.model, runs[0].settings)
    precision = pick_precision(loaded.model, runs[0].settings)
    if precision == "fp16":
        raise UserError(
            "this GPU has no bf16, and fp16 needs a loss scale, which the runs would share",
            where="training.precision",
            fix=f"set it to fp32, or {ONE_BY_ONE}",
        )
    with quiet_training(), frozen(loaded.model):
        parameters_of_new(loaded, runs[0])  # refuses what is no plain LoRA on linear layers
    return precision


def _plan(places: Path, names: list[str], fit: int) -> list[list[str]]:
    """Which runs are trained together: noted at the start, for a resume may find more or less memory free."""
    path = places / "plan.json"
    if path.exists():
        plan = json.loads(path.read_text(encoding="utf-8"))
        if sorted(names_in(plan)) != sorted(names):
            raise UserError(
                "this folder holds another cohort, of other runs",
                where=str(path),
                fix="train in a new folder, or go back to the runs of the start",
            )
        return plan["cohorts"]
    cohorts = [names[i : i + fit] for i in range(0, len(names), fit)]
    if len(cohorts) > 1:
        say(f"{fit} of the {len(names)} runs fit into memory at once; the others follow: {len(cohorts)} cohorts in all")
    journal.write_json(path, {"cohorts": cohorts})
    return cohorts


def _train_one(
    loaded: Loaded,
    runs: Sequence[CohortRun],
    data: dict[str, Formatted],
    folder: Path,
    places: Path,
    precision: str,
    base: dict[str, Any],
    validate: Validate | None,
    on_step: Any,
) -> list[RunResult]:
    vocab = len(loaded.model.get_output_embeddings().weight)
    with ExitStack() as open_files:
        stop = open_files.enter_context(StopRequest())
        members = [Member(run, data[run.name], folder / run.name, open_files, vocab) for run in runs]
        rows = torch.stack([parameters_of_new(loaded, run) for run in runs])
        adapted = open_files.enter_context(with_adapter(loaded, runs[0]))
        if runs[0].settings.gradient_checkpointing:
            adapted.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
            open_files.callback(adapted.get_base_model().activation_checkpointing_disable)
        write = partial(write_model, loaded, base)
        cohort = Cohort(
            LoraStack(adapted, rows.to(loaded.model.device)),
            members,
            places,
            precision=precision,
            write=write,
            on_step=on_step,
            validate=validate,
        )
        return cohort.train(stop)


@contextmanager
def with_adapter(loaded: Loaded, run: CohortRun) -> Iterator[Any]:
    """The model with a new adapter, as this run's seed draws it; afterwards without, and in eval mode."""
    from peft import get_peft_model
    from transformers import set_seed

    config = lora_config(loaded.model, run.settings)
    before = rng_state()
    set_seed(run.seed)
    adapted = get_peft_model(loaded.model, config)
    restore_rng(before)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    try:
        yield adapted
    finally:
        adapted.unload()
        loaded.model.eval()


def parameters_of_new(loaded: Loaded, run: CohortRun) -> torch.Tensor:
    """The parameters [P] that the run starts with: those that PEFT draws from its seed."""
    with with_adapter(loaded, run) as adapted:
        return parameters_of(slots(adapted))


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """The base without gradients, which PEFT leaves so after it has gone; then as it was."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)
