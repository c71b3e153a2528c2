"""One optimizer step, in as many processes as torchrun starts: `one_step.py FOLDER` writes its gradient there."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from safetensors.torch import save_file
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.models.loading import Loaded
from equipoise.training.settings import ObjectiveSettings, TrainSettings
from equipoise.training.sft import train


def step(folder: Path) -> None:
    """Plain SGD with learning rate 1 subtracts the gradient."""
    model = tiny_model(dtype=torch.float64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    settings = TrainSettings(
        epochs=1,
        learning_rate=1.0,
        optimizer="sgd",
        scheduler="constant",
        max_grad_norm=0.0,
        batch_size=2,
        gradient_accumulation=4 // processes,
        lora=None,
        checkpoint_every=1,
    )
    out = train(
        Loaded(model, tiny_tokenizer(), "tiny"),
        tiny_examples(),
        objective=ObjectiveSettings(name="r-eaft", params={"tau": 1.0}),
        settings=settings,
        folder=folder,
        seed=1,
    )
    if os.environ.get("RANK", "0") == "0":
        gradient = {name: before[name] - p.detach() for name, p in out.model.named_parameters()}
        save_file(gradient, folder / "gradient.safetensors")


if __name__ == "__main__":
    step(Path(sys.argv[1]))
