"""Entities of answers, and their scores: by hand, by properties, and beside nervaluate."""

import json
import math
import sys
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nervaluate import Evaluator

from equipoise.metrics.entities import (
    Counts,
    answer,
    by_type,
    canonical,
    counts,
    exact,
    micro,
    parse,
    sentence_f1,
    soft_token_f1,
    strip_thinking,
)

TYPES = ("person", "place")
ANN, OSLO, ROME = ("person", "Ann Lee"), ("place", "Oslo"), ("place", "Rome")
words = st.lists(st.sampled_from(["Ann", "Lee", "Oslo", "of"]), min_size=1, max_size=3).map(" ".join)
entities = st.lists(st.tuples(st.sampled_from(TYPES), words), max_size=5)
said = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(
    lambda text: bool(text.split())
)
anything = st.lists(st.tuples(said, said))


@pytest.mark.parametrize(
    "text",
    [
        '{"person": ["Ann Lee"], "place": ["Oslo", "Rome"]}',
        ' {"person":["Ann  Lee "],"place":["Oslo","\\u0052ome"],"group":[]}\n',
        '[{"type": "person", "text": "Ann Lee"}, {"type": "place", "text": "Oslo", "start": 9}, '
        '{"label": "place", "name": "Rome"}]',
        '[{"entity": "Ann Lee", "type": "person"}, {"entity": "place", "text": "Oslo"}, '
        '{"entity": "place", "name": "Rome"}]',
        '[["person", "Ann Lee"], ["place", "Oslo"], ["place", "Rome"]]',
        '{"entities": {"person": ["Ann Lee"], "place": ["Oslo", "Rome"]}}',
        '{"entities": [["person", "Ann Lee"], ["place", "Oslo"], ["place", "Rome"]]}',
        '```json\n{"person": ["Ann Lee"], "place": ["Oslo", "Rome"]}\n```',
        '```\n{"person": ["Ann Lee"], "place": ["Oslo", "Rome"]}```\n',
    ],
)
def test_forms_of_an_answer(text):
    parsed = parse(text, TYPES)
    assert (parsed.entities, parsed.valid, parsed.problem) == ((ANN, OSLO, ROME), True, None)


@pytest.mark.parametrize(
    "text",
    [
        'Sure [1], {as asked}: {"place": ["Oslo"]}',
        '{"place": ["Oslo"]} I hope this helps [see "above"].',
        'Here:\n```json\n{"place": ["Oslo"]}\n```\nand {"place": ["Rome"]}',
    ],
)
def test_text_around_the_first_value_is_passed_over_and_remarked_on(text):
    parsed = parse(text, TYPES)
    assert (parsed.entities, parsed.valid, parsed.problem) == ((OSLO,), True, "text around the JSON")


@pytest.mark.parametrize("text", ["{}", "[]", '{"entities": []}', '{"person": []}', "```json\n{}\n```"])
def test_nothing_found_is_an_answer(text):
    parsed = parse(text)
    assert (parsed.entities, parsed.valid, parsed.problem) == ((), True, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "nothing was written"),
        (" \n", "nothing was written"),
        ("Ann Lee lives in Oslo", "no JSON"),
        ("{'person': 'Ann'}", "no JSON"),
        ('"Ann"', "no JSON"),
        ("[1, 2]", "no JSON"),
        ("null", "no JSON"),
        ('{"person": ["Ann"', "cut off"),
        ('{"person": ["An', "cut off"),
        ('{"person": ["Ann"], "place": {}', "cut off"),
        ('{"entities": [["person", "Ann"]], "place" []}', "broken JSON"),
        ('{"person": ["Ann"] "place": []}', "broken JSON"),
        ('{"person": ["Ann"],}', "broken JSON"),
        ('{"person": ["Ann"], "person": ["Bob"]}', "stands twice"),
        ('{"person": [NaN]}', "NaN"),
        ('{"person": [Infinity]}', "Infinity"),
        ('{"person": [' + "9" * 5000 + "]}", "5000 digits"),
        ('[{"type": "person", "text": "Ann", "start": -' + "9" * 5000 + "}]", "5001 digits"),
        ('{"person": "Ann"}', "list of texts"),
        ('{"type": "person", "text": "Ann"}', "list of texts"),
        ('{"person": null}', "list of texts"),
        ('{"person": [1]}', "no string"),
        ('{"person": [["Ann"]]}', "no string"),
        ('{"person": [true, null]}', "no string"),
        ('{"person": [""]}', "empty"),
        ('{"": ["Ann"]}', "empty"),
        ('{"person": [" \\n"]}', "empty"),
        ('["Ann"]', "entities"),
        ('[["person", "Ann", "Lee"]]', "entities"),
        ('[{"type": "person"}]', "entities"),
        ('[{"entity": "Ann"}]', "entities"),
        ('[{"type": "person", "text": ["Ann"]}]', "no string"),
        ('{"person": ["\\ud800"]}', "half a character"),
        ('{"person": ["\ud800"]}', "half a character"),
        ('{"person": ["a\\u0000"]}', "NUL"),
        ("[" * 100_000, "deep"),
        ('{"a":' * 100_000, "deep"),
        ('{"person": ' + "[" * 50_000 + "]" * 50_000 + "}", "deep"),
    ],
)
def test_what_cannot_be_read_is_invalid_and_says_why(text, problem):
    parsed = parse(text, TYPES)
    assert (parsed.entities, parsed.valid) == ((), False)
    assert parsed.problem is not None
    assert problem in parsed.problem
    assert len(parsed.problem) < 80
    parsed.problem.encode()


