"""Greedy answers to tasks of a knowledge update, scored item by item."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from equipoise.data import text_form
from equipoise.data.formatting import render_prompt
from equipoise.evaluation.settings import ScoringSettings
from equipoise.metrics.api_calls import published_score, score_call
from equipoise.metrics.functions import function_code, score_function
from equipoise.metrics.grading import Kind, grade, kind_of
from equipoise.metrics.sandbox import run_unit_tests
from equipoise.models.generation import Generated, generate
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.models.stack_generation import generate_stacked
from equipoise.models.text_stop import StopWhen
from equipoise.records import Example, Form, Message, Prediction, Result

FENCE = "```"
KINDS: dict[str, Kind] = {"call": "call", "function": "function", "exact": "text"}


@dataclass(frozen=True)
class Item:
    """One question with the answer that is right now, and, where there is one, the answer that used to be.

    Attributes:
        conversation: messages up to and including the question.
        form: `chat`, or `text` for a prompt that the answer continues without a chat template.
        accepted: further right answers (known right bodies of a function).
        unit_tests: asserts over the function, run only when asked for.
    """

    id: str
    conversation: tuple[Message, ...]
    gold: str
    old: str | None = None
    phrasing: int = 0
    form: Form = "chat"
    accepted: tuple[str, ...] = ()
    unit_tests: str = ""

    @property
    def question(self) -> str:
        """The text of the question, or the text to continue."""
        return self.conversation[-1].content


def item_of(row: Example, phrasing: int = 0) -> Item:
    """Return what a row asks in one of its phrasings: 0 is its own, the others are its rephrasings."""
    conversation = list(row.messages[:-1])
    if phrasing:
        conversation[-1] = Message(role="user", content=row.rephrasings[phrasing - 1])
    return Item(
        id=row.id,
        conversation=tuple(conversation),
        gold=row.completion,
        old=row.old,
        phrasing=phrasing,
        form=row.form,
        accepted=tuple(row.meta.get("accepted", ())),
        unit_tests=row.meta.get("unit_tests", ""),
    )


@dataclass(frozen=True)
class Task:
    """Items that answer one question about a model: correction, generalisation, locality or retention."""

    name: str
    items: tuple[Item, ...]


class Scores(NamedTuple):
    """Scores of one answer from 0 to 1: what its task counts, and those that its kind has beside it."""

    score: float
    exact: float | None = None
    call: float | None = None
    published: float | None = None


def scorer_for(gold: str) -> str:
    """Name the strictest scorer that fits the form of `gold`: `function`, `call` or `exact`."""
    kind = kind_of(gold)
    return "exact" if kind == "text" else kind


def score(output: str, item: Item, how: ScoringSettings, *, stated: bool, cut: bool = False) -> Scores:
    """Score one answer: 1 for gold, 0 for the old answer, for both together and for anything else.

    Args:
        stated: read the answer out of prose; else the whole text has to be it.
        cut: the answer ran out of tokens.
    """
    if item.form == "text":
        output = text_form.cut(output, item.gold)
    return _stated(output, item, how, cut) if stated else _bare(output.strip(), item, how)


def _bare(output: str, item: Item, how: ScoringSettings) -> Scores:
    gold, accepted = item.gold.strip(), [answer.strip() for answer in item.accepted]
    kind = scorer_for(gold) if how.scorer == "auto" else how.scorer
    published = None if item.old is None else published_score(output, gold, item.old)
    if kind == "call":
        return Scores(score_call(output, gold, item.old), published=published)
    if kind == "function":
        right = score_function(output, [gold, *accepted])
        if right < 1 and how.run_unit_tests and item.unit_tests:
            right = float(run_unit_tests(output, item.unit_tests))
        return Scores(right, published=published)
    same = " ".join(output.split()) in {" ".join(answer.split()) for answer in (gold, *accepted)}
    return Scores(float(same), published=published)


def _stated(output: str, item: Item, how: ScoringSettings, cut: bool) -> Scores:
    head = item.question if item.form == "text" and not text_form.is_line(item.gold) else ""
    gold, *accepted = (head + answer for answer in (item.gold, *item.accepted))
    kind = "auto" if how.scorer == "auto" else KINDS[how.scorer]
    grades = grade(
        head + output,
        gold if head else gold.strip(),
        old=item.old,
        accepted=accepted,
        question=None if item.form == "text" else item.question,
        kind=kind,
        prompt_code=item.question if item.form == "text" and not head else None,
        cut=cut,
    )
    right = grades.exact if how.scorer == "exact" else grades.right
    if grades.kind == "function" and right < 1 and how.run_unit_tests and item.unit_tests:
        code = function_code(head + output, [gold, *accepted], cut=cut)
        right = float(bool(code) and run_unit_tests(code[-1], item.unit_tests))
    return Scores(right, grades.exact, grades.call, grades.published)


# ---- asking


class _Batch(NamedTuple):
    """Items of a task that are asked in one way: their places in it, how long answers may be, and when they end."""

    places: list[int]
    prompts: list[list[int]]
    budget: int
    stop_when: StopWhen | None


def evaluate(
    loaded: Loaded,
    tasks: Sequence[Task],
    *,
    method: str,
    seed: int,
    how: ScoringSettings,
    on_answers: Callable[[Sequence[Item]], None] | None = None,
) -> list[Prediction]:
    """Answer every item greedily and score it.

    Args:
        on_answers: called after each batch with the items that it answered.
    """
    stated, predictions = how.reads_prose(loaded.name), []
    for task in tasks:
        answers: list[Generated] = [Generated()] * len(task.items)
        for batch in _batches(loaded.tokenizer, task, how, stated):
            given = generate(
                loaded.model,
                loaded.tokenizer,
                batch.prompts,
                max_new_tokens=batch.budget,
                batch_tokens=how.batch_tokens,
                stop_when=batch.stop_when,
                on_batch=_of_items(on_answers, task, batch),
            )
            for place, answer in zip(batch.places, given, strict=True):
                answers[place] = answer
        predictions += _scored(loaded.tokenizer, task, answers, method, seed, how, stated)
    return predictions


def evaluate_stack(
    stack: LoraStack,
    loaded: Loaded,
    tasks: Sequence[Task],
    *,
    runs: Sequence[tuple[str, int]],
    how: ScoringSettings,
    on_answers: Callable[[Sequence[Item]], None] | None = None,
) -> list[list[Prediction]]:
    """What `evaluate` gives for each run of a stack, all runs answering in shared batches.

    Args:
        loaded: the model that the runs share, for its name and tokenizer.
        runs: method and seed of each.
        on_answers: called after each batch with the items that all runs answered in it.
    """
    tokenizer, stated = loaded.tokenizer, how.reads_prose(loaded.name)
    predictions: list[list[Prediction]] = [[] for _ in runs]
    for task in tasks:
        answers: list[list[Generated]] = [[Generated()] * len(task.items) for _ in runs]
        for batch in _batches(tokenizer, task, how, stated):
            given = generate_stacked(
                stack,
                tokenizer,
                batch.prompts,
                max_new_tokens=batch.budget,
                batch_tokens=how.batch_tokens,
                stop_when=batch.stop_when,
                on_batch=_of_items(on_answers, task, batch),
            )
            for mine, theirs in zip(answers, given, strict=True):
                for place, answer in zip(batch.places, theirs, strict=True):
                    mine[place] = answer
        for mine, theirs, (method, seed) in zip(predictions, answers, runs, strict=True):
            mine += _scored(tokenizer, task, theirs, method, seed, how, stated)
    return predictions


def _batches(tokenizer: Any, task: Task, how: ScoringSettings, stated: bool) -> Iterator[_Batch]:
    """Part a task into items that are asked alike.

    A bare answer may be half as long again as the longest right one; a longer one is cut, and wrong anyway. Models that
    talk in prose have `max_new_tokens`; code to complete ends with its line or its block.
    """
    for form in ("chat", "text"):
        places = [i for i, item in enumerate(task.items) if item.form == form]
        if not places:
            continue
        items = [task.items[i] for i in places]
        golds = [tokenizer(answer).input_ids for item in items for answer in (item.gold, *item.accepted)]
        longest = int(1.5 * max(map(len, golds))) + 8
        budget = max(how.max_new_tokens, longest) if stated and form == "chat" else longest
        prompts = [render_prompt(tokenizer, item.conversation, form=form) for item in items]
        yield _Batch(places, prompts, budget, _end_of(items, form, stated))


def _of_items(
    told: Callable[[Sequence[Item]], None] | None, task: Task, batch: _Batch
) -> Callable[[Sequence[int]], None] | None:
    """Return what passes the items of answered prompts on."""
    if told is None:
        return None
    return lambda rows: told([task.items[batch.places[row]] for row in rows])


def _end_of(items: Sequence[Item], form: Form, stated: bool) -> StopWhen | None:
    """Tell when an answer is over before its model ends it: a completed line or block, a closed block of code."""
    if form == "text":
        return lambda number, text: text_form.has_ended(text, items[number].gold)
    if not stated:
        return None
    code = [kind_of(item.gold, item.old) != "text" for item in items]
    return lambda number, text: code[number] and text.count(FENCE) >= 2 and text.rstrip().endswith(FENCE)


def _scored(
    tokenizer: Any,
    task: Task,
    answers: Sequence[Generated],
    method: str,
    seed: int,
    how: ScoringSettings,
    stated: bool,
) -> Iterator[Prediction]:
    outputs = tokenizer.batch_decode([answer.ids for answer in answers], skip_special_tokens=True) if answers else []
    for item, answer, output in zip(task.items, answers, outputs, strict=True):
        yield prediction(task.name, item, output, method, seed, how, stated=stated, cut=answer.cut)


def prediction(
    task: str, item: Item, output: str, method: str, seed: int, how: ScoringSettings, *, stated: bool, cut: bool
) -> Prediction:
    """Return the row of one answer, with its scores."""
    scores = score(output, item, how, stated=stated, cut=cut)
    return Prediction(
        method=method,
        seed=seed,
        task=task,
        item=item.id,
        phrasing=item.phrasing,
        form=item.form,
        prompt=item.question,
        gold=item.gold,
        old=item.old,
        output=output,
        score=scores.score,
        exact=scores.exact,
        call=scores.call,
        published_score=scores.published,
        cut=cut,
    )


def summarise(predictions: Iterable[Prediction], *, scoring: str = "strict") -> list[Result]:
    """Reduce item-level rows to one row a method, seed and task: the mean score and its n.

    The share of calls with exactly gold's syntax is a row of its own where it was measured.
    """
    groups: dict[tuple[str, int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in predictions:
        group = groups[row.method, row.seed, row.task]
        published = scoring == "published" and row.published_score is not None
        group["accuracy"].append(row.published_score if published else row.score)  # pyright: ignore[reportArgumentType]
        if row.call is not None and row.exact is not None:
            group["exact"].append(row.exact)
    return [
        Result(
            method=method,
            seed=seed,
            task=task,
            metric=metric,
            value=sum(scores) / len(scores),
            n=len(scores),
            higher_is_better=True,
        )
        for (method, seed, task), metrics in groups.items()
        for metric, scores in metrics.items()
    ]
