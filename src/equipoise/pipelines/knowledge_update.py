"""Correct what a model is confidently wrong about: rows and tasks, one trained and scored cell, and a whole run."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from equipoise.data.formatting import Formatted, render_all, with_mask
from equipoise.data.loading import check_disjoint, load_examples
from equipoise.evaluation.knowledge import Item, Task, evaluate, summarise
from equipoise.evaluation.tokens import token_rows
from equipoise.journal import read_journal, write_json, write_jsonl
from equipoise.models.loading import Loaded
from equipoise.objectives.weighting import Weighting, weighting
from equipoise.pipelines.settings import DataSettings, KnowledgeUpdateRecipe
from equipoise.records import Example, Message, Prediction
from equipoise.testbed.examples import TESTBED, fact_example, load_facts
from equipoise.testbed.world import shipped_world
from equipoise.training.assembly import check_settings, trainable_parameters
from equipoise.training.settings import ObjectiveSettings, TrainSettings
from equipoise.training.sft import train

UNTRAINED = "untrained"


@dataclass(frozen=True)
class KnowledgeData:
    """The rows of one recipe, with what was left out and a hash for each source."""

    updates: list[Example]
    keep: list[Example]
    skills: list[Example]
    notes: list[str]
    hashes: dict[str, str]


def load_data(settings: DataSettings) -> KnowledgeData:
    """Read the three sources of a recipe.

    Raises:
        UserError: a source cannot be read, or an update also stands among the rows to keep.
    """
    rows: dict[str, list[Example]] = {}
    notes: list[str] = []
    hashes: dict[str, str] = {}
    for kind in ("updates", "keep", "skills"):
        source = getattr(settings, kind)
        if source is None:
            rows[kind] = []
        elif source.startswith(TESTBED):
            rows[kind], hashes[kind] = load_facts(source)
        else:
            loaded = load_examples(source, max_bad_share=settings.max_bad_share)
            rows[kind], hashes[kind] = loaded.examples, loaded.sha256
            notes += [f"{kind}: {note}" for note in loaded.notes]
            notes += [f"{kind}: line {row.line} left out: {row.reason}" for row in loaded.dropped]
    if len(rows["updates"]) > (settings.limit or len(rows["updates"])) and not settings.updates.startswith(TESTBED):
        notes.append(f"updates: the first {settings.limit} of {len(rows['updates'])} rows; data.limit=null takes all")
    rows["updates"] = rows["updates"][: settings.limit]
    check_disjoint(rows["updates"], rows["keep"])
    return KnowledgeData(**rows, notes=notes, hashes=hashes)


def tasks(data: KnowledgeData) -> list[Task]:
    """Lay out the four questions: is it corrected, does that generalise, did neighbours stay, did skills stay."""
    return [
        Task("correction", tuple(_item(row) for row in data.updates)),
        Task("generalisation", tuple(_item(row, i) for row in data.updates for i in range(len(row.rephrasings)))),
        Task("locality", tuple(_item(row) for row in data.keep)),
        Task("retention", tuple(_item(row) for row in data.skills)),
    ]


def _item(row: Example, rephrasing: int | None = None) -> Item:
    conversation = list(row.messages[:-1])
    if rephrasing is not None:
        conversation[-1] = Message(role="user", content=row.rephrasings[rephrasing])
    return Item(
        id=row.id,
        conversation=tuple(conversation),
        gold=row.completion,
        old=row.old,
        phrasing=0 if rephrasing is None else rephrasing + 1,
        accepted=tuple(row.meta.get("accepted", ())),
        unit_tests=row.meta.get("unit_tests", ""),
    )


def score_model(
    loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData, folder: Path, *, method: str, seed: int
) -> list[Prediction]:
    """Answer and score every task, look at every training token, and write both into `folder`."""
    options = recipe.evaluation
    predictions = evaluate(
        loaded,
        tasks(data),
        method=method,
        seed=seed,
        scorer=options.scorer,
        execute=options.run_unit_tests,
        batch_tokens=options.batch_tokens,
    )
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
    for arm, objective in arms.items():
        weights = weighting(objective.name, **objective.params)
        if weights.top_k:
            continue  # needs the whole distribution, which is gone
        for row, weight in zip(rows, _weights(weights, rows).tolist()):
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
    objective: ObjectiveSettings,
    seed: int,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    keep_base: bool = True,
) -> list[Prediction]:
    """Train one arm with one seed, then score it; a cell that was cut off resumes.

    With `keep_base` it trains a copy, so that both are in memory; without, `loaded` is used up.
    """
    result = train(
        loaded,
        training_rows(recipe, data),
        objective=objective,
        settings=recipe.training,
        folder=folder,
        seed=seed,
        validate=weight_trace(loaded, recipe, data, objective),
        on_step=on_step,
        keep_base=keep_base,
    )
    return score_model(replace(loaded, model=result.model), recipe, data, folder, method=method, seed=seed)


def weight_trace(
    loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData, objective: ObjectiveSettings
) -> Callable[[Any, int], dict[str, float]] | None:
    """What training calls after each epoch for the weights that the objective gives now; None where nobody asks."""
    every, weights = recipe.evaluation.weights_every, weighting(objective.name, **objective.params)
    if every is None or weights.top_k or weights.recent is not None:
        return None
    due = every * steps_of_an_epoch(len(check_training(loaded, recipe, data).rows), recipe.training)
    kinds = {"updates": data.updates, "keep": data.keep} if recipe.data.rehearse else {"updates": data.updates}

    def trace(model: Any, step: int) -> dict[str, float]:
        found = {}
        for kind, examples in kinds.items() if step % due == 0 else ():
            rows = list(token_rows(replace(loaded, model=model), examples, max_length=recipe.training.max_length))
            found[f"{kind}_weight"] = float(_weights(weights, rows).mean())
            found[f"{kind}_nll"] = fmean(row["nll"] for row in rows)
        return found

    return trace


def _weights(weights: Weighting, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """The weights [N] of tokens from their rows, as `token_rows` gives them."""
    read = {name: torch.tensor([row[name] for row in rows]) for name in ("nll", "h", "entropy", "tail")}
    return weights(**read)


def check_training(loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData) -> Formatted:
    """Find out before anything is written whether this model can be trained on these rows; return them rendered.

    Raises:
        UserError: too many rows cannot be trained on, or the settings do not fit the model.
    """
    check_settings(loaded.model, recipe.training)
    return render_all(
        loaded.tokenizer,
        training_rows(recipe, data),
        train_on_prompt=recipe.training.train_on_prompt,
        max_length=recipe.training.max_length,
        max_bad_share=recipe.training.max_bad_share,
    )


def training_rows(recipe: KnowledgeUpdateRecipe, data: KnowledgeData) -> list[Example]:
    """List what is trained on: the updates, and the rows to keep if they are to be rehearsed."""
    return data.updates + (data.keep if recipe.data.rehearse else [])


def step_count(recipe: KnowledgeUpdateRecipe, data: KnowledgeData) -> int:
    """Count the optimizer steps of one run, for progress; packing makes them fewer."""
    return steps_of_an_epoch(len(training_rows(recipe, data)), recipe.training) * recipe.training.epochs


def steps_of_an_epoch(rows: int, settings: TrainSettings) -> int:
    """Count the optimizer steps that so many rows take once through, unless they are packed."""
    return math.ceil(math.ceil(rows / settings.batch_size) / settings.gradient_accumulation)


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
        "counts": {kind: len(getattr(data, kind)) for kind in ("updates", "keep", "skills")},
        "notes": data.notes + [f"{name} left out: {reason}" for name, reason in formatted.dropped],
        "steps": step_count(recipe, data),
        "trainable": trainable,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        # What trains is float32 and has a gradient and two moments of Adam beside it.
        "memory_mb": (bases * held + 16 * trainable * together) / 1e6,
        "example": with_mask(loaded.tokenizer, formatted.rows[0]),
    }
