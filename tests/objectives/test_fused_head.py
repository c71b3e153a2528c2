import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logits_oracle import mixed_tokens, plain_loss, plain_r_eaft, relative_error

import equipoise
from equipoise.errors import UserError
from equipoise.objectives.fused_head import fused_linear_loss

TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 1.5e-2, torch.float16: 2e-3}
FORMULAS = {
    "sft": lambda nll, h: torch.ones_like(nll),
    "dft": lambda nll, h: torch.exp(-nll).detach(),
    "eaft": lambda nll, h: h,
    "r-eaft": plain_r_eaft,
    "focal": lambda nll, h: (1 - torch.exp(-nll)) ** 2,
}


def compare(hidden, head, labels, name, *, bias=None, scale=1.0, cap=None, tolerance=None, **options):
    """Loss, statistics and every gradient of the fused head against plain autograd on the same rounded logits."""
    tolerance = tolerance or TOLERANCE[hidden.dtype]
    leaves = [None if t is None else t.clone().requires_grad_() for t in (hidden, head, bias)]
    fused = fused_linear_loss(
        leaves[0],
        leaves[1],
        labels,
        equipoise.weighting(name),
        bias=leaves[2],
        logit_scale=scale,
        softcap=cap,
        **options,
    )
    fused.loss.backward()
    with torch.no_grad():
        rounded = torch.nn.functional.linear(hidden, head, bias).double()
    raw = rounded.requires_grad_()
    z = raw * scale
    z = z if cap is None else cap * torch.tanh(z / cap)
    loss, nll, entropy, weights = plain_loss(
        z,
        labels,
        FORMULAS[name],
        detach=options.get("detach_weights", True),
        normalize=options.get("normalize", "tokens"),
    )
    (dz,) = torch.autograd.grad(loss, raw)
    keep = labels != -100
    assert fused.loss.item() == pytest.approx(loss.item(), rel=tolerance, abs=1e-7)
    small = 1e-10 if hidden.dtype == torch.float64 else 2e-4
    for got, expected in ((fused.nll, nll), (fused.entropy, entropy), (fused.weights, weights)):
        torch.testing.assert_close(got[keep].double(), expected.detach(), rtol=small, atol=small)
        assert not got[~keep].any()
    expected = [dz.nan_to_num() @ head.double(), dz.T @ hidden.double().nan_to_num(), dz.sum(0)]
    for leaf, grad in zip(leaves, expected):
        if leaf is not None:
            assert leaf.grad.dtype == leaf.dtype
            assert relative_error(leaf.grad, grad) < tolerance


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("normalize", ["tokens", "weights"])
@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_logits_path(name, detach, normalize, dtype):
    hidden, head, labels = mixed_tokens(37, 24, 101, dtype)
    labels[[0, 5, 20, 36]] = -100
    bias = torch.linspace(-1, 1, 101).to(dtype)
    # normalized through their own sum, fp rounding of large weights meets cancellation between tokens
    slack = 2 if normalize == "weights" and not detach else 1
    compare(
        hidden,
        head,
        labels,
        name,
        bias=bias,
        detach_weights=detach,
        normalize=normalize,
        tolerance=slack * TOLERANCE[dtype],
    )


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 40), width=st.integers(1, 17), vocab=st.integers(2, 67), seed=st.integers(0, 2**31),
    size=st.sampled_from([0.01, 1.0, 5.0]), name=st.sampled_from(list(FORMULAS)), detach=st.booleans(),
    scale=st.sampled_from([1.0, 0.0625, 3.0]), cap=st.sampled_from([None, 2.0, 30.0]),
)  # fmt: skip
def test_equals_the_logits_path_whatever_the_shape(tokens, width, vocab, seed, size, name, detach, scale, cap):
    g = torch.Generator().manual_seed(seed)
    hidden, head = (size * torch.randn(n, width, generator=g, dtype=torch.float64) for n in (tokens, vocab))
    labels = torch.randint(0, vocab, (tokens,), generator=g)
    labels[torch.rand(tokens, generator=g) < 0.3] = -100
    labels[0] = 0
    compare(hidden, head, labels, name, scale=scale, cap=cap, detach_weights=detach, tolerance=1e-7)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["sft", "eaft", "r-eaft"])
