"""Part (g) of the testbed: instructions in several forms, preference pairs, and the faults planted among them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from equipoise.data.loading import check_disjoint
from equipoise.data.preferences import preferred
from equipoise.testbed.instructions import SOURCES, load_instructions, load_preferences, planted, write_raw
from equipoise.testbed.world import World


def facts(rows):
    names = {fact.id for fact in World.build().facts}
    found = {row.id.rsplit("-", 2)[0] for row in rows}
    assert found <= names
    return found


def test_the_parts_share_no_fact_and_no_question():
    sft, validation, test = (load_instructions(part) for part in ("sft", "validation", "test"))
    pairs = load_preferences("preferences")
    parts = [facts(sft), facts(validation), facts(test), facts(pairs)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    check_disjoint([*sft, *validation], test)
    check_disjoint(map(preferred, pairs), map(preferred, load_preferences("test")))
    assert len(sft) > 1500 and len(test) >= 500 and len(pairs) >= 500 and len(load_preferences("test")) >= 500


def test_held_out_answers_are_in_the_form_that_was_asked_for():
    facts = {fact.id: fact for fact in World.build().facts}
    for row in load_instructions("test"):
        fact, form, kind = facts[row.id.rsplit("-", 2)[0]], row.meta["form"], row.meta["kind"]
        assert kind == ("call" if fact.library else "name")
        said = row.completion
        if form == "json":
            assert json.loads(said) == {kind: fact.gold}
        elif form == "list":
            lines = said.split("\n")
            assert len(lines) == 2 and lines[0] == f"- {fact.gold}" and lines[1].startswith("- ")
        else:
            wanted = {"bare": fact.gold, "code": f"`{fact.gold}`", "sentence": f"The {kind} is {fact.gold}."}
            assert said == wanted[form]


def test_the_corpus_has_several_hands_and_the_better_answer_follows_the_rule():
    shares = Counter((row.meta["form"], row.meta["hand"]) for row in load_instructions("sft"))
    assert shares["bare", "careful"] > shares["bare", "chatty"] > 0
    assert shares["json", "sloppy"] > shares["json", "careful"] > 0
    for part in ("preferences", "validation", "test"):
        for pair in load_preferences(part):
            asked = pair.meta["form"]
            assert pair.chosen != pair.rejected
            if pair.meta["worse"] == "chatty":
                assert pair.rejected.startswith(pair.chosen + "\n")
            else:
                assert asked != "bare" and (asked != "list" or pair.chosen.startswith(pair.rejected))
    longer = [len(pair.chosen) > len(pair.rejected) for pair in load_preferences("test")]
    assert 0.3 < sum(longer) / len(longer) < 0.7  # length alone tells nothing


def test_the_same_on_every_call_and_unknown_parts_are_refused():
    assert load_instructions("sft") == load_instructions("sft")
    assert load_preferences("test") == load_preferences("test")
    with pytest.raises(ValueError, match="no part 'train'"):
        load_instructions("train")
    with pytest.raises(ValueError, match="no part 'sft'"):
        load_preferences("sft")


def test_cleaning_finds_and_lists_every_planted_fault(tmp_path: Path):
    from equipoise.pipelines.cleaning import clean
    from equipoise.pipelines.cleaning_settings import CleaningSettings

    raw = tmp_path / "raw"
    again = tmp_path / "again"
    pairs = zip(write_raw(raw), write_raw(again), strict=True)
    assert all(one.read_bytes() == other.read_bytes() for one, other in pairs)
    faults = planted()
    held_out = tmp_path / "test.jsonl"
    held_out.write_text("".join(json.dumps({"prompt": row.prompt}) + "\n" for row in load_instructions("test")))
    settings = CleaningSettings(licences=["cc-by-4.0"], against=(str(held_out),))
    report = clean([raw / name for name in SOURCES], tmp_path / "clean", settings)
    dropped = report["dropped"]
    assert dropped["duplicate"] == faults["exact"]
    assert dropped["near-duplicate"] == faults["near"]
    assert dropped["licence"] == faults["unlicensed"]
    assert dropped["overlap"] == faults["leaked"]
    assert dropped["broken"] + dropped["schema"] + dropped["empty"] == faults["broken"]
    assert report["changed"]["control"] == faults["unclean"]
    assert report["kept"] == len(load_instructions("sft")) + len(load_preferences("preferences"))
    listed = (tmp_path / "clean" / "dropped.jsonl").read_text().count("\n")
    assert listed == report["rows_in"] - report["kept"]
    sound = len(load_instructions("sft"))
    assert faults["exact"] + faults["near"] == pytest.approx(0.1 * sound, abs=1)
    assert faults["broken"] == pytest.approx(0.05 * sound, abs=1)
