"""Functions that a model completes, scored by running unit tests: a skill that training should not cost."""

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.gathering import Dropped, Gathered, Ids, open_rows
from equipoise.data.jsonl import BadRow, shown
from equipoise.data.rows import required, row_id
from equipoise.data.text_form import text_ids
from equipoise.metrics.completions import function_body, function_end
from equipoise.metrics.sandbox import run_unit_tests
from equipoise.metrics.syntax import parse
from equipoise.models.generation import Generated, generate
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.models.stack_generation import generate_stacked
from equipoise.models.text_stop import StopWhen
from equipoise.records import Example, Prediction

TASK = "functions"
MAX_NEW_TOKENS = 384
BATCH_TOKENS = 16384
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


@dataclass(frozen=True)
class FunctionTask:
    """The head of a function to complete.

    White space at the end of the head begins the answer, as in lm-evaluation-harness: many vocabularies have one token
    for a line break and the indentation after it, and a model that is given the line break alone does not go on.

    Attributes:
        prompt: code up to and including the docstring, without the line break after it.
        solution: a right continuation.
        tests: asserts, run after the function in the same module.
    """

    id: str
    prompt: str
    solution: str
    tests: str

    @classmethod
    def of(cls, name: str, head: str, solution: str, tests: str) -> "FunctionTask":
        """A task from a head and its continuation, split wherever they are."""
        prompt = head.rstrip()
        return cls(name, prompt, head[len(prompt) :] + solution, tests)


@dataclass(frozen=True)
class LoadedFunctions:
    """What came of a source: tasks in order, the rows left out, remarks, and the hash of its content."""

    tasks: list[FunctionTask]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


def load_functions(source: str | Path, *, max_bad_share: float = 0.05) -> LoadedFunctions:
    """Read tasks in HumanEval's form: `task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`.

    `test` defines `check(candidate)`, which is called with the function named `entry_point`.

    Raises:
        UserError: the source cannot be read, has no usable row or too many bad ones, or an id names two tasks.
    """
    rows = open_rows(source, FIELDS)
    ids: Ids[str] = Ids(rows)

    def read(values: dict[str, Any], line: int) -> tuple[FunctionTask, list[str]]:
        task = _human_eval(values, ids.for_line(line))
        ids.check(task.id, line, task.prompt)
        return task, [shown(name) for name in values if name not in FIELDS]

    gathered = Gathered(rows, read)
    gathered.check(max_bad_share)
    notes = rows.notes + gathered.notes(FIELDS)
    return LoadedFunctions([task for _, task in gathered.kept], gathered.dropped, notes, rows.sha256)


def _human_eval(values: dict[str, Any], name: str) -> FunctionTask:
    prompt, solution, test, entry = (
        required(values, field, "", (str,)) for field in ("prompt", "canonical_solution", "test", "entry_point")
    )
    tests = f"{test}\ncheck({entry})"
    if not entry.isidentifier():
        raise BadRow(f"{shown(entry, 30)!r} is not a function name", "entry_point")
    for field, code in (("canonical_solution", prompt + solution), ("test", tests)):
        if parse(code) is None:
            raise BadRow("does not parse as Python", field)
    return FunctionTask.of(row_id(values, "task_id") or name, prompt, solution, tests)


def function_tasks(examples: Iterable[Example]) -> list[FunctionTask]:
    """Rows whose answer is one function with unit tests, as the testbed's are, in the form of code to complete.

    The question becomes the docstring, so nothing has to be asked in words. Rows of another kind are passed over.
    """
    found = (_completion(example) for example in examples)
    return [task for task in found if task is not None]


def _completion(example: Example) -> FunctionTask | None:
    tree, tests = parse(example.completion), example.meta.get("unit_tests")
    body = [] if tree is None else tree.body
    if not tests or len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].decorator_list:
        return None
    function, lines = body[0], example.completion.splitlines()
    first = function.body[0]
    if first.lineno == function.lineno:  # all in one line: there is no place for a docstring
        return None
    indent, said = " " * first.col_offset, " ".join(example.prompt.split()).replace("\\", "\\\\").replace('"', "'")
    start = min([first.lineno, *(item.lineno for item in getattr(first, "decorator_list", ()))]) - 1
    head = "\n".join(lines[function.lineno - 1 : start])
    prompt = f'{head}\n{indent}"""{said}"""\n'
    return FunctionTask.of(example.id, prompt, "\n".join(lines[start:]) + "\n", tests)


def evaluate_functions(
    loaded: Loaded,
    tasks: Sequence[FunctionTask],
    *,
    method: str,
    seed: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[Sequence[int]], None] | None = None,
) -> list[Prediction]:
    """Complete every function greedily and run its tests: this executes what the model wrote, in the sandbox.

    An answer ends with its function, or is cut at `max_new_tokens`.

    Args:
        on_batch: called after each batch with the numbers of its tasks.
    """
    answers = generate(
        loaded.model,
        loaded.tokenizer,
        [text_ids(loaded.tokenizer, task.prompt) for task in tasks],
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        stop_when=_ends(tasks),
        on_batch=on_batch,
    )
    return _scored(loaded.tokenizer, tasks, answers, method, seed)


def evaluate_functions_stack(
    stack: LoraStack,
    tokenizer: Any,
    tasks: Sequence[FunctionTask],
    *,
    runs: Sequence[tuple[str, int]],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_tokens: int = 4 * BATCH_TOKENS,
    on_batch: Callable[[Sequence[int]], None] | None = None,
) -> list[list[Prediction]]:
    """What `evaluate_functions` gives for each run of a stack, all runs answering in shared batches.

    Args:
        runs: method and seed of each.
        batch_tokens: of all runs together.
        on_batch: as in `evaluate_functions`.
    """
    answers = generate_stacked(
        stack,
        tokenizer,
        [text_ids(tokenizer, task.prompt) for task in tasks],
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        stop_when=_ends(tasks),
        on_batch=on_batch,
    )
    return [_scored(tokenizer, tasks, mine, *run) for mine, run in zip(answers, runs, strict=True)]


def _ends(tasks: Sequence[FunctionTask]) -> StopWhen:
    return lambda number, text: function_end(tasks[number].prompt, text) is not None


def _scored(
    tokenizer: Any, tasks: Sequence[FunctionTask], answers: Sequence[Generated], method: str, seed: int
) -> list[Prediction]:
    outputs = tokenizer.batch_decode(
        [answer.ids for answer in answers], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [
        Prediction(
            method=method,
            seed=seed,
            task=TASK,
            item=task.id,
            form="text",
            prompt=task.prompt,
            gold=task.solution,
            output=output,
            score=passes(task, output),
            cut=answer.cut,
        )
        for task, answer, output in zip(tasks, answers, outputs, strict=True)
    ]


def passes(task: FunctionTask, output: str) -> float:
    """1.0 if the function that `output` completes passes the tests, else 0.0."""
    return float(run_unit_tests(task.prompt + function_body(task.prompt, output), task.tests))
