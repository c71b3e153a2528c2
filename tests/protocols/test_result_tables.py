import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.protocols.tables import read_table, read_table_and_notes

PUBLISHED = Path(__file__).parent.parent / "reference" / "published_r_eaft.json"
ROWS = [
    {"method": "sft", "seed": 1, "metric": "correction", "value": 0.5},
    {"method": "r-eaft", "seed": 1, "metric": "correction", "value": 0.75},
]
CSV = "method,seed,metric,value\nsft,1,correction,0.5\nr-eaft,1,correction,0.75\n"


def _write(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("a.jsonl", "\n\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("a.json", "\n".join(map(json.dumps, ROWS))),
        ("a.jsonl", "\r\n".join(map(json.dumps, ROWS))),
        ("a.csv", CSV),
        ("a.csv", CSV.replace(",", ";")),
        ("a.tsv", CSV.replace(",", "\t")),
        ("a.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("a.csv", "\n" + CSV.replace("method", " Method ") + "\n\n"),
        ("a.json", json.dumps({"seeds": [1], "correction": {"sft": [0.5], "r-eaft": [0.75]}})),
    ],
)
def test_every_shape_gives_the_same_rows(tmp_path, name, text):
    rows = read_table(_write(tmp_path, name, text))
    assert [(r.method, r.seed, r.task, r.metric, r.value) for r in rows] == [
        ("sft", 1, "correction", "correction", 0.5),
        ("r-eaft", 1, "correction", "correction", 0.75),
    ]


def test_the_published_file():
    table = read_table_and_notes(PUBLISHED)
    assert len(table.results) == 2 * 3 * 5
    assert {row.task for row in table.results} == {"correction", "retention"}
    assert [row.value for row in table.results if (row.method, row.task) == ("r-eaft", "correction")] == [
        0.71, 0.71, 0.73, 0.70, 0.72,
    ]  # fmt: skip
    assert "protocol_b_reported" in table.notes[0]
    assert "protocol_a.reported" in table.notes[0]


def test_two_sections_keep_their_metrics_apart(tmp_path):
    whole = {name: {"seeds": [1, 2], "acc": {"sft": [0.1, 0.2]}} for name in ("first", "second")}
    rows = read_table(_write(tmp_path, "a.json", json.dumps(whole)))
    assert [row.task for row in rows] == ["first acc", "first acc", "second acc", "second acc"]


def test_optional_columns(tmp_path):
    head = "method,seed,task,metric,value,n,higher_is_better,comment\n"
    text = head + "sft,1,news,loss,2.5,40,false,\nsft,2,news,loss,2.4,,,x\n"
    table = read_table_and_notes(_write(tmp_path, "a.csv", text))
    first, second = table.results
    assert (first.task, first.metric, first.n, first.higher_is_better) == ("news", "loss", 40, False)
    assert (second.n, second.higher_is_better) == (0, True)
    assert table.notes == ["Columns that were not read: comment."]


ROW = '{"method": "sft", "seed": 1, "metric": "c", "value": 0.5}'


@pytest.mark.parametrize(
    ("name", "text", "where", "says"),
    [
        ("a.csv", "method,seed,value\nsft,1,0.5\n", ":1", "lacks metric"),
        ("a.csv", CSV + "sft,2,correction\n", ":4", "3 cells under 4 columns"),
        ("a.csv", CSV + "sft,2,correction,high\n", ":4:value", "not a finite number: 'high'"),
        ("a.csv", CSV + "sft,2,correction,nan\n", ":4:value", "not a finite number"),
        ("a.csv", CSV + "sft,2,correction,1e999\n", ":4:value", "not a finite number"),
        ("a.csv", CSV + "sft,2,correction,\n", ":4:value", "is missing"),
        ("a.csv", CSV + "sft,1.5,correction,1\n", ":4:seed", "not a whole number"),
        ("a.csv", CSV + "sft,1,correction,0.6\n", ":4", "on line 2 already"),
        ("a.csv", CSV + '"sft,2,correction,0.6\n', ":4", "not valid CSV"),
        ("a.csv", CSV[: CSV.index("\n") + 1], "", "no rows"),
        ("a.jsonl", f"{ROW}\n{ROW[:-5]}\n", ":2", "not valid JSON"),
        ("a.jsonl", f"{ROW}\n\n[1]\n", ":3", "has to be an object"),
        ("a.jsonl", ROW.replace("0.5", "true"), ":1:value", "not a finite number"),
        ("a.jsonl", ROW.replace("0.5", "NaN"), ":1:value", "not a finite number"),
        ("a.jsonl", ROW.replace("0.5", "9" * 400), ":1:value", "not a finite number"),
        ("a.jsonl", ROW.replace("0.5", "9" * 5000), ":1", "not valid JSON"),
        ("a.jsonl", ROW.replace('"sft"', "7"), ":1:method", "not a name"),
        ("a.jsonl", ROW.replace('"sft"', "null"), ":1:method", "missing"),
        ("a.jsonl", ROW.replace('"value"', '"seed": 2, "value"'), ":1", "'seed' occurs twice"),
        ("a.json", f"[\n{ROW},\n{ROW.replace('0.5', '[]')}]", ":3:value", "not a finite number"),
        ("a.json", "[" * 100_000, ":1", "nested too deeply"),
        ("a.json", f"[{ROW}", ":1", "not valid JSON"),
        ("a.json", f"[{ROW},\n{ROW[:-2]}]", ":2", "not valid JSON"),
        ("a.jsonl", f"{ROW}\n{ROW} {ROW}", ":2", "not valid JSON: Extra data"),
        ("a.json", "{", ":1", "not valid JSON"),
        ("a.json", "3", "", "neither rows nor an object"),
        ("a.json", '{"correction": {"sft": [1]}}', "", "no `seeds`"),
        ("a.json", '{"seeds": [1, 2],\n "c": {\n "sft": [1]}}', ":3:c.sft", "1 values for 2 seeds"),
        ("a.json", '{"seeds": [1, 2],\n "c": {\n "sft": [1, "x"]}}', ":3:c.sft", "not a finite number"),
        ("a.json", '{"x": {"seeds": [1, 1], "c": {"sft": [1, 2]}}}', ":1:x.seeds", "each once"),
        ("a.json", '{"seeds": ["a"], "c": {"sft": [1]}}', ":1:seeds", "not a finite number"),
        ("a.json", '{"seeds": [1], "c": {"sft": 1}}', "", "no metric"),
        ("a.csv", "", "", "empty"),
        ("a.csv", ",,\n,,\n", ":1", "lacks method"),
        ("a.csv", CSV.replace("value", "value,value", 1), ":1", "twice"),
        ("a.csv", CSV.encode("utf-16"), "", "not UTF-8"),
        ("a.csv", CSV.replace("sft", "café").encode("latin-1"), "", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, name, text, where, says):
    path = _write(tmp_path, name, text)
    with pytest.raises(UserError) as error:
        read_table(path)
    assert says in error.value.what
    assert error.value.where == f"{path}{where}"


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match="folder"):
        read_table(tmp_path)


@given(st.text(max_size=200), st.sampled_from(["a.csv", "a.json", "a.jsonl"]))
def test_no_text_does_more_than_raise_one_clear_error(tmp_path_factory, text, name):
    path = tmp_path_factory.mktemp("table") / name
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(UserError):
        read_table(path)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).map(str.strip).filter(bool)
CELLS = st.dictionaries(
    st.tuples(NAMES, st.integers(0, 2**40), NAMES), st.floats(allow_nan=False, allow_infinity=False), min_size=1
)


@given(CELLS, st.sampled_from(["a.json", "a.jsonl"]))
def test_what_was_written_is_what_is_read(tmp_path_factory, cells, name):
    rows = [{"method": m, "seed": s, "metric": k, "value": v} for (m, s, k), v in cells.items()]
    path = tmp_path_factory.mktemp("table") / name
    path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert {(r.method, r.seed, r.metric): r.value for r in read_table(path)} == cells
