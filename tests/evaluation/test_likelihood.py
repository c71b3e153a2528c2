"""Log-probabilities of answers against a plain forward pass over each whole row, and what is made of them."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from equipoise.data.formatting import answer_parts, render_prompt
from equipoise.evaluation.knowledge import Item, Task
from equipoise.evaluation.likelihood import (
    Continuations,
    LikelihoodReader,
    choices,
    distractors,
    preferences,
    preferences_stack,
)
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack, parameters_of, slots
from equipoise.models.prefixes import Tree, shares_prefixes
from equipoise.models.quiet import quiet
from equipoise.records import Message

TOKENIZER = tiny_tokenizer()
ASKED = [
    Continuations([5, 6, 7], ([8, 9, 10], [8, 11])),
    Continuations([9, 4, 30, 31, 32, 33], ([50], [51, 52, 53, 54], [50, 55])),
    Continuations([12], ([13, 14],)),
    Continuations([40, 41], ([42, 43], [42, 43, 44])),
]


def oracle(model, asked):
    """Each row alone, through the model's own forward."""
    found = []
    for each in asked:
        found.append([])
        for answer in each.answers:
            ids = torch.tensor([each.prompt + answer])
            with torch.no_grad():
                logp = model(input_ids=ids).logits[0].double().log_softmax(-1)
            at = range(len(each.prompt) - 1, len(each.prompt) + len(answer) - 1)
            found[-1].append(sum(logp[i, token].item() for i, token in zip(at, answer)))
    return found


def logps(read):
    return [[answer.logp for answer in each] for each in read]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES])
@pytest.mark.parametrize("batch_tokens", [1, 24, 4096])
def test_log_probabilities_are_those_of_the_models_own_forward(architecture, batch_tokens):
    model = tiny_model(architecture)
    reader = LikelihoodReader(Loaded(model, TOKENIZER, "tiny"), batch_tokens=batch_tokens)
    assert reader.shared
    seen = []
    read = reader.read(ASKED, on_batch=seen.append)
    for ours, theirs in zip(logps(read), oracle(model, ASKED), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert [[answer.tokens for answer in each] for each in read] == [[3, 2], [1, 4, 2], [2], [2, 3]]
    assert sum(seen) == 8


def test_a_row_longer_than_a_sliding_window_shares_no_prefix():
    model = tiny_model("mistral", sliding_window=12)
    reader = LikelihoodReader(Loaded(model, TOKENIZER, "tiny"))
    assert reader.shared == 12
    asked = [*ASKED, Continuations([*range(20, 40)], ([50, 51], [52]))]
    for ours, theirs in zip(logps(reader.read(asked)), oracle(model, asked), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_model_with_a_recurrent_state_is_read_row_by_row():
    torch.manual_seed(0)
    config = CONFIG_MAPPING["mamba"](vocab_size=len(TOKENIZER), hidden_size=16, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not shares_prefixes(model)
    reader = LikelihoodReader(Loaded(model, TOKENIZER, "tiny"))
    for ours, theirs in zip(logps(reader.read(ASKED)), oracle(model, ASKED), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_what_all_answers_begin_with_is_computed_once():
    tree = Tree.of([1, 2], [[3, 4, 5], [3, 4], [3, 4, 6]])
    assert (tree.trunk, tree.branches, len(tree)) == ([1, 2, 3, 4], ([5], [], [6]), 6)


def item(name, prompt, gold, old=None, form="chat", phrasing=0):
    return Item(name, (Message(role="user", content=prompt),), gold, old, phrasing, form)


TASKS = [
    Task("correction", (item("a", "the call", "numpy.stack", "numpy.concat"), item("b", "x =", " 1", " 22", "text"))),
    Task("locality", (item("c", "pandas", "yes"), item("d", "numpy", "no"))),
]


def test_both_answers_are_scored_after_the_prompt_of_their_form():
    model = tiny_model()
    chosen = choices(TOKENIZER, TASKS, {"c": "no"})
    assert chosen.without == ["d"]
    rows = preferences(Loaded(model, TOKENIZER, "tiny"), chosen, method="sft", seed=3)
    assert [(row.task, row.item, row.form, row.old) for row in rows] == [
        ("correction", "a", "chat", "numpy.concat"),
        ("correction", "b", "text", " 22"),
        ("locality", "c", "chat", "no"),
    ]
    text = rows[1]
    prompt, new, old = (TOKENIZER(s)["input_ids"] for s in ("x =", " 1", " 22"))
    ((logp_new, logp_old),) = oracle(model, [Continuations(prompt, (new, old))])
    assert (text.logp_new, text.logp_old) == pytest.approx((logp_new, logp_old), abs=1e-4)
    assert text.margin == pytest.approx(logp_new - logp_old, abs=1e-4)
    assert text.margin_per_token == pytest.approx(logp_new / len(new) - logp_old / len(old), abs=1e-4)
    chat = chosen.continuations[0]
    assert chat.prompt == render_prompt(TOKENIZER, TASKS[0].items[0].conversation)
    answer = [*TASKS[0].items[0].conversation, Message(role="assistant", content="numpy.stack")]
    assert chat.answers[0] == answer_parts(TOKENIZER, answer).answer
    assert math.isfinite(rows[0].margin) and (rows[0].method, rows[0].seed) == ("sft", 3)


def test_an_adapter_counts_and_a_stack_gives_what_each_of_its_runs_gives():
    with quiet():
        adapted = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    row = parameters_of(slots(adapted))
    runs = torch.stack([row, torch.randn(row.shape, generator=torch.manual_seed(1))])
    chosen = choices(TOKENIZER, TASKS)
    plain = preferences(Loaded(tiny_model(), TOKENIZER, "tiny"), chosen, method="a", seed=0)
    stack = LoraStack(adapted, runs)
    first, second = preferences_stack(stack, TOKENIZER, chosen, runs=[("a", 0), ("b", 1)])
    assert [r.margin for r in first] == pytest.approx([r.margin for r in plain], abs=1e-4)
    own = oracle(stack.model_of(1).get_base_model(), chosen.continuations)
    assert [[r.logp_new, r.logp_old] for r in second] == [pytest.approx(pair, abs=1e-4) for pair in own]
    assert {(r.method, r.seed) for r in second} == {("b", 1)}


def test_a_distractor_is_the_models_own_answer_or_another_of_its_kind():
    items = [
        item("a", "1", " np.mean(x)", form="text"),
        item("b", "2", " np.median(x)", form="text"),
        item("c", "3", " len(data)", form="text"),
        item("d", "4", " np.std(x)", " np.sd(x)", form="text"),
        item("e", "5", "Paris"),
        item("f", "6", "the capital of all"),
        item("g", "7", "Paris"),
    ]
    found = distractors(items)
    assert found == {
        "a": " np.std(x)",
        "b": " np.mean(x)",
        "c": " np.std(x)",
        "e": "the capital of all",
        "f": "Paris",
        "g": "the capital of all",
    }
    own = distractors(items, {"a": "np.average(x)\n", "b": " np.median(x)", "e": "Lyon", "f": " "})
    assert (own["a"], own["b"], own["e"], own["f"]) == (" np.average(x)", found["b"], "Lyon", found["f"])
    assert distractors(items[:1]) == {}
