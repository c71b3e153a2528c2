"""What an instruct run would do: its clean data, one example with its loss mask, steps and sizes."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from equipoise.data.formatting import Rendered, Unusable, render, with_mask
from equipoise.data.preferences import preferred
from equipoise.errors import UserError
from equipoise.models.loading import Loaded, load_model
from equipoise.models.memory import estimate, in_words, peak
from equipoise.pipelines.instruct import check, step_counts
from equipoise.pipelines.instruct_data import Sources, prepare
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.training.assembly import trainable_parameters
from equipoise.training.settings import CommonSettings


def preview(recipe: InstructRecipe) -> dict[str, Any]:
    """Describe a run without making it: the data is cleaned into a folder that is removed again.

    Raises:
        UserError: what a run would raise before it trains.
    """
    loaded = load_model(recipe.model)
    check(recipe, loaded)
    with TemporaryDirectory(prefix="equipoise-") as folder:
        sources = prepare(recipe, Path(folder))
    stages = [settings for settings in (recipe.sft, recipe.dpo) if settings is not None]
    row = _first(loaded, recipe, sources, stages[0])
    parameters = sum(p.numel() for p in loaded.model.parameters())
    adapter = trainable_parameters(loaded.model, stages[0])
    memories = [
        estimate(
            loaded.model.config,
            parameters=parameters,
            adapter=adapter,
            rows=settings.batch_size * (2 if settings is recipe.dpo else 1),  # of DPO both answers
            tokens=settings.max_length,
            drawn=1,
            quantization=None if recipe.model.quantization == "auto" else recipe.model.quantization,
            bytes_each=loaded.model.dtype.itemsize,
            gradient_checkpointing=settings.gradient_checkpointing,
        )
        for settings in stages
    ]
    return {
        "counts": {name: (len(split.examples), len(split.pairs)) for name, split in sources.splits.items()},
        "steps": step_counts(recipe, sources),
        "trainable": adapter,
        "parameters": parameters,
        "memory": in_words(max(memories, key=peak)),
        "example": with_mask(loaded.tokenizer, row),
    }


def _first(loaded: Loaded, recipe: InstructRecipe, sources: Sources, settings: CommonSettings) -> Rendered:
    """The first row that the first stage trains on; of a pair the better answer.

    Raises:
        UserError: none can be trained on.
    """
    train = sources.train
    rows = train.examples if recipe.sft is not None else list(map(preferred, train.pairs))
    why = ""
    for example in rows:
        try:
            return render(loaded.tokenizer, example, max_length=settings.max_length)
        except Unusable as reason:
            why = f"{example.id}: {reason}"
    raise UserError(f"no row can be trained on; the last is {why}", where="data.sources", fix="raise max_length")
