"""Cleaning as a whole: every row is written or listed, once; what is written needs no cleaning."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.data.loading import check_disjoint, load_examples
from equipoise.data.preferences import load_pairs
from equipoise.errors import UserError
from equipoise.pipelines.cleaning import clean
from equipoise.pipelines.cleaning_settings import CleaningSettings

WORDS = [f"w{i}" for i in range(3000)]


def write(path: Path, *rows: dict | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def sentence(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def row(rng: random.Random, number: int = 0, answer: int = 20, **fields) -> dict:
    q, a = sentence(rng, 10), sentence(rng, answer)
    forms = (
        {"instruction": q, "input": "", "output": a},
        {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
        {"prompt": q, "completion": a},
        {"prompt": q, "chosen": a, "rejected": sentence(rng, 12)},
    )
    return forms[number % 5] | fields


def job(folder: Path, *inputs: Path, **options) -> dict:
    return clean(inputs, folder / "out", CleaningSettings.model_validate(options))


def dropped(folder: Path, name: str = "out") -> dict[str, str]:
    """Rule by place."""
    found = read(folder / name / "dropped.jsonl")
    assert all(entry["reason"] and entry["excerpt"] for entry in found)
    return {entry["source"].rpartition("/")[2]: entry["rule"] for entry in found}


def kept(folder: Path, name: str = "out") -> list[str]:
    rows = read(folder / name / "examples.jsonl") + read(folder / name / "pairs.jsonl")
    return sorted(each["meta"]["from"].rpartition("/")[2] for each in rows)


# ---- what is planted is found


def test_planted_duplicates_and_broken_rows_are_all_listed(tmp_path):
    rng = random.Random(0)
    rows: list = [row(rng, number) for number in range(400)]
    expected = {}
    for line in range(41, 401, 5):  # 72 planted: duplicates in another form or spelling, near duplicates, broken rows
        first = rows[line % 40]
        kind = ("duplicate", "near-duplicate", "broken")[line % 3]
        if kind == "broken":
            rows[line - 1] = json.dumps(first)[:-3]
        elif kind == "duplicate":
            rows[line - 1] = json.loads(json.dumps(first).replace(" w", "  w"))
        else:
            rows[line - 1] = json.loads(json.dumps(first).replace('": "w', f'": "and{line} w', 1))
        expected[f"rows.jsonl:{line}"] = kind
    report = job(tmp_path, write(tmp_path / "rows.jsonl", *rows))
    assert dropped(tmp_path) == expected and len(expected) == 72
    assert (report["rows_in"], report["kept"], sum(report["dropped"].values())) == (400, 328, 72)
    assert report["near_duplicates"]["recall_at_threshold"] == 0.9983
    assert report["near_duplicates"]["not_compared_in_crowded_buckets"] == 0
    twins = [entry for entry in read(tmp_path / "out" / "dropped.jsonl") if entry["rule"] == "near-duplicate"]
    assert all(0.8 <= entry["similarity"] <= 1 and int(entry["twin"].rpartition(":")[2]) <= 40 for entry in twins)


def test_all_schemas_come_out_in_two_files_that_load_without_a_drop(tmp_path):
    rng = random.Random(1)
    rows = [row(rng, number, license="MIT", lang="en") for number in range(50)]
    report = job(tmp_path, write(tmp_path / "rows.jsonl", *rows))
    examples, pairs = (load(tmp_path / "out" / name) for load, name in READERS)
    assert (len(examples.examples), len(pairs.pairs)) == (40, 10) and not examples.dropped + pairs.dropped
    assert not examples.notes + pairs.notes
    assert examples.examples[0].meta["licence"] == "MIT" and pairs.pairs[0].meta["language"] == "en"
    assert report["schemas"] == dict.fromkeys(report["schemas"], 10) and len(report["schemas"]) == 5
    assert (report["licences"], report["languages"]) == ({"MIT": 50}, {"en": 50})
    assert report == json.loads((tmp_path / "out" / "clean_report.json").read_text())
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("examples.jsonl", "pairs.jsonl", "dropped.jsonl", "changed.jsonl", "clean_report.json", "MANIFEST.json")
    }


READERS = ((load_examples, "examples.jsonl"), (load_pairs, "pairs.jsonl"))

piece = st.sampled_from(["w1 ", "w2 ", "cafe\u0301 ", "\x01", "\r\n", "```\n", "é", "=", "w3 w4 w5 w6 w7 ", " "])
text = st.lists(piece, max_size=14).map("".join)
form = st.one_of(
    st.fixed_dictionaries({"prompt": text, "completion": text}),
    st.fixed_dictionaries({"instruction": text, "input": text, "output": text}, optional={"license": text}),
    st.fixed_dictionaries({"prompt": text, "chosen": text, "rejected": text}),
    st.fixed_dictionaries({"prompt": text, "completion": text, "rephrasings": st.lists(text, max_size=2)}),
    st.just("{broken"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(form, max_size=12), threshold=st.sampled_from([0.5, 0.8, None]), long_over=st.none() | st.just(8))
def test_every_row_is_written_or_listed_and_a_second_time_drops_and_changes_nothing(
    tmp_path_factory, rows, threshold, long_over
):
    folder = tmp_path_factory.mktemp("clean")
    rows = [row(random.Random(1)), *rows]
    source = write(folder / "rows.jsonl", *rows)
    options = {"max_bad_share": 1.0, "near": {"threshold": threshold}}
    options["length"] = {"long_over": long_over, "long_keep": 0.5, "max": 60}
    report = job(folder, source, **options)
    listed, written = list(dropped(folder)), kept(folder)
    assert sorted(listed + written) == sorted(f"rows.jsonl:{line}" for line in range(1, len(rows) + 1))
    assert (report["rows_in"], report["kept"]) == (len(rows), len(written))
    outputs = [path for path in (folder / "out" / "examples.jsonl", folder / "out" / "pairs.jsonl") if path.exists()]
    for (load, _), path in zip(READERS, (folder / "out" / name for _, name in READERS), strict=True):
        assert not path.exists() or not load(path).dropped
    again = clean(outputs, folder / "again", CleaningSettings.model_validate(options))
    assert (again["dropped"], again["changed"]) == ({}, {})
    for path in outputs:
        assert path.read_bytes() == (folder / "again" / path.name).read_bytes()


# ---- rules over rows


def test_changed_rows_are_listed_with_field_and_rule(tmp_path):
    rows = [{"prompt": "cafe\u0301", "completion": "a\r\nb"}, {"prompt": "q", "completion": "a"}]
    report = job(tmp_path, write(tmp_path / "rows.jsonl", *rows))
    (entry,) = read(tmp_path / "out" / "changed.jsonl")
    assert entry["source"].endswith("rows.jsonl:1") and entry["id"] == "rows-000001"
    assert entry["changes"] == [
        {"field": "messages[0].content", "rule": "nfc"},
        {"field": "messages[1].content", "rule": "control"},
    ]
    assert report["changed"] == {"control": 1, "nfc": 1}


def test_only_allowed_licences_stay(tmp_path):
    rng = random.Random(2)
    rows = [row(rng, license="MIT"), row(rng, licence="GPL-3.0"), row(rng, meta={"license": "mit"}), row(rng)]
    source = write(tmp_path / "rows.jsonl", *rows)
    job(tmp_path, source, licences=["mit"])
    assert dropped(tmp_path) == {"rows.jsonl:2": "licence", "rows.jsonl:4": "licence"}
    report = job(tmp_path, source, licences=["mit", "unknown"])
    assert dropped(tmp_path) == {"rows.jsonl:2": "licence"} and report["licences"] == {"MIT": 1, "mit": 1, "unknown": 1}


def test_what_a_held_out_set_asks_leaves_the_data_whatever_its_form_and_answer(tmp_path):
    rng = random.Random(3)
    rows = [row(rng, number) for number in range(20)]
    asked = [read_question(rows[3]), read_question(rows[4]), read_question(rows[7]).replace(" w", " W", 1), "new one"]
    held = write(tmp_path / "held.jsonl", *({"prompt": f" {q}", "completion": "other"} for q in asked))
    report = job(tmp_path, write(tmp_path / "rows.jsonl", *rows), against=[str(held)])
    assert dropped(tmp_path) == {"rows.jsonl:4": "overlap", "rows.jsonl:5": "overlap", "rows.jsonl:8": "near-overlap"}
    assert report["held_out"] == {"questions": 4, "rows_without_question": {str(held): 0}}
    check_disjoint(load_examples(tmp_path / "out" / "examples.jsonl").examples, load_examples(held).examples)


def read_question(values: dict) -> str:
    if "conversations" in values:
        return values["conversations"][0]["value"]
    return values["messages"][0]["content"] if "messages" in values else values.get("prompt", values.get("instruction"))


def test_a_near_twin_of_a_row_that_left_for_the_held_out_set_stays(tmp_path):
    answer = sentence(random.Random(4), 60)
    rows = [{"prompt": "what is one", "completion": answer}, {"prompt": "tell me of two", "completion": answer}]
    held = write(
        tmp_path / "held.jsonl", {"question": "What is one", "answer": "x"}, {"question": "x y", "answer": "x"}
    )
    job(tmp_path, write(tmp_path / "rows.jsonl", *rows), against=[str(held)])
    assert dropped(tmp_path) == {"rows.jsonl:1": "near-overlap"}


def test_the_window_of_lengths_in_words(tmp_path):
    rng = random.Random(5)
    rows = [row(rng, 3, answer=count) for count in (1, 10, 20, 30, 40)]  # the question has ten words
    report = job(tmp_path, write(tmp_path / "rows.jsonl", *rows), length={"min": 12, "max": 40})
    assert dropped(tmp_path) == {"rows.jsonl:1": "short", "rows.jsonl:5": "long"}
    lengths = report["lengths"]
    assert (lengths["unit"], lengths["before"]["max"], lengths["after"]["max"]) == ("words", 50, 40)
    assert (lengths["before"]["p5"], lengths["before"]["p50"], lengths["after"]["p50"]) == (11, 30, 30)


def test_lengths_in_the_tokens_that_a_model_will_see(tmp_path):
    report = job(
        tmp_path,
        write(tmp_path / "rows.jsonl", {"prompt": "one two", "completion": "three"}),
        model={"path": "testbed"},
    )
    from equipoise.data.formatting import render
    from equipoise.models.loading import load_model
    from equipoise.models.settings import ModelSettings

    (example,) = load_examples(tmp_path / "out" / "examples.jsonl").examples
    rendered = render(load_model(ModelSettings(path="testbed")).tokenizer, example)
    assert report["lengths"]["unit"] == "tokens" and report["lengths"]["after"]["max"] == len(rendered.input_ids)


def test_long_rows_are_thinned_by_seed_and_text_alone(tmp_path):
    rng = random.Random(6)
    rows = [row(rng, 3, answer=60 if number % 2 else 10) for number in range(400)]
    window = {"long_over": 50, "long_keep": 0.25}
    job(tmp_path, write(tmp_path / "rows.jsonl", *rows), length=window)
    first = dropped(tmp_path)
    assert set(first.values()) == {"thinned"} and 120 < len(first) < 175  # of 200, 150 expected
    job(tmp_path, write(tmp_path / "rows.jsonl", *rows[::-1]), length=window)
    assert {401 - int(place.partition(":")[2]) for place in dropped(tmp_path)} == {
        int(place.partition(":")[2]) for place in first
    }
    job(tmp_path, write(tmp_path / "rows.jsonl", *rows), length=window, seed=1)
    assert dropped(tmp_path).keys() != first.keys()


def test_a_mixture_has_the_shares_asked_for_and_lists_what_it_leaves_out(tmp_path):
    rng = random.Random(7)
    a, b = (write(tmp_path / f"{name}.jsonl", *(row(rng, 3) for _ in range(60))) for name in "ab")
    report = job(tmp_path, a, b, weights={"a": 3, str(b): 1})
    places = [place.partition(".")[0] for place in kept(tmp_path)]
    assert (places.count("a"), places.count("b")) == (60, 20) and set(dropped(tmp_path).values()) == {"mixture"}
    assert report["mixture"]["examples"][str(b)] == {"weight": 1.0, "rows": 60, "kept": 20}
    again = clean([a, b], tmp_path / "again", CleaningSettings(weights={"a": 3, "b": 1}))
    assert kept(tmp_path, "again") == kept(tmp_path) and again["kept"] == 80


@pytest.mark.parametrize(("weights", "what"), [({"a": 1}, "has no weight"), ({"a": 1, "c": 1}, "no source is called")])
def test_weights_name_every_source(tmp_path, weights, what):
    rng = random.Random(8)
    a, b = (write(tmp_path / f"{name}.jsonl", row(rng)) for name in "ab")
    with pytest.raises(UserError, match=what):
        job(tmp_path, a, b, weights=weights)


# ---- ids and files


def test_ids_stay_and_those_that_two_sources_share_are_told_apart(tmp_path):
    rng = random.Random(9)
    a = write(tmp_path / "a.jsonl", row(rng, id=1), row(rng), row(rng, id="b:1"))
    b = write(tmp_path / "b.jsonl", row(rng, id="1"), row(rng))
    report = job(tmp_path, a, b)
    assert [each["id"] for each in read(tmp_path / "out" / "examples.jsonl")] == [
        "1",
        "a-000002",
        "b:1",
        "b:1'",
        "b-000002",
    ]
    (entry,) = read(tmp_path / "out" / "changed.jsonl")
    assert entry["changes"] == [{"field": "id", "rule": "id"}] and report["changed"] == {"id": 1}


def test_28_one_id_with_two_texts_in_a_file_is_refused_and_nothing_is_left_behind(tmp_path):
    rng = random.Random(10)
    source = write(tmp_path / "rows.jsonl", row(rng, id="x"), row(rng), row(rng, id="x"))
    with pytest.raises(UserError, match="two different texts") as error:
        job(tmp_path, source)
    assert error.value.where == f"{source}:3:id" and list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"", "empty", id="19 empty"),
        pytest.param(b"\n\n", "no rows", id="19 blank"),
        pytest.param(b"\x1f\x8b\x08\x00" + bytes(20), "gzip", id="22 gzip"),
        pytest.param('{"prompt": "é"}\n'.encode("utf-16"), "UTF-16", id="5 UTF-16"),
        pytest.param(b'{"prompt": "\xe9"}\n', "not UTF-8", id="6 Latin-1"),
        pytest.param(b'{"text": 1}\n{"text": 2}\n', "2 of 2 rows cannot be read", id="23 another kind of file"),
    ],
)
def test_a_file_that_is_none_of_these_is_one_clear_error(tmp_path, data, what):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(data)
    with pytest.raises(UserError, match=what) as error:
        job(tmp_path, source)
    assert str(source) in str(error.value.where) and not (tmp_path / "out").exists()


def test_bom_crlf_arrays_and_blank_lines_are_read(tmp_path):
    rows = [row(random.Random(number), number) for number in range(6)]
    source = tmp_path / "rows.json"
    source.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows[:3], indent=1).replace("\n", "\r\n").encode())
    other = write(tmp_path / "more.jsonl", *rows[3:], "", "")
    report = job(tmp_path, source, other)
    assert (report["kept"], report["sources"][1]["notes"]) == (6, ["2 blank lines passed over"])


def test_a_folder_of_something_else_is_left_alone_and_an_own_one_is_replaced(tmp_path):
    source = write(tmp_path / "rows.jsonl", row(random.Random(11)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        job(tmp_path, source)
    assert (tmp_path / "out" / "thesis.txt").exists()
    clean([source], tmp_path / "own")
    before = (tmp_path / "own" / "examples.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"no row is left of 1 \(short 1\)"):
        clean([source], tmp_path / "own", CleaningSettings.model_validate({"length": {"min": 999}}))
    assert (tmp_path / "own" / "examples.jsonl").read_bytes() == before


def test_the_verb_without_torch(tmp_path):
    rng = random.Random(12)
    source = write(tmp_path / "rows.jsonl", *(row(rng, number, license="mit") for number in range(20)), "{broken")
    words = [str(source), "length.max=40", "licences=[mit]", "--out", str(tmp_path / "out")]
    program = "import sys; from equipoise.cli import app; sys.argv[1:] = ['data', 'clean', *sys.argv[1:]]\n"
    program += "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    program += "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "broken" in done.stdout and "20" in done.stdout and "p50" in done.stdout
    assert len(kept(tmp_path)) == 20


def test_the_verb_refuses_an_unknown_setting_with_the_nearest(tmp_path):
    from typer.testing import CliRunner

    from equipoise.cli import app

    source = write(tmp_path / "rows.jsonl", row(random.Random(13)))
    done = CliRunner().invoke(app, ["data", "clean", str(source), "licenses=[mit]", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and "licences" in done.output
