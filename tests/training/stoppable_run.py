"""A training run that the stopping rule ends, for a process of its own: `python stoppable_run.py FOLDER`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.models.loading import Loaded
from equipoise.training.settings import LoraSettings, ObjectiveSettings, StoppingSettings, TrainSettings
from equipoise.training.sft import TrainResult, train

# short runs: small blocks, and what counts as nothing is large
QUICK: dict = {"block": 2, "checks": 2, "delta": 0.3, "unsure": 2.0, "z": 1.0}


def run(
    folder: Path, *, examples: int = 11, stopping: dict | None = QUICK, hooks: dict | None = None, **changes: object
) -> TrainResult:
    """LoRA with dropout, three steps an epoch, a checkpoint every four."""
    options = {
        "epochs": 60,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "learning_rate": 1e-2,
        "scheduler": "cosine",
        "lora": LoraSettings(r=4, dropout=0.3),
        "checkpoint_every": 4,
        "stopping": None if stopping is None else StoppingSettings(**stopping),
        **changes,
    }
    return train(
        Loaded(tiny_model(), tiny_tokenizer(), "tiny"),
        tiny_examples(examples),
        objective=ObjectiveSettings(name="sft"),
        settings=TrainSettings(**options),
        folder=folder,
        seed=7,
        **(hooks or {}),
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]))
