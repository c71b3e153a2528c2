import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import equipoise
from equipoise.errors import UserError
from equipoise.objectives import fused_head, reaft, weighting
from equipoise.signals import tokens

NLL = torch.tensor([0.1, 2.0, 8.0], dtype=torch.float64)
H = torch.tensor([0.5, 0.9, 0.1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("sft", {}, [1.0, 1.0, 1.0]),
        ("dft", {}, [math.exp(-0.1), math.exp(-2.0), math.exp(-8.0)]),
        ("eaft", {}, [0.5, 0.9, 0.1]),
        ("eaft", {"power": 2.0}, [0.25, 0.81, 0.01]),
        # shocks 0.2, 2.222..., 80: below tau, below tau, clamped at 10 * tau
        ("r-eaft", {"eps": 1e-300}, [0.5, 0.9, 1 + 3 * 10]),
        # tau 2 shocks the second too: 1 + 1 * (2 / 0.9) / 2; tau 2 * clamp 4 caps the third
        ("r-eaft", {"tau": 2, "alpha": 1, "clamp": 4, "eps": 1e-300}, [0.5, 1 + 1 / 0.9, 5.0]),
        ("focal", {"gamma": 1}, [1 - math.exp(-0.1), 1 - math.exp(-2.0), 1 - math.exp(-8.0)]),
        ("focal", {"gamma": 0}, [1.0, 1.0, 1.0]),
        ("profit", {"threshold": 0.5}, [1.0, 0.0, 0.0]),
        ("stm", {}, [1.0, 0.0, 0.0]),
        ("stm", {"max_perplexity": 8}, [1.0, 1.0, 0.0]),
    ],
)
def test_weights_worked_by_hand(name, params, expected):
    w = equipoise.weighting(name, **params)(NLL, H)
    torch.testing.assert_close(w, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("params", "expected"), [({}, 0.6 / math.log(20)), ({"divisor": 3}, 0.2), ({"power": 2, "divisor": 1}, 0.36)]
)
def test_topk_entropy_is_divided_as_each_trainer_does(params, expected):
    w = equipoise.weighting("eaft-topk", **params)
    assert w.top_k == 20
    got = w(NLL[:1], H[:1], topk_entropy=torch.tensor([0.6], dtype=torch.float64))
    assert got.item() == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1)), min_size=1, max_size=20))
def test_no_correction_is_eaft(pairs):
    nll, h = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    assert torch.equal(equipoise.weighting("r-eaft", alpha=0)(nll, h), equipoise.weighting("eaft")(nll, h))


@given(
    nll=st.floats(0, 1e4),
    h=st.floats(0, 1),
    name=st.sampled_from(["sft", "dft", "eaft", "r-eaft", "focal", "profit", "stm"]),
)
def test_weights_stay_in_their_range_and_their_slopes_finite(nll, h, name):
    pair = torch.tensor([nll, h], dtype=torch.float64, requires_grad=True)
    w = equipoise.weighting(name)(pair[:1], pair[1:])
    assert 0 <= w.item() <= (31 if name == "r-eaft" else 1)
    if w.requires_grad:
        (slope,) = torch.autograd.grad(w.sum(), pair)
        assert slope.isfinite().all()


@pytest.mark.parametrize(("name", "params"), [("eaft", {"power": 0.5}), ("focal", {"gamma": 0.5})])
def test_fractional_powers_have_a_finite_slope_at_zero(name, params):
    pair = torch.zeros(2, requires_grad=True)
    w = equipoise.weighting(name, **params)(pair[:1], pair[1:])
    (slope,) = torch.autograd.grad(w.sum(), pair)
    assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equipoise.weighting("reaft"), "did you mean 'r-eaft'"),
        (lambda: equipoise.weighting("EAFT-top-k"), "did you mean 'eaft-topk'|known: dft"),
        (lambda: equipoise.weighting("r-eaft", taus=3), "did you mean 'tau'"),
        (lambda: equipoise.weighting("sft", tau=3), "no parameters"),
        (lambda: equipoise.weighting("r-eaft", tau=0), "tau must be finite and above 0"),
        (lambda: equipoise.weighting("r-eaft", tau=math.nan), "tau must be finite"),
        (lambda: equipoise.weighting("r-eaft", clamp=math.inf), "clamp must be finite"),
        (lambda: equipoise.weighting("r-eaft", alpha=-1), "alpha must be finite and at least 0"),
        (lambda: equipoise.weighting("r-eaft", alpha=True), "must be a number"),
        (lambda: equipoise.weighting("r-eaft", alpha="3"), "must be a number"),
        (lambda: equipoise.weighting("eaft-topk", k=20.0), "a whole number"),
        (lambda: equipoise.weighting("eaft-topk", k=0), "at least 1"),
        (lambda: equipoise.weighting("eaft-topk", divisor=0), "divisor must be finite and above 0"),
        (lambda: equipoise.weighting("profit", threshold=1), "below 1"),
        (lambda: weighting.as_weighting(3), "is not a weighting"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_named_with_what_to_do(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_every_weighting_documents_itself():
    for name in weighting.names():
        sheet = equipoise.weighting(name).function.func.__doc__  # type: ignore[attr-defined]
        assert "When to use:" in sheet and f'weighting("{name}"' in sheet, name


@pytest.mark.parametrize("module", [weighting, fused_head, reaft, tokens], ids=lambda m: m.__name__)
def test_examples_in_docstrings_are_true(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0
