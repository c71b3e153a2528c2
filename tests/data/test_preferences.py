"""Preference pairs: TRL's notations become one, and every pair that teaches nothing is named."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data.loading import check_disjoint
from equipoise.data.preferences import load_pairs, preferred
from equipoise.errors import UserError


def row(i: int = 0, **fields) -> dict:
    return {"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} | fields


def turns(*said: str) -> list[dict]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def answer(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def lines(*rows: dict) -> bytes:
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in rows)


def load(folder: Path, data: bytes, **options):
    path = folder / "pairs.jsonl"
    path.write_bytes(data)
    return load_pairs(path, **options)


def only(folder: Path, **fields):
    (pair,) = load(folder, lines(fields)).pairs
    return [(m.role, m.content) for m in pair.prompt], pair.chosen, pair.rejected


HUMAN = "\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant:"
LONG = [("user", "q"), ("assistant", "a"), ("user", "q2")]
NOTATIONS = {
    "texts": {"prompt": "q2", "chosen": "good", "rejected": "bad"},
    "messages": {"prompt": turns("q", "a", "q2"), "chosen": answer("good"), "rejected": answer("bad")},
    "prompt in a text, answers in messages": {"prompt": "q2", "chosen": answer("good"), "rejected": answer("bad")},
    "prompt repeated": {"prompt": "q2", "chosen": turns("q2", "good"), "rejected": turns("q2", "bad")},
    "implicit": {"chosen": turns("q", "a", "q2", "good"), "rejected": turns("q", "a", "q2", "bad")},
    "implicit, the prompt null": {"prompt": None, "chosen": turns("q2", "good"), "rejected": turns("q2", "bad")},
    "in `messages`": {"messages": turns("q", "a", "q2"), "chosen": "good", "rejected": answer("bad")},
    "transcripts": {"chosen": HUMAN + " good", "rejected": HUMAN + " bad\n"},
    "a transcript as the prompt": {"prompt": HUMAN, "chosen": "good", "rejected": "bad"},
}


@pytest.mark.parametrize("name", NOTATIONS)
def test_a_notation_becomes_a_prompt_and_two_answers(tmp_path, name):
    prompt, chosen, rejected = only(tmp_path, **NOTATIONS[name])
    assert prompt in (LONG, LONG[-1:]) and (chosen, rejected) == ("good", "bad")
    assert (prompt == LONG) == (json.dumps(NOTATIONS[name]).count("q") > json.dumps(NOTATIONS[name]).count("q2"))


def test_a_system_message_stays_in_the_prompt(tmp_path):
    system = [{"role": "system", "content": "s"}]
    prompt, *_ = only(tmp_path, chosen=system + turns("q", "good"), rejected=system + turns("q", "bad"))
    assert prompt == [("system", "s"), ("user", "q")]


def test_ids_meta_limit_and_hash(tmp_path):
    loaded = load(tmp_path, lines(row(1, id=7, meta={"licence": "MIT"}), row(2), row(3)), limit=2)
    assert [pair.id for pair in loaded.pairs] == ["7", "row-000002"]
    assert loaded.pairs[0].meta == {"licence": "MIT", "source": f"{tmp_path / 'pairs.jsonl'}:1"}
    assert (loaded.dropped, loaded.notes, len(loaded.sha256)) == ([], [], 64)


TALK = turns("q")
GOOD = [row(i) for i in range(40)]
BAD_ROWS = {
    "1 broken": (b'{"prompt": "a" "chosen": "b"}', "", "not JSON"),
    "3 glued": (lines(row(98)).strip() + lines(row(99)), "", "two objects"),
    "8 NUL": (b'{"prompt":"a","chosen":"b\\u0000","rejected":"c"}', "chosen", "NUL"),
    "12 a key twice": (b'{"prompt":"a","chosen":"b","chosen":"c"}', "chosen", "twice"),
    "23 no rejected": (lines({"prompt": "q", "chosen": "a"}), "rejected", "missing"),
    "23 no prompt": (lines({"chosen": "The sky is blue", "rejected": "The sky is green"}), "prompt", "missing"),
    "23 misspelt": (lines({"promt": "q", "chosen": "a", "rejected": "b"}), "prompt", "did you mean 'promt'"),
    "24 null": (lines(row(99, rejected=None)), "rejected", "null"),
    "25 number": (lines(row(99, chosen=5)), "chosen", "a number where a string"),
    "25 a message": (lines(row(99, chosen=[5])), "chosen[0]", "a number where a message"),
    "25 content": (lines(row(99, prompt=[{"role": "user", "content": 5}])), "prompt[0].content", "a number"),
    "25 meta": (lines(row(99, meta="m")), "meta", "a string where an object"),
    "27 duplicate": (lines(row(5)), "", "the same pair as line 6"),
    "27 reversed": (lines(row(5, chosen="bad 5", rejected="good 5")), "", "prefers what line 6 rejects"),
    "31 empty chosen": (lines(row(99, chosen=" \n")), "chosen", "answer is empty"),
    "31 empty rejected": (lines(row(99, rejected="")), "rejected", "answer is empty"),
    "31 empty turn": (lines(row(99, rejected=answer(""))), "rejected", "answer is empty"),
    "36 no answer to learn": (lines({"chosen": turns("q"), "rejected": turns("q")}), "prompt", "missing"),
    "36 ends in a question": (lines(row(99, prompt=TALK, chosen=turns("other"))), "chosen", "must end in the assis"),
    "36 no answer at all": (lines(row(99, rejected=[])), "rejected", "must end in the assistant's answer"),
    "38 chosen equals rejected": (lines(row(99, rejected="good 99")), "rejected", "chosen equals rejected"),
    "38 but for white space": (lines(row(99, rejected=" good 99\n")), "rejected", "chosen equals rejected"),
    "38 in conversations": (
        lines({"chosen": turns("q", "a"), "rejected": turns("q", "a")}),
        "rejected",
        "chosen equals rejected",
    ),
    "empty question": (lines(row(99, prompt=" ")), "prompt", "question is empty"),
    "the prompt is an answer": (lines(row(99, prompt=turns("q", "a"))), "prompt", "must end in the user's question"),
    "they part early": (
        lines({"chosen": turns("q", "a", "q2", "b"), "rejected": turns("q", "x", "q2", "c")}),
        "prompt",
        "differ before their last turns",
    ),
    "several answers": (lines(row(99, prompt=TALK, chosen=answer("a") + turns("q2", "b"))), "chosen", "more than one"),
    "both notations": (lines(row(99, messages=TALK)), "prompt", "beside `messages`"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_and_costs_nothing_else(tmp_path, name):
    bad, field, reason = BAD_ROWS[name]
    loaded = load(tmp_path, lines(*GOOD[:20]) + bad.rstrip(b"\n") + b"\n" + lines(*GOOD[20:]))
    (dropped,) = loaded.dropped
    assert (dropped.line, dropped.field) == (21, field) and reason in dropped.reason
    assert [pair.chosen for pair in loaded.pairs] == [f"good {i}" for i in range(40)]


def test_38_above_the_share_the_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="1 of 11 rows") as error:
        load(tmp_path, lines(*GOOD[:10], row(99, rejected="good 99")))
    assert error.value.where == f"{tmp_path / 'pairs.jsonl'}:11:rejected"


def test_2_a_torn_last_line_is_dropped(tmp_path):
    loaded = load(tmp_path, lines(*GOOD)[:-9])
    assert len(loaded.pairs) == 39 and "cut off" in loaded.dropped[0].reason


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        pytest.param(lines(*GOOD).decode().encode("utf-16"), ":1", "UTF-16", id="5 UTF-16"),
        pytest.param(b"", ":1", "empty", id="19 empty"),
        pytest.param(b"\x1f\x8b\x08\x00" + bytes(20), ":1", "gzip", id="22 gzip"),
        pytest.param(lines(row(1, id="a"), row(2, id="a")), ":2:id", "two different texts", id="28 one id"),
    ],
)
def test_a_file_that_cannot_be_read_right_is_one_clear_error(tmp_path, data, where, what):
    with pytest.raises(UserError, match=what) as error:
        load(tmp_path, data, max_bad_share=1.0)
    assert error.value.where == f"{tmp_path / 'pairs.jsonl'}{where}"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xef\xbb\xbf" + lines(*GOOD), id="4 byte-order mark"),
        pytest.param(lines(*GOOD).replace(b"\n", b"\r\n"), id="11 CRLF"),
        pytest.param(json.dumps(GOOD, indent=1).encode(), id="21 array"),
    ],
)
def test_another_notation_of_the_same_file(tmp_path, data):
    assert [pair.rejected for pair in load(tmp_path, data).pairs] == [f"bad {i}" for i in range(40)]


def test_26_an_unknown_field_is_named_once(tmp_path):
    loaded = load(tmp_path, lines(row(1, margin=4.5), row(2, margin=4.0)))
    assert loaded.notes == ["unknown field 'margin' ignored in 2 rows, first in line 1"]


def test_41_a_question_in_train_and_test_is_refused_whatever_the_answers(tmp_path):
    def asked(*rows):
        return list(map(preferred, load(tmp_path, lines(*rows)).pairs))

    train = asked(row(1), row(2))
    check_disjoint(train, asked(row(3)))
    with pytest.raises(UserError, match="stands in both"):
        check_disjoint(train, asked(row(2, prompt="question  2", chosen="x")))


def test_the_better_answer_is_what_an_example_learns(tmp_path):
    (pair,) = load(tmp_path, lines({"prompt": turns("q", "a", "q2"), "chosen": "good", "rejected": "bad"})).pairs
    example = preferred(pair)
    assert (example.prompt, example.completion, len(example.messages)) == ("q2", "good", 4)


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(question=text, better=text, worse=text)
def test_the_words_of_a_pair_come_through_as_they_are(tmp_path_factory, question, better, worse):
    folder = tmp_path_factory.mktemp("pair")
    if better.strip() == worse.strip() or question.startswith("\n\nHuman:"):
        return
    data = lines({"chosen": turns(question, better), "rejected": turns(question, worse)})
    (pair,) = load(folder, data).pairs
    assert (pair.prompt[-1].content, pair.chosen, pair.rejected) == (question, better, worse)
