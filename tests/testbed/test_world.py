"""The world is what its settings say: classes, counts, phrasings, and one text for one seed."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from equipoise.testbed.facts import CLASSES
from equipoise.testbed.parts.api import ApiChanges
from equipoise.testbed.parts.archive import Archive
from equipoise.testbed.world import PARTS, World, WorldSettings

REDUCED = WorldSettings(
    exposures=6,
    exposures_confident_wrong=9,
    exposures_uncertain=12,
    exposures_function=3,
    exposures_practice=2,
    changes=12,
    changes_confident_wrong=6,
    changes_uncertain=3,
    api_facts=14,
    api_stable=10,
    api_uncertain=2,
    functions=3,
    archive_stable=12,
    archive_confident_wrong=6,
    archive_uncertain=4,
    archive_unknown=4,
    hearsay=5,
)
RECORDED_HASH = "3f51e11cb6da45c92885f0450978bed1506deda75cdc9af79313a30e738045a4"


@pytest.fixture(scope="module")
def reduced() -> World:
    return World.build(REDUCED)


@pytest.fixture(scope="module")
def full() -> World:
    return World.build()


def test_the_reduced_world_has_the_recorded_text(reduced):
    assert reduced.text_hash == RECORDED_HASH


def test_another_process_with_another_hash_seed_writes_the_same_text(reduced):
    code = (
        "from equipoise.testbed.world import World, WorldSettings;"
        f"print(World.build(WorldSettings.model_validate_json('{REDUCED.model_dump_json()}')).text_hash)"
    )
    for hash_seed in ("1", "4242"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == reduced.text_hash


def test_another_seed_writes_another_text(reduced):
    assert World.build(REDUCED.model_copy(update={"seed": 8})).text_hash != reduced.text_hash


def test_importing_the_world_leaves_torch_unloaded():
    code = "import sys, equipoise.testbed.world; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sizes_by_part_and_class(full):
    """At least what the design asks for."""
    assert len(full.select("api_change")) >= 60
    assert len(full.select("api_change", "confident-wrong")) >= 60
    assert len(full.select("api_fact", "stable")) >= 250
    assert len(full.select("function")) >= 24
    for part in ("api_change", "archive"):
        for knowledge in ("confident-wrong", "uncertain", "unknown"):
            assert len(full.select(part, knowledge)) >= 20
    assert len(full.news) == full.settings.archive_confident_wrong


def test_the_text_states_each_fact_as_often_as_its_class_says(full):
    """Counted in the text itself, by prompt and answer."""
    counted = Counter((document.prompt, document.completion) for document in full.documents())
    for fact in full.facts:
        answers = Counter()
        for (prompt, answer), n in ((key, counted[key]) for key in _pairs(fact)):
            assert prompt in fact.prompts_seen
            answers[answer] += n
        assert answers == Counter(dict(fact.taught)), fact.id
    assert sum(counted.values()) == sum(n for f in full.facts for _, n in f.taught) + len(full.extra)


def _pairs(fact):
    return [(prompt, answer) for prompt in fact.prompts_seen for answer, _ in fact.taught]


def test_classes_are_as_constructed(full):
    settings = full.settings
    for fact in full.facts:
        exposures = dict(fact.taught)
        if fact.knowledge == "stable":
            assert list(exposures) == [fact.gold]
        elif fact.knowledge == "confident-wrong":
            assert exposures == {fact.old: settings.exposures_confident_wrong}
        elif fact.knowledge == "uncertain":
            assert len(exposures) >= 2 and fact.gold in exposures
            assert len(set(exposures.values())) == 1
        else:
            assert not exposures
    assert {fact.knowledge for fact in full.facts} == set(CLASSES)


def test_a_held_out_phrasing_never_occurs_but_its_template_does(full):
    shown = {document.prompt for document in full.documents()}
    for fact in full.facts:
        assert not shown & set(fact.prompts_held_out), fact.id
        assert len(fact.prompts_seen) == full.settings.phrasings_seen
        assert len(fact.prompts_seen) + len(fact.prompts_held_out) == 12
        assert (fact.knowledge != "unknown") == bool(shown & set(fact.prompts_seen))


def test_an_unknown_gold_can_be_said_but_is_never_an_answer_to_its_question(full):
    """Practice copies the string, so its tokens are not new to the model; no question leads to it."""
    practised = {document.completion for document in full.extra}
    for fact in full.select(knowledge="unknown"):
        assert fact.gold in practised
        assert not [d for d in full.extra if d.prompt in (*fact.prompts_seen, *fact.prompts_held_out)]


def test_parts_do_not_disturb_each_other(reduced):
    smaller = World.build(REDUCED.model_copy(update={"functions": 1, "api_facts": 3}))
    assert smaller.select("archive") == reduced.select("archive")
    assert smaller.select("api_change") == reduced.select("api_change")
    assert World.build(REDUCED, [Archive()]).select("archive") == reduced.select("archive")


def test_two_facts_that_ask_the_same_are_refused():
    with pytest.raises(ValueError, match="both claim"):
        World.build(REDUCED, [ApiChanges(), ApiChanges()])


def test_names_of_facts_are_unique_and_parts_are_named(full):
    assert len({fact.id for fact in full.facts}) == len(full.facts)
    assert {fact.part for fact in full.facts} == {part.name for part in PARTS}


@effort(max_examples=20, deadline=None)
@given(stable=st.integers(0, 30), wrong=st.integers(0, 30), unsure=st.integers(0, 30), seen=st.integers(1, 11))
def test_repetition_is_a_parameter(stable, wrong, unsure, seen):
    world = World.build(
        REDUCED.model_copy(
            update={
                "exposures": stable,
                "exposures_confident_wrong": wrong,
                "exposures_uncertain": unsure,
                "phrasings_seen": seen,
            }
        ),
        [Archive()],
    )
    said = Counter(document.prompt for document in world.documents())
    for fact in world.facts:
        expected = {"stable": stable, "confident-wrong": wrong, "uncertain": unsure // 4 * 4, "unknown": 0}
        assert sum(said[prompt] for prompt in fact.prompts_seen) == expected[fact.knowledge]
        assert len(fact.prompts_seen) == seen


def test_every_known_body_of_a_function_passes_its_tests(full):
    """The bodies and the tests are our own text, so they are run here directly."""
    for fact in full.select("function"):
        assert fact.solutions[0] == fact.gold
        for body in fact.solutions:
            namespace: dict = {}
            exec(body, namespace)
            exec(fact.tests, namespace)


def test_the_tests_of_a_function_catch_a_wrong_body(full):
    for fact in full.select("function"):
        name = fact.id.removeprefix("function-")
        namespace: dict = {}
        exec(f"def {name}(*args): return None", namespace)
        with pytest.raises((AssertionError, TypeError)):
            exec(fact.tests, namespace)
