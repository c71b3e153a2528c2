"""CoNLL files: columns, documents and broken bytes; the schemes of their tags, against a plain reading of each."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.conll import MAX_WORDS, ConllRows, is_conll
from equipoise.data.gathering import Rows
from equipoise.data.jsonl import BadRow
from equipoise.data.tags import chunks, scheme_of
from equipoise.errors import UserError


def written(folder: Path, text: str | bytes, name: str = "x.conll") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def sentences(rows: Rows) -> list[tuple[int, str, str]]:
    """Of each row its line, its words and its tags, or why there are none."""
    found = []
    for raw in rows:
        if isinstance(raw.values, BadRow):
            found.append((raw.line, "bad", raw.values.reason))
        else:
            found.append((raw.line, " ".join(raw.values["tokens"]), " ".join(raw.values["tags"])))
    return found


def test_columns_blank_lines_and_documents(tmp_path):
    text = (
        "-DOCSTART- -X- -X- O\n\nAnn NNP B-NP B-PER\nsleeps VBZ B-VP O\n\n\n \t\r\n"
        "in\tIN\tO\nNew York\tNNP\tB-LOC\n-DOCSTART- O\n#\tO\n[\tO"
    )
    rows = ConllRows(written(tmp_path, text))
    assert sentences(rows) == [(3, "Ann sleeps", "B-PER O"), (8, "in New York", "O B-LOC"), (11, "# [", "O O")]
    assert rows.notes == ["2 lines of -DOCSTART- passed over"]
    assert len(rows.sha256) == 64


@pytest.mark.parametrize("line", ["Oslo\tB-LOC", "Oslo B-LOC", "Oslo \tB-LOC", " Oslo  B-LOC ", "Oslo\t\t B-LOC\t\r"])
def test_odd_spacing(tmp_path, line):
    assert sentences(ConllRows(written(tmp_path, f"{line}\n"))) == [(1, "Oslo", "B-LOC")]


def test_unicode_spaces_and_line_ends_stay_within_words(tmp_path):
    text = "a\u2028b\tO\nc\u00a0d O\n\tO\n"
    assert sentences(ConllRows(written(tmp_path, text))) == [(1, "a\u2028b c\u00a0d ", "O O O")]


def test_a_mark_at_the_beginning_and_mixed_line_ends(tmp_path):
    rows = ConllRows(written(tmp_path, b"\xef\xbb\xbfAnn B-PER\r\n\r\nOslo B-LOC\n"))
    assert sentences(rows) == [(1, "Ann", "B-PER"), (3, "Oslo", "B-LOC")]


def test_a_line_without_a_tag_is_an_error_with_its_place(tmp_path):
    path = written(tmp_path, "Ann B-PER\n\nOslo\t\nlies O\n")
    with pytest.raises(UserError, match="'Oslo' has no tag") as error:
        list(ConllRows(path))
    assert error.value.where == f"{path}:3"
    assert error.value.fix and error.value.docs


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (b"in O\nOsl", "the last line is cut off: 'Osl' has no tag"),
        ("in O\nMalmö".encode()[:-1], "the last line is cut off within a character"),
        (b"in O\nO\0slo B-LOC\n", "a NUL"),
        (b"in O\n\xed\xa0\x80 B-LOC\n", "a lone surrogate"),
        (b"a O\n" * (MAX_WORDS + 1), f"more than {MAX_WORDS} words"),
        (b"a O\n" + b"x" * 2**24 + b" O\n", "longer than 16 MiB"),
    ],
)
def test_a_broken_sentence_is_left_out_and_the_others_kept(tmp_path, last, reason):
    found = sentences(ConllRows(written(tmp_path, b"Ann B-PER\n\n" + last)))
    assert found[0] == (1, "Ann", "B-PER")
    assert [(line, kind) for line, kind, _ in found[1:]] == [(3, "bad")]
    assert reason in found[1][2]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        ("Malmö B-LOC\n".encode("latin-1"), "0xf6"),
        ("Oslo B-LOC\n".encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08", "gzip, not CoNLL"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path, content, what):
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=what) as error:
        list(ConllRows(path))
    assert error.value.where == f"{path}:1"


def test_json_is_told_from_conll_by_name_or_by_its_beginning(tmp_path):
    assert is_conll(written(tmp_path, "[ O\n{ O\n", "a.txt"))
    assert is_conll(written(tmp_path, "", "b.txt"))
    assert not is_conll(written(tmp_path, '\ufeff{"text": 1}', "c.txt"))
    assert not is_conll(written(tmp_path, ' [\n {"text": 1}]', "d.txt"))
    assert not is_conll(written(tmp_path, "Ann O", "e.jsonl"))
    assert not is_conll(tmp_path / "missing.conll")


def where(line: int, at: int) -> str:
    return f"f:{line + at}"


def scheme(*rows: str) -> tuple[str, list[str]]:
    return scheme_of([(10 * i, row.split()) for i, row in enumerate(rows)], where)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("IO", ["O I-a I-a I-b"]),
        ("IOB1", ["I-a I-a B-a O I-b I-a"]),
        ("IOB2", ["B-a I-a B-a O B-b"]),
        ("IOB2", ["B-a O B-b"]),
        ("IOE1", ["I-a E-a I-a O I-b"]),
        ("IOE2", ["I-a E-a O E-b E-b"]),
        ("BIOES", ["B-a I-a E-a S-a O S-b"]),
        ("BIOES", ["B-a E-a"]),
        ("BILOU", ["B-a I-a L-a U-a O U-b"]),
    ],
)
def test_schemes_are_told_apart(name, rows):
    found, remarks = scheme(*rows)
    assert found == name
    assert bool(remarks) == (name == "IO")


def test_what_does_not_keep_to_the_scheme_is_counted():
    assert scheme("B-a I-a O B-b", "I-a O B-a B-a") == ("IOB2", ["1 of 5 entities are not spelled as IOB2 has it"])
    assert scheme("O O") == ("IO", ["every word is tagged O"])


@pytest.mark.parametrize("tag", ["NNP", "X-PER", "B", "B-", "b-PER", "o", "B_PER", "-", ""])
def test_an_unknown_tag_is_an_error_with_its_place(tag):
    with pytest.raises(UserError, match="no known scheme") as error:
        scheme_of([(1, ["O"]), (7, ["O", tag])], where)
    assert error.value.where == "f:8"


def test_prefixes_of_two_schemes_are_an_error():
    with pytest.raises(UserError, match="B, E, U belong to no scheme together") as error:
        scheme("B-a E-a", "O U-a")
    assert error.value.where == "f:11"


def test_entities_by_hand():
    assert chunks(["B-creative-work", "I-creative-work", "O", "I-a", "B-a"]) == [
        ("creative-work", 0, 2),
        ("a", 3, 4),
        ("a", 4, 5),
    ]
    assert chunks(["I-a", "I-b", "E-b", "I-b"]) == [("a", 0, 1), ("b", 1, 3), ("b", 3, 4)]
    assert chunks([]) == []


SPELLERS = {  # first, inner, last, single
    "IOB2": ("B", "I", "I", "B"),
    "IOE2": ("I", "I", "E", "E"),
    "BIOES": ("B", "I", "E", "S"),
    "BILOU": ("B", "I", "L", "U"),
}
layouts = st.lists(st.tuples(st.sampled_from(["O", "a", "b-c"]), st.integers(1, 4)), max_size=8)


@given(st.sampled_from(sorted(SPELLERS)), st.lists(layouts, max_size=3))
def test_what_is_spelled_in_a_scheme_is_read_back(name, sentences):
    first, inner, last, single = SPELLERS[name]
    spelled: list[tuple[int, list[str]]] = []
    for layout in sentences:
        tags: list[str] = []
        wanted: list[tuple[str, int, int]] = []
        for kind, length in layout:
            if kind != "O":
                wanted.append((kind, len(tags), len(tags) + length))
            prefixes = single if length == 1 else first + inner * (length - 2) + last
            tags += ["O" if kind == "O" else f"{prefix}-{kind}" for prefix in prefixes]
        assert chunks(tags) == wanted
        spelled.append((0, tags))
    tagged = any(tag != "O" for _, tags in spelled for tag in tags)
    assert scheme_of(spelled, where) == ((name, []) if tagged else ("IO", ["every word is tagged O"]))
