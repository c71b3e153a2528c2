"""Samples of every input in one file: nothing lost, nothing twice, nothing overwritten, whoever answers."""

import json
import threading
from collections import Counter

import pytest
from tiny_models import tiny_model, tiny_tokenizer

from equipoise import disk
from equipoise.errors import UserError
from equipoise.journal import Journal, read_journal
from equipoise.models.backends.hf import Embedded
from equipoise.models.backends.interface import Reply
from equipoise.models.loading import Loaded
from equipoise.pipelines.mock_samples import Mock
from equipoise.pipelines.sample_account import account, agreements
from equipoise.pipelines.sample_files import Writer, read_samples
from equipoise.pipelines.sampling import draw_samples, sample_inputs, sample_seed
from equipoise.pipelines.sampling_settings import SamplingSettings
from equipoise.records import Entity, Sample, Sentence

TYPES = ("person", "place")
NAMES = ("Ann Lee", "Bo", "Cy Ray Dee", "Di")
SENTENCES = [
    Sentence(
        id=f"s{i}",
        text=f"{NAMES[i % 4]} went to Oslo, {i}",
        dataset="target",
        entities=[Entity(type="person", text=NAMES[i % 4]), Entity(type="place", text="Oslo")],
    )
    for i in range(700)
]


class Fixed:
    """A backend that says the same to everything, one reply at a time, and notes what it was asked."""

    name = "fixed"

    def __init__(self, text="{}", *, stop_after=None):
        self.text, self.asked, self.stop_after = text, [], stop_after

    def sample(self, requests):
        for number, request in enumerate(requests):
            if number == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            yield [Reply(request.key, self.text)]


def draw(path, backend=None, sentences=SENTENCES, *, model="a", samples=1, seed=1, **options):
    return sample_inputs(
        backend or Mock(sentences, TYPES), sentences, types=TYPES, model_name=model, seed=seed,
        settings=SamplingSettings(samples=samples), journal_path=path, **options,
    )  # fmt: skip


def rows(path):
    found = read_journal(path)
    assert not found.torn and not found.damaged
    keys = [(row["id"], row["model"], row["sample"]) for row in found.rows]
    assert len(set(keys)) == len(keys)
    return found.rows


def by_key(path):
    return {(row["id"], row["model"], row["sample"]): row for row in rows(path)}


def test_each_record_says_where_it_comes_from(tmp_path):
    path = tmp_path / "samples.jsonl"
    drawn = draw(path, Fixed('{"person": ["Bo"]}'), SENTENCES[:2], samples=3)
    assert [Sample.model_validate(row) for row in rows(path)] == drawn
    assert [(s.id, s.sample) for s in drawn] == [("s0", 0), ("s0", 1), ("s0", 2), ("s1", 0), ("s1", 1), ("s1", 2)]
    assert drawn[0].entities == [Entity(type="person", text="Bo")] and drawn[0].text == '{"person": ["Bo"]}'
    assert drawn[0].seed == sample_seed(1, "s0", "a", 0) < 2**31
    assert len({s.seed for s in drawn}) == 6 and len({s.prompt_sha256 for s in drawn}) == 2


def test_the_same_inputs_with_a_second_model(tmp_path):
    path = tmp_path / "samples.jsonl"
    draw(path, sentences=SENTENCES[:300])
    before = path.read_bytes()
    draw(path, sentences=SENTENCES[:300], model="b", resume=True)
    assert path.read_bytes().startswith(before)
    assert Counter(row["model"] for row in rows(path)) == {"a": 300, "b": 300}
    assert {row["id"] for row in rows(path)} == {s.id for s in SENTENCES[:300]}


def test_the_next_inputs_with_a_second_model(tmp_path):
    path = tmp_path / "samples.jsonl"
    draw(path, sentences=SENTENCES[:300])
    draw(path, model="b", skip_labelled=True, max_samples=600)
    of = {model: [row["id"] for row in rows(path) if row["model"] == model] for model in "ab"}
    assert of == {"a": [s.id for s in SENTENCES[:300]], "b": [s.id for s in SENTENCES[300:600]]}


def test_both_workflows_with_several_samples(tmp_path):
    some = SENTENCES[:10]
    draw(tmp_path / "same.jsonl", sentences=some[:5], samples=2)
    draw(tmp_path / "same.jsonl", sentences=some[:5], samples=2, model="b", resume=True)
    assert len(rows(tmp_path / "same.jsonl")) == 20
    path = tmp_path / "next.jsonl"
    draw(path, sentences=some, samples=2, max_samples=10)
    with pytest.raises(KeyboardInterrupt, match="3 of 10 samples were drawn and are kept"):
        draw(path, Fixed(stop_after=3), some, model="b", samples=2, skip_labelled=True, max_samples=20)
    draw(path, Fixed(), some, model="b", samples=2, skip_labelled=True, max_samples=20)  # finishes what it began
    of = {model: Counter(row["id"] for row in rows(path) if row["model"] == model) for model in "ab"}
    assert of == {"a": dict.fromkeys([s.id for s in some[:5]], 2), "b": dict.fromkeys([s.id for s in some[5:]], 2)}


