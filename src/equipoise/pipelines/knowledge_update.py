"""Correct what a model is confidently wrong about: rows and tasks, one trained and scored cell, and a whole run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equipoise.data.formatting import render
from equipoise.data.loading import check_disjoint, load_examples
from equipoise.errors import UserError
from equipoise.evaluation.knowledge import Item, Task, evaluate, summarise
from equipoise.evaluation.tokens import token_rows
from equipoise.journal import write_json, write_jsonl
from equipoise.models.loading import Loaded
from equipoise.pipelines.settings import DataSettings, KnowledgeUpdateRecipe
from equipoise.records import Example, Message, Prediction
from equipoise.testbed.world import PARTS, World
from equipoise.training.settings import ObjectiveSettings
from equipoise.training.sft import train

TESTBED = "testbed:"


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
            rows[kind], hashes[kind] = _testbed_examples(source)
        else:
            loaded = load_examples(source, max_bad_share=settings.max_bad_share)
            rows[kind], hashes[kind] = loaded.examples, loaded.sha256
            notes += [f"{kind}: {note}" for note in loaded.notes]
            notes += [f"{kind}: line {row.line} left out: {row.reason}" for row in loaded.dropped]
    rows["updates"] = rows["updates"][: settings.limit]
    check_disjoint(rows["updates"], rows["keep"])
    return KnowledgeData(**rows, notes=notes, hashes=hashes)


def _testbed_examples(source: str) -> tuple[list[Example], str]:
    part, _, knowledge = source.removeprefix(TESTBED).partition(":")
    if part not in PARTS:
        raise UserError(f"the testbed has no part {part!r}", where=source, fix=f"one of {', '.join(PARTS)}")
    knowledge = knowledge or ("confident-wrong" if part == "api_change" else "stable")
    world = World.build()
    facts = [fact for fact in world.facts if fact.part == part and fact.knowledge == knowledge]
    if not facts:
        raise UserError(f"no {part} of the testbed is {knowledge!r}", where=source)
    return [fact_example(fact) for fact in facts], world.text_hash


def fact_example(fact: Any) -> Example:
    """Turn a fact of the testbed into a row: its first phrasing, the truth of now, and the held-out phrasings."""
    return Example(
        id=fact.id,
        messages=[Message(role="user", content=fact.prompts_seen[0]), Message(role="assistant", content=fact.gold)],
        old=fact.old,
        rephrasings=list(fact.prompts_held_out),
        meta={
            "knowledge": fact.knowledge,
            "accepted": list(getattr(fact, "accepted", ())),
            "unit_tests": list(getattr(fact, "unit_tests", ())),
        },
    )


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
        unit_tests=tuple(row.meta.get("unit_tests", ())),
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
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "predictions.jsonl", [row.model_dump() for row in predictions])
    write_json(folder / "results.json", [row.model_dump() for row in summarise(predictions, scoring=options.scoring)])
    write_jsonl(folder / "tokens.jsonl", list(token_rows(loaded, data.updates, max_length=recipe.training.max_length)))
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
) -> list[Prediction]:
    """Train one arm with one seed from the untouched base, then score it. A cell that was cut off resumes its training."""
    examples = data.updates + (data.keep if recipe.data.rehearse else [])
    result = train(
        loaded, examples, objective=objective, settings=recipe.training, folder=folder, seed=seed, on_step=on_step
    )
    trained = replace(loaded, model=result.model)
    try:
        return score_model(trained, recipe, data, folder, method=method, seed=seed)
    finally:
        result.release()


def preview(loaded: Loaded, recipe: KnowledgeUpdateRecipe, data: KnowledgeData) -> dict[str, Any]:
    """Describe a run without making it: counts, trainable parameters, memory, and one example with its loss mask."""
    rendered = render(loaded.tokenizer, data.updates[0], max_length=recipe.training.max_length)
    pieces = [
        (loaded.tokenizer.decode([token]), label != -100) for token, label in zip(rendered.input_ids, rendered.labels)
    ]
    return {
        "counts": {kind: len(getattr(data, kind)) for kind in ("updates", "keep", "skills")},
        "notes": data.notes,
        "pieces": pieces,
    }
