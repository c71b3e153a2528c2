"""Greedy answers to tasks of a knowledge update, scored item by item."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.data.formatting import render_prompt
from equipoise.metrics.api_calls import published_score, score_call
from equipoise.metrics.functions import score_function
from equipoise.metrics.grading import kind_of
from equipoise.metrics.sandbox import run_unit_tests
from equipoise.models.generation import generate_greedy
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.models.stack_generation import generate_stacked
from equipoise.records import Form, Message, Prediction, Result


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


@dataclass(frozen=True)
class Task:
    """Items that answer one question about a model: correction, generalisation, locality or retention."""

    name: str
    items: tuple[Item, ...]


def scorer_for(gold: str) -> str:
    """Name the strictest scorer that fits the form of `gold`: `function`, `call` or `exact`."""
    kind = kind_of(gold)
    return "exact" if kind == "text" else kind


def score(output: str, item: Item, *, scorer: str = "auto", execute: bool = False) -> float:
    """Score one answer strictly: 1 for gold, 0 for the old answer, for both together and for anything else."""
    kind = scorer_for(item.gold) if scorer == "auto" else scorer
    if kind == "call":
        return score_call(output, item.gold, item.old)
    if kind == "function":
        right = score_function(output, [item.gold, *item.accepted])
        if right == 1.0 or not (execute and item.unit_tests):
            return right
        return float(run_unit_tests(output, item.unit_tests))
    return float(" ".join(output.split()) in {" ".join(answer.split()) for answer in (item.gold, *item.accepted)})


def evaluate(
    loaded: Loaded,
    tasks: Sequence[Task],
    *,
    method: str,
    seed: int,
    scorer: str = "auto",
    execute: bool = False,
    batch_tokens: int = 8192,
) -> list[Prediction]:
    """Answer every item greedily and score it.

    An answer may be half as long again as the longest right one of its task; a longer one is cut, and wrong anyway.
    """
    predictions = []
    for task in tasks:
        if task.items:
            prompts, budget = _asked(loaded.tokenizer, task)
            outputs = generate_greedy(
                loaded.model, loaded.tokenizer, prompts, max_new_tokens=budget, batch_tokens=batch_tokens
            )
            predictions += _scored(task, outputs, method, seed, scorer, execute)
    return predictions


def evaluate_stack(
    stack: LoraStack,
    tokenizer: Any,
    tasks: Sequence[Task],
    *,
    runs: Sequence[tuple[str, int]],
    scorer: str = "auto",
    execute: bool = False,
    batch_tokens: int = 32768,
) -> list[list[Prediction]]:
    """What `evaluate` gives for each run of a stack, all runs answering in shared batches.

    Args:
        runs: method and seed of each.
        batch_tokens: of all runs together.
    """
    predictions: list[list[Prediction]] = [[] for _ in runs]
    for task in tasks:
        if task.items:
            prompts, budget = _asked(tokenizer, task)
            answers = generate_stacked(stack, tokenizer, prompts, max_new_tokens=budget, batch_tokens=batch_tokens)
            for mine, (method, seed), given in zip(predictions, runs, answers, strict=True):
                outputs = tokenizer.batch_decode([answer.ids for answer in given], skip_special_tokens=True)
                mine += _scored(task, outputs, method, seed, scorer, execute)
    return predictions


def _asked(tokenizer: Any, task: Task) -> tuple[list[list[int]], int]:
    """The prompts of a task, and how many tokens an answer may have."""
    golds = [tokenizer(answer).input_ids for item in task.items for answer in (item.gold, *item.accepted)]
    return [render_prompt(tokenizer, item.conversation) for item in task.items], int(1.5 * max(map(len, golds))) + 8


def _scored(
    task: Task, outputs: Sequence[str], method: str, seed: int, scorer: str, execute: bool
) -> Iterator[Prediction]:
    for item, output in zip(task.items, outputs):
        yield Prediction(
            method=method,
            seed=seed,
            task=task.name,
            item=item.id,
            phrasing=item.phrasing,
            prompt=item.conversation[-1].content,
            gold=item.gold,
            old=item.old,
            output=output,
            score=score(output, item, scorer=scorer, execute=execute),
            published_score=None if item.old is None else published_score(output, item.gold, item.old),
        )


def summarise(predictions: Iterable[Prediction], *, scoring: str = "strict") -> list[Result]:
    """Reduce item-level rows to one row a method, seed and task: the mean score and its n."""
    groups: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for row in predictions:
        published = scoring == "published" and row.published_score is not None
        groups[row.method, row.seed, row.task].append(row.published_score if published else row.score)  # pyright: ignore[reportArgumentType]
    return [
        Result(
            method=method,
            seed=seed,
            task=task,
            metric="accuracy",
            value=sum(scores) / len(scores),
            n=len(scores),
            higher_is_better=True,
        )
        for (method, seed, task), scores in groups.items()
    ]
