import pytest

from equipoise.report.reading import RunData
from equipoise.report.synthetic_reading import SyntheticRun
from equipoise.report.synthetic_words import findings, points, probability, relation


def change(estimate, low, high, p=0.001, seeds=5, **more):
    tested = {"p": p, "p_holm": p, "ci": [low, high]} if seeds > 1 else {"p": None, "p_holm": None, "ci": None}
    return {"estimate": estimate, "bootstrap": [low, high], "n": 300, "seeds": seeds, **tested, **more}


def scores(target, source):
    means = {"f1": target, "valid": 0.9, "non_empty": 0.8}
    return {
        "target": {name: {"mean": mean, "low": None, "high": None} for name, mean in means.items()},
        "source": {"f1": {"mean": source, "low": None, "high": None}},
    }


def said(**analysis):
    run = SyntheticRun(RunData(None), {"arms": ["zero-shot", "curriculum", "sft"], "primary": "curriculum", **analysis})
    return {one.claim: one for one in findings(run)}


def with_changes(target, source):
    table = {"zero-shot": scores(0.4, 0.9), "curriculum": scores(0.6, 0.85), "sft": scores(0.7, 0.8)}
    return said(scores=table, changes={"curriculum": {"target": target, "source": source}})


NONE = change(0.0, -0.01, 0.01)


@pytest.mark.parametrize(
    ("row", "kind", "word"),
    [
        (change(0.2, 0.15, 0.25), "yes", "yes"),
        (change(-0.2, -0.25, -0.15), "no", "no, it fell"),
        (change(0.02, -0.01, 0.05), "open", "no difference shown"),
        (change(0.2, 0.0, 0.4), "open", "no difference shown"),
        (change(0.2, 0.15, 0.25, seeds=1), "open", "yes, in one run"),
    ],
)
def test_a_gain_is_claimed_only_where_its_interval_excludes_0(row, kind, word):
    found = with_changes(row, NONE)["Did curriculum improve the target domain?"]
    assert (found.kind, found.word) == (kind, word)
    assert "was 40.0% before training and is 60.0% after curriculum" in found.sentence
    assert points(row["estimate"]) in found.sentence


@pytest.mark.parametrize(
    ("row", "kind", "word"),
    [
        (change(-0.05, -0.08, -0.02), "no", "it lost"),
        (change(0.05, 0.02, 0.08), "yes", "it gained"),
        (change(-0.01, -0.03, 0.01), "open", "no change shown"),
    ],
)
def test_what_it_cost_on_the_source(row, kind, word):
    found = with_changes(NONE, row)["What did that cost on the source domain?"]
    assert (found.kind, found.word) == (kind, word)
    assert ("A loss of up to 3.0 points is not ruled out" in found.sentence) == (kind == "open")


WIN, LOSS = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05)
BEATS = "Is curriculum, named beforehand, better than the other ways to learn from the same labels?"


def contrast(against, *numbers, **more):
    return {"against": against, "note": None, **change(*numbers, **more)}


@pytest.mark.parametrize(
    ("rows", "kind", "sentence"),
    [
        ([contrast("sft", *WIN), contrast("naive", *WIN)], "yes", "Better than: sft, naive."),
        ([contrast("sft", *WIN), contrast("naive", *WIN, p=0.2)], "open", "Not told apart from: naive."),
        ([contrast("sft", *LOSS), contrast("naive", *WIN)], "no", "does not win. Better than: naive. Worse than: sft."),
        ([contrast("sft", 0.1, -0.05, 0.25)], "open", "not shown that curriculum wins. Not told apart from: sft."),
        ([contrast("sft", *WIN, seeds=1)], "open", "It is not shown that curriculum wins."),
    ],
)
def test_who_is_beaten_is_said_plainly(rows, kind, sentence):
    table = {"zero-shot": scores(0.4, 0.9), "curriculum": scores(0.6, 0.85), "sft": scores(0.7, 0.8)}
    zero = contrast("zero-shot", 0.2, 0.1, 0.3)  # is told elsewhere
    found = said(scores=table, contrasts=[zero, *rows])[BEATS]
    assert found.kind == kind
    assert sentence in found.sentence and "zero-shot" not in found.sentence
    assert "The highest mean target F1 has sft, 70.0%; curriculum has 60.0%." in found.sentence
    assert ("One seed" in found.details) == (rows[0]["seeds"] == 1)
    assert (f"{len(rows) + 1} comparisons" in found.details) == (rows[0]["seeds"] > 1)


@pytest.mark.parametrize(
    ("ends", "p", "expected"),
    [
        ([0.01, 0.2], 0.04, "better"),
        ([-0.2, -0.01], 0.04, "worse"),
        ([0.01, 0.2], 0.05, "open"),
        ([-0.01, 0.2], 0.01, "open"),
        (None, 0.01, "open"),
        ([0.01, 0.2], None, "open"),
    ],
)
def test_better_needs_both_the_test_and_the_interval(ends, p, expected):
    assert relation({"bootstrap": ends, "p_holm": p}) == expected


def test_numbers_in_words():
    assert (points(0.0614), points(-0.0614)) == ("+6.1", "−6.1")
    assert [probability(p) for p in (None, 0.0004, 0.0312)] == ["–", "< 0.001", "0.031"]


def test_without_changes_nothing_is_claimed():
    assert said() == {}
