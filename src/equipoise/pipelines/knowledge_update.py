"""Correct what a model is confidently wrong about: one trained and scored cell, and what a run would do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from equipoise.data.formatting import Formatted, render_all, with_mask
from equipoise.evaluation.tokens import token_rows
from equipoise.journal import read_journal, write_jsonl
from equipoise.models.loading import Loaded
from equipoise.objectives.weighting import Weighting, weighting
from equipoise.pipelines.knowledge_data import (
    KnowledgeData,
    rehearses,
    step_count,
    steps_of_an_epoch,
    training_rows,
)
from equipoise.pipelines.knowledge_measures import Measures
from equipoise.pipelines.knowledge_work import OnWork
from equipoise.pipelines.settings import ArmSettings, KnowledgeUpdateRecipe
from equipoise.records import Prediction
from equipoise.testbed.examples import fact_example
from equipoise.testbed.world import shipped_world
from equipoise.training.assembly import check_settings, trainable_parameters
from equipoise.training.settings import ObjectiveSettings
from equipoise.training.sft import train

UNTRAINED = "untrained"


def score_untrained(
    loaded: Loaded,
    measures: Measures,
    folder: Path,
    arms: Mapping[str, ObjectiveSettings],
    on_work: OnWork | None = None,
) -> list[Prediction]:
    """Score the model as it came, with the weight that each arm would give each training token.

    For a model of the testbed the tokens of facts of all classes are looked at too, so that detection can be scored.
    """
    predictions = measures.score(loaded, folder, method=UNTRAINED, seed=0, trained=False, on_work=on_work)
    rows = read_journal(folder / "tokens.jsonl").rows
    for arm, objective in arms.items():
        weights = weighting(objective.name, **objective.params)
        if weights.top_k:
            continue  # needs the whole distribution, which is gone
        for row, weight in zip(rows, _weights(weights, rows).tolist()):
            row.setdefault("weights", {})[arm] = weight
    write_jsonl(folder / "tokens.jsonl", rows)
    if measures.recipe.model.path == "testbed":
        facts = [fact for fact in shipped_world().facts if fact.part != "function"]
        write_jsonl(folder / "probes.jsonl", token_rows(loaded, map(fact_example, facts)))
    return predictions


def run_cell(
    loaded: Loaded,
    measures: Measures,
    folder: Path,
    *,
    method: str,
    objective: ArmSettings,
    seed: int,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    on_work: OnWork | None = None,
    keep_base: bool = True,
) -> list[Prediction]:
    """Train one arm with one seed, then score it; a cell that was cut off resumes.

    With `keep_base` it trains a copy, so that both are in memory; without, `loaded` is used up.
    """
    recipe, data = measures.recipe, measures.data
    measures.prepare(loaded)
    result = train(
        loaded,
        training_rows(recipe, data, objective),
        objective=objective.objective,
        settings=recipe.training,
        folder=folder,
        seed=seed,
        validate=weight_trace(loaded, recipe, data, objective),
        on_step=on_step,
        keep_base=keep_base,
    )
    trained = replace(loaded, model=result.model)
    return measures.score(trained, folder, method=method, seed=seed, on_work=on_work)


def weight_trace(
    loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData, objective: ArmSettings
) -> Callable[[Any, int], dict[str, float]] | None:
    """What training calls after each epoch for the weights that the objective gives now; None where nobody asks."""
    every, weights = recipe.evaluation.weights_every, weighting(objective.name, **objective.params)
    if every is None or weights.top_k or weights.recent is not None:
        return None
    due = every * steps_of_an_epoch(len(check_training(loaded, recipe, data, objective).rows), recipe.training)
    rehearsed = data.rehearsed if rehearses(recipe, objective) else []
    kinds = {"updates": data.updates} | ({"keep": rehearsed} if rehearsed else {})

    def trace(model: Any, step: int) -> dict[str, float]:
        found = {}
        for kind, examples in kinds.items() if step % due == 0 else ():
            rows = list(token_rows(replace(loaded, model=model), examples, max_length=recipe.training.max_length))
            found[f"{kind}_weight"] = float(_weights(weights, rows).mean())
            found[f"{kind}_nll"] = fmean(row["nll"] for row in rows)
        return found

    return trace


def _weights(weights: Weighting, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """Return the weights [N] of tokens from their rows, as `token_rows` gives them."""
    read = {name: torch.tensor([row[name] for row in rows]) for name in ("nll", "h", "entropy", "tail")}
    return weights(**read)


def check_training(
    loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData, arm: ArmSettings | None = None
) -> Formatted:
    """Render what an arm trains on, before anything is written; without an arm, what the most demanding arm does.

    Raises:
        UserError: too many rows cannot be trained on, or the settings do not fit the model.
    """
    check_settings(loaded.model, recipe.training)
    return render_all(
        loaded.tokenizer,
        training_rows(recipe, data, arm),
        train_on_prompt=recipe.training.train_on_prompt,
        max_length=recipe.training.max_length,
        max_bad_share=recipe.training.max_bad_share,
    )


def preview(
    loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData, *, bases: int = 1, together: int = 1
) -> dict[str, Any]:
    """Describe a run without making it: counts, steps, sizes, and one example with its loss mask.

    Args:
        bases: copies of the weights that are in memory at once.
        together: runs that are trained at once.
    """
    formatted = check_training(loaded, recipe, data)
    trainable = trainable_parameters(loaded.model, recipe.training)
    held = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    return {
        "counts": {kind: len(getattr(data, kind)) for kind in ("updates", "keep", "rehearsed", "skills")},
        "notes": data.notes + [f"{name} left out: {reason}" for name, reason in formatted.dropped],
        "steps": step_count(recipe, data),
        "trainable": trainable,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        # What trains is float32 and has a gradient and two moments of Adam beside it.
        "memory_mb": (bases * held + 16 * trainable * together) / 1e6,
        "example": with_mask(loaded.tokenizer, formatted.rows[0]),
    }
