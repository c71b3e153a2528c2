"""Rows from bytes, in bounded memory: whatever comes in, a plain and finite row or a reason comes out."""

import hashlib
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data.jsonl import MAX_DEPTH, MAX_DIGITS, MAX_ROW_BYTES, BadRow, JsonRows, check_text, parse_object, shown
from equipoise.data.splitting import ArraySplitter, UnendedArray
from equipoise.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TRICKY = st.text('"\\[]{},\n\r\u2028\u0085é a', max_size=20)
NUMBERS = st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | TRICKY,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(TEXT | TRICKY, JSON, max_size=5)


def read(tmp_path, data: bytes) -> list:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    return list(JsonRows(path))


def reason_of(text: str) -> BadRow:
    with pytest.raises(BadRow) as refused:
        parse_object(text)
    return refused.value


@given(OBJECTS, st.booleans())
def test_every_plain_object_comes_back_as_it_was(value, ascii_only):
    assert parse_object(json.dumps(value, ensure_ascii=ascii_only)) == value


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ('{"a": 1', "", "not JSON"),
        ("{'a': 1}", "", "not JSON"),
        ('{"a": "x\ny"}', "", "not JSON"),
        ("", "", "not JSON"),
        ('{"a": 1}{"a": 2}', "", "two objects on one line, the second at character 9"),
        ('{"a": 1}, ', "", "something follows"),
        ('{"a": 1, "b": 2, "a": 1}', "a", "stands twice"),
        ('{"a": {"b": 1, "b": 2}}', "b", "stands twice"),
        ('{"a": NaN}', "", "NaN"),
        ('{"a": [-Infinity]}', "", "-Infinity"),
        ('{"a": 1e999}', "", "beyond any float"),
        ('{"a": -1e999}', "", "beyond any float"),
        ('{"a": %s}' % ("9" * 5000), "", "5000 digits"),
        ('{"a": -%s}' % ("9" * (MAX_DIGITS + 1)), "", f"{MAX_DIGITS + 1} digits"),
        ('{"a": "\0"}', "", "raw NUL"),
        ('{"a": {"b": ["x", "\\u0000"]}}', "a.b[1]", "NUL character"),
        ('{"a": "\\ud83d"}', "a", "lone surrogate"),
        ('{"\\udc00": 1}', "", "lone surrogate"),
        ("[1]", "", "a list where an object belongs"),
        ("null", "", "null where an object belongs"),
        ("true", "", "a boolean where an object belongs"),
        ('"text"', "", "a string where an object belongs"),
    ],
)
def test_what_is_refused_and_why(text, field, reason):
    refused = reason_of(text)
    assert reason in refused.reason and refused.field == field


def test_numbers_at_the_edge_are_taken():
    assert parse_object('{"a": %s}' % ("9" * MAX_DIGITS))["a"] == 10**MAX_DIGITS - 1
    assert parse_object('{"a": 1e308, "b": 1e-999}') == {"a": 1e308, "b": 0.0}


