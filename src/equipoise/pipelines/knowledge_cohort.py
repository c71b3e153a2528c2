"""The cells of a knowledge-update grid as runs of one cohort: trained together, scored in shared batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.pipelines.knowledge_data import KnowledgeData
from equipoise.pipelines.knowledge_update import weight_trace
from equipoise.pipelines.settings import ProtocolRecipe

Validate = Callable[[LoraStack, Sequence[str], int], Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Trained:
    """Whose parameters a row of a stack holds."""

    method: str
    seed: int
    folder: Path


def trace_weights(
    loaded: Loaded, recipe: ProtocolRecipe, data: KnowledgeData, arms: Mapping[str, str]
) -> Validate | None:
    """What a cohort calls after each epoch for the weights that the objectives give now; None where nobody asks.

    Args:
        arms: the arm of each run by the run's name.
    """
    if recipe.evaluation.weights_every is None:
        return None
    traces = {arm: weight_trace(loaded, recipe, data, recipe.arms[arm]) for arm in recipe.arms}

    def trace(stack: LoraStack, names: Sequence[str], step: int) -> dict[str, dict[str, float]]:
        mine = [(i, name, traces[arms[name]]) for i, name in enumerate(names)]
        return {name: follow(stack.model_of(i), step) for i, name, follow in mine if follow is not None}

    return trace
