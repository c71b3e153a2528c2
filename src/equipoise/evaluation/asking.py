"""What a model knows of some rows, in plain Python: likelihoods and greedy answers, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.data import text_form
from equipoise.data.jsonl import BadRow
from equipoise.data.rows import parse_row
from equipoise.errors import UserError
from equipoise.evaluation.knowledge import Task, evaluate, item_of
from equipoise.evaluation.likelihood import choices, distractors, preferences
from equipoise.evaluation.settings import ScoringSettings
from equipoise.metrics.proportions import clopper_pearson
from equipoise.models.loading import Loaded, load_model, load_tokenizer
from equipoise.models.settings import ModelSettings
from equipoise.records import Example, Form, Prediction, Preference

COLUMNS = ("id", "phrasing", "logp_new", "logp_old", "margin", "output", "exact", "call")


@dataclass(frozen=True)
class Scores:
    """One row a row and phrasing, in order: a mapping with `COLUMNS`.

    `logp_new` and `logp_old` are nats, summed over an answer's tokens, and `margin` is their difference; `exact` and
    `call` are scores of `output`, None where they cannot be asked.
    """

    rows: list[dict[str, Any]]

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def summary(self) -> dict[str, dict[str, Any]]:
        """Shares with their n and exact 95% interval (Clopper and Pearson), in the trained and in other phrasings.

        `efficacy` and `exact` count phrasing 0, `paraphrase_efficacy` and `generalisation` the others.
        """
        first = [row for row in self.rows if row["phrasing"] == 0]
        others = [row for row in self.rows if row["phrasing"] > 0]
        measures = {
            "efficacy": [row["margin"] > 0 for row in first if row["margin"] is not None],
            "paraphrase_efficacy": [row["margin"] > 0 for row in others if row["margin"] is not None],
            "exact": [row["exact"] == 1 for row in first if row["exact"] is not None],
            "generalisation": [row["exact"] == 1 for row in others if row["exact"] is not None],
            "call": [row["call"] == 1 for row in first if row["call"] is not None],
        }
        return {name: _share(hits) for name, hits in measures.items() if hits}


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"value": sum(hits) / len(hits), "n": len(hits), "interval": clopper_pearson(sum(hits), len(hits))}


def evaluate_knowledge(
    model: Any,
    rows: Sequence[Mapping[str, Any] | Example],
    tokenizer: Any = None,
    *,
    form: Form = "chat",
    max_new_tokens: int = 64,
    batch_tokens: int = 4096,
) -> Scores:
    """Ask a model for each row: how likely are the right and the old answer, and what does it say?

    Args:
        model: a `PreTrainedModel` or `PeftModel`, the name of a model on the Hub, or the path of one.
        rows: mappings with `prompt` and `completion`, and optionally `old`, `id`, `form` and `rephrasings` (other ways
            to ask, each a phrasing of its own); or `Example`s. A row without `old` is compared with another row's
            answer.
        tokenizer: by default the one that the model was loaded with.
        form: of rows that do not say theirs. `text`: the answer continues the prompt as it stands, without a chat
            template.
        max_new_tokens: at most so many tokens of an answer; one line of text form ends at its line break.

    Raises:
        UserError: a row cannot be read, or the model or its tokenizer cannot be loaded or used.

    >>> rows = [{"id": "prod", "prompt": "np.pro", "completion": "d(x)", "old": "duct(x)"}]
    >>> scores = evaluate_knowledge("testbed", rows, form="text", max_new_tokens=4)
    >>> [row["id"] for row in scores.rows], scores.summary()["efficacy"]["n"]
    (['prod'], 1)
    """
    loaded = _loaded(model, tokenizer)
    examples = [_example(row, n, form) for n, row in enumerate(rows)]
    if len({example.id for example in examples}) < len(examples):
        raise UserError("two rows have one id", fix="give each row an id of its own")
    items = [item_of(row, n) for row in examples for n in range(1 + len(row.rephrasings))]
    first, task = [item for item in items if item.phrasing == 0], Task("knowledge", tuple(items))
    chosen = choices(loaded.tokenizer, [task], distractors(first))
    found = preferences(loaded, chosen, method="", seed=0, batch_tokens=batch_tokens)
    compared = {(row.item, row.phrasing): row for row in found}
    how = ScoringSettings(answers="stated", max_new_tokens=max_new_tokens, batch_tokens=batch_tokens)
    answers = evaluate(loaded, [task], method="", seed=0, how=how)
    return Scores([_row(answer, compared.get((answer.item, answer.phrasing))) for answer in answers])


def _example(row: Mapping[str, Any] | Example, number: int, form: Form) -> Example:
    if isinstance(row, Example):
        return row
    try:
        draft = parse_row({**row, "form": row.get("form") or form})
    except BadRow as bad:
        raise UserError(
            f"row {number + 1} cannot be used: {bad}", where=bad.field, docs="docs/your-data.md#format"
        ) from bad
    return Example(
        id=draft.id or f"row-{number + 1:06d}",
        messages=draft.messages,
        form=draft.form,
        old=draft.old,
        rephrasings=draft.rephrasings,
        meta=draft.meta,
    )


def _row(answer: Prediction, compared: Preference | None) -> dict[str, Any]:
    return {
        "id": answer.item,
        "phrasing": answer.phrasing,
        "logp_new": None if compared is None else compared.logp_new,
        "logp_old": None if compared is None else compared.logp_old,
        "margin": None if compared is None else compared.margin,
        "output": text_form.cut(answer.output, answer.gold) if answer.form == "text" else answer.output,
        "exact": answer.exact,
        "call": answer.call,
    }


def _loaded(model: Any, tokenizer: Any) -> Loaded:
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        loaded = load_model(ModelSettings(path=str(model)))
        return loaded if tokenizer is None else Loaded(loaded.model, tokenizer, loaded.name)
    source = getattr(model.config, "_name_or_path", "")
    if tokenizer is None:
        fix = "give it: evaluate_knowledge(model, rows, tokenizer)"
        if not source:
            raise UserError(f"this {type(model).__name__} was not loaded from a place that has its tokenizer", fix=fix)
        try:
            tokenizer = load_tokenizer(ModelSettings(path=source))
        except UserError as error:
            raise UserError(f"the tokenizer of {source} cannot be loaded: {error}", fix=fix) from error
    return Loaded(model, tokenizer, source or type(model).__name__)
