"""The sentences are held out from the text, and so are the roles of their names; the target's labels grow doubtful."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from equipoise.data.extraction import pairs
from equipoise.data.extraction import prompt as asked
from equipoise.metrics.entities import answer, parse
from equipoise.testbed.ner import DIFFICULTIES, DOMAINS, SPLITS, TYPES, NerSettings, NerWorld, load, prompt

REDUCED = NerSettings(source=60, target=120, copying=40, cues=2, train=20, dev=8, test=20)
EXTRACT = "Extract the entities"


@pytest.fixture(scope="module")
def full() -> NerWorld:
    return NerWorld.build()


@pytest.fixture(scope="module")
def labelled(full) -> dict[str, dict[str, tuple[tuple[str, str], ...]]]:
    """By domain, the entities that the text gives for each sentence in it."""
    out: dict = {domain: {} for domain in DOMAINS}
    for document in full.documents():
        if document.prompt.startswith(EXTRACT):
            asked_for, text = document.prompt.split("\n", 1)
            domain = "target" if TYPES["target"][0] in asked_for else "source"
            assert document.prompt == asked(text, TYPES[domain])
            out[domain][text] = parse(document.completion).entities
    return out


def words(text: str) -> set[str]:
    """Words that begin in upper case, those that many names share left out."""
    return set(re.findall(r"[A-Z]\w+", text)) - {"New", "Upper", "Saint"}


def test_another_process_with_another_hash_seed_writes_the_same():
    code = (
        "import hashlib; from equipoise.testbed.ner import NerSettings, NerWorld;"
        f"w = NerWorld.build(NerSettings.model_validate_json('{REDUCED.model_dump_json()}'));"
        "print(w.text_hash, hashlib.sha256(repr(w.sentences).encode()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(runs) == 1 and NerWorld.build(REDUCED).text_hash in runs.pop()


def test_loading_gives_the_same_rows_and_leaves_torch_unloaded():
    assert load("target", "test") == load("target", "test")
    code = (
        "import sys; from equipoise.testbed.ner import load; load('source', 'dev'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ValueError, match="no sentences"):
        load("target", "validation")


@pytest.mark.parametrize("domain", DOMAINS)
def test_there_are_enough_sentences_of_every_difficulty(domain):
    splits = {split: load(domain, split) for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 400, "dev": 100, "test": 400}
    rows = [row for split in SPLITS for row in splits[split]]
    assert {row.dataset for row in rows} == {domain}
    assert len({row.id for row in rows}) == len({row.text for row in rows}) == len(rows)
    for split in ("train", "test"):
        counted = Counter(row.meta["difficulty"] for row in splits[split])
        assert set(counted) == {*DIFFICULTIES[domain], "none"}
        assert min(counted[name] for name in DIFFICULTIES[domain]) >= 80
        assert 0.04 <= counted["none"] / len(splits[split]) <= 0.1
        assert {len(row.entities) for row in splits[split]} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("domain", DOMAINS)
def test_entities_stand_in_the_text_in_their_order(domain):
    for row in load(domain, "test"):
        at = 0
        for entity in row.entities:
            at = row.text.index(entity.text, at) + len(entity.text)
            assert entity.type in TYPES[domain]
        assert len({entity.text for entity in row.entities}) == len(row.entities)
        assert parse(answer(pairs(row.entities))).valid


def test_every_type_occurs_and_names_have_several_words_at_times():
    for domain in DOMAINS:
        entities = [entity for row in load(domain, "test") for entity in row.entities]
        kinds = Counter(entity.type for entity in entities)
        assert set(kinds) == set(TYPES[domain]) and min(kinds.values()) > 60
        assert 0.3 < sum(" " in entity.text for entity in entities) / len(entities) < 0.8


def test_no_sentence_stands_in_the_text_nor_in_two_splits(full, labelled):
    texts = [row.text for domain in DOMAINS for split in SPLITS for row in load(domain, split)]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {text for taught in labelled.values() for text in taught}


def test_names_are_never_labelled_in_the_text_and_those_of_test_nowhere_else(labelled):
    taught = {word for texts in labelled.values() for text in texts for word in words(text)}
    of_split = {
        split: {w for name in DOMAINS for row in load(name, split) for w in words(row.text)} for split in SPLITS
    }
    assert not taught & (of_split["train"] | of_split["dev"] | of_split["test"])
    assert not of_split["test"] & (of_split["train"] | of_split["dev"])


def test_every_word_is_practised_under_keys_that_are_no_types(full):
    copied = [d for d in full.documents() if d.prompt.startswith("Repeat as JSON.")]
    practised = Counter(word for d in copied for word in words(d.completion))
    wanted = {word for domain in DOMAINS for split in SPLITS for row in load(domain, split) for word in words(row.text)}
    assert min(practised[word] for word in wanted) >= 10
    keys = {key for d in copied for key in json.loads(d.completion)}
    assert keys and not keys & {kind for types in TYPES.values() for kind in types}


def test_the_prompt_is_the_one_that_extraction_asks():
    row = load("target", "test")[0]
    assert prompt("target", row.text) == asked(row.text, TYPES["target"])


@pytest.mark.parametrize("level", DIFFICULTIES["target"])
def test_labels_of_the_target_are_doubtful_as_the_settings_say(full, labelled, level):
    """People whom a cue stands before: how often the text gives them the type that the cue means."""
    kinds = {"athlete": "striker captain champion favourite", "scientist": "physicist professor expert thinker"}
    at = DIFFICULTIES["target"].index(level)
    right = [
        (kind, name) in entities
        for kind, cues in kinds.items()
        for text, entities in labelled["target"].items()
        for name in re.findall(rf"the {cues.split()[at]} ([A-Z]\w+(?: [A-Z]\w+)*)", text)
    ]
    doubt = getattr(full.settings.doubt, level)
    assert len(right) > 150 and sum(right) / len(right) == pytest.approx(1 - doubt, abs=0.1)


def test_the_texts_of_the_world_are_short_in_tokens(full):
    tokenizer = full.tokenizer()
    assert tokenizer.get_vocab_size() < 1600
    for row in load("target", "test") + load("source", "test"):
        assert len(tokenizer.encode(prompt(row.dataset, row.text)).ids) <= 65
        said = answer(pairs(row.entities))
        ids = tokenizer.encode(said).ids
        assert len(ids) <= 40 and tokenizer.decode(ids) == said