def test_types_that_nobody_asked_for_are_kept_and_count_as_wrong():
    parsed = parse('{"person": ["Ann Lee"], "p\\n\u00e9t": ["Rex"]}', TYPES)
    assert parsed.valid
    assert parsed.problem == "no type that was asked for: p \\xe9t"
    assert counts(parsed.entities, [ANN]) == Counts(1, 1, 0)


def test_only_white_space_and_the_composition_of_accents_make_no_difference():
    assert exact([("place", " Malm\u00f6  Syd ")], [("place", "Malmo\u0308 Syd")])
    assert not exact([("place", "oslo")], [OSLO])
    assert not exact([("place", "Oslo.")], [OSLO])


@given(st.text() | st.text(alphabet='[]{}",:aé\\1 `'))
def test_no_text_is_an_exception(text):
    parsed = parse(text, TYPES)
    assert parsed.valid or (parsed.entities == () and parsed.problem)


@given(anything)
def test_an_answer_is_read_as_what_it_names(pairs):
    parsed = parse(answer(pairs))
    assert parsed.valid
    assert parsed.problem is None
    assert exact(parsed.entities, pairs)
    assert answer(parsed.entities) == answer(pairs)


def test_an_answer_names_types_and_texts_in_order_of_first_occurrence():
    assert answer([OSLO, ANN, ("place", " Åre"), OSLO]) == '{"place": ["Oslo", "Åre", "Oslo"], "person": ["Ann Lee"]}'
    assert answer([]) == "{}"


def test_thinking_is_stripped_and_counted():
    assert strip_thinking("<think>hm</think>\n\n{}") == ("{}", 2)
    assert strip_thinking("<think>\n\n</think>\n\n{}") == ("{}", 0)
    assert strip_thinking('<think>{"place": ["Oslo"]}') == ("", 19)
    assert strip_thinking("hm</think>{}") == ("{}", 2)
    assert strip_thinking("<think>a</think>{}<think>bc") == ("{}", 3)
    assert strip_thinking(" {} ") == (" {} ", 0)


def test_counts_by_hand():
    gold = [ANN, OSLO, OSLO, ROME]
    predicted = [OSLO, ("person", "Ann"), ("place", "Ann Lee"), ROME, ROME]
    scored = counts(predicted, gold)
    assert scored == Counts(tp=2, fp=3, fn=2)
    assert (scored.precision, scored.recall, scored.f1) == (2 / 5, 2 / 4, 4 / 9)
    assert sentence_f1(predicted, gold) == 4 / 9


def test_nothing_there_and_nothing_found_is_right_and_one_sided_is_wrong():
    for predicted, gold, wanted in (([], [], 1.0), ([OSLO], [], 0.0), ([], [OSLO], 0.0)):
        scored = counts(predicted, gold)
        assert {scored.precision, scored.recall, scored.f1, soft_token_f1(predicted, gold)} == {wanted}
    assert micro([]).f1 == 1


def test_gibberish_scores_nothing():
    gibberish = parse("colourless green ideas").entities
    assert sentence_f1(gibberish, [ANN]) == soft_token_f1(gibberish, [ANN]) == 0


def test_a_corpus_is_counted_and_not_averaged():
    sentences = [([ANN], [ANN]), ([OSLO], [ROME, ROME, ROME]), ([], [])]
    assert micro(sentences) == Counts(1, 1, 3)
    assert micro(sentences).f1 == 2 / 6
    assert by_type(sentences) == {"person": Counts(1, 0, 0), "place": Counts(0, 1, 3)}


