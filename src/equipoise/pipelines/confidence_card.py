"""The model card of a trained model with confidence tokens."""

from typing import Any

from equipoise.pipelines.card import UNKNOWN, Card
from equipoise.pipelines.confidence_settings import ConfidenceRecipe

COLUMNS = (
    ("validation_accuracy", "token right"),
    ("answer_accuracy", "answer right"),
    ("auroc", "AUROC"),
    ("calibration_error", "calibration error"),
    ("token_missing_rate", "token missing"),
)
ABOUT = """{base}, trained to end each answer with a confidence token:

{pairs}

`p = sigmoid(z_C - z_U)`, from the logits of the two tokens where the answer ends, is the confidence that the answer
is right. The answers themselves are the base model's and share its limits."""


def model_card(recipe: ConfidenceRecipe, analysis: dict[str, Any], *, library: str = "peft") -> str:
    """Say in Markdown what the model is, how to read its tokens, how well they do, and what that rests on."""
    by_task = analysis["metrics"]["confidence-token"]
    tasks = [task for task in (*analysis["domains"], "overall") if by_task.get(task)]
    table = [f"| domain | n | {' | '.join(title for _, title in COLUMNS)} |", f"|---|{'---:|' * (1 + len(COLUMNS))}"]
    for task in tasks:
        cells = (_mean(by_task[task].get(name)) for name, _ in COLUMNS)
        table.append(f"| {task} | {analysis['n'][task]} | {' | '.join(cells)} |")
    pairs = [f"- {name}: `{d.confident}` sure, `{d.uncertain}` not sure" for name, d in recipe.domains.items()]
    sources = [d.source or recipe.data.tagged or "tagged rows" for d in recipe.domains.values()]
    seeds = ", ".join(map(str, analysis["seeds"]))
    return Card(
        name=recipe.name,
        base=recipe.model.path,
        about=ABOUT.format(base=recipe.model.path, pairs="\n".join(pairs)),
        data="\n".join(
            f"- `{source}`; licence: {'mit' if source.startswith('testbed:') else UNKNOWN}"
            for source in dict.fromkeys(sources)
        ),
        measured="On held-out questions, means over the seeds " + seeds + ":\n\n" + "\n".join(table),
        training=f"Mode `{recipe.mode}`. Made with Equipoise.",
        library=library,
        tags=("confidence-tokens", "calibration"),
        sure="; its confidence token says how likely it is right",
    ).markdown()


def _mean(numbers: dict[str, Any] | None) -> str:
    return "–" if not numbers or numbers.get("mean") is None else f"{numbers['mean']:.3f}"
