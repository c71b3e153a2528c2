"""What training changed: counted against what the untrained model knew, and never told where nothing can be seen."""

import pytest

from equipoise.protocols.analysis import analyze
from equipoise.protocols.collect import of_what_was_known
from equipoise.protocols.kept import cannot_tell, changes, cut_off, item_scores, knowledge, known_only, untrained_scores
from equipoise.records import Prediction, Preference, Result

SEEDS = (1, 2, 3)


def answer(method, item, score, *, task="locality", seed=0, output="", cut=False):
    row = {"method": method, "seed": seed, "task": task, "item": item, "prompt": f"{item}?", "gold": "g"}
    return Prediction(**row, output=output or f"{method} says {score}", score=score, cut=cut)


def preference(method, item, margin, *, task="correction", seed=0):
    row = {"method": method, "seed": seed, "task": task, "item": item, "new": "n", "old": "o"}
    return Preference(**row, logp_new=-10.0, logp_old=-10.0 - margin, tokens_new=2, tokens_old=2)


def known(rows, preferences=()):
    scores = item_scores(rows, preferences)
    return known_only(scores, untrained_scores(scores))


def test_a_share_to_keep_is_one_of_what_the_untrained_model_knew():
    """Of 8 facts the model knew 5 and loses 2 of them; one that it never knew comes in by chance."""
    before = [answer("untrained", f"f{i}", float(i < 5)) for i in range(8)]
    after = [answer("sft", f"f{i}", float(i < 3 or i == 7), seed=1) for i in range(8)]
    table = of_what_was_known(
        [Result(method="sft", seed=1, task="locality", metric="accuracy", value=0.5, n=8)], known(before + after)
    )
    values = {row.method: (row.value, row.n) for row in table}
    assert values == {"untrained": (1.0, 5), "sft": (0.6, 5)}
    assert knowledge(untrained_scores(item_scores(before, ()))) == {"locality": {"asked": 8, "right": 5}}


def test_what_was_lost_and_gained_is_listed_with_both_texts():
    before = [answer("untrained", f"f{i}", float(i < 2)) for i in range(4)]
    after = [answer("sft", f"f{i}", float(i in (0, 3)), seed=1) for i in range(4)]
    listed = {row["item"]: (row["change"], row["before"], row["after"]) for row in changes(before + after)}
    assert listed == {
        "f1": ("lost", "untrained says 1.0", "sft says 0.0"),
        "f3": ("gained", "untrained says 0.0", "sft says 1.0"),
    }
    updates = [answer("untrained", "u", 0.0, task="correction"), answer("sft", "u", 0.0, task="correction", seed=1)]
    assert [row["change"] for row in changes(updates)] == ["never known"]  # an update that failed is listed, too


def test_preferences_count_as_efficacy_and_as_what_was_preferred_before():
    before = [preference("untrained", "u", -3.0), preference("untrained", "k", 2.0, task="locality")]
    before.append(preference("untrained", "l", -2.0, task="locality"))
    after = [preference("sft", "u", 1.0, seed=1), preference("sft", "k", -0.1, task="locality", seed=1)]
    after.append(preference("sft", "l", 5.0, task="locality", seed=1))
    scores = {(row.method, row.task, row.item): row.score for row in known([], before + after)}
    assert scores == {
        ("untrained", "efficacy", "u"): 0.0,
        ("untrained", "preference kept", "k"): 1.0,
        ("sft", "efficacy", "u"): 1.0,
        ("sft", "preference kept", "k"): 0.0,
    }


@pytest.mark.parametrize(
    ("task", "right", "asked", "told"),
    [
        ("locality", 0, 12, False),
        ("locality", 4, 12, False),
        ("locality", 5, 12, True),
        ("locality", 3, 3, True),  # few rows, all known
        ("correction", 12, 12, False),
        ("correction", 0, 12, True),
    ],
)
def test_where_nothing_can_be_seen_no_verdict_is_given(task, right, asked, told):
    reasons = cannot_tell({task: {"asked": asked, "right": right}})
    assert (task not in reasons) == told
    assert told or f"{asked}" in reasons[task]


def rows(values):
    return [
        Result(method=arm, seed=seed, task=task, metric="accuracy", value=value, n=10)
        for arm, by_task in values.items()
        for task, of_seeds in by_task.items()
        for seed, value in zip(SEEDS, of_seeds)
    ]


def test_a_claim_on_a_measure_that_shows_nothing_cannot_be_told():
    good = {"correction": [0.9, 0.8, 0.9], "retention": [0.5, 0.6, 0.4]}
    table = rows({"sft": good, "r-eaft": good, "eaft": good})
    verdicts = {row["id"]: row for row in analyze(table, protocol="a", unmeasured={"retention": "why"})["hypotheses"]}
    assert verdicts["H2"]["verdict"] == "cannot tell" and "why" in verdicts["H2"]["sentence"]
    assert verdicts["H1"]["verdict"] != "cannot tell"


def test_two_arms_at_the_floor_cannot_be_told_apart():
    floor = {"correction": [0.0, 0.0, 0.0]}
    found = analyze(rows({"sft": {"correction": [0.9, 0.8, 0.9]}, "r-eaft": floor, "eaft": floor}), protocol="a")
    verdicts = {row["id"]: row["verdict"] for row in found["hypotheses"]}
    assert verdicts["H3"] == "cannot tell" and verdicts["H1"] == "not supported"


def test_nats_are_no_shares():
    values = {"sft": {"drift": [0.21, 0.22, 0.2]}, "r-eaft": {"drift": [0.11, 0.12, 0.13]}}
    table = [row.model_copy(update={"metric": "forward_kl", "higher_is_better": False}) for row in rows(values)]
    (row,) = analyze(table)["comparisons"]
    assert "%" not in row["sentence"] and "points" not in row["sentence"]


def test_the_share_of_answers_that_were_cut_off_is_counted_by_method():
    given = [answer("untrained", f"f{i}", 0.0, cut=i < 1) for i in range(4)] + [answer("sft", "f0", 1.0, seed=1)]
    assert cut_off(given) == {"untrained": 0.25, "sft": 0.0}