def test_a_surrogate_pair_is_a_character():
    assert parse_object('{"a": "\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


def test_depth_is_limited_and_brackets_in_strings_are_not_depth():
    inner = MAX_DEPTH - 1
    assert parse_object('{"a": ' + "[" * inner + "]" * inner + "}")
    assert "nested" in reason_of('{"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}").reason
    assert "nested" in reason_of('{"a": %s' % ("[" * 100_000)).reason
    assert parse_object(json.dumps({"a": '[{"' * 1000, "b": "\\" * 999}))["a"] == '[{"' * 1000
    assert len(parse_object('{"a": [%s{}]}' % ("{}," * 1000))["a"]) == 1001


def test_a_string_without_end_is_refused_in_linear_time():
    assert "not JSON" in reason_of("[" + "[],[]," * MAX_DEPTH + '"' + '\\"' * 1_000_000).reason


@given(TEXT)
def test_text_that_can_be_written_passes(text):
    check_text({"a": [text, {text: text}]})


@given(st.text())
def test_what_is_shown_is_short_and_printable(text):
    assert shown(text).isprintable() and (len(text) > 80 or not text.isprintable() or shown(text) == text)
    assert len(shown("x" * 1000)) == 80


# ---- lines


def test_lines_end_at_a_newline_byte_alone(tmp_path):
    data = '{"a": "x\u2028y\u0085z\x7f"}\r\n{"a": 2}\n\n \t\r\n{"a": 3}'.encode()
    rows = JsonRows(tmp_path / "rows.jsonl")
    rows.path.write_bytes(data)
    assert [(row.line, row.values) for row in rows] == [(1, {"a": "x\u2028y\u0085z\x7f"}), (2, {"a": 2}), (5, {"a": 3})]
    assert rows.notes == ["2 blank lines passed over"]
    assert rows.sha256 == hashlib.sha256(data).hexdigest()


def test_reading_twice_gives_the_same(tmp_path):
    rows = JsonRows(tmp_path / "rows.jsonl")
    rows.path.write_bytes(b'{"a": 1}\n\n')
    first = list(rows), rows.sha256, rows.notes
    assert (list(rows), rows.sha256, rows.notes) == first


def test_a_byte_order_mark_is_passed_over_at_the_head_of_any_line(tmp_path):
    mark = b"\xef\xbb\xbf"
    rows = read(tmp_path, mark + b'{"a": 1}\n' + mark + b'{"a": 2}\n' + mark)
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}]
    assert [row.values for row in read(tmp_path, mark + b' [{"a": 1}]')] == [{"a": 1}]


def test_a_cut_within_a_character_is_a_torn_line_and_not_another_encoding(tmp_path):
    whole = '{"a": 1}\n{"a": "é"}\n'.encode()
    torn = read(tmp_path, whole[: whole.index(b"\xc3") + 1])[1]
    assert torn.line == 2 and isinstance(torn.values, BadRow) and "cut off" in torn.values.reason
    with pytest.raises(UserError, match=r"rows.jsonl:2: byte 0xc3.*not UTF-8"):
        read(tmp_path, whole.replace(b"\xc3\xa9", b"\xc3"))


def test_surrogates_written_as_bytes_are_a_bad_row(tmp_path):
    rows = read(tmp_path, b'{"a": "\xed\xa0\x80"}\n{"a": 2}\n')
    assert isinstance(rows[0].values, BadRow) and "lone surrogate" in rows[0].values.reason
    assert rows[1].values == {"a": 2}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"PK\x03\x04rest", "zip"),
        (b"PAR1rest", "Parquet"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-be"), "UTF-16"),
        ('[\n{"a": 1}]'.encode("utf-16-le"), "UTF-16"),
        ('{"a": 1}'.encode("utf-32"), "UTF-32"),
    ],
)
def test_other_formats_are_named(tmp_path, data, named):
    with pytest.raises(UserError, match=named) as error:
        read(tmp_path, data)
    assert error.value.where == f"{tmp_path / 'rows.jsonl'}:1" and error.value.fix and error.value.docs