def test_an_existing_file_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "samples.jsonl"
    draw(path, sentences=SENTENCES[:2])
    before = path.read_bytes()
    with pytest.raises(UserError, match="holds 2 samples already") as told:
        draw(path, sentences=SENTENCES[:2])
    assert "--resume" in str(told.value) and path.read_bytes() == before


def test_resume_draws_what_is_missing_as_if_nothing_had_happened(tmp_path):
    path, whole = tmp_path / "cut.jsonl", tmp_path / "whole.jsonl"
    draw(whole, sentences=SENTENCES[:9], samples=4)
    lines = whole.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:13:2]) + lines[20][:25])  # some are gone, the last one is torn
    asked = Fixed()
    draw(path, sentences=SENTENCES[:9], samples=4, resume=True)
    assert by_key(path) == by_key(whole)
    draw(path, asked, SENTENCES[:9], samples=4, resume=True)
    assert asked.asked == []
    draw(path, sentences=SENTENCES[:9], samples=6, resume=True)  # more samples of each
    assert len(rows(path)) == 54 and by_key(whole).items() <= by_key(path).items()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 2}, "seed (was 1, is 2)"),
        ({"settings": SamplingSettings(samples=1, temperature=0.5)}, "temperature (was 1.0, is 0.5)"),
        ({"types": ("person",)}, "asked otherwise"),
        ({"instruction": "What is named in {text}?"}, "asked otherwise"),
    ],
)
def test_a_file_of_other_prompts_or_settings_is_refused(tmp_path, change, told):
    path = tmp_path / "samples.jsonl"
    draw(path, sentences=SENTENCES[:2])
    before = path.read_bytes()
    given = {"types": TYPES, "settings": SamplingSettings(samples=1), "seed": 1, **change}
    with pytest.raises(UserError) as error:
        sample_inputs(Fixed(), SENTENCES[:3], model_name="a", journal_path=path, resume=True, **given)
    assert told in str(error.value) and path.read_bytes() == before


def test_what_does_not_decide_the_samples_may_change(tmp_path):
    path = tmp_path / "samples.jsonl"
    draw(path, sentences=SENTENCES[:2])
    settings = SamplingSettings(samples=1, batch_tokens=99, retries=1, timeout=5)
    drawn = sample_inputs(
        Fixed(), SENTENCES[:3], types=TYPES, settings=settings, model_name="a", seed=1, journal_path=path, resume=True
    )
    assert len(drawn) == 3


def test_settings_that_drew_nothing_do_not_bind(tmp_path):
    class Broken(Fixed):
        def sample(self, requests):
            raise UserError("no such model")

    path = tmp_path / "samples.jsonl"
    with pytest.raises(UserError, match="no such model"):
        draw(path, Broken(), SENTENCES[:2], seed=7)
    assert len(draw(path, sentences=SENTENCES[:2], seed=8)) == 2


def test_another_file_is_not_written_into(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "x", "model": "a", "sample": 0, "text": "mine"}) + "\n")
    with pytest.raises(UserError, match="row 1 is no sample"):
        draw(path, sentences=SENTENCES[:2], resume=True)


def test_a_sample_that_stands_twice_counts_once(tmp_path, capsys):
    path = tmp_path / "samples.jsonl"
    draw(path, sentences=SENTENCES[:2])
    path.write_bytes(path.read_bytes() * 2)
    file = read_samples(path)
    assert len(file.samples) == 2 and len(file.dropped) == 2 and "twice" in file.dropped[0]
    draw(path, sentences=SENTENCES[:3], resume=True, max_samples=3)
    assert len(read_samples(path).samples) == 3
    assert "stands there twice" in capsys.readouterr().err


def test_thinking_is_stripped_and_counted(tmp_path):
    text = '<think>Is Bo a person?</think>\n\n{"person": ["Bo"]}'
    (drawn,) = draw(tmp_path / "samples.jsonl", Fixed(text), SENTENCES[:1])
    assert (drawn.text, drawn.thinking) == ('{"person": ["Bo"]}', len("Is Bo a person?"))
    assert drawn.entities == [Entity(type="person", text="Bo")]


def test_an_answer_that_cannot_be_read_says_why(tmp_path):
    (drawn,) = draw(tmp_path / "samples.jsonl", Fixed("I see nobody."), SENTENCES[:1])
    assert drawn.entities is None and drawn.problem


