import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.signals.tokens import normalized_entropy, shock_ratio, token_statistics


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 30), vocab=st.integers(2, 50), k=st.integers(1, 60), chunk=st.sampled_from([None, 1, 4]),
    cap=st.sampled_from([None, 5.0]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_equals_softmax_over_full_logits(tokens, vocab, k, chunk, cap, seed):
    g = torch.Generator().manual_seed(seed)
    hidden, head = (torch.randn(n, 7, generator=g, dtype=torch.float64) for n in (tokens, vocab))
    bias = torch.randn(vocab, generator=g, dtype=torch.float64)
    labels = torch.randint(0, vocab, (tokens,), generator=g)
    got = token_statistics(hidden, head, labels, bias=bias, logit_scale=1.5, softcap=cap, chunk=chunk, top_k=k)
    z = 1.5 * (hidden @ head.T + bias)
    z = z if cap is None else cap * torch.tanh(z / cap)
    p = z.softmax(-1)
    top = p.topk(min(k, vocab)).values
    top = top / top.sum(-1, keepdim=True)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(got.nll, torch.nn.functional.cross_entropy(z, labels, reduction="none"), **close)
    torch.testing.assert_close(got.entropy, -(p * p.log()).sum(-1), **close)
    torch.testing.assert_close(got.topk_entropy, -(top * top.log()).sum(-1), **close)
    assert torch.equal(got.argmax, z.argmax(-1))
    torch.testing.assert_close(got.logp_argmax, p.amax(-1).log(), **close)


def test_ignored_positions_are_not_read_and_shape_is_kept():
    hidden = torch.zeros(2, 3, 4)
    hidden[0, 1] = math.nan
    labels = torch.tensor([[1, -100, 2], [0, 0, -100]])
    got = token_statistics(hidden, torch.zeros(5, 4), labels)
    assert got.nll.shape == labels.shape and got.topk_entropy is None
    torch.testing.assert_close(got.nll, (labels >= 0) * math.log(5))
    torch.testing.assert_close(got.entropy, (labels >= 0) * math.log(5))
    assert got.argmax.tolist() == [[0, -1, 0], [0, 0, -1]]


def test_nothing_to_read():
    got = token_statistics(torch.zeros(3, 4), torch.zeros(5, 4), torch.full((3,), -100), top_k=2)
    assert got.nll.tolist() == [0, 0, 0] and got.argmax.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_logits_are_read_in_float32(dtype):
    g = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(6, 8, generator=g).to(dtype), torch.randn(300, 8, generator=g).to(dtype)
    labels = torch.arange(6)
    got = token_statistics(hidden.requires_grad_(), head, labels)
    z = torch.nn.functional.linear(hidden, head).float()
    assert got.nll.dtype == torch.float32 and not got.nll.requires_grad
    torch.testing.assert_close(got.nll, torch.nn.functional.cross_entropy(z, labels, reduction="none"))


def test_a_sure_token_keeps_its_tiny_entropy():
    # p = (1 - q, q) with q = e^-30: H = q * 30 + q to first order, far below float32's spacing at 1
    got = token_statistics(torch.tensor([[30.0, 0.0]]), torch.eye(2), torch.tensor([1]))
    assert got.nll.item() == pytest.approx(30.0)
    assert got.entropy.item() == pytest.approx(30 * math.exp(-30), rel=0.05)


def test_words_by_hand():
    assert normalized_entropy(torch.tensor(math.log(4.0)), 16).item() == pytest.approx(0.5)
    assert shock_ratio(torch.tensor(2.0), torch.tensor(0.0)).item() == pytest.approx(2e6)


def test_a_label_outside_the_vocabulary_is_an_error():
    with pytest.raises(UserError, match="outside the vocabulary"):
        token_statistics(torch.zeros(1, 4), torch.zeros(5, 4), torch.tensor([5]))
