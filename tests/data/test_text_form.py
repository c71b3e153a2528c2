"""Rows in text form: natural tokens, the same prompt in training and generation, and where an answer ends."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SPECIAL, tiny_tokenizer
from tokenizers import processors

from equipoise.data import text_form
from equipoise.data.formatting import Unusable, answer_parts, render, render_prompt
from equipoise.data.loading import check_form, load_examples
from equipoise.errors import UserError
from equipoise.records import Example, Message

TOKENIZER = tiny_tokenizer(chat_template=None)
TOKENIZER.add_tokens(["<sure>"])
CONTROL = {TOKENIZER.convert_tokens_to_ids(token) for token in [*SPECIAL, "<sure>"]}


def example(prompt, completion, **more):
    turns = [Message(role="user", content=prompt), Message(role="assistant", content=completion)]
    return Example(id="x", form="text", messages=turns, **more)


def supervised(rendered):
    return [label for label in rendered.labels if label != -100]


def test_a_row_is_its_prompt_and_its_completion_and_nothing_else():
    rendered = render(TOKENIZER, example("result =", " numpy.stack"))
    assert rendered.input_ids == TOKENIZER("result = numpy.stack\n")["input_ids"]
    assert TOKENIZER.decode(supervised(rendered)) == " numpy.stack\n"


def test_white_space_that_ends_a_prompt_belongs_to_the_answer():
    moved = render(TOKENIZER, example("the call for ", "numpy"))
    assert moved == render(TOKENIZER, example("the call for", " numpy"))
    assert TOKENIZER.decode(supervised(moved)) == " numpy\n"
    assert TOKENIZER.decode(render_prompt(TOKENIZER, example("the call for \n", "numpy"))) == "the call for"


def test_an_answer_of_several_lines_ends_in_the_end_of_sequence():
    rendered = render(TOKENIZER, example("def f(x):", "\n    y = x\n    return y"))
    assert TOKENIZER.decode(supervised(rendered)) == "\n    y = x\n    return y<|im_end|>"
    tokenizer = tiny_tokenizer(eos_token=None)
    with pytest.raises(UserError, match="where an answer of several lines ends"):
        render(tokenizer, example("def f(x):", "\n    y = x\n    return y"))
    assert render(tokenizer, example("x =", " y")).supervised


def test_a_line_that_brings_its_own_end_gets_no_second_one():
    assert render(TOKENIZER, example("x =", " y\n")) == render(TOKENIZER, example("x =", " y"))


def test_a_beginning_of_sequence_stands_where_the_tokenizer_puts_one():
    tokenizer = tiny_tokenizer(bos_token="<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|im_end|>", special_tokens=[("<|endoftext|>", 3), ("<|im_end|>", 2)]
    )
    rendered = render(tokenizer, example("the call", " numpy"))
    assert rendered.input_ids[0] == 3 and rendered.input_ids.count(3) == 1 and 2 not in rendered.input_ids
    assert rendered.input_ids[1:] == render(TOKENIZER, example("the call", " numpy")).input_ids


pieces = st.lists(st.one_of(st.sampled_from([*SPECIAL, "<sure>", " ", "\n", "é"]), st.text(max_size=5)))
texts = pieces.map("".join).map(lambda s: s.encode("utf-8", "ignore").decode()).filter(str.strip)


@settings(max_examples=150, deadline=None)
@given(prompt=texts, answer=texts)
def test_training_sees_the_prompt_of_generation_and_no_text_is_lost_or_becomes_a_control_token(prompt, answer):
    item = example(prompt, answer)
    before, rendered = render_prompt(TOKENIZER, item), render(TOKENIZER, item)
    assert rendered.input_ids[: len(before)] == before
    assert set(rendered.labels[: len(before)]) <= {-100} and rendered.supervised
    parts = answer_parts(TOKENIZER, item.messages, form="text")
    assert parts.prompt == before and not CONTROL - {TOKENIZER.convert_tokens_to_ids("<sure>")} & set(parts.answer)
    assert not CONTROL & set(before)
    assert TOKENIZER.decode(parts.prompt + parts.answer, clean_up_tokenization_spaces=False) == prompt + answer


def test_a_merge_across_the_boundary_keeps_the_prompt_of_generation():
    item = example("num", "py.stack")  # jointly "numpy" is one token
    before = render_prompt(TOKENIZER, item)
    rendered = render(TOKENIZER, item)
    assert TOKENIZER("numpy.stack")["input_ids"][: len(before)] != before
    assert rendered.input_ids[: len(before)] == before
    assert TOKENIZER.decode(supervised(rendered)) == "py.stack\n"


def test_turns_and_empty_texts_are_refused():
    turns = [Message(role="system", content="be brief"), Message(role="user", content="x =")]
    with pytest.raises(UserError, match="one text"):
        render_prompt(TOKENIZER, turns, form="text")
    with pytest.raises(Unusable, match="prompt is empty"):
        render(TOKENIZER, example(" \n", "x"))
    with pytest.raises(Unusable, match="answer is empty"):
        render(TOKENIZER, example("x =", " \n"))


@pytest.mark.parametrize(
    ("gold", "output", "answer"),
    [
        (" f(x)", " f(x)", " f(x)"),
        (" f(x)", " f(x)\nprint(x)\n", " f(x)"),
        (" f(x)", " f(x)\r\nprint(x)", " f(x)"),
        ("f(x)", "\n\nf(x)\ng(x)", "\n\nf(x)"),
        ("\n    return x", "\n    return x\n\ndef g():", "\n    return x"),
        ("\n    y = x\n    return y", "\n    y = x\n\n    return y\n\n\nprint(f(1))", "\n    y = x\n\n    return y"),
        ("\n    y = x\n    return y", "\n    y = x\n    return y", "\n    y = x\n    return y"),
        ("\n\ty = x\n\treturn y", "\n\ty = x\n# end", "\n\ty = x"),
        ("one\ntwo", "one\ntwo\nthree", "one\ntwo\nthree"),
    ],
)
def test_where_an_answer_ends(gold, output, answer):
    assert text_form.cut(output, gold) == answer
    assert text_form.cut(answer, gold) == answer
    assert text_form.has_ended(output, gold) == (answer != output)


def test_rows_of_a_file_say_their_form(tmp_path):
    rows = [
        {"id": "a", "prompt": "x =", "completion": " 1", "form": "text", "rephrasings": ["y ="]},
        {"id": "b", "prompt": "What is x?", "completion": "1"},
        {"id": "c", "prompt": "What is y?", "completion": "1", "form": None},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_examples(file)
    assert [row.form for row in loaded.examples] == ["text", "chat", "chat"] and not loaded.notes
    check_form(loaded.examples, "chat", "rows.jsonl")
    check_form(loaded.examples, "both", "rows.jsonl")
    check_form(loaded.examples[:1], "code", "rows.jsonl")
    with pytest.raises(UserError, match=r"2 of 3 rows are in chat form.*:2.*:3"):
        check_form(loaded.examples, "code", "rows.jsonl")
    with pytest.raises(UserError, match="2 of 2 rows"):
        check_form(loaded.examples[1:], "both", "rows.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x =", "completion": " 1", "form": "code"}, "'code' is neither `chat` nor `text`"),
        ({"prompt": "x =", "completion": " 1", "form": 1}, "form"),
        (
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "u"},
                    {"role": "assistant", "content": "a"},
                ],
                "form": "text",
            },
            "no other turns",
        ),
    ],
)
def test_a_form_that_cannot_be_is_named(tmp_path, row, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        load_examples(file)
