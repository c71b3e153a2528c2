"""What a confidence-tokens run would do: its questions, a few answers of the model, one example with its loss mask."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from equipoise.data.formatting import with_mask
from equipoise.models.loading import load_model
from equipoise.pipelines import confidence_data as data
from equipoise.pipelines.confidence_settings import ConfidenceRecipe
from equipoise.pipelines.confidence_tokens import new_rows, render, token_ids
from equipoise.records import Question
from equipoise.training.assembly import check_settings, trainable_parameters

ANSWERED = 8  # questions of each domain that the model answers for the preview


def preview(recipe: ConfidenceRecipe) -> dict[str, Any]:
    """Describe a run without making it: counts, steps, sizes, and one example that the model has answered.

    Raises:
        UserError: what a run would raise before it trains.
    """
    sources = data.load_sources(recipe)
    loaded = load_model(recipe.model)
    check_settings(loaded.model, recipe.training)
    by_domain = {name: [q for q in sources.questions if q.dataset == name] for name in recipe.domains}
    some = replace(sources, questions=[q for questions in by_domain.values() for q in _spread(questions)])
    answers = {}
    if some.tagged is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answers.jsonl"
            answers = data.answer_questions(lambda: loaded, recipe, some.questions, path, "a few answers")
    rows, dropped = data.tag_answers(recipe, some, answers)
    ids = token_ids(recipe, loaded)
    rendered = render(recipe, loaded, ids, rows).rows[0]
    trainable = trainable_parameters(loaded.model, recipe.training, new_rows(recipe, ids))
    held = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    return {
        "counts": {name: len(questions) for name, questions in by_domain.items()},
        "right": {name: _share(rows, name) for name in by_domain},
        "notes": sources.notes + [f"{row['where']} left out: {row['reason']}" for row in sources.dropped + dropped],
        "trainable": trainable,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        # What trains is float32 and has a gradient and two moments of Adam beside it; several seeds need a copy.
        "memory_mb": (min(len(recipe.seeds), 2) * held + 16 * trainable) / 1e6,
        "example": with_mask(loaded.tokenizer, rendered),
    }


def _spread(questions: list[Question]) -> list[Question]:
    """A few from all over: files are often in order."""
    return questions[:: max(1, len(questions) // ANSWERED)][:ANSWERED]


def _share(rows: list[data.Answered], domain: str) -> tuple[int, int]:
    """How many of a domain's answers are right, and of how many."""
    mine = [row.correct for row in rows if row.question.dataset == domain]
    return sum(mine), len(mine)