def test_a_path_that_cannot_be_read_is_explained(tmp_path):
    (tmp_path / "updates.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"No such file") as error:
        list(JsonRows(tmp_path / "update.jsonl"))
    assert "updates.jsonl" in (error.value.fix or "")
    with pytest.raises(UserError, match="not a file"):
        list(JsonRows(tmp_path))
    with pytest.raises(UserError, match="No such file"):
        list(JsonRows(tmp_path / "no" / "folder.jsonl"))


def test_a_line_of_100_mb_is_passed_over_and_never_held(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(100):
            file.write(b"x" * 10**6)
        file.write(b'"}\n{"a": 3}\n')
    rows = JsonRows(path)
    tracemalloc.start()
    try:
        read = list(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [row.line for row in read] == [1, 2, 3]
    assert isinstance(read[1].values, BadRow) and "longer than 16 MiB" in read[1].values.reason
    assert read[1].excerpt.startswith('{"a": "xxx') and read[2].values == {"a": 3}
    assert peak < 3 * MAX_ROW_BYTES
    with path.open("rb") as file:
        assert rows.sha256 == hashlib.file_digest(file, "sha256").hexdigest()


# ---- arrays


@given(st.lists(st.tuples(st.integers(0, 2), OBJECTS), max_size=6), st.sampled_from([None, 2]), st.integers(1, 9))
def test_an_array_is_cut_at_its_own_commas_however_it_arrives(elements, indent, step):
    text, lines = "[", []
    for gap, value in elements:
        text += "\n" * gap
        lines.append(1 + text.count("\n"))
        text += json.dumps(value, indent=indent, ensure_ascii=False) + ","
    data = (text.removesuffix(",") + "\n]\n").encode()
    splitter = ArraySplitter(limit=10**6)
    pieces = [piece for at in range(0, len(data), step) for piece in splitter.feed(data[at : at + step])]
    splitter.finish()
    assert [json.loads(piece.data) for piece in pieces] == [value for _, value in elements]
    assert [piece.line for piece in pieces] == lines


@given(st.lists(OBJECTS, min_size=1, max_size=3), st.data())
def test_an_array_that_is_cut_off_or_followed_by_something_is_never_taken_for_whole(objects, data):
    text = json.dumps(objects).encode()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    for broken in (cut, text + b"{}", text + b"]"):
        splitter = ArraySplitter(limit=10**6)
        list(splitter.feed(broken))
        with pytest.raises(UnendedArray):
            splitter.finish()


def test_lines_of_an_array_are_counted_and_a_bad_element_is_one_row(tmp_path):
    rows = read(tmp_path, b'\n[\n  {"a": 1},\n\n  {"a": 1, "a": 2},\n  {"a": NaN}, {"a": [1,\n2]}\n]\n')
    assert [row.line for row in rows] == [3, 5, 6, 6]
    assert [type(row.values) for row in rows] == [dict, BadRow, BadRow, dict]


def test_an_array_that_does_not_end_names_its_line(tmp_path):
    with pytest.raises(UserError, match=r"rows.jsonl:3: the array does not end"):
        read(tmp_path, b'[{"a": 1},\n{"a": 2},\n{"a": ')
    with pytest.raises(UserError, match=r"rows.jsonl:2: something follows"):
        read(tmp_path, b'[{"a": 1}]\n{"a": 2}\n')


def test_a_first_line_that_is_a_list_of_something_else_is_a_bad_row(tmp_path):
    rows = read(tmp_path, b'["a", 1]\n{"a": 2}\n')
    assert isinstance(rows[0].values, BadRow) and rows[1].values == {"a": 2}
    assert isinstance(read(tmp_path, b"[" * 100_000 + b"\n")[0].values, BadRow)


def test_an_array_is_read_as_a_stream(tmp_path):
    path = tmp_path / "rows.json"
    element = b'{"a": "' + b"x" * 2**20 + b'"}'
    with path.open("wb") as file:
        file.write(b"[" + element)
        for _ in range(60):
            file.write(b"," + element)
        file.write(b',{"a": "' + b"y" * (MAX_ROW_BYTES + 1) + b'"},{"a": 3}]')
    tracemalloc.start()
    try:
        found = [(row.line, type(row.values)) for row in JsonRows(path)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [(1, dict)] * 61 + [(1, BadRow), (1, dict)]
    assert peak < 3 * MAX_ROW_BYTES


# ---- whatever comes in

JUNK = st.lists(
    st.binary(max_size=30)
    | st.sampled_from([b'{"a": 1}', b"\n", b"\r\n", b"[", b"]", b",", b'"', b"\\", b"{", b"}", b"\xef\xbb\xbf", b"\0"]),
    max_size=12,
).map(b"".join)


@given(JUNK)
@settings(max_examples=300)
def test_any_bytes_give_rows_reasons_or_one_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "junk.jsonl"
    path.write_bytes(data)
    try:
        rows = list(JsonRows(path))
    except UserError as error:
        assert error.where and error.where.startswith(str(path)) and error.fix
        return
    assert all(1 <= row.line <= data.count(b"\n") + 1 and row.excerpt.isprintable() for row in rows)
    assert [row.line for row in rows] == sorted(row.line for row in rows)