@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
def test_logits_of_two_hundred(dtype, name, detach):
    # An identity head makes the hidden states the logits, exactly, in every dtype.
    logits = torch.zeros(6, 9, dtype=dtype)
    logits[0, 3], logits[1, 3], logits[2] = 200, -200, torch.linspace(-200, 200, 9).to(dtype)
    logits[3] = 200
    logits[4, :2] = 200
    logits[5] = torch.linspace(-3, 3, 9).to(dtype)
    compare(logits, torch.eye(9, dtype=dtype), torch.tensor([3, 3, 0, 5, 1, 2]), name, detach_weights=detach)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize("name", ["eaft", "r-eaft"])
def test_logits_of_minus_infinity_are_legal(dtype, detach, name):
    hidden, head, labels = mixed_tokens(12, 8, 15, dtype)
    bias = torch.zeros(15, dtype=dtype)
    forbidden = [i for i in range(15) if i not in labels.tolist()][:3]
    bias[forbidden] = -math.inf
    compare(hidden, head, labels, name, bias=bias, detach_weights=detach)


def test_a_label_of_probability_zero_is_an_infinite_loss_not_a_nan():
    bias = torch.tensor([0.0, 0.0, -math.inf])
    out = fused_linear_loss(
        torch.zeros(1, 4, requires_grad=True), torch.zeros(3, 4), torch.tensor([2]), "sft", bias=bias
    )
    assert out.loss.item() == math.inf and out.entropy.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_poison_at_a_masked_position_reaches_nothing(poison, dtype):
    hidden, head, labels = mixed_tokens(10, 8, 21, dtype)
    labels[4] = -100
    clean = [t.clone().requires_grad_() for t in (hidden, head)]
    fused_linear_loss(*clean, labels, "r-eaft", detach_weights=False).loss.backward()
    hidden[4] = poison
    poisoned = [t.clone().requires_grad_() for t in (hidden, head)]
    out = fused_linear_loss(*poisoned, labels, "r-eaft", detach_weights=False)
    out.loss.backward()
    assert all(column.isfinite().all() for column in out[:4])
    assert torch.equal(clean[0].grad, poisoned[0].grad) and torch.equal(clean[1].grad, poisoned[1].grad)
    assert not poisoned[0].grad[4].any()


