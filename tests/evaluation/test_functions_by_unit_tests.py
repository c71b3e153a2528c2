"""Functions completed as code: gold passes its tests, anything else does not."""

import json

import pytest
from tiny_adapters import tiny_stack
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.evaluation.functions import (
    FunctionTask,
    evaluate_functions,
    evaluate_functions_stack,
    function_tasks,
    load_functions,
    passes,
)
from equipoise.models.loading import Loaded
from equipoise.records import Example, Message
from equipoise.testbed.examples import load_facts

TOKENIZER = tiny_tokenizer()
HEAD = 'def double(x):\n    """Double a number."""\n'
TASK = FunctionTask.of("double", HEAD, "    return 2 * x\n", "assert double(2) == 4\nassert double(-1) == -2")


@pytest.mark.parametrize(
    ("output", "score"),
    [
        ("    return 2 * x\n", 1),
        ("    return x + x\n\n\nprint(double('a', 'b'))\n", 1),
        ("    return 2 * x\n```\nThis doubles the number.", 1),
        ("    return 2 *", 0),
        ("    return x ** 2\n", 0),
        ("The function doubles a number.", 0),
        ("    pass\n", 0),
        ("", 0),
        ("\ndef double(x):\n    return 2 * x\n", 0),  # a second function is none that was begun
    ],
)
def test_the_function_alone_is_run(output, score):
    assert passes(TASK, "\n" + output) == score
    assert passes(FunctionTask("double", HEAD, "", TASK.tests), output) == score


def row(**changes):
    given = {
        "task_id": "T/0",
        "prompt": HEAD,
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(3) == 6\n",
    }
    return given | changes


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_humanevals_form(tmp_path):
    (task,) = load_functions(written(tmp_path / "f.jsonl", row())).tasks
    assert (task.id, task.prompt, task.solution) == ("T/0", HEAD.rstrip(), "\n    return 2 * x\n")
    assert passes(task, task.solution) == 1
    assert passes(task, "\n    return x\n") == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"entry_point": "os.system"}, "not a function name"),
        ({"test": "def check("}, "parse"),
        ({"canonical_solution": 3}, "number"),
    ],
)
def test_a_bad_row_is_an_error(tmp_path, change, reason):
    with pytest.raises(UserError, match=reason):
        load_functions(written(tmp_path / "f.jsonl", row(**change)))


def test_every_function_of_the_testbed_can_be_asked_as_code():
    examples, _ = load_facts("testbed:function")
    tasks = function_tasks(examples)
    assert [task.id for task in tasks] == [example.id for example in examples]
    for task, example in zip(tasks, examples):
        body = task.prompt[: task.prompt.index('\n    """')] + task.solution
        assert body.rstrip() == example.completion  # the docstring is all that is added
        compile(task.prompt + task.solution, task.id, "exec")
    assert passes(tasks[0], tasks[0].solution) == 1
    assert passes(tasks[0], tasks[1].solution) == 0


def test_rows_that_are_no_function_with_tests_are_passed_over():
    def example(answer, tests="assert True"):
        turns = [Message(role="user", content='say "f"'), Message(role="assistant", content=answer)]
        return Example(id="x", messages=turns, meta={"unit_tests": tests})

    assert (
        function_tasks([example("np.prod(x)"), example("def f(): return 1"), example("def f():\n  return 1", "")]) == []
    )
    (task,) = function_tasks([example("def f(\n    x,\n):\n  # one\n  return 1")])
    assert task.prompt.endswith('"""say \'f\'"""')
    assert passes(FunctionTask("f", task.prompt, task.solution, "assert f(0) == 1"), task.solution) == 1


def test_answers_are_scored_and_end_with_their_function():
    loaded = Loaded(tiny_model(seed=3), TOKENIZER, "tiny")
    tasks = [TASK, FunctionTask.of("second", HEAD + "    y = x\n", "    return 2 * y\n", TASK.tests)]
    rows = evaluate_functions(loaded, tasks, method="sft", seed=4, max_new_tokens=12)
    assert [(r.item, r.task, r.form, r.gold, r.score) for r in rows] == [
        (task.id, "functions", "text", task.solution, 0.0) for task in tasks
    ]
    assert all(r.cut == (len(TOKENIZER(r.output)["input_ids"]) >= 12) for r in rows)


def test_runs_of_a_stack_are_scored_as_each_alone():
    stack = tiny_stack(2)
    runs = [("a", 0), ("b", 1)]
    together = evaluate_functions_stack(stack, TOKENIZER, [TASK], runs=runs, max_new_tokens=8)
    for i, (method, seed) in enumerate(runs):
        alone = Loaded(stack.model_of(i), TOKENIZER, "tiny")
        assert together[i] == evaluate_functions(alone, [TASK], method=method, seed=seed, max_new_tokens=8)
