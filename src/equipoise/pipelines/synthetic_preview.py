"""What a synthetic-RL run would do: its sentences, one prompt and what the model says to it, steps, sizes."""

import math
from typing import Any

from equipoise.data.extraction import prompt
from equipoise.evaluation.extraction import extract
from equipoise.models.memory import estimate, in_words
from equipoise.pipelines.synthetic_data import load_sources
from equipoise.pipelines.synthetic_rl import load, planned
from equipoise.pipelines.synthetic_settings import SyntheticRecipe
from equipoise.training.assembly import trainable_parameters


def preview(recipe: SyntheticRecipe) -> dict[str, Any]:
    """Describe a run without making it: counts, an example, draws, steps and sizes.

    Raises:
        UserError: what a run would raise before it draws a sample.
    """
    sources = load_sources(recipe)
    loaded = load(recipe, recipe.model)
    target = sources.target
    asked = target.dev[:1]
    row = extract(
        loaded,
        asked,
        target.types,
        instruction=recipe.data.instruction,
        max_new_tokens=recipe.data.max_new_tokens,
    )[0]
    draws = len(recipe.seeds) if recipe.labels.per_seed else 1
    settings = recipe.grpo
    text = prompt(asked[0].text, target.types, recipe.data.instruction)
    length = len(loaded.tokenizer(text).input_ids) + settings.max_new_tokens
    parameters = sum(p.numel() for p in loaded.model.parameters())
    adapter = trainable_parameters(loaded.model, settings.training())
    answers = settings.prompts_per_step * settings.group
    memory = estimate(
        loaded.model.config,
        parameters=parameters,
        adapter=adapter,
        rows=answers // settings.accumulation,
        tokens=length,
        drawn=min(answers, max(settings.batch_tokens // length, 1)),
        quantization=None if recipe.model.quantization == "auto" else recipe.model.quantization,
        bytes_each=loaded.model.dtype.itemsize,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    return {
        "counts": {
            name: {split: len(getattr(domain, split)) for split in ("train", "dev", "test")}
            for name, domain in sources.named().items()
        },
        "types": {name: domain.types for name, domain in sources.named().items()},
        "notes": sources.notes + [f"{row['where']} left out: {row['reason']}" for row in sources.dropped],
        "samples": draws * recipe.sampling.samples * (len(target.train) + len(target.dev)),
        "runs": len(planned(recipe)),
        "steps": settings.epochs * math.ceil(len(target.train) / settings.prompts_per_step),
        "trainable": adapter,
        "parameters": parameters,
        "memory": in_words(memory),
        "prompt": text,
        "answer": row["output"],
    }
