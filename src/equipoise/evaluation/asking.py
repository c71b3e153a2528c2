"""What a model knows of some rows, in plain Python: likelihoods and greedy answers, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from equipoise.data import text_form
from equipoise.data.formatting import render_prompt
from equipoise.data.jsonl import BadRow
from equipoise.data.rows import parse_row
from equipoise.errors import UserError
from equipoise.evaluation.knowledge import Item, Task, score, scorer_for
from equipoise.evaluation.likelihood import choices, distractors, preferences
from equipoise.metrics.proportions import clopper_pearson
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded, load_model, load_tokenizer
from equipoise.models.settings import ModelSettings
from equipoise.records import Example, Form, Message, Preference

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
    items = [item for example in examples for item in items_of(example)]
    first = [item for item in items if item.phrasing == 0]
    chosen = choices(loaded.tokenizer, [Task("knowledge", tuple(items))], distractors(first))
    found = preferences(loaded, chosen, method="", seed=0, batch_tokens=batch_tokens)
    compared = {(row.item, row.phrasing): row for row in found}
    outputs = answers_to(loaded, items, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens)
    return Scores([_row(item, compared.get((item.id, item.phrasing)), said) for item, said in zip(items, outputs)])


def answers_to(loaded: Loaded, items: Sequence[Item], *, max_new_tokens: int, batch_tokens: int) -> list[str]:
    """Greedy answers to items, in order; one in text form is cut where it ends."""
    outputs: dict[int, str] = {}
    for form, line in ((form, line) for form in ("chat", "text") for line in (False, True)):
        numbers = [
            n
            for n, it in enumerate(items)
            if (it.form, it.form == "text" and text_form.is_line(it.gold)) == (form, line)
        ]
        if not numbers:
            continue
        answers = generate(
            loaded.model,
            loaded.tokenizer,
            [render_prompt(loaded.tokenizer, items[n].conversation, form=items[n].form) for n in numbers],
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            stop_on=text_form.line_end_ids(loaded.tokenizer) if line else (),
        )
        for n, answer in zip(numbers, answers):
            # the token that ended a line may begin with the answer's last character
            ids = [*answer.ids, *([answer.stop] if line and answer.stop is not None else [])]
            text = loaded.tokenizer.decode(ids, skip_special_tokens=True)
            outputs[n] = text_form.cut(text, items[n].gold) if form == "text" else text
    return [outputs[n] for n in range(len(items))]


def items_of(row: Example) -> list[Item]:
    """What a row asks, in its trained phrasing and in each of the others."""
    before, accepted = row.messages[:-2], tuple(row.meta.get("accepted", ()))
    return [
        Item(row.id, (*before, Message(role="user", content=text)), row.completion, row.old, n, row.form, accepted)
        for n, text in enumerate((row.prompt, *row.rephrasings))
    ]


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


def _row(item: Item, compared: Preference | None, output: str) -> dict[str, Any]:
    exact, call = graded(output, item)
    return {
        "id": item.id,
        "phrasing": item.phrasing,
        "logp_new": None if compared is None else compared.logp_new,
        "logp_old": None if compared is None else compared.logp_old,
        "margin": None if compared is None else compared.margin,
        "output": output,
        "exact": exact,
        "call": call,
    }


def graded(output: str, item: Item) -> tuple[float | None, float | None]:
    """The scores `exact` and `call` of an answer; a body of several lines is graded with its prompt before it."""
    before = ""
    if item.form == "text" and not text_form.is_line(item.gold):
        before = text_form.split(item.conversation[-1].content, "")[0]
    whole = [before + text if before else text.strip() for text in (item.gold, *item.accepted)]
    old = None if item.old is None else item.old.strip()
    exact = score(before + output, replace(item, gold=whole[0], old=old, accepted=tuple(whole[1:])))
    return exact, exact if scorer_for(whole[0]) == "call" else None


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
