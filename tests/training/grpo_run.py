"""A small GRPO run on the testbed's sentences, which a test can call, or start in a process of its own and kill."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

from equipoise.data.extraction import pairs, prompt
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.records import Message
from equipoise.schedules.curriculum import Curriculum, Schedule
from equipoise.testbed import ner
from equipoise.training.grpo import Item, train_grpo
from equipoise.training.grpo_settings import GrpoSettings

SMALL = {"epochs": 2, "group": 4, "prompts_per_step": 4, "max_new_tokens": 40, "checkpoint_every": 2, "lora": {"r": 4}}


def items(domain, count):
    return [
        Item(
            s.id,
            [Message(role="user", content=prompt(s.text, ner.TYPES[domain]))],
            pairs(s.entities),
            ner.TYPES[domain],
            domain,
        )
        for s in ner.load(domain, "train")[:count]
    ]


def run(folder, *, targets=12, schedule=None, seed=5, label=None, **options):
    """Train on right labels, or on `label` for all, whose confidence falls from first to last; return the result."""
    torch.set_num_threads(1)
    given = {k: options.pop(k) for k in list(options) if k in GrpoSettings.model_fields}
    settings = GrpoSettings(**(SMALL | given))
    rows = items("target", targets)
    if label is not None:
        rows = [replace(row, label=label) for row in rows]
    replay = items("source", 4) if label is None else []
    curriculum = Curriculum(
        schedule or Schedule(replay=0.25),
        [1 - i / targets for i in range(targets)],
        total_steps=settings.epochs * math.ceil(targets / settings.prompts_per_step),
        batch=settings.prompts_per_step,
        seed=seed,
        replay_size=len(replay),
    )
    loaded = options.pop("loaded", None) or load_model(ModelSettings(path="testbed:ner", device="cpu"))
    return train_grpo(
        loaded, rows, replay=replay, curriculum=curriculum, settings=settings, folder=folder, seed=seed, **options
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]))
