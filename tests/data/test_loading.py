"""Users' files: every bad row is named and costs nothing else, every bad file is one clear error."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data.loading import check_disjoint, load_examples
from equipoise.errors import UserError
from equipoise.records import Example, Message

LINE_SEPARATORS = "\u2028 \u2029 \u0085 \x0b \x0c \x1c"
CONTROL = "<|im_end|> <|endoftext|> <s> </s> [INST] <C> <U>"


def row(i: int = 0, **fields) -> dict:
    return {"prompt": f"question {i}", "completion": f"answer {i}"} | fields


def line(i: int = 0, **fields) -> bytes:
    return json.dumps(row(i, **fields), ensure_ascii=False).encode() + b"\n"


GOOD = [line(i) for i in range(40)]


def write(folder: Path, data: bytes) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(data)
    return path


def load(folder: Path, data: bytes, **options):
    return load_examples(str(write(folder, data)), **options)


def refused(folder: Path, data: bytes, **options) -> UserError:
    with pytest.raises(UserError) as error:
        load(folder, data, **options)
    return error.value


def messages(*turns: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in turns]


def test_a_plain_file(tmp_path):
    loaded = load(tmp_path, line(1) + line(2, id="b", old="before", rephrasings=["in other words"]))
    first, second = loaded.examples
    assert (first.id, first.prompt, first.completion, first.old) == ("row-000001", "question 1", "answer 1", None)
    assert (second.id, second.old, second.rephrasings) == ("b", "before", ["in other words"])
    assert (loaded.dropped, loaded.notes, len(loaded.sha256)) == ([], [], 64)
    assert second.meta["source"] == f"{tmp_path / 'rows.jsonl'}:2"


def test_conversations_in_both_notations(tmp_path):
    turns = messages(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "q2"), ("assistant", "a2"))
    whole, split = load(
        tmp_path,
        json.dumps({"messages": turns}).encode()
        + b"\n"
        + json.dumps({"prompt": turns[1:-1], "completion": turns[-1:]}).encode(),
    ).examples
    assert [message.model_dump() for message in whole.messages] == turns
    assert [message.model_dump() for message in split.messages] == turns[1:]
    assert (whole.prompt, whole.completion) == ("q2", "a2")


# ---- rows that are left out: (bytes of the line, field to blame, part of the reason)

TALK = {"role": "user", "content": "q"}
BAD_ROWS = {
    "1 broken": (b'{"prompt": "a" "completion": "b"}', "", "not JSON"),
    "3 glued": (b'{"prompt":"a","completion":"b"}{"prompt":"c","completion":"d"}', "", "two objects on one line"),
    "3 glued with space": (b'{"prompt":"a","completion":"b"} {"prompt":"c","completion":"d"}', "", "two objects"),
    "7 raw NUL": (b'{"prompt":"a\0","completion":"b"}', "", "raw NUL"),
    "7 only NUL": (b"\0" * 100, "", "raw NUL"),
    "8 escaped NUL": (b'{"prompt":"a","completion":"b\\u0000"}', "completion", "NUL character"),
    "9 lone surrogate": (b'{"prompt":"a\\udfff","completion":"b"}', "prompt", "surrogate"),
    "9 as bytes": (b'{"prompt":"a\xed\xbf\xbf","completion":"b"}', "", "surrogate"),
    "12 duplicate key": (b'{"prompt":"a","completion":"b","prompt":"c"}', "prompt", "twice"),
    "13 NaN": (b'{"prompt":"a","completion":"b","x":NaN}', "", "NaN"),
    "13 Infinity": (b'{"prompt":"a","completion":"b","x":-Infinity}', "", "Infinity"),
    "14 1e999": (b'{"prompt":"a","completion":"b","x":1e999}', "", "beyond any float"),
    "15 boolean for a number": (line(99, id=True), "id", "a boolean where a string or a whole number"),
    "16 5,000 digits": (b'{"prompt":"a","completion":"b","id":' + b"7" * 5000 + b"}", "", "5000 digits"),
    "17 nesting": (b'{"prompt":"a","completion":"b","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "nested"),
    "17 torn nesting": (b"[" * 100_000, "", "nested"),
    "18 long line": (b'{"prompt":"a","completion":"' + b"b" * 17 * 2**20 + b'"}', "", "longer than 16 MiB"),
    "23 missing": (b'{"prompt":"a"}', "completion", "missing; the row has prompt"),
    "23 misspelt": (b'{"promt":"a","completion":"b"}', "prompt", "did you mean 'promt'"),
    "23 nothing": (b"{}", "prompt", "missing"),
    "24 null": (line(99, prompt=None), "prompt", "null"),
    "24 null answer": (line(99, completion=None), "completion", "null"),
    "25 number": (line(99, completion=5), "completion", "a number where a string"),
    "25 object": (line(99, prompt={"text": "a"}), "prompt", "an object where a string"),
    "25 no object": (b'["question", "answer"]', "", "a list where an object"),
    "25 old": (line(99, old=["b"]), "old", "a list where a string"),
    "25 id": (line(99, id=1.5), "id", "a number where"),
    "25 rephrasings": (line(99, rephrasings="other words"), "rephrasings", "a string where a list"),
    "25 a rephrasing": (line(99, rephrasings=["x", 3]), "rephrasings[1]", "a number where a string"),
    "25 meta": (line(99, meta="m"), "meta", "a string where an object"),
    "25 accepted answers": (line(99, meta={"accepted": "call()"}), "meta.accepted", "a string where a list"),
    "25 messages": (b'{"messages": "q"}', "messages", "a string where a list"),
    "25 a message": (json.dumps({"messages": [TALK, "a"]}).encode(), "messages[1]", "a string where a message"),
    "25 content": (
        json.dumps({"messages": [TALK, {"role": "assistant", "content": [{"type": "text"}]}]}).encode(),
        "messages[1].content",
        "a list where a string",
    ),
    "23 content": (json.dumps({"messages": [TALK, {"role": "assistant"}]}).encode(), "messages[1].content", "missing"),
    "role": (
        json.dumps({"messages": [TALK, {"role": "asistant", "content": "a"}]}).encode(),
        "messages[1].role",
        "did you mean 'assistant'",
    ),
    "no answer": (json.dumps({"messages": [TALK, TALK]}).encode(), "messages", "must end in"),
    "no message": (b'{"messages": []}', "messages", "must end in"),
    "both notations": (line(99, messages=[TALK]), "prompt", "beside `messages`"),
    "27 duplicate": (line(5), "", "the same text as line 6"),
    "31 empty answer": (line(99, completion=""), "completion", "answer is empty"),
    "31 blank answer": (line(99, completion=" \n"), "completion", "answer is empty"),
    "31 empty last turn": (
        json.dumps({"messages": messages(("user", "q"), ("assistant", ""))}).encode(),
        "messages",
        "answer is empty",
    ),
    "empty question": (line(99, prompt=""), "prompt", "question is empty"),
    "old is the answer": (line(99, old="answer 99 "), "old", "the answer itself"),
    "empty old": (line(99, old=""), "old", "empty"),
    "empty id": (line(99, id=" "), "id", "empty"),
    "trained rephrasing": (line(99, rephrasings=["x", "question  99"]), "rephrasings[1]", "question itself"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_and_costs_nothing_else(tmp_path, name):
    bad, field, reason = BAD_ROWS[name]
    loaded = load(tmp_path, b"".join([*GOOD[:20], bad.rstrip(b"\n") + b"\n", *GOOD[20:]]))
    (dropped,) = loaded.dropped
    assert (dropped.line, dropped.field) == (21, field)
    assert reason in dropped.reason
    assert dropped.excerpt.isprintable() and len(dropped.excerpt) <= 500
    assert [example.prompt for example in loaded.examples] == [f"question {i}" for i in range(40)]
    assert loaded.examples[-1].id == "row-000041"  # ids follow lines, so they stay when a bad row is mended


@pytest.mark.parametrize("name", BAD_ROWS)
def test_above_the_share_the_file_is_refused_with_file_line_and_field(tmp_path, name):
    bad, field, reason = BAD_ROWS[name]
    error = refused(tmp_path, b"".join([*GOOD[:10], bad.rstrip(b"\n") + b"\n"]))
    assert error.where == f"{tmp_path / 'rows.jsonl'}:11" + (f":{field}" if field else "")
    assert reason in str(error) and "1 of 11 rows" in str(error) and error.fix and error.docs


def test_a_torn_last_line_is_dropped_wherever_it_was_cut(tmp_path):
    whole = line(1) + line(2, completion="réponse\u2028")
    for cut in range(len(line(1)) + 1, len(whole) - 2):
        loaded = load(tmp_path, whole[:cut], max_bad_share=1)
        assert [example.prompt for example in loaded.examples] == ["question 1"]
        assert [(dropped.line, "cut off" in dropped.reason) for dropped in loaded.dropped] == [(2, True)]
    assert len(load(tmp_path, whole[:-1]).examples) == 2  # only the newline is missing


def test_the_first_few_of_many_bad_rows_are_listed(tmp_path):
    path = tmp_path / "rows.jsonl"
    error = refused(tmp_path, b"".join(GOOD + [line(i, completion=7) for i in range(40, 50)]))
    assert all(f"{path}:{number}:completion: a number" in str(error) for number in range(41, 46))
    assert "10 of 50 rows" in str(error) and "and 5 more" in str(error) and f"{path}:46" not in str(error)


@pytest.mark.parametrize(("share", "passes"), [(0.0, False), (0.09, False), (0.1, True), (1.0, True)])
def test_the_share_is_configuration(tmp_path, share, passes):
    data = b"".join(GOOD[:9]) + b"{}\n"
    if passes:
        assert len(load(tmp_path, data, max_bad_share=share).dropped) == 1
    else:
        assert "1 of 10" in str(refused(tmp_path, data, max_bad_share=share))


def test_a_file_of_bad_rows_alone_is_refused_whatever_the_share(tmp_path):
    assert "2 of 2" in str(refused(tmp_path, b"{}\n[1]\n", max_bad_share=1.0))


# ---- files that are refused


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        pytest.param(b"", ":1", "empty", id="19 empty"),
        pytest.param(b"\n \n\r\n", ":1", "no rows", id="19 blank lines alone"),
        pytest.param(b"\xef\xbb\xbf", ":1", "no rows", id="19 a byte-order mark alone"),
        pytest.param(b"[]", ":1", "no rows", id="19 an empty array"),
        pytest.param(b"".join(GOOD).decode().encode("utf-16"), ":1", "UTF-16", id="5 UTF-16"),
        pytest.param(b"".join(GOOD).decode().encode("utf-16-be"), ":1", "UTF-16", id="5 UTF-16 without its mark"),
        pytest.param(line(0) + "réponse".encode("latin-1") + b"\n", ":2", "not UTF-8", id="6 Latin-1"),
        pytest.param(b"\x1f\x8b\x08\x00" + bytes(20), ":1", "gzip", id="22 gzip"),
        pytest.param(line(0, id="a") + line(1) + line(2, id="a"), ":3:id", "two different texts", id="28 one id"),
        pytest.param(line(0, id=7) + line(2, id="7"), ":2:id", "the other is in line 1", id="28 one id, once a number"),
    ],
)
def test_a_file_that_cannot_be_read_right_is_one_clear_error(tmp_path, data, where, what):
    error = refused(tmp_path, data, max_bad_share=1.0)
    assert error.where == f"{tmp_path / 'rows.jsonl'}{where}"
    assert what in error.what and error.fix and error.docs


def test_a_missing_file_suggests_the_one_that_is_there(tmp_path):
    write(tmp_path, GOOD[0])
    with pytest.raises(UserError, match="No such file") as error:
        load_examples(tmp_path / "row.jsonl")
    assert "rows.jsonl" in str(error.value)


# ---- what is accepted


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xef\xbb\xbf" + b"".join(GOOD), id="4 byte-order mark"),
        pytest.param(b"".join(g.replace(b"\n", b"\r\n" if i % 2 else b"\n") for i, g in enumerate(GOOD)), id="11 CRLF"),
        pytest.param(b"".join(GOOD).removesuffix(b"\n"), id="no last newline"),
        pytest.param(b"[" + b",".join(GOOD) + b"]", id="21 array"),
        pytest.param(json.dumps([json.loads(good) for good in GOOD], indent=2).encode(), id="21 indented array"),
        pytest.param(b"\xef\xbb\xbf\r\n[\r\n" + b",\r\n".join(GOOD) + b"]\r\n", id="21 array from Windows"),
    ],
)
def test_another_notation_of_the_same_rows(tmp_path, data):
    loaded = load(tmp_path, data)
    assert [(e.prompt, e.completion) for e in loaded.examples] == [(f"question {i}", f"answer {i}") for i in range(40)]
    assert (loaded.dropped, loaded.notes) == ([], [])


def test_blank_lines_are_counted_and_lines_keep_their_numbers(tmp_path):
    loaded = load(tmp_path, b"\n" + line(0) + b"  \r\n\n" + line(1))
    assert [example.id for example in loaded.examples] == ["row-000002", "row-000005"]
    assert loaded.notes == ["3 blank lines passed over"]


def test_line_separators_of_unicode_stay_inside_their_row(tmp_path):
    text = f"first{LINE_SEPARATORS}last"
    (example,) = load(tmp_path, line(0, completion=text.replace("\x0b \x0c \x1c", ""))).examples
    assert example.completion == text.replace("\x0b \x0c \x1c", "")
    (example,) = load(tmp_path, json.dumps(row(0, completion=text)).encode()).examples
    assert example.completion == text


def test_control_tokens_in_user_text_are_plain_text(tmp_path):
    (example,) = load(tmp_path, line(0, prompt=CONTROL, completion=CONTROL)).examples
    assert (example.prompt, example.completion) == (CONTROL, CONTROL)


def test_an_unknown_field_is_ignored_and_named_once(tmp_path):
    data = line(0) + line(1, rephrasing=["x"]) + line(2, rephrasing=["x"], source="web")
    loaded = load(tmp_path, data)
    assert loaded.notes == [
        "unknown field 'rephrasing' ignored in 2 rows, first in line 2; did you mean 'rephrasings'?",
        "unknown field 'source' ignored in line 3",
    ]
    assert len(loaded.examples) == 3


def test_an_unknown_field_of_messages_is_named_too(tmp_path):
    turns = [{"role": "user", "content": "q", "name": "x"}, {"role": "assistant", "content": "a", "name": "y"}]
    (note,) = load(tmp_path, json.dumps({"messages": turns}).encode()).notes
    assert note == "unknown field 'messages[].name' ignored in line 1"
    notes = load(tmp_path, json.dumps({"prompt": turns[:1], "completion": turns[1:]}).encode()).notes
    assert notes == [f"unknown field '{field}[].name' ignored in line 1" for field in ("prompt", "completion")]


def test_a_question_asked_twice_and_a_rephrasing_that_is_trained_on_are_remarked(tmp_path):
    rows = [line(0), line(1, prompt="question  0"), line(2, rephrasings=["x", "question 3"]), line(3), line(4)]
    again = line(5, rephrasings=["question 4"])
    path = tmp_path / "rows.jsonl"
    assert load(tmp_path, b"".join(rows)).notes == [
        f"{path}:2 asks the same question as {path}:1",
        f"a rephrasing at {path}:3 is the question at {path}:4, so it is not held out",
    ]
    assert load(tmp_path, b"".join([*rows, again])).notes[1].endswith("not held out (and 1 more such)")


def test_null_in_an_optional_field_means_that_it_is_not_there(tmp_path):
    (example,) = load(tmp_path, line(0, id=None, old=None, rephrasings=None, messages=None, meta=None)).examples
    assert (example.id, example.old, example.rephrasings) == ("row-000001", None, [])


def test_a_name_taken_from_a_line_never_meets_an_id_of_the_user(tmp_path):
    loaded = load(tmp_path, line(0) + line(1, id="row-000001") + line(2, id="row-000001'"))
    assert len({example.id for example in loaded.examples}) == 3
    assert [example.id for example in loaded.examples[1:]] == ["row-000001", "row-000001'"]


def test_one_text_under_two_ids_is_a_duplicate(tmp_path):
    loaded = load(tmp_path, line(0, id="a") + line(0, id="b"), max_bad_share=0.5)
    assert [example.id for example in loaded.examples] == ["a"]
    assert [(dropped.line, dropped.reason) for dropped in loaded.dropped] == [(2, "the same text as line 1")]


def test_the_hash_is_of_the_content(tmp_path):
    first, again, other = (load(tmp_path, data).sha256 for data in (GOOD[0], GOOD[0], GOOD[1]))
    assert first == again != other


# ---- properties

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
SAID = (WORDS | st.sampled_from([CONTROL, LINE_SEPARATORS + "x", '{"prompt": "', '"}\n{"', "\\"])).filter(str.strip)


@st.composite
def examples(draw):
    said = draw(st.lists(SAID, min_size=2, max_size=5))
    roles = ["assistant" if (len(said) - i) % 2 else "user" for i in range(len(said))]
    return {"messages": messages(*zip(roles, said))}


@given(
    st.lists(examples(), min_size=1, max_size=6, unique_by=json.dumps),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", None]),
)
@settings(max_examples=80)
def test_what_is_written_is_read_back(tmp_path_factory, rows, ascii_only, newline):
    texts = [json.dumps(row, ensure_ascii=ascii_only).encode() for row in rows]
    data = b"[" + b",".join(texts) + b"]" if newline is None else newline.join(texts)
    loaded = load(tmp_path_factory.getbasetemp(), data)
    assert [[m.model_dump() for m in e.messages] for e in loaded.examples] == [row["messages"] for row in rows]
    assert not loaded.dropped


@given(
    st.lists(st.sampled_from([*GOOD[:12], *(bad for bad, _, _ in BAD_ROWS.values() if len(bad) < 200)]), max_size=12)
)
@settings(max_examples=100)
def test_every_row_is_either_an_example_or_listed(tmp_path_factory, chosen):
    data = b"".join(each.rstrip(b"\n") + b"\n" for each in chosen)
    good = list(dict.fromkeys(each for each in chosen if each in GOOD))
    folder = tmp_path_factory.getbasetemp()
    if not good:
        refused(folder, data, max_bad_share=1.0)
        return
    loaded = load(folder, data, max_bad_share=1.0)
    assert {f"question {GOOD.index(each)}" for each in good} <= {example.prompt for example in loaded.examples}
    read = [int(e.meta["source"].rpartition(":")[2]) for e in loaded.examples] + [d.line for d in loaded.dropped]
    assert sorted(read) == list(range(1, len(chosen) + 1))


# ---- train and test apart (41)


def example(name: str, prompt: str, answer: str = "a", *, before=(), **fields) -> Example:
    turns = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
    return Example(id=name, messages=[*before, *turns], **fields)


@pytest.mark.parametrize(
    "test",
    [
        pytest.param(example("b", "the question"), id="the same under another id"),
        pytest.param(example("b", "the question", "another answer"), id="another answer"),
        pytest.param(example("b", " the\n question "), id="other spacing"),
        pytest.param(example("b", "x", rephrasings=["y", "the question"]), id="as a rephrasing"),
        pytest.param(example("b", "the question", before=[Message(role="system", content="s")]), id="a system message"),
    ],
)
def test_the_same_question_in_train_and_test_is_an_error(test):
    train = [example("z", "other"), example("a", "the question", meta={"source": "train.jsonl:2"})]
    with pytest.raises(UserError, match=r"train.jsonl:2 and b: .*'a' and as 'b'") as error:
        check_disjoint(train, [example("c", "apart"), test])
    assert error.value.fix


def test_accents_in_two_spellings_are_the_same_question():
    with pytest.raises(UserError):
        check_disjoint([example("a", "caf\u00e9")], [example("b", "cafe\u0301")])


def test_a_rephrasing_that_is_trained_on_nowhere_but_asked_on_both_sides_is_an_error():
    with pytest.raises(UserError):
        check_disjoint([example("a", "x", rephrasings=["r"])], [example("b", "r")])


def test_what_differs_may_stand_on_both_sides():
    before = [Message(role="user", content="first"), Message(role="assistant", content="yes")]
    check_disjoint([example("a", "and now?")], [example("a", "and then?"), example("b", "and now?", before=before)])
    check_disjoint([], [example("a", "x")])


def test_the_error_names_both_files(tmp_path):
    train = load(tmp_path, b"".join(GOOD)).examples
    other = tmp_path / "keep.jsonl"
    other.write_bytes(line(99) + line(3, completion="another"))
    with pytest.raises(UserError) as error:
        check_disjoint(train, load_examples(other).examples)
    assert error.value.where == f"{tmp_path / 'rows.jsonl'}:4 and {other}:2"
