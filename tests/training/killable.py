"""A training run for a process of its own, so that a test can kill it: `python killable.py FOLDER`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.models.loading import Loaded
from equipoise.training.settings import LoraSettings, ObjectiveSettings, TrainSettings
from equipoise.training.sft import TrainResult, train

OBJECTIVE = ObjectiveSettings(name="r-eaft", params={"tau": 1.0})


def run(
    folder: Path, *, architecture: str = "llama", objective: ObjectiveSettings = OBJECTIVE, **changes: object
) -> TrainResult:
    """LoRA with dropout and accumulation: three steps an epoch, the last of them shorter, a checkpoint every four."""
    options = {
        "epochs": 10,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "learning_rate": 1e-2,
        "scheduler": "cosine",
        "warmup_ratio": 0.1,
        "lora": LoraSettings(r=4, dropout=0.3),
        "checkpoint_every": 4,
        **changes,
    }
    return train(
        Loaded(tiny_model(architecture), tiny_tokenizer(), "tiny"),
        tiny_examples(11),
        objective=objective,
        settings=TrainSettings(**options),
        folder=folder,
        seed=7,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]))
