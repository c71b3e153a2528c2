"""The tail probability, and the weighting that reads it: what it is, what it promises, and its gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logits_oracle import mixed_tokens, relative_error

import equipoise
from equipoise.errors import UserError
from equipoise.objectives.fused_head import fused_linear_loss
from equipoise.signals.tokens import token_statistics


def tails_by_sorting(z, labels):
    """Walk the tokens from the least likely up, until the last that ties with the label."""
    found = []
    for row, label in zip(z.double().tolist(), labels.tolist()):
        highest = max(row)
        p = [math.exp(score - highest) for score in row]
        order = sorted(range(len(row)), key=lambda j: row[j])
        mass = math.fsum(p[j] for j in order if row[j] <= row[label])
        found.append(mass / math.fsum(p))
    return torch.tensor(found, dtype=torch.float64)


def of_logits(z, labels, **options):
    """The tails of given logits: the head is the identity, so that hidden states are logits."""
    return token_statistics(z, torch.eye(z.shape[1], dtype=z.dtype), labels, tail=True, **options).tail


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 20), vocab=st.integers(2, 60), levels=st.sampled_from([2, 7, None]),
    cap=st.sampled_from([None, 2.0]), chunk=st.sampled_from([None, 1, 3]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_equals_a_walk_over_sorted_tokens_ties_included(tokens, vocab, levels, cap, chunk, seed):
    g = torch.Generator().manual_seed(seed)
    z = 4 * torch.randn(tokens, vocab, generator=g, dtype=torch.float64)
    z = z if levels is None else (z * levels / 8).round() * 8 / levels  # few levels, many ties
    labels = torch.randint(0, vocab, (tokens,), generator=g)
    seen = 1.5 * z if cap is None else cap * torch.tanh(1.5 * z / cap)
    got = of_logits(z, labels, softcap=cap, logit_scale=1.5, chunk=chunk)
    torch.testing.assert_close(got, tails_by_sorting(seen, labels), rtol=1e-9, atol=1e-12)
    states = z.clone().requires_grad_()
    head = torch.eye(vocab, dtype=z.dtype)
    trained = fused_linear_loss(states, head, labels, "sft", softcap=cap, logit_scale=1.5, tail=True)
    torch.testing.assert_close(trained.tail, got, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_logits_tie_as_the_model_sees_them(dtype):
    g = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(12, 8, generator=g).to(dtype), torch.randn(4000, 8, generator=g).to(dtype)
    labels = torch.randint(0, 4000, (12,), generator=g)
    z = (hidden @ head.T).float()
    if dtype == torch.bfloat16:
        assert (z == z.gather(1, labels[:, None])).sum(1).max() > 1  # there are ties with a label
    got = token_statistics(hidden, head, labels, tail=True).tail
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), tails_by_sorting(z, labels), rtol=1e-4, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(vocab=st.integers(2, 300), spread=st.floats(0, 30), seed=st.integers(0, 2**31))
def test_of_the_likeliest_token_it_is_one_and_it_is_never_below_the_probability(vocab, spread, seed):
    z = spread * torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed))
    every = of_logits(z.expand(vocab, vocab), torch.arange(vocab))
    assert every[z[0].argmax()].item() == pytest.approx(1.0, abs=1e-6) and every.max() <= 1 + 1e-6
    assert (every >= z[0].softmax(-1) * (1 - 1e-5)).all()


@pytest.mark.parametrize(("vocab", "spread"), [(5, 1.0), (100, 3.0), (5000, 0.5), (5000, 6.0)])
def test_of_a_models_own_tokens_at_most_delta_lie_below_delta(vocab, spread):
    g = torch.Generator().manual_seed(vocab)
    hidden, head = torch.randn(10, 8, generator=g), spread / 8**0.5 * torch.randn(vocab, 8, generator=g)
    drawn = torch.multinomial((hidden @ head.T).softmax(-1), 500, replacement=True, generator=g)  # [10, 500]
    tail = token_statistics(hidden.repeat_interleave(500, 0), head, drawn.reshape(-1), tail=True).tail
    for delta in (0.01, 0.05, 0.2, 0.5):
        flagged = (tail <= delta).double().mean().item()
        assert flagged <= delta + 4 * math.sqrt(delta * (1 - delta) / tail.numel())
    if vocab == 5000:  # with many tokens of little probability each the bound is met
        assert (tail <= 0.05).double().mean().item() > 0.035


def test_tokens_that_cannot_occur_change_neither_it_nor_what_is_flagged():
    hidden, head, labels = mixed_tokens(30, 6, 19, torch.float64)
    z = 3 * hidden @ head.T
    padded = torch.cat([z, torch.full((30, 400), -math.inf, dtype=torch.float64)], 1)
    few, many = (
        fused_linear_loss(logits, torch.eye(logits.shape[1], dtype=torch.float64), labels, "r-eaft-tail")
        for logits in (z, padded.clamp(min=-1e6))
    )
    torch.testing.assert_close(few.tail, many.tail)
    flagged = few.weights > 1
    assert flagged.any() and torch.equal(flagged, many.weights > 1)
    torch.testing.assert_close(few.weights[flagged], many.weights[flagged])


@pytest.mark.parametrize("score", [-math.inf, -3e4, -200.0])
def test_a_label_without_probability_has_a_tail_of_zero_and_the_largest_weight(score):
    head = torch.eye(4)
    states = torch.tensor([[0.0, 5.0, score, -6e4]])
    if score == -math.inf:
        head, states = head[:, :2], states[:, :2]
        bias = torch.tensor([0.0, 0.0, score, -6e4])
        out = fused_linear_loss(states, head, torch.tensor([2]), "r-eaft-tail", bias=bias, tail=True)
    else:
        out = fused_linear_loss(states, head, torch.tensor([2]), "r-eaft-tail", tail=True)
    assert out.tail.item() == 0.0 and out.weights.item() == pytest.approx(31.0)


def test_only_whoever_asks_gets_it():
    hidden, head, labels = mixed_tokens(9, 6, 19, torch.float32)
    labels[2] = -100
    assert fused_linear_loss(hidden, head, labels, "r-eaft").tail is None
    assert token_statistics(hidden, head, labels).tail is None
    out = fused_linear_loss(hidden, head, labels, "r-eaft", tail=True)
    assert out.tail[2] == 0 and out.tail.shape == labels.shape and not out.tail.requires_grad
    assert torch.equal(out.tail, fused_linear_loss(hidden, head, labels, "r-eaft-tail").tail)


def test_stand_in_rows_count_as_they_stand():
    hidden, head, labels = mixed_tokens(20, 6, 19, torch.float64)
    ids = torch.tensor([3, int(labels[0])])
    rows = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    full = head.clone()
    full[ids] = rows
    got = fused_linear_loss(hidden, head, labels, "r-eaft-tail", row_ids=ids, rows=rows)
    torch.testing.assert_close(got.tail, tails_by_sorting(hidden @ full.T, labels))


TAIL = torch.tensor([0.05, 0.05**2, 0.05**2, 1e-30, 0.6], dtype=torch.float64)
ENTROPY = torch.tensor([0.5, 0.5, 2.1, 0.0, 0.1], dtype=torch.float64)
H = torch.tensor([0.05, 0.05, 0.21, 0.0, 0.01], dtype=torch.float64)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        # at delta exactly: protected; twice as surprising; unsure; clamped (ln 1e-30 / ln 0.05 = 23.1); expected
        ({}, [0.05, 7.0, 0.21, 31.0, 0.01]),
        ({"sure": 3.0}, [0.05, 7.0, 7.0, 31.0, 0.01]),
        ({"alpha": 1.0, "clamp": 1.5}, [0.05, 2.5, 0.21, 2.5, 0.01]),
        ({"delta": 0.7, "alpha": 0.5}, [None, None, 0.21, 6.0, 1 + 0.5 * math.log(0.6) / math.log(0.7)]),
        ({"alpha": 0}, H.tolist()),
    ],
)
def test_weights_worked_by_hand(params, expected):
    w = equipoise.weighting("r-eaft-tail", **params)(torch.zeros(5), H, entropy=ENTROPY, tail=TAIL)
    known = [i for i, value in enumerate(expected) if value is not None]
    assert w[known].tolist() == pytest.approx([expected[i] for i in known], rel=1e-12)


def test_without_what_it_reads_it_says_what_is_missing():
    with pytest.raises(UserError, match="reads entropy and tail"):
        equipoise.weighting("r-eaft-tail")(torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize("normalize", ["tokens", "weights"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_attached_its_gradient_flows_through_h_alone(dtype, normalize):
    """Autograd on full logits in float64, with the flags and tails as constants."""
    hidden, head, labels = mixed_tokens(40, 8, 31, dtype)
    states = hidden.clone().requires_grad_()
    options = {"detach_weights": False, "normalize": normalize}
    out = fused_linear_loss(states, head, labels, equipoise.weighting("r-eaft-tail", sure=1.0), **options)
    out.loss.backward()
    z = (hidden @ head.T).double().requires_grad_()
    log_p = z.log_softmax(-1)
    nll, entropy = -log_p.gather(1, labels[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    tail = tails_by_sorting(z.detach(), labels)
    flagged = (tail < 0.05) & (entropy.detach() <= 1.0)
    assert 3 < flagged.sum() < 37
    constant = 1 + 3 * (tail.log() / math.log(0.05)).clamp(max=10.0)
    w = torch.where(flagged, constant, entropy / math.log(31))
    torch.testing.assert_close(out.weights.double(), w.detach(), rtol=1e-2, atol=1e-6)
    loss = (w * nll).sum() / (len(labels) if normalize == "tokens" else w.sum() + 1e-6)
    (dz,) = torch.autograd.grad(loss, z)
    limit = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert relative_error(states.grad, dz @ head.double()) < limit
    assert out.loss.item() == pytest.approx(loss.item(), rel=max(limit, 1e-6))


def test_a_threshold_that_is_still_open_is_refused_with_what_to_do():
    with pytest.raises(UserError, match="has to be found first") as told:
        equipoise.weighting("r-eaft", tau="auto")
    assert "resolve_tau" in told.value.fix
