"""Tasks of a knowledge update: every item scores gold 1 and anything else 0; token rows agree with plain arithmetic."""

import math
from dataclasses import replace

import pytest
import torch

from equipoise.data.formatting import IGNORE, render, render_prompt
from equipoise.errors import UserError
from equipoise.evaluation.knowledge import Item, Task, evaluate, score, scorer_for, summarise
from equipoise.evaluation.settings import ScoringSettings
from equipoise.evaluation.tokens import token_rows
from equipoise.models.generation import generate_greedy
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.knowledge_data import load_data, tasks
from equipoise.pipelines.settings import DataSettings
from equipoise.records import Message, Prediction
from equipoise.testbed.examples import fact_example
from equipoise.testbed.world import World


@pytest.fixture(scope="module")
def data():
    return load_data(DataSettings(limit=50))


@pytest.fixture(scope="module")
def testbed():
    return load_model(ModelSettings())


def scored(output, item, *, stated=False, execute=False, cut=False):
    return score(output, item, ScoringSettings(run_unit_tests=execute), stated=stated, cut=cut).score


def test_every_item_scores_gold_1_and_everything_else_0(data):
    items = [item for task in tasks(data) for item in task.items]
    assert len(items) > 500
    for item in items:
        assert scored(item.gold, item) == 1.0
        assert scored("colourless green ideas sleep furiously", item) == 0.0
        assert scored("", item) == 0.0
        if item.old:
            assert scored(item.old, item) == 0.0
            assert scored(f"{item.old}\n{item.gold}", item) == scored(f"{item.gold}\n{item.old}", item) == 0.0


def test_answers_in_prose_score_as_the_code_in_them_in_both_forms():
    data = load_data(DataSettings(limit=24, ask="both"))
    data = replace(data, keep=data.keep[:40], skills=data.skills[:10])
    items = [item for task in tasks(data) for item in task.items]
    assert {item.form for item in items} == {"chat", "text"}
    for item in items:
        text = item.form == "text"
        said = [item.gold] if text else [item.gold, f"Use this:\n\n```python\n{item.gold}\n```\nThat is all."]
        for output in said:
            assert scored(output, item, stated=True) == 1.0, item
        prose = "\nThe library documentation explains this well." if text else "The library documentation explains it."
        for output in ("", "colourless green ideas sleep furiously", prose):
            assert scored(output, item, stated=True) == 0.0, item
        half = item.gold[: item.gold.find("(") + 1]
        assert not text or scored(half, item, stated=True, cut=True) == 0.0, item
        if item.old:
            assert scored(item.old, item, stated=True) == 0.0, item
            assert text or scored(f"```python\n{item.old}\n```", item, stated=True) == 0.0


def test_tasks_are_laid_out_as_the_protocol_says(data):
    by_name = {task.name: task for task in tasks(data)}
    assert list(by_name) == ["correction", "generalisation", "locality", "retention"]
    assert len(by_name["correction"].items) == 50
    trained = {item.conversation[-1].content for item in by_name["correction"].items}
    asked = {item.conversation[-1].content for item in by_name["generalisation"].items}
    assert len(asked) == len(by_name["generalisation"].items) > 100
    assert not trained & asked
    assert {item.id for item in by_name["generalisation"].items} <= {item.id for item in by_name["correction"].items}
    assert len(by_name["locality"].items) >= 250 and len(by_name["retention"].items) >= 20


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("pd.concat([a, b])", "call"),
        ("def f(x):\n    return x", "function"),
        ("Tol", "exact"),
        ("x = f()", "call"),
        ("f(", "exact"),
    ],
)
def test_the_scorer_follows_the_form_of_gold(gold, kind):
    assert scorer_for(gold) == kind


def test_generated_code_runs_only_when_asked():
    tests = "assert double(2) == 4\nassert double(0) == 0"
    item = Item("double", (Message(role="user", content="?"),), "def double(n):\n    return 2 * n", unit_tests=tests)
    other = "def double(n):\n    return n + n"
    assert scored(other, item) == 0.0
    assert scored(other, item, execute=True) == 1.0
    assert scored(f"Sure:\n```python\n{other}\n```", item, stated=True, execute=True) == 1.0
    assert scored("def double(n):\n    return n", item, execute=True) == 0.0


def test_the_shipped_model_gives_the_old_answer_and_keeps_the_rest(testbed, data):
    some = [Task(task.name, task.items[:20]) for task in tasks(data)]
    predictions = evaluate(testbed, some, method="untrained", seed=0, how=ScoringSettings())
    values = {row.task: row for row in summarise(predictions)}
    assert values["correction"].value == values["generalisation"].value == 0.0
    assert values["locality"].value >= 0.95 and values["retention"].value >= 0.95
    assert all(row.n == 20 and row.higher_is_better for row in values.values())
    assert all(row.output == row.old for row in predictions if row.task == "correction")


def test_the_published_rule_is_used_only_where_it_exists():
    row = {"method": "m", "seed": 1, "phrasing": 0, "prompt": "?", "gold": "g", "output": "o"}
    rows = [
        Prediction(**row, task="correction", item="a", score=0.0, published_score=0.5),
        Prediction(**row, task="retention", item="b", score=1.0),
    ]
    assert [r.value for r in summarise(rows)] == [0.0, 1.0]
    assert [r.value for r in summarise(rows, scoring="published")] == [0.5, 1.0]


def test_token_rows_agree_with_float64_and_with_greedy_decoding(testbed):
    world = World.build()
    examples = [fact_example(f) for knowledge in ("confident-wrong", "stable", "unknown")
                for f in world.select("archive", knowledge)[:4]]  # fmt: skip
    rows = list(token_rows(testbed, examples))
    prompts = [render_prompt(testbed.tokenizer, e) for e in examples]
    outputs = generate_greedy(testbed.model, testbed.tokenizer, prompts, max_new_tokens=12)
    model = testbed.model.double()
    try:
        for example, output in zip(examples, outputs):
            mine = [row for row in rows if row["item"] == example.id]
            rendered = render(testbed.tokenizer, example)
            logits = model(input_ids=torch.tensor([rendered.input_ids])).logits[0]
            expected = [
                (-(p := logits[i].log_softmax(-1))[label].item(), -(p.exp() * p).sum().item() / math.log(len(p)))
                for i, label in enumerate(rendered.labels[1:])
                if label != IGNORE
            ]
            assert [(row["nll"], row["h"]) for row in mine] == [pytest.approx(pair, abs=1e-4) for pair in expected]
            assert any(row["is_conflict"] for row in mine) == (output != example.completion)
            assert sum(row["is_conflict"] for row in mine) <= 1
    finally:
        testbed.model.float()


def test_an_unknown_part_of_the_testbed_is_an_error():
    with pytest.raises(UserError, match="no part 'api_chang'"):
        load_data(DataSettings(updates="testbed:api_chang"))
    with pytest.raises(UserError, match="'sure'"):
        load_data(DataSettings(updates="testbed:api_fact:sure"))
