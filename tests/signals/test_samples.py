"""Pseudo-labels and their signals against numbers worked out by hand, and the bias against many entities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from equipoise.errors import UserError
from equipoise.records import Entity, Sample
from equipoise.signals.samples import SIGNALS, PseudoLabel, cap_empty, comparable, pseudo_label, signal

ANN, BOB, OSLO = ("person", "Ann"), ("person", "Bob"), ("place", "Oslo")


def sample(number, pairs, *, logprob=None, tokens=None, name="x", model="m"):
    entities = None if pairs is None else [Entity(type=kind, text=text) for kind, text in pairs]
    return Sample(
        id=name,
        model=model,
        sample=number,
        seed=number,
        prompt_sha256="0",
        text="",
        entities=entities,
        logprob=logprob,
        tokens=tokens,
    )


def labelled(*answers, **options):
    return pseudo_label([sample(i, pairs) for i, pairs in enumerate(answers)], **options)


# ---- labels


def test_the_largest_cluster_is_the_label_whatever_the_order_within():
    found = labelled([ANN, OSLO], [OSLO], [OSLO, ANN])
    assert found.entities == (ANN, OSLO) and found.samples == found.valid == 3


def test_of_equal_clusters_the_one_nearest_to_all_wins():
    assert labelled([BOB], [ANN, OSLO], [ANN]).entities == (ANN, OSLO)  # the only one that overlaps with another first
    assert labelled([BOB], [ANN]).entities == (BOB,)


def test_a_majority_label_takes_each_entity_by_its_own_votes():
    found = labelled([ANN, OSLO], [ANN, BOB], [OSLO, BOB], [ANN, OSLO, OSLO], label="majority")
    assert found.entities == (ANN, OSLO)  # 3, 3 and 2 votes of 4; the second Oslo has one
    assert labelled([ANN, ANN], [ANN, ANN], [ANN], label="majority").entities == (ANN, ANN)
    assert labelled([ANN], [BOB], label="majority").empty


def test_what_cannot_be_read_votes_for_nothing_and_not_for_an_empty_label():
    found = labelled(None, None, None, [ANN])
    assert found.entities == (ANN,) and found.valid == 1
    assert found.signals["exact"] == 0.25 and found.signals["votes"] == 0.25 and found.signals["consensus"] == 0
    lost = labelled(None, None)
    assert lost.empty and lost.valid == 0 and set(lost.signals.values()) == {0.0}


# ---- signals


def test_signals_by_hand():
    found = labelled([ANN, OSLO], [ANN, OSLO], [ANN], [BOB])
    # F1 of the pairs: 1 (first two), 2/3 twice (with the third), 0 three times
    assert found.signals["exact"] == 0.5
    assert found.signals["consensus"] == pytest.approx((1 + 4 / 3) / 6)
    assert found.signals["votes"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert found.signals["entropy"] == pytest.approx(1 - 1.5 * math.log(2) / math.log(4))
    assert "logprob" not in found.signals
    combined = (math.sqrt(0.5) + 7 / 18 + 0.625) / 3
    assert found.signals["combined"] == pytest.approx(combined)


def test_logprob_is_that_of_the_samples_that_say_the_label():
    said = [
        sample(0, [ANN], logprob=math.log(0.5) * 4, tokens=4),
        sample(1, [ANN], logprob=math.log(0.5) * 2, tokens=2),
        sample(2, [BOB], logprob=-50.0, tokens=2),
        sample(3, None, logprob=-1.0, tokens=2),
    ]
    assert pseudo_label(said).signals["logprob"] == pytest.approx(0.5)


def test_full_agreement_and_none():
    agreed, none = labelled(*[[ANN, OSLO]] * 8), labelled(*[[("person", str(i))] for i in range(8)])
    assert all(agreed.signals[name] == pytest.approx(1) for name in agreed.signals)
    assert none.signals["exact"] == 1 / 8 and none.signals["consensus"] == 0
    assert none.signals["entropy"] == pytest.approx(0, abs=1e-12)
    assert labelled([], []).signals["votes"] == 1
    assert labelled([ANN]).signals == {"exact": 1, "consensus": 1, "votes": 1, "entropy": 1, "combined": 1}


answers = st.none() | st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"])), max_size=4)


@given(st.lists(answers, min_size=1, max_size=9), st.sampled_from(["largest", "majority"]), st.randoms())
def test_signals_are_shares_and_depend_on_no_order(said, label, shuffled):
    found = labelled(*said, label=label)
    assert all(0 <= value <= 1 for value in found.signals.values())
    rows = [sample(i, pairs) for i, pairs in enumerate(said)]
    shuffled.shuffle(rows)
    assert pseudo_label(rows, label=label) == found


def test_samples_of_several_models_or_inputs_need_a_choice():
    with pytest.raises(UserError, match="2 models"):
        pseudo_label([sample(0, [ANN]), sample(0, [ANN], model="n")])
    with pytest.raises(UserError, match="0 inputs"):
        pseudo_label([])


def test_a_signal_that_a_backend_does_not_tell_is_asked_for_in_vain():
    with pytest.raises(UserError, match="no logprob"):
        signal([labelled([ANN])], "logprob")
    with pytest.raises(UserError, match="no such signal"):
        signal([], "votez")
    assert signal([labelled([ANN], [BOB])], "exact").tolist() == [0.5]


# ---- few and many entities


def simulated(n=1500, k=8, seed=0):
    """Sentences of 0 to 6 entities with a reliability of their own, that of each of their entities, drawn alike."""
    rng = np.random.default_rng(seed)
    labels, reliability, counts = [], [], []
    for i in range(n):
        count, sure = int(rng.integers(0, 7)), float(rng.beta(4, 2))
        rows = []
        for j in range(k):
            kept = [("t", f"e{e}") if rng.random() < sure else ("t", f"w{rng.integers(9)}") for e in range(count)]
            rows.append(sample(j, kept, name=str(i)))
        labels.append(pseudo_label(rows))
        reliability.append(sure)
        counts.append(count)
    return labels, np.array(reliability), np.array(counts)


def rank(a, b):
    return float(stats.spearmanr(a, b).statistic)


def test_agreement_prefers_few_entities_and_comparable_confidence_does_not():
    labels, reliability, counts = simulated()
    some = counts > 0
    exact, combined = signal(labels, "exact"), signal(labels, "combined")
    assert rank(exact, counts) < -0.7  # the bias
    assert abs(rank(combined[some], counts[some])) < 0.3  # what is left once it counts by entity
    for values in (exact, combined):
        even = comparable(values, [len(label.entities) for label in labels])
        assert abs(rank(even, counts)) < 0.1
        assert rank(even[some], reliability[some]) > rank(values[some], reliability[some]) + 0.01
        # of the surest tenth about as many are empty as of all, where most were
        first = np.argsort(-values, kind="stable")[:150]
        fair = np.argsort(-even, kind="stable")[:150]
        assert (counts[first] == 0).mean() > 0.8
        assert (counts[fair] == 0).mean() < 0.3


def test_comparable_by_hand():
    # among four labels with one entity and four with two, the k-th surest of each gets the middle of ranks 2k-1 and 2k
    confidence = [0.8, 0.6, 0.4, 0.2, 0.7, 0.5, 0.3, 0.1]
    even = comparable(confidence, [1, 1, 1, 1, 2, 2, 2, 2], group=4)
    assert even.tolist() == pytest.approx([0.75, 0.55, 0.35, 0.15] * 2)
    assert comparable([0.9, 0.9, 0.1], [0, 0, 5], group=2).tolist() == comparable([0.9, 0.9, 0.1], [1, 1, 1]).tolist()


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=60), st.integers(1, 30))
def test_comparable_keeps_the_order_within_a_number_of_entities(rows, group):
    c, counts = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    even = comparable(c, counts.tolist(), group=group)
    assert c.min() <= even.min() and even.max() <= c.max()
    for count in set(counts.tolist()):
        own, new = c[counts == count], even[counts == count]
        order = np.argsort(own, kind="stable")
        assert (np.diff(new[order]) >= -1e-12).all()


def test_comparable_needs_a_number_of_entities_for_each():
    with pytest.raises(UserError, match="2 confidences and 1"):
        comparable([0.1, 0.2], [1])


# ---- empty labels


def made(name, *, empty=False, sure=0.5, valid=4):
    return PseudoLabel(name, () if empty else (ANN,), dict.fromkeys(SIGNALS, sure), 4, valid)


def test_the_share_of_empty_labels_is_capped_and_the_surest_stay():
    labels = [made(str(i)) for i in range(9)] + [made("a", empty=True, sure=0.2), made("b", empty=True, sure=0.9)]
    capped = cap_empty([*labels, made("c", empty=True, valid=0)], 0.1)
    assert [label.id for label in capped.kept] == [*"012345678", "b"]
    assert [label.id for label in capped.dropped] == ["a"] and [label.id for label in capped.unreadable] == ["c"]
    assert len(cap_empty(labels, 1.0).kept) == 11 and len(cap_empty(labels, 0.0).kept) == 9


@given(st.lists(st.booleans(), max_size=40), st.floats(0, 1))
def test_the_cap_holds_and_no_label_is_lost(empty, share):
    capped = cap_empty([made(str(i), empty=each) for i, each in enumerate(empty)], share)
    assert sum(label.empty for label in capped.kept) <= share * len(capped.kept) + 1e-6
    assert len(capped.kept) + len(capped.dropped) == len(empty)


def test_a_share_outside_its_range_is_refused():
    with pytest.raises(UserError, match="between 0 and 1"):
        cap_empty([], 1.5)
