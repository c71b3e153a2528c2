"""Sentences and entities from users' files and published data sets, and how they are asked for."""

import json
import re
from pathlib import Path

import datasets
import pytest

from equipoise.data.extraction import LoadedSentences, load_sentences, pairs, prompt, split_sentences
from equipoise.data.label_names import ADAPTERS
from equipoise.data.splits import check_disjoint_sentences
from equipoise.errors import UserError
from equipoise.metrics.entities import Counts, answer, by_type, micro, parse
from equipoise.records import Sentence

SHARED = Path(__file__).parents[3] / "shared" / "data"
OSLO = {
    "text": "Ann Lee left Oslo.",
    "entities": [{"type": "person", "text": "Ann Lee"}, {"type": "place", "text": "Oslo"}],
}


def write(folder: Path, *rows: dict | str) -> Path:
    path = folder / "rows.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines))
    return path


def load(folder: Path, *rows: dict | str, **options) -> LoadedSentences:
    return load_sentences(write(folder, *rows), "target", **{"max_bad_share": 0.9} | options)


def found(sentence: Sentence) -> tuple[tuple[str, str], ...]:
    assert sentence.entities is not None
    return pairs(sentence.entities)


def test_the_prompt_replaces_its_two_fields_and_nothing_else():
    assert prompt("A {types} {x}.", ["person", "place"]) == (
        "Extract the entities as JSON. Types: person, place.\nA {types} {x}."
    )
    assert prompt("{text}!", ["a"], "{x} {text} ({types})") == "{x} {text}! (a)"
    with pytest.raises(UserError, match="where the sentence belongs"):
        prompt("text", ["a"], "Find {types}.")


@pytest.mark.parametrize(
    "entities",
    [
        OSLO["entities"],
        {"place": ["Oslo"], "person": ["Ann  Lee"]},
        [["person", "Ann Lee"], ["place", "Oslo"]],
        [{"start": 13, "end": 17, "label": "place"}, {"start": 0, "end": 7, "label": "person", "text": "Ann Lee"}],
    ],
)
def test_forms_of_entities_in_the_order_of_the_text(tmp_path, entities):
    loaded = load(tmp_path, {"text": OSLO["text"], "entities": entities, "id": 7, "meta": {"tier": 1}})
    (sentence,) = loaded.sentences
    assert found(sentence) == (("person", "Ann Lee"), ("place", "Oslo"))
    assert (sentence.id, sentence.dataset, sentence.text) == ("7", "target", OSLO["text"])
    assert sentence.meta == {"tier": 1, "source": f"{tmp_path / 'rows.jsonl'}:1"}
    assert (loaded.types, loaded.dropped, loaded.notes) == (["person", "place"], [], [])


def test_words_and_tags(tmp_path):
    loaded = load(
        tmp_path,
        {"tokens": ["Ann", "Lee", "\u200a", "left", "New  York"], "tags": ["B-PER", "I-PER", "O", "O", "B-LOC"]},
        {"tokens": ["Oslo"], "ner_tags": ["B-LOC"], "pos": [1]},
        types={"PER": "person", "LOC": "city"},
    )
    first, second = loaded.sentences
    assert first.text == "Ann Lee left New York"
    assert found(first) == (("person", "Ann Lee"), ("city", "New York"))
    assert (second.id, found(second)) == ("row-000002", (("city", "Oslo"),))
    assert loaded.types == ["person", "city"]
    assert loaded.notes == ["unknown field 'pos' ignored in line 2", "tags are IOB2"]


