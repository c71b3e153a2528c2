"""What an instruct run would do: its clean data, one example with its loss mask, steps and sizes."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from equipoise.data.formatting import IGNORE, render
from equipoise.models.loading import load_model
from equipoise.models.memory import estimate, in_words
from equipoise.pipelines.instruct_data import Sources, prepare
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.training.assembly import trainable_parameters


def preview(recipe: InstructRecipe) -> dict[str, Any]:
    """Describe a run without making it: the data is cleaned into a folder that is removed again.

    Raises:
        UserError: what a run would raise before it trains.
    """
    loaded = load_model(recipe.model)
    with TemporaryDirectory(prefix="equipoise-") as folder:
        sources = prepare(recipe, Path(folder))
    settings = recipe.sft or recipe.dpo
    assert settings is not None  # the schema says so
    shown = (sources.train.examples or sources.test.examples)[0]
    row = render(loaded.tokenizer, shown, max_length=settings.max_length)
    marks = zip(row.input_ids, row.labels, strict=True)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    adapter = trainable_parameters(loaded.model, settings)
    memory = estimate(
        loaded.model.config,
        parameters=parameters,
        adapter=adapter,
        rows=settings.batch_size * (1 if recipe.dpo is None else 2),  # of DPO both answers
        tokens=settings.max_length,
        drawn=1,
        quantization=None if recipe.model.quantization == "auto" else recipe.model.quantization,
        bytes_each=loaded.model.dtype.itemsize,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    return {
        "counts": {name: (len(split.examples), len(split.pairs)) for name, split in sources.splits.items()},
        "steps": _steps(recipe, sources),
        "trainable": adapter,
        "parameters": parameters,
        "memory": in_words(memory),
        "pieces": [(loaded.tokenizer.decode([token]), label != IGNORE) for token, label in marks],
    }


def _steps(recipe: InstructRecipe, sources: Sources) -> dict[str, int]:
    """Optimizer steps of each stage."""
    found = {}
    for name, settings, rows in (
        ("sft", recipe.sft, sources.train.examples),
        ("dpo", recipe.dpo, sources.train.pairs),
    ):
        if settings is not None:
            found[name] = settings.epochs * math.ceil(
                len(rows) / (settings.batch_size * settings.gradient_accumulation)
            )
    return found
