"""Cohorts for tests, also in a process of its own that a test can kill: `python cohort_runs.py FOLDER`."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer
from transformers import set_seed

from equipoise.models.loading import Loaded
from equipoise.models.quiet import quiet
from equipoise.records import Example, Message
from equipoise.training.assembly import lora_config
from equipoise.training.cohort import CohortRun, RunResult, train_cohort
from equipoise.training.settings import LoraSettings, ObjectiveSettings, TrainSettings

OBJECTIVES = {
    "sft": ObjectiveSettings(name="sft"),
    "eaft": ObjectiveSettings(name="eaft", detach_weights=False),
    "r-eaft": ObjectiveSettings(name="r-eaft", params={"tau": 1.0}),
    "dft": ObjectiveSettings(name="dft", normalize="weights"),
    "focal": ObjectiveSettings(name="focal", detach_weights=False),
}
WITH_MEMORY = {"recent": ObjectiveSettings(name="r-eaft-recent", params={"quantile": 0.5, "tau": 1.0, "window": 128})}
SCHEDULES = ("linear", "cosine", "constant_with_warmup")


def loaded(architecture: str = "llama", **changes: Any) -> Loaded:
    return Loaded(tiny_model(architecture, **changes), tiny_tokenizer(), "tiny")


def alike(count: int = 11) -> list[Example]:
    """Examples of the same number of tokens, so that a batch is padded alike whatever company its run has."""
    return [
        Example(
            id=f"e{i}",
            messages=[
                Message(role="user", content=f"the call for {10 + i}"),
                Message(role="assistant", content=f"pandas.concat{10 + 7 * i}"),
            ],
        )
        for i in range(count)
    ]


def runs_of(
    examples: list[Example] | None = None, *, dropout: float = 0.0, objectives: Any = tuple(OBJECTIVES), **changes: Any
) -> list[CohortRun]:
    """Three runs for each objective, that differ in seed, learning rate, schedule and clipping."""
    runs, known = [], OBJECTIVES | WITH_MEMORY
    for name in objectives:
        for k, schedule in enumerate(SCHEDULES):
            options: dict[str, Any] = {
                "epochs": 3,
                "learning_rate": 1e-3 * (k + 1),
                "batch_size": 2,
                "scheduler": schedule,
                "warmup_ratio": 0.1,
                "weight_decay": 0.01 * k,
                "max_grad_norm": (1.0, 0.1, 0.0)[k],
                "lora": LoraSettings(r=4, dropout=dropout),
                "checkpoint_every": None,
                **changes,
            }
            runs.append(CohortRun(f"{name}/seed-{k}", examples or alike(), known[name], TrainSettings(**options), k))
    return runs


def parameters(final: Path) -> torch.Tensor:
    """All parameters of a saved adapter."""
    return _flat(load_file(final / "adapter_model.safetensors"))


def initial(run: CohortRun, architecture: str = "llama") -> torch.Tensor:
    """Those that PEFT draws from the run's seed."""
    model = tiny_model(architecture)
    config = lora_config(model, run.settings)
    set_seed(run.seed)
    with quiet():
        return _flat(get_peft_model_state_dict(get_peft_model(model, config)))


def _flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([state[name].flatten() for name in sorted(state)])


def run(folder: Path) -> list[RunResult]:
    """Six runs with dropout, accumulation, a stopping rule and different ends, a checkpoint every third step."""
    runs = runs_of(
        tiny_examples(11),
        dropout=0.2,
        objectives=("recent", "focal"),
        gradient_accumulation=2,
        checkpoint_every=3,
        stopping={"block": 2, "checks": 2, "unsure": 1e9, "delta": 2.0},
    )
    longer = [
        CohortRun(r.name, r.examples, r.objective, r.settings.model_copy(update={"epochs": 4 + 6 * i}), r.seed)
        for i, r in enumerate(runs)
    ]
    return train_cohort(loaded(), longer, folder=folder)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
