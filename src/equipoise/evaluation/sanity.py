"""A sanity suite: a few prompts with checkable answers, and open ones, for people to read side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator, model_validator

from equipoise.config import Section, resolve
from equipoise.console import visible
from equipoise.data.jsonl import BadRow, JsonRows
from equipoise.errors import UserError
from equipoise.metrics.checks import Check
from equipoise.records import Message, Row

if TYPE_CHECKING:
    from equipoise.models.loading import Loaded

SHIPPED = {"default": "sanity.yaml", "testbed": "sanity-testbed.yaml"}
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class CheckSettings(Section):
    """What an answer must be, as in `metrics.checks.Check`; a text alone stands for a list of one."""

    contains: Texts | None = None
    equals: Texts | None = None
    regex: str | None = None
    json_keys: Texts | None = None
    max_words: int | None = Field(default=None, ge=1)

    @field_validator("contains", "equals", "json_keys", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @field_validator("regex")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _says_something(self) -> CheckSettings:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a check needs contains, equals, regex, json_keys or max_words")
        return self

    def check(self) -> Check:
        """The check itself."""
        return Check(**self.model_dump(exclude_none=True))


class SanityPrompt(Section):
    """A prompt; without a check it is open. `gold` is an answer that passes."""

    prompt: str = Field(min_length=1)
    id: str | None = None
    system: str | None = None
    check: CheckSettings | None = None
    gold: str | None = None

    @model_validator(mode="after")
    def _gold_passes(self) -> SanityPrompt:
        wrong = self.check.check().problem(self.gold) if self.check and self.gold is not None else None
        if wrong:
            raise ValueError(f"gold does not pass the check: it {wrong}")
        return self


class _Suite(Section):
    description: str = ""
    prompts: list[SanityPrompt] = Field(min_length=1)


class SanityAnswer(Row):
    """What a model answered; `passed` is None for an open prompt, and `problem` says what the check found."""

    model: str
    id: str
    prompt: str
    output: str
    passed: bool | None = None
    problem: str | None = None


def load_suite(source: str | Path) -> list[SanityPrompt]:
    """Read a suite: a YAML file with a list `prompts`, JSONL with one prompt a line, `default`, or `testbed`.

    The last two come with the package. Prompts without an id are given one.

    Raises:
        UserError: the file cannot be read, a prompt is at fault, or an id stands twice.
    """
    shipped = SHIPPED.get(str(source))
    path = Path(__file__).with_name(shipped) if shipped else Path(source)
    prompts = _from_jsonl(path) if path.suffix == ".jsonl" else resolve(_Suite, path).prompts
    named = [p.model_copy(update={"id": p.id or f"prompt-{n}"}) for n, p in enumerate(prompts, 1)]
    ids = [prompt.id for prompt in named]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the id {twice!r} stands twice", where=str(path), fix="give each prompt an id of its own")
    return named


def _from_jsonl(path: Path) -> list[SanityPrompt]:
    rows, out = JsonRows(path), []
    for row in rows:
        if isinstance(row.values, BadRow):
            raise UserError(row.values.reason, where=rows.where(row.line, row.values.field), fix="mend this line")
        try:
            out.append(SanityPrompt(**row.values))
        except ValueError as error:
            problem = error.errors()[0]  # pyright: ignore[reportAttributeAccessIssue]  (pydantic's own)
            field = ".".join(map(str, problem["loc"]))
            raise UserError(problem["msg"].removeprefix("Value error, "), where=rows.where(row.line, field)) from None
    if not out:
        raise UserError("there are no prompts", where=str(path), fix='write {"prompt": ..., "check": {...}} lines')
    return out


def run_suite(
    loaded: Loaded, suite: Sequence[SanityPrompt], *, model: str, max_new_tokens: int = 256, batch_tokens: int = 8192
) -> list[SanityAnswer]:
    """Answer every prompt of a suite greedily, and check what can be checked."""
    from equipoise.data.formatting import render_prompt
    from equipoise.models.generation import generate_greedy

    turns = [
        [*([Message(role="system", content=p.system)] if p.system else []), Message(role="user", content=p.prompt)]
        for p in suite
    ]
    prompts = [render_prompt(loaded.tokenizer, conversation) for conversation in turns]
    outputs = generate_greedy(
        loaded.model, loaded.tokenizer, prompts, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens
    )
    return [answered(prompt, output, model=model) for prompt, output in zip(suite, outputs)]


def answered(prompt: SanityPrompt, output: str, *, model: str) -> SanityAnswer:
    """The row of one answer."""
    problem = prompt.check.check().problem(output) if prompt.check else None
    passed = None if prompt.check is None else problem is None
    return SanityAnswer(
        model=model, id=prompt.id or "", prompt=prompt.prompt, output=output, passed=passed, problem=problem
    )


def side_by_side(rows: Iterable[SanityAnswer], *, width: int = 60) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table: a prompt a row, a model a column, the answers on one line of at most `width`.

    The last row counts the checks passed. Control characters are written out, for the table goes to a terminal.
    """
    given = list(rows)
    models = list(dict.fromkeys(row.model for row in given))
    by = {(row.id, row.model): row for row in given}
    table = [
        [name, *(_cell(by.get((name, model)), width) for model in models)]
        for name in dict.fromkeys(row.id for row in given)
    ]
    checked = {
        model: [row.passed for row in given if row.model == model and row.passed is not None] for model in models
    }
    table.append(["passed", *(f"{sum(checked[model])} of {len(checked[model])}" for model in models)])
    return ["prompt", *models], table


def _cell(row: SanityAnswer | None, width: int) -> str:
    if row is None:
        return ""
    mark = {True: "[right] ", False: "[wrong] ", None: ""}[row.passed]
    text = visible(row.output.strip().replace("\n", " / "))
    return mark + (text if len(text) <= width else text[: width - 1] + "…")
