"""`equipoise.evaluate_knowledge` on plain objects."""

import pytest
import torch
from tiny_models import tiny_folder, tiny_model, tiny_tokenizer

import equipoise
from equipoise.errors import UserError
from equipoise.records import Example, Message

TOKENIZER = tiny_tokenizer()
ROWS = [
    {"id": "a", "prompt": "the call =", "completion": " numpy.stack(x)", "old": " numpy.concat(x)",
     "rephrasings": ["pandas call ="]},
    {"prompt": "the other =", "completion": " pandas(y)"},
]  # fmt: skip


def test_a_table_with_a_row_for_each_phrasing():
    model = tiny_model()
    scores = equipoise.evaluate_knowledge(model, ROWS, TOKENIZER, form="text", max_new_tokens=5)
    table = scores.to_pandas()
    assert [*table.columns] == ["id", "phrasing", "logp_new", "logp_old", "margin", "output", "exact", "call"]
    assert [*zip(table["id"], table["phrasing"], strict=True)] == [("a", 0), ("a", 1), ("row-000002", 0)]
    assert ((table["logp_new"] - table["logp_old"] - table["margin"]).abs() < 1e-9).all()
    prompt, answer = (TOKENIZER(text)["input_ids"] for text in ("the call =", " numpy.stack(x)"))
    with torch.no_grad():
        logp = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    expected = sum(logp[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))
    assert table["logp_new"][0] == pytest.approx(expected, abs=1e-4)
    summary = scores.summary()
    assert summary["efficacy"]["n"] == 2 and summary["paraphrase_efficacy"]["n"] == 1
    low, high = summary["efficacy"]["interval"]
    assert 0 <= low <= summary["efficacy"]["value"] <= high <= 1


class Says(torch.nn.Module):
    """A tiny model whose greedy answer is a given text, whatever it is asked."""

    def __new__(cls, text):
        model = tiny_model()
        ids = TOKENIZER(text)["input_ids"]
        own = model.forward

        def forward(*args, past_key_values=None, **kwargs):
            step = past_key_values.get_seq_length() if past_key_values is not None else None
            out = own(*args, past_key_values=past_key_values, **kwargs)
            if step is not None:
                model.asked = model.asked + 1 if step else 0
                out.logits[:, -1, ids[min(model.asked, len(ids) - 1)]] = 1e4
            return out

        model.forward = forward
        return model


@pytest.mark.parametrize(("said", "right"), [(" numpy.stack(x)\nmore", 1.0), (" numpy.concat(x)\n", 0.0)])
def test_an_answer_in_text_form_ends_with_its_line_and_is_scored(said, right):
    (row,) = equipoise.evaluate_knowledge(Says(said), ROWS[:1] and [dict(ROWS[0], rephrasings=[])], TOKENIZER,
                                          form="text").rows  # fmt: skip
    assert row["output"] == said.partition("\n")[0]
    assert (row["exact"], row["call"]) == (right, right)


def test_a_body_is_scored_with_the_prompt_that_it_completes():
    body = "\n    y = x\n    return y"
    row = {"id": "f", "prompt": "def f(x):", "completion": body}
    (found,) = equipoise.evaluate_knowledge(Says(f"{body}\n\nprint(f(1))"), [row], TOKENIZER, form="text").rows
    assert (found["output"], found["exact"], found["call"], found["margin"]) == (body, 1.0, None, None)


def test_examples_and_chat_rows_and_a_path(tmp_path):
    turns = [Message(role="user", content="the call"), Message(role="assistant", content="numpy")]
    rows = [Example(id="x", messages=turns, old="pandas"), {"prompt": "stack", "completion": "yes", "id": "y"}]
    scores = equipoise.evaluate_knowledge(tiny_folder(tmp_path / "m"), rows, max_new_tokens=3)
    again = equipoise.evaluate_knowledge(tiny_model(), rows, TOKENIZER, max_new_tokens=3)
    assert [row["margin"] for row in scores.rows] == pytest.approx([row["margin"] for row in again.rows], abs=1e-5)


def test_what_cannot_be_asked_is_named():
    with pytest.raises(UserError, match="completion: row 2 cannot be used"):
        equipoise.evaluate_knowledge(tiny_model(), [ROWS[0], {"prompt": "x"}], TOKENIZER, form="text")
    with pytest.raises(UserError, match="one id"):
        equipoise.evaluate_knowledge(tiny_model(), [ROWS[0], ROWS[0]], TOKENIZER, form="text")
    with pytest.raises(UserError, match="LlamaForCausalLM was not loaded from a place"):
        equipoise.evaluate_knowledge(tiny_model(), ROWS, form="text")
