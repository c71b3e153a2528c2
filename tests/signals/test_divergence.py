"""Forward KL from states and heads against torch.distributions on whole distributions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from equipoise.errors import UserError
from equipoise.signals.divergence import forward_kl
from equipoise.signals.logits import Head


def some_head(draw, vocab, width, *, bias, scale, softcap, rows):
    weight = torch.randn(vocab, width, generator=draw)
    ids = torch.randperm(vocab, generator=draw)[:3] if rows else None
    return Head(
        weight,
        torch.randn(vocab, generator=draw) if bias else None,
        scale,
        softcap,
        ids,
        torch.randn(3, width, generator=draw) if rows else None,
    )


def logits(hidden, head):
    weight = head.weight.double().clone()
    if head.rows is not None:
        weight[head.row_ids] = head.rows.double()
    z = hidden.double() @ weight.T
    z = (z if head.bias is None else z + head.bias.double()) * head.scale
    return z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bias=st.booleans(),
    rows=st.booleans(),
    scale=st.sampled_from([1.0, 0.25]),
    softcap=st.sampled_from([None, 3.0]),
    chunk=st.sampled_from([None, 1, 4]),
    more=st.sampled_from([0, 2]),
)
def test_equal_to_whole_distributions(seed, bias, rows, scale, softcap, chunk, more):
    draw = torch.Generator().manual_seed(seed)
    options = {"bias": bias, "scale": scale, "softcap": softcap, "rows": rows}
    p, q = some_head(draw, 23, 6, **options), some_head(draw, 23 + more, 4, **options)
    hidden_p, hidden_q = torch.randn(9, 6, generator=draw), torch.randn(9, 4, generator=draw)
    labels = torch.randint(23, (9,), generator=draw)
    read = forward_kl(hidden_p, p, hidden_q, q, labels, chunk=chunk)
    of_p, of_q = logits(hidden_p, p), logits(hidden_q, q)
    # tokens that p does not know have no probability under it
    wide = torch.cat([of_p, torch.full((9, more), -1e9, dtype=of_p.dtype)], 1)
    expected = kl_divergence(Categorical(logits=wide), Categorical(logits=of_q))
    torch.testing.assert_close(read.kl.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.nll_p.double(), -Categorical(logits=of_p).log_prob(labels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.nll_q.double(), -Categorical(logits=of_q).log_prob(labels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_exactly_zero_against_itself_and_positive_against_another(dtype):
    draw = torch.Generator().manual_seed(1)
    head = Head(torch.randn(50, 8, generator=draw).to(dtype))
    hidden, labels = torch.randn(20, 8, generator=draw).to(dtype), torch.zeros(20, dtype=torch.long)
    assert forward_kl(hidden, head, hidden, head, labels).kl.eq(0).all()
    assert forward_kl(hidden, head, -hidden, head, labels).kl.gt(0).all()


def test_bfloat16_is_that_of_the_logits_that_such_a_model_gives():
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(50, 8, generator=draw).bfloat16()
    p, q = (torch.randn(20, 8, generator=draw).bfloat16() for _ in range(2))
    read = forward_kl(p, Head(weight), q, Head(weight), torch.zeros(20, dtype=torch.long))
    sides = (Categorical(logits=(hidden @ weight.T).double()) for hidden in (p, q))
    torch.testing.assert_close(read.kl.double(), kl_divergence(*sides), rtol=1e-4, atol=1e-5)


def test_logits_of_minus_infinity_count_as_no_probability():
    bias = torch.zeros(5)
    bias[3] = -torch.inf
    head = Head(torch.eye(5), bias)
    read = forward_kl(torch.ones(1, 5), head, 2 * torch.eye(5)[:1], head, torch.tensor([0]))
    expected = kl_divergence(Categorical(logits=torch.ones(4)), Categorical(logits=torch.tensor([2.0, 0.0, 0.0, 0.0])))
    torch.testing.assert_close(read.kl[0], expected)


def test_nothing_to_compare_is_nothing():
    head = Head(torch.eye(5))
    assert forward_kl(torch.ones(0, 5), head, torch.ones(0, 5), head, torch.zeros(0, dtype=torch.long)).kl.shape == (0,)


@pytest.mark.parametrize(("vocab", "states"), [(4, 3), (5, 2)])
def test_what_does_not_fit_is_an_error(vocab, states):
    with pytest.raises(UserError):
        forward_kl(
            *(torch.ones(3, 2), Head(torch.ones(5, 2)), torch.ones(states, 2), Head(torch.ones(vocab, 2))),
            torch.zeros(3, dtype=torch.long),
        )
