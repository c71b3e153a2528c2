"""Correct what a model is confidently wrong about: one trained and scored cell, and what a run would do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from equipoise.data.formatting import Formatted, render_all, with_mask
from equipoise.evaluation.knowledge import evaluate, summarise
from equipoise.evaluation.tokens import token_rows
from equipoise.journal import read_journal, write_json, write_jsonl
from equipoise.models.loading import Loaded
from equipoise.objectives.weighting import weighting
from equipoise.pipelines.knowledge_data import (
    KnowledgeData,
    rehearses,
    step_count,
    steps_of_an_epoch,
    tasks,
    training_rows,
)
from equipoise.pipelines.settings import ArmSettings, KnowledgeUpdateRecipe
from equipoise.records import Prediction
from equipoise.testbed.examples import fact_example
from equipoise.testbed.world import shipped_world
from equipoise.training.assembly import check_settings, trainable_parameters
from equipoise.training.settings import ObjectiveSettings
from equipoise.training.sft import train

UNTRAINED = "untrained"


def score_model(
    loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData, folder: Path, *, method: str, seed: int
) -> list[Prediction]:
    """Answer and score every task, look at every training token, and write both into `folder`."""
    predictions = evaluate(loaded, tasks(data), method=method, seed=seed, how=recipe.evaluation)
    write_scores(loaded, recipe, data, folder, predictions)
    return predictions


def write_scores(
    loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData, folder: Path, predictions: Sequence[Prediction]
) -> None:
    """Write a model's answers into `folder`, their scores, and what it thinks of every training token."""
    results = summarise(predictions, scoring=recipe.evaluation.scoring)
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "predictions.jsonl", (row.model_dump() for row in predictions))
    write_json(folder / "results.json", [row.model_dump() for row in results])
    write_jsonl(folder / "tokens.jsonl", token_rows(loaded, data.updates, max_length=recipe.training.max_length))


def score_untrained(
    loaded: Loaded,
    recipe: KnowledgeUpdateRecipe,
    data: KnowledgeData,
    folder: Path,
    arms: Mapping[str, ObjectiveSettings],
) -> list[Prediction]:
    """Score the model as it came, with the weight that each arm would give each training token.

    For a model of the testbed the tokens of facts of all classes are looked at too, so that detection can be scored.
    """
    predictions = score_model(loaded, recipe, data, folder, method=UNTRAINED, seed=0)
    rows = read_journal(folder / "tokens.jsonl").rows
    nll, h = (torch.tensor([row[name] for row in rows]) for name in ("nll", "h"))
    for arm, objective in arms.items():
        weights = weighting(objective.name, **objective.params)
        if weights.top_k:
            continue  # needs the whole distribution, which is gone
        for row, weight in zip(rows, weights(nll, h).tolist()):
            row.setdefault("weights", {})[arm] = weight
    write_jsonl(folder / "tokens.jsonl", rows)
    if recipe.model.path == "testbed":
        facts = [fact for fact in shipped_world().facts if fact.part != "function"]
        write_jsonl(folder / "probes.jsonl", token_rows(loaded, map(fact_example, facts)))
    return predictions


def run_cell(
    loaded: Loaded,
    recipe: KnowledgeUpdateRecipe,
    data: KnowledgeData,
    folder: Path,
    *,
    method: str,
    objective: ArmSettings,
    seed: int,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    keep_base: bool = True,
) -> list[Prediction]:
    """Train one arm with one seed, then score it; a cell that was cut off resumes.

    With `keep_base` it trains a copy, so that both are in memory; without, `loaded` is used up.
    """
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
    return score_model(replace(loaded, model=result.model), recipe, data, folder, method=method, seed=seed)


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
            nll, h = (torch.tensor([row[name] for row in rows]) for name in ("nll", "h"))
            found |= {f"{kind}_weight": float(weights(nll, h).mean()), f"{kind}_nll": float(nll.mean())}
        return found

    return trace


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
