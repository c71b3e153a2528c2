"""Classes of tokens, and the tau that parts conflicts from the rest."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.signals.classes import (
    CLASSES,
    CONFLICT,
    STABLE,
    UNCERTAIN,
    UNKNOWN,
    Thresholds,
    classify,
    conclusion,
    contradiction,
    flagged_at,
    reread,
    separating_delta,
    separating_tau,
)

tokens = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 1)), min_size=1, max_size=60)
vocabularies = st.integers(2, 300_000)


@pytest.mark.parametrize(
    ("probability", "entropy", "expected"),
    [(0.99, 0.05, STABLE), (0.4, 0.9, UNCERTAIN), (1e-6, 0.05, CONFLICT), (1e-6, 3.0, UNKNOWN)],
)
@pytest.mark.parametrize("vocab", [1000, 4_000, 152_000])
def test_the_classes_depend_on_nats_and_not_on_the_vocabulary(probability, entropy, expected, vocab):
    assert classify([-math.log(probability)], [entropy / math.log(vocab)], vocab).tolist() == [expected]


def test_the_borders_belong_to_sure_and_to_expected():
    limits = Thresholds(sure=0.5, plausible=0.25)
    h, nll = limits.sure_h(100), limits.surprising
    found = classify([nll, np.nextafter(nll, 9)] * 2, [h, h, np.nextafter(h, 1), np.nextafter(h, 1)], 100, limits)
    assert [CLASSES[c] for c in found] == ["stable", "conflict", "uncertain", "unknown"]


@given(tokens, vocabularies)
def test_more_surprise_never_makes_a_token_expected_and_more_entropy_never_sure(rows, vocab):
    nll, h = np.array(rows).T
    before = classify(nll, h, vocab)
    assert (classify(nll + 1, h, vocab) >= before).all()
    assert (classify(nll, np.minimum(h + 0.1, 1), vocab) % 2 >= before % 2).all()


@given(tokens, vocabularies)
def test_every_conflict_has_the_shock_that_the_definition_promises(rows, vocab):
    nll, h = np.array(rows).T
    limits = Thresholds()
    at = classify(nll, h, vocab) == CONFLICT
    least = limits.surprising / (limits.sure_h(vocab) + 1e-6)
    assert (nll[at] / (h[at] + 1e-6) >= least * (1 - 1e-9)).all()
    assert (contradiction(nll, h, vocab)[at] > limits.surprising - limits.sure - 1e-9).all()


@given(tokens)
def test_no_tau_finds_conflicts_better(rows):
    nll, h = np.array(rows).T
    classes = classify(nll, h, 4000)
    found = separating_tau(nll, h, classes)
    truth = classes == CONFLICT
    if found is None:
        assert not truth.any()
        return
    shock = nll / (h + 1e-6)

    def f1(flagged):
        return 2 * (flagged & truth).sum() / (flagged.sum() + truth.sum())

    best = max(f1(shock > cut) for cut in [-1, *(np.unique(shock) * (1 - 1e-12))])
    assert 2 * found["hits"] / (found["flagged"] + truth.sum()) == pytest.approx(best)
    assert found["precision"] == found["hits"] / found["flagged"]
    assert found["recall"] == found["hits"] / truth.sum()


def test_tau_lies_between_the_shocks_that_it_parts():
    nll, h = [10.0, 9.0, 3.0, 0.5], [0.001, 0.002, 0.3, 0.2]
    found = separating_tau(nll, h, classify(nll, h, 4000))
    assert found is not None
    assert 10.0 < found["tau"] < 9 / 0.002
    assert flagged_at(nll, h, found["tau"]) == found["flagged"] == found["hits"] == 2
    assert separating_tau([0.1], [0.001], [STABLE]) is None


def test_what_was_stable_stays_so_and_without_a_second_reading_nothing_changes():
    first = np.arange(4, dtype=np.int8)
    missing = np.full(4, np.nan)
    assert reread(first, missing, missing).tolist() == first.tolist()
    assert [CLASSES[c] for c in reread(first, [9.0] * 4, [-0.01] * 4)] == ["stable", "conflict", "conflict", "conflict"]
    assert [CLASSES[c] for c in reread(first, [0.1] * 4, [-0.1] * 4)] == ["stable", "uncertain", "form", "form"]
    opened = reread(first[3:], [9.0], [-0.01], opens=0)
    assert [CLASSES[c] for c in opened] == ["unknown"]


def test_a_long_answer_has_unlikely_tokens_even_where_it_is_known():
    classes = np.zeros(100, np.int8)
    classes[7] = CLASSES.index("unknown")
    nll = np.where(classes > 0, 4.0, 0.1)
    assert conclusion(classes, nll) == "known" and conclusion(classes[:10], nll[:10]) == "unknown"
    classes[7] = CLASSES.index("conflict")
    assert conclusion(classes, np.where(classes > 0, 9.0, 0.1)) == "contradicted"
    assert conclusion(classes * 0 + CLASSES.index("form"), nll) == "form"


def test_delta_parts_the_conflicts_by_their_tail():
    found = separating_delta([0.5, 1e-4, 0.3, 1e-5], [0, 2, 3, 2])
    assert found["precision"] == found["recall"] == 1 and 1e-4 < found["delta"] < 0.3
    assert separating_delta([0.5], [0]) is None