@given(st.lists(st.tuples(entities, entities), max_size=4))
def test_types_add_up_to_the_corpus(sentences):
    assert sum(by_type(sentences).values(), Counts()) == micro(sentences)


@given(entities, entities, st.randoms())
def test_scores_of_sentences(predicted, gold, random):
    shuffled = random.sample(gold, len(gold))
    assert canonical(gold) == canonical(shuffled)
    assert sentence_f1(gold, shuffled) == soft_token_f1(gold, shuffled) == 1
    strict, soft = sentence_f1(predicted, gold), soft_token_f1(predicted, gold)
    assert 0 <= strict <= soft + 1e-12 <= 1 + 1e-12
    assert soft == pytest.approx(soft_token_f1(gold, predicted))
    assert (soft == 1) == (strict == 1) == exact(predicted, gold)


def similarity(one: list[str], other: list[str]) -> float:
    """The F1 of the longest common subsequence, by trying all subsequences."""
    subsequences = [
        {tuple(w for i, w in enumerate(ws) if k >> i & 1) for k in range(2 ** len(ws))} for ws in (one, other)
    ]
    return 2 * max(map(len, subsequences[0] & subsequences[1])) / (len(one) + len(other))


@given(entities, entities)
def test_the_soft_score_is_that_of_the_best_matching(predicted, gold):
    total = 0.0
    for kind in TYPES:
        few, many = sorted(([w.split() for k, w in side if k == kind] for side in (predicted, gold)), key=len)
        total += max(sum(map(similarity, few, order)) for order in permutations(many, len(few)))
    wanted = 2 * total / (len(predicted) + len(gold)) if predicted or gold else 1
    assert math.isclose(soft_token_f1(predicted, gold), wanted, abs_tol=1e-12)


def test_the_soft_score_by_hand():
    # "Ann" to "Ann Lee": 2 x 1 / (1 + 2); Oslo is right; Bob overlaps nothing
    predicted = [("person", "Ann"), OSLO, ("person", "Bob")]
    assert soft_token_f1(predicted, [ANN, OSLO]) == pytest.approx(2 * (2 / 3 + 1) / 5)
    assert soft_token_f1([("place", "Ann Lee")], [ANN]) == 0
    assert soft_token_f1([("person", "Lee Ann")], [ANN]) == 0.5
    # a greedy match of "a b" to itself would leave "b" and "a" without overlap
    assert soft_token_f1([("x", "a b"), ("x", "b")], [("x", "a b"), ("x", "a")]) == pytest.approx(2 * (4 / 3) / 4)


spans = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3), st.sampled_from(TYPES)), max_size=5)


def laid_out(chosen: list[tuple[int, int, str]]) -> list[dict]:
    """Spans of a sentence of ten words that do not overlap, as nervaluate wants them, ends included."""
    laid, free = [], 0
    for start, length, kind in sorted(chosen):
        if start >= free:
            laid.append({"label": kind, "start": start, "end": start + length - 1})
            free = start + length
    return laid


@given(st.lists(st.tuples(spans.map(laid_out), spans.map(laid_out)), min_size=1, max_size=4))
def test_strict_scores_are_those_of_nervaluate(sentences):
    """Where no two words of a sentence are equal, a text stands in one place and texts say what spans say."""

    def texts(side: list[dict]) -> list[tuple[str, str]]:
        return [(s["label"], " ".join(f"w{at}" for at in range(s["start"], s["end"] + 1))) for s in side]

    judged = Evaluator(
        [gold for _, gold in sentences], [found for found, _ in sentences], tags=list(TYPES), loader="dict"
    ).evaluate()
    scored = micro((texts(found), texts(gold)) for found, gold in sentences)
    strict = judged["overall"]["strict"]
    assert (scored.tp, scored.tp + scored.fp, scored.tp + scored.fn) == (strict.correct, strict.actual, strict.possible)
    if scored != Counts():
        assert (scored.precision, scored.recall) == (strict.precision, strict.recall)
        assert scored.f1 == pytest.approx(strict.f1)


def test_reading_an_answer_takes_no_recursion_limit_of_its_own():
    limit = sys.getrecursionlimit()
    parse("[" * 10_000)
    assert sys.getrecursionlimit() == limit


def test_long_broken_answers_are_read_in_a_blink():
    assert not parse('[["' * 200_000).valid
    assert not parse("[see " * 200_000).valid
    assert parse(json.dumps({"place": ["Oslo"] * 50_000})).valid