def test_a_conll_file_is_one_too(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("Ann I-PER\nLee I-PER\n\nin O\nOslo I-LOC\n")
    loaded = load_sentences(path, "source", adapter="conll03", limit=1)
    assert [(s.id, s.text, found(s)) for s in loaded.sentences] == [("row-000001", "Ann Lee", (("person", "Ann Lee"),))]
    assert loaded.types == ["person"]


def test_unlabelled_rows_are_kept_only_where_they_may_be(tmp_path):
    rows = [OSLO, {"text": "b"}, {"text": "c", "entities": None}, {"tokens": ["d"]}, {"text": "e", "entities": []}]
    loaded = load(tmp_path, *rows, labelled=False)
    assert [s.entities is None for s in loaded.sentences] == [False, True, True, True, False]
    loaded = load(tmp_path, *rows)
    assert [(row.line, row.field) for row in loaded.dropped] == [(2, "entities"), (3, "entities"), (4, "tags")]
    assert found(loaded.sentences[1]) == ()


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("{", "", "not JSON"),
        ('{"text": "a", "text": "b", "entities": []}', "text", "twice"),
        ('{"text": "a", "entities": [NaN]}', "", "NaN"),
        ('{"text": "a", "entities": [' + "9" * 5000 + "]}", "", "5000 digits"),
        ('{"text": "a", "entities": ' + "[" * 100 + "]" * 100 + "}", "", "deep"),
        ('{"text": "\\ud800", "entities": []}', "text", "surrogate"),
        ({"text": " ", "entities": []}, "text", "empty"),
        ({"text": 1, "entities": []}, "text", "a number"),
        ({"text": None, "entities": []}, "text", "null"),
        ({"entities": []}, "text", "missing"),
        ({"text": "a", "entities": "a"}, "entities", "a string"),
        ({"text": "a", "entities": {"x": "a"}}, "entities", "list of texts"),
        ({"text": "a", "entities": {"x": [True]}}, "entities", "no string"),
        ({"text": "a", "entities": {"x": [""]}}, "entities", "empty"),
        ({"text": "a", "entities": [{"text": "a"}]}, "entities", "something else than entities"),
        ({"text": "a", "entities": {"x": ["b"]}}, "entities", "'b' does not stand in the text"),
        ({"text": "a", "entities": [{"type": "x", "start": 0, "end": 2}]}, "entities[0]", "no place"),
        ({"text": "a", "entities": [{"type": "x", "start": True, "end": 1}]}, "entities[0]", "no place"),
        ({"text": "ab", "entities": [{"type": "x", "start": 0, "end": 1, "text": "b"}]}, "entities[0]", "not 'b'"),
        ({"tokens": ["a"], "tags": ["O", "O"]}, "tags", "2 tags for 1 words"),
        ({"tokens": ["a"], "tags": [1]}, "tags[0]", "a number"),
        ({"tokens": ["a", " "], "tags": ["O", "B-x"]}, "tokens", "is empty"),
        ({"tokens": [" "], "tags": ["O"]}, "tokens", "no words"),
        ({"tokens": "a", "tags": "O"}, "tokens", "a string"),
        ({**OSLO, "id": True}, "id", "a boolean"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_with_its_reason(tmp_path, row, field, reason):
    loaded = load(tmp_path, OSLO, row)
    (dropped,) = loaded.dropped
    assert (dropped.line, dropped.field) == (2, field)
    assert reason in dropped.reason
    assert len(loaded.sentences) == 1


def test_too_many_bad_rows_are_an_error(tmp_path):
    rows = [{**OSLO, "id": i} for i in range(18)]
    assert len(load(tmp_path, *rows, {}, max_bad_share=0.06).sentences) == 18
    with pytest.raises(UserError, match="2 of 20 rows"):
        load(tmp_path, *rows, {}, {}, max_bad_share=0.06)


def test_one_id_names_one_text_and_is_used_once(tmp_path):
    loaded = load(tmp_path, {**OSLO, "id": "a"}, {**OSLO, "id": "a"})
    assert [row.reason for row in loaded.dropped] == ["the same id and text as line 1"]
    with pytest.raises(UserError, match="two different texts"):
        load(tmp_path, {**OSLO, "id": "a"}, {"text": "b", "entities": [], "id": "a"})


def test_repeated_texts_are_kept_and_remarked_on(tmp_path):
    loaded = load(tmp_path, OSLO, OSLO, {**OSLO, "entities": []})
    assert len(loaded.sentences) == 3
    assert loaded.notes == ["2 rows repeat the text of another; the rows of 1 of these texts differ in their entities"]


def test_unknown_labels_schemes_and_adapters_are_errors(tmp_path):
    tagged = {"tokens": ["a", "b"], "tags": ["O", "B-PRE"]}
    with pytest.raises(UserError, match="'PRE' is none that conll03 has; did you mean 'PER'") as error:
        load(tmp_path, tagged, adapter="conll03")
    assert error.value.where == f"{tmp_path / 'rows.jsonl'}:1:tags[1]"
    assert load(tmp_path, tagged, adapter="conll03", types={"PRE": "person"}).types == ["person"]
    with pytest.raises(UserError, match="'place' is none of"):
        load(tmp_path, OSLO, types={"person": "who"})
    with pytest.raises(UserError, match="no known scheme") as error:
        load(tmp_path, OSLO, {"tokens": ["a"], "tags": ["PER"]})
    assert error.value.where == f"{tmp_path / 'rows.jsonl'}:2:tags[0]"
    with pytest.raises(UserError, match="no adapter 'conll3'") as error:
        load(tmp_path, OSLO, adapter="conll3")
    assert "conll03" in str(error.value)


def test_few_nerd_has_bare_tags_in_two_grains(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("Ann\tperson-actor\nLee\tperson-actor\nleft\tO\nOslo\tlocation-GPE\n")
    (coarse,) = load_sentences(path, "target", adapter="few-nerd").sentences
    (fine,) = load_sentences(path, "target", adapter="few-nerd-fine").sentences
    assert found(coarse) == (("person", "Ann Lee"), ("location", "Oslo"))
    assert found(fine) == (("actor", "Ann Lee"), ("geopolitical entity", "Oslo"))
    assert len(ADAPTERS["few-nerd-fine"].types) == len(set(ADAPTERS["few-nerd-fine"].types.values())) == 66
    assert len(set(ADAPTERS["few-nerd"].types.values())) == 8


def test_labels_of_the_hub_are_read_by_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = datasets.ClassLabel(names=["O", "B-programlang", "I-programlang"])
    columns = {
        "id": ["0", "1", "2"],
        "tokens": [["Go", "Lang", "!"], ["a"], ["b"]],
        "ner_tags": [[1, 2, 0], [-1], None],
    }
    features = datasets.Features(
        id=datasets.Value("string"), tokens=datasets.List(datasets.Value("string")), ner_tags=datasets.List(names)
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "hub" / "train.parquet")
    loaded = load_sentences(f"hub:{tmp_path / 'hub'}:train", "target", adapter="crossner", max_bad_share=0.9)
    assert [(s.id, found(s)) for s in loaded.sentences] == [("0", (("programming language", "Go Lang"),))]
    assert [(row.line, row.field) for row in loaded.dropped] == [(2, "ner_tags[0]"), (3, "tags")]


def test_splits_share_no_text(tmp_path):
    rows = [{"text": f"text {i % 200}", "entities": []} for i in range(300)]
    sentences = load(tmp_path, *rows).sentences
    splits = split_sentences(sentences, {"train": 0.5, "test": 0.5}, seed=0)
    assert sum(map(len, splits.values())) == 300
    assert min(map(len, splits.values())) > 100
    check_disjoint_sentences(splits["train"], splits["test"])
    with pytest.raises(UserError, match="same sentence stands in both") as error:
        check_disjoint_sentences(
            splits["train"], [splits["train"][-1].model_copy(update={"text": "text  0 "}), *sentences]
        )
    assert "rows.jsonl:" in str(error.value.where)


def test_the_examples_of_the_documentation_all_say_the_same(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "extraction-data.md").read_text()
    fenced = re.findall(r"```(?:json)?\n(.*?)```", page, re.DOTALL)
    conll, rows, asked, said = fenced
    (tmp_path / "rows").write_text(conll + "\n" + conll)
    sentences = load_sentences(tmp_path / "rows", "source", types={"PER": "person", "LOC": "place"}).sentences
    assert [found(s) for s in sentences] == [(("person", "Ann Lee"), ("place", "Oslo"))] * 2
    loaded = load(tmp_path, *rows.splitlines())
    assert (len(loaded.sentences), loaded.dropped) == (4, [])
    for sentence in loaded.sentences:
        assert answer(found(sentence)) == said.strip()
    assert prompt(loaded.sentences[0].text, loaded.types) == asked.strip()


@pytest.mark.parametrize(
    ("name", "sentences", "entities", "notes"),
    [
        # the counts that the data sets are published with
        ("wikigold/wikigold.conll.txt", 1696, 3558, ["145 lines of -DOCSTART- passed over", "tags are IO"]),
        ("wnut17/train.conll", 3394, 1975, ["tags are IOB2"]),
        ("wnut17/dev.conll", 1009, 836, ["tags are IOB2"]),
        ("wnut17/test.conll", 1287, 1079, ["tags are IOB2"]),
    ],
)
def test_the_published_files(name, sentences, entities, notes):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    loaded = load_sentences(path, "source", adapter=name.partition("/")[0])
    assert (len(loaded.sentences), loaded.dropped, loaded.notes[: len(notes)]) == (sentences, [], notes)
    gold = [found(sentence) for sentence in loaded.sentences]
    assert all(text in sentence.text for sentence, said in zip(loaded.sentences, gold) for _, text in said)
    read = [parse(answer(said), loaded.types) for said in gold]
    assert not any(parsed.problem for parsed in read)
    assert micro(zip((parsed.entities for parsed in read), gold)) == Counts(tp=entities)
    assert set(by_type(zip(gold, gold))) == set(loaded.types)


def test_the_published_splits_share_no_text():
    if not (SHARED / "wnut17").is_dir():
        pytest.skip(f"{SHARED / 'wnut17'} is not there")
    train, test = (load_sentences(SHARED / f"wnut17/{split}.conll", "target").sentences for split in ("train", "test"))
    check_disjoint_sentences(train, test)
