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
    contradiction,
    flagged_at,
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
