"""The schemas of instruction data: each is recognised row by row and says the same afterwards."""

import pytest

from equipoise.data.cleaning import Rejected, clean_row, held_out_questions, rule_of
from equipoise.data.jsonl import BadRow

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}


def turn(speaker: str, said: str) -> dict:
    return {"from": speaker, "value": said}


ROWS = {
    "alpaca": ("alpaca", {"instruction": "q", "input": "", "output": "a"}, [Q, A]),
    "alpaca without input": ("alpaca", {"instruction": "q", "output": "a"}, [Q, A]),
    "alpaca with a null input": ("alpaca", {"instruction": "q", "input": None, "output": "a"}, [Q, A]),
    "alpaca with a system prompt": ("alpaca", {"instruction": "q", "output": "a", "system": "s"}, [SYSTEM, Q, A]),
    "alpaca with its past": (
        "alpaca",
        {"instruction": "q", "output": "a", "history": [["q0", "a0"]]},
        [Q | {"content": "q0"}, A | {"content": "a0"}, Q, A],
    ),
    "alpaca, the answer a response": ("alpaca", {"instruction": "q", "response": "a"}, [Q, A]),
    "sharegpt": ("sharegpt", {"conversations": [turn("human", "q"), turn("gpt", "a")]}, [Q, A]),
    "sharegpt, system outside": (
        "sharegpt",
        {"system": "s", "conversations": [turn("user", "q"), turn("assistant", "a")]},
        [SYSTEM, Q, A],
    ),
    "sharegpt with roles": ("sharegpt", {"conversations": [Q, A]}, [Q, A]),
    "messages": ("messages", {"messages": [SYSTEM, Q, A]}, [SYSTEM, Q, A]),
    "texts": ("prompt-completion", {"prompt": "q", "completion": "a"}, [Q, A]),
    "turns": ("prompt-completion", {"prompt": [SYSTEM, Q], "completion": [A]}, [SYSTEM, Q, A]),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_becomes_messages(name):
    schema, values, messages = ROWS[name]
    row = clean_row(values)
    assert (row.kind, row.schema, row.values, row.changes) == ("examples", schema, {"messages": messages}, [])


def test_the_input_stands_below_the_instruction():
    row = clean_row({"instruction": "Translate.", "input": "Hallo", "output": "Hello"})
    assert row.values["messages"][0]["content"] == "Translate.\n\nHallo"


PAIRS = {
    "texts": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "alpaca": {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
    "sharegpt": {"conversations": [turn("human", "q")], "chosen": turn("gpt", "a"), "rejected": turn("gpt", "b")},
    "implicit": {"chosen": [Q, A], "rejected": [Q, A | {"content": "b"}]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_preference_becomes_a_pair(name):
    row = clean_row(PAIRS[name])
    assert (row.kind, row.schema) == ("pairs", "preference")
    assert row.values == {"prompt": [Q], "chosen": "a", "rejected": "b"}


def test_licence_language_and_meta_are_kept_and_unread_fields_are_named():
    row = clean_row({"prompt": "q", "completion": "a", "license": "MIT", "lang": "en", "meta": {"x": 1}, "extra": 2})
    assert (row.licence, row.language, row.unread) == ("MIT", "en", ["extra"])
    assert row.values["meta"] == {"x": 1, "licence": "MIT", "language": "en"}
    again = clean_row(row.values)
    assert (again.licence, again.values) == ("MIT", row.values)


BAD = {
    "23 no schema": ("schema", {"text": "x"}, "no known schema"),
    "23 misspelt": ("schema", {"instructon": "q", "output": "a"}, "did you mean 'instructon'"),
    "23 no output": ("schema", {"instruction": "q"}, "missing"),
    "24 null": ("schema", {"instruction": "q", "output": None}, "null"),
    "25 number": ("schema", {"conversations": [turn("human", "q"), {"from": "gpt", "value": 5}]}, "a number"),
    "25 licence": ("schema", {"prompt": "q", "completion": "a", "licence": 5}, "a number"),
    "a tool speaks": ("schema", {"conversations": [turn("human", "q"), turn("tool", "a")]}, "unknown speaker"),
    "no answer": ("schema", {"conversations": [turn("human", "q")]}, "must end in"),
    "31 empty": ("empty", {"instruction": "q", "output": " \n"}, "answer is empty"),
    "31 empty once it is clean": ("empty", {"prompt": "q", "completion": "\x01\ufeff"}, "answer is empty"),
    "31 empty question": ("empty", {"instruction": "", "input": " ", "output": "a"}, "question is empty"),
    "38": ("schema", {"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen equals rejected"),
    "38 once it is clean": ("schema", {"prompt": "q", "chosen": "a\x01", "rejected": "a"}, "chosen equals rejected"),
    "echo": ("echo", {"prompt": "Say  it.", "completion": "Say it.\n"}, "the answer is the question"),
    "one character": ("repetition", {"prompt": "q", "completion": "= = =\n======"}, "one character"),
    "one line": ("repetition", {"prompt": "q", "completion": "so it is\n\n so it is\nso it is"}, "one line"),
    "one word": ("repetition", {"prompt": "q", "completion": "yes " * 8}, "one word"),
    "a degenerate question": ("repetition", {"prompt": "?" * 20, "completion": "a"}, "one character"),
    "code that would change": ("control", {"prompt": "q", "completion": "`\x01``\nx\n```\ny\r\n```"}, "code block"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_row_that_teaches_nothing_is_refused_by_its_rule(name):
    rule, values, reason = BAD[name]
    with pytest.raises(BadRow) as bad:
        clean_row(values)
    assert rule_of(bad.value) == rule and reason in bad.value.reason
    assert isinstance(bad.value, Rejected) == (rule not in ("schema", "empty"))


@pytest.mark.parametrize("answer", ["7", "yes", "aaaa", "1000000", "no\nno"])
def test_short_answers_are_answers(answer):
    assert clean_row({"prompt": "q", "completion": answer}).answers == [answer]


def test_a_degenerate_worse_answer_is_what_it_is():
    assert clean_row({"prompt": "q", "chosen": "a", "rejected": "=" * 50}).kind == "pairs"


def test_changes_name_field_and_rule():
    row = clean_row({"prompt": "cafe\u0301\x01", "completion": "a"})
    assert row.changes == [
        {"field": "messages[0].content", "rule": "control"},
        {"field": "messages[0].content", "rule": "nfc"},
    ]
    assert row.values["messages"][0]["content"] == "caf\u00e9"


def test_one_text_is_known_again_and_its_roles_count():
    one, same = {"messages": [SYSTEM, Q, A]}, {"instruction": " q\n", "output": "a", "system": "s"}
    other = {"messages": [SYSTEM | {"role": "user"}, A | {"content": "q"}, Q | {"content": "q"}, A]}
    assert clean_row(one).digest == clean_row(same).digest != clean_row(other).digest


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({"question": "q  r", "answer": "a"}, ("q r",)),
        ({"question": "q", "context": "c", "answer": "a"}, ("c q",)),
        ({"prompt": "q"}, ("q",)),
        ({"instruction": "q", "input": "i"}, ("q i",)),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, ("q",)),
        ({"messages": [SYSTEM, Q, A]}, ("q",)),
    ],
)
def test_questions_of_held_out_sets_in_any_form(values, asked):
    assert held_out_questions(values) == [asked]