def test_a_model_of_this_process_answers_the_same_alone_and_again(tmp_path):
    tokenizer = tiny_tokenizer()
    loaded = Loaded(tiny_model(seed=3), tokenizer, "tiny")
    settings = SamplingSettings(samples=3, max_new_tokens=8)
    given = {"types": TYPES, "settings": settings, "model_name": "tiny", "seed": 5}
    path = tmp_path / "samples.jsonl"
    together = sample_inputs(Embedded(lambda: loaded, settings), SENTENCES[:6], journal_path=path, **given)
    alone = [
        sample
        for sentence in SENTENCES[:6]
        for sample in draw_samples(Embedded(lambda: loaded, settings), [sentence], **given)
    ]
    assert [(s.id, s.sample, s.text) for s in together] == [(s.id, s.sample, s.text) for s in alone]
    assert len({s.text for s in together}) == 18
    assert all(s.tokens and s.logprob == pytest.approx(a.logprob, abs=1e-4) for s, a in zip(together, alone))
    assert all(s.logprob <= s.least_logprob < 0 for s in together)


def test_no_model_is_loaded_where_nothing_is_missing(tmp_path):
    path = tmp_path / "samples.jsonl"
    draw(path, sentences=SENTENCES[:2])
    unloadable = Embedded(lambda: pytest.fail("loaded"), SamplingSettings())
    assert len(draw(path, unloadable, SENTENCES[:2], resume=True)) == 2


def test_a_full_disk_ends_the_drawing_and_keeps_what_was_written(tmp_path, monkeypatch):
    path = tmp_path / "samples.jsonl"

    class Full(disk.System):
        def write(self, file, data):
            if b'"id":"s7"' in data:
                raise OSError(28, "No space left on device")
            super().write(file, data)

    monkeypatch.setattr(disk, "system", Full())
    with pytest.raises(UserError, match="No space left"):
        draw(path, sentences=SENTENCES[:50])
    assert len(rows(path)) < 50
    monkeypatch.undo()
    draw(path, sentences=SENTENCES[:50], resume=True)
    assert len(rows(path)) == 50


def test_a_row_is_in_the_file_at_once_and_nobody_waits_for_the_disk(tmp_path, monkeypatch):
    path, at_disk, go_on = tmp_path / "rows.jsonl", threading.Event(), threading.Event()

    class Slow(disk.System):
        def fsync(self, file):
            at_disk.set()
            assert go_on.wait(10)

    with Journal(path) as journal:
        monkeypatch.setattr(disk, "system", Slow())
        writer = Writer(journal)
        for number in range(3):
            writer.add([{"n": number}])
            assert len(rows_of(path)) == number + 1
        assert at_disk.wait(10)
        go_on.set()
        writer.close()


def test_a_disk_that_fails_later_is_told(tmp_path, monkeypatch):
    class Failing(disk.System):
        def fsync(self, file):
            raise OSError(28, "No space left on device")

    with Journal(tmp_path / "rows.jsonl") as journal:
        monkeypatch.setattr(disk, "system", Failing())
        writer = Writer(journal)
        writer.add([{"n": 0}])
        with pytest.raises(UserError, match="No space left"):
            writer.close()


def rows_of(path):
    return read_journal(path).rows


def test_mock_answers_agree_more_where_they_are_right(tmp_path):
    some = SENTENCES[:120]
    drawn = draw(tmp_path / "samples.jsonl", sentences=some, samples=8, model="mock")
    assert drawn == draw(tmp_path / "again.jsonl", sentences=some, samples=8, model="mock")
    gold = {s.id: [(e.type, e.text) for e in s.entities or ()] for s in some}
    numbers = account(drawn, gold)["mock"]
    assert 0.5 < numbers["f1"] < 0.95 and numbers["label_f1"] > numbers["f1"]
    assert 0 < numbers["unreadable"] < 0.1
    with pytest.raises(UserError, match="has no labels"):
        Mock([some[0].model_copy(update={"entities": None})], TYPES)


def test_the_account_by_hand():
    def sample(model, id, number, said, **more):
        entities = None if said is None else [Entity(type="person", text=name) for name in said]
        return Sample(id=id, model=model, sample=number, seed=0, prompt_sha256="", text="", entities=entities, **more)

    some = [
        sample("a", "x", 0, ["Bo"], logprob=-2.0, tokens=4),
        sample("a", "x", 1, ["Bo"], logprob=-4.0, tokens=4, thinking=7),
        sample("a", "y", 0, [], finish="length"),
        sample("a", "y", 1, None),
        sample("b", "x", 0, ["Bo", "Di"]),
        sample("b", "z", 0, ["Di"]),
    ]
    found = account(some, {"x": [("person", "Bo")]})
    assert found["a"] == {
        "samples": 4, "inputs": 2, "unreadable": 0.25, "empty": 0.25, "cut_off": 0.25, "thinking": 0.25,
        "entities": pytest.approx(2 / 3), "logprob": pytest.approx(-0.75), "agreement": 0.75, "f1": 1, "label_f1": 1,
    }  # fmt: skip
    assert found["b"]["f1"] == pytest.approx(2 / 3) and found["b"]["agreement"] is None
    assert agreements(some) == [{"models": ["a", "b"], "inputs": 1, "f1": pytest.approx(2 / 3), "same": 0}]