@pytest.mark.parametrize("normalize", ["tokens", "weights"])
@pytest.mark.parametrize("tokens", [0, 5])
def test_nothing_supervised_is_a_zero_with_a_graph(normalize, tokens):
    hidden, head = torch.full((tokens, 4), math.nan, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    out = fused_linear_loss(
        hidden, head, torch.full((tokens,), -100), "r-eaft", normalize=normalize, detach_weights=False
    )
    out.loss.backward()
    assert out.loss.item() == 0
    assert not hidden.grad.any() and not head.grad.any()


def test_a_loss_scale_of_65536_loses_no_small_gradient_in_fp16():
    # Uniform over a large vocabulary, averaged over many items: every true gradient lies far below fp16's range.
    g = torch.Generator().manual_seed(0)
    hidden = (0.01 * torch.randn(8, 16, generator=g)).half()
    head = (0.1 * torch.randn(5003, 16, generator=g)).half()
    labels = torch.randint(0, 5003, (8,), generator=g)
    leaves = [t.clone().requires_grad_() for t in (hidden, head)]
    loss = fused_linear_loss(*leaves, labels, "r-eaft", num_items=8192, detach_weights=False).loss
    (loss * 65536).backward()
    raw = torch.nn.functional.linear(hidden, head).double().requires_grad_()
    expected, *_ = plain_loss(raw, labels, plain_r_eaft, detach=False, num_items=8192)
    (dz,) = torch.autograd.grad(expected * 65536, raw)
    assert (dz / 65536).abs().median() < 2**-14  # below fp16's normal range without the scale
    assert relative_error(leaves[0].grad, dz @ head.double()) < 2e-3
    assert relative_error(leaves[1].grad, dz.T @ hidden.double()) < 2e-3


@pytest.mark.parametrize("normalize", ["tokens", "weights"])
@pytest.mark.parametrize("name", ["eaft", "r-eaft", "focal"])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_gradcheck(normalize, name, cap):
    hidden, head, labels = mixed_tokens(5, 4, 7, torch.float64, seed=3)
    labels[1] = -100
    rows = 0.5 * head[:2].clone()

    def loss(hidden, head, bias, rows):
        options = {"softcap": cap, "logit_scale": 0.7, "normalize": normalize, "detach_weights": False}
        free = fused_linear_loss(hidden, head, labels, equipoise.weighting(name), bias=bias, **options).loss
        ids = torch.tensor([6, 2])
        held = fused_linear_loss(
            hidden, head, labels, equipoise.weighting(name), row_ids=ids, rows=rows, **options
        ).loss
        return free, held

    def inputs():
        return [t.clone().requires_grad_() for t in (hidden, head, torch.linspace(-1, 1, 7).double(), rows)]

    assert torch.autograd.gradcheck(lambda *t: loss(*t)[0], inputs())
    fixed = head.clone()
    assert torch.autograd.gradcheck(lambda h, r: loss(h, fixed, None, r)[1], [inputs()[0], inputs()[3]])


def test_a_second_derivative_is_refused():
    hidden, head, labels = mixed_tokens(5, 4, 7, torch.float64)
    hidden.requires_grad_()
    loss = fused_linear_loss(hidden, head, labels, "sft").loss
    with pytest.raises(UserError, match="second derivative"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_many_chunks_and_blocks_equal_one(monkeypatch):
    hidden, head, labels = mixed_tokens(50, 8, 31, torch.float64)
    hidden.requires_grad_()
    whole = fused_linear_loss(hidden, head, labels, "r-eaft", detach_weights=False)
    (expected,) = torch.autograd.grad(whole.loss, hidden)
    from equipoise.signals import logits

    make = logits.Plan.make
    monkeypatch.setattr(logits.Plan, "make", staticmethod(lambda *a: logits.Plan(make(*a).chunk // 7, 3)))
    pieces = fused_linear_loss(hidden, head, labels, "r-eaft", detach_weights=False)
    (got,) = torch.autograd.grad(pieces.loss, hidden)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(pieces.nll, whole.nll, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 7, 1])}, "label 7 at position 1 is outside the vocabulary of 7"),
        ({"labels": torch.tensor([0, -1, 1])}, "label -1"),
        ({"labels": torch.tensor([0, 1])}, "labels"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "labels"),
        ({"lm_head": torch.zeros(7, 5)}, "do not fit"),
        ({"lm_head": torch.zeros(7, 4).half()}, "autocast"),
        ({"lm_head": torch.zeros(7, 4, dtype=torch.int8)}, "floating point"),
        ({"lm_head": torch.zeros(1, 4)}, "one token"),
        ({"lm_head": torch.zeros(7, 4, device="meta")}, "lm_head on meta"),
        ({"bias": torch.zeros(6)}, "bias"),
        ({"normalize": "mean"}, "normalize"),
        ({"normalize": "weights", "num_items": 3}, "num_items"),
        ({"num_items": 0}, "above 0"),
        ({"num_items": math.nan}, "above 0"),
        ({"softcap": 0.0}, "softcap"),
        ({"logit_scale": math.inf}, "logit_scale"),
        ({"weighting": "rraft"}, "did you mean"),
        ({"weighting": lambda nll, h: 1.0}, "returned 1.0"),
        ({"rows": torch.zeros(1, 4)}, "belong together"),
        ({"rows": torch.zeros(1, 4), "row_ids": torch.tensor([7])}, "row_ids"),
        ({"rows": torch.zeros(2, 4), "row_ids": torch.tensor([1, 1])}, "different"),
        ({"rows": torch.zeros(2, 3), "row_ids": torch.tensor([1, 2])}, "row_ids"),
    ],
)
def test_mistakes_are_named(change, message):
    good = {
        "hidden": torch.zeros(3, 4),
        "lm_head": torch.zeros(7, 4),
        "labels": torch.tensor([0, 1, 2]),
        "weighting": "sft",
    }
    with pytest.raises(UserError, match=message):
        fused_linear_loss(**(good | change))
