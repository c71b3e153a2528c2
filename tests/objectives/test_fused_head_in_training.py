"""What a trainer does to the fused head: pads, packs, accumulates, autocasts, evaluates, adds rows, ties embeddings."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logits_oracle import mixed_tokens, plain_loss, plain_r_eaft, relative_error

import equipoise
from equipoise.objectives import weighting
from equipoise.objectives.fused_head import fused_linear_loss


def gradients(hidden, head, labels, **options):
    leaves = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
    out = fused_linear_loss(*leaves, labels, equipoise.weighting("r-eaft"), detach_weights=False, **options)
    out.loss.backward()
    return out, leaves[0].grad, leaves[1].grad


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 30), max_size=4), seed=st.integers(0, 1000))
def test_accumulation_over_any_split_is_the_whole_batch(cuts, seed):
    hidden, head, labels = mixed_tokens(30, 6, 19, torch.float64, seed)
    labels[::4] = -100
    items = int((labels != -100).sum())
    whole, whole_hidden, whole_head = gradients(hidden, head, labels)
    edges = sorted({0, 30, *cuts})
    parts = [
        gradients(hidden[a:b], head, labels[a:b], num_items=torch.tensor(items)) for a, b in itertools.pairwise(edges)
    ]
    assert sum(p[0].loss.item() for p in parts) == pytest.approx(whole.loss.item(), rel=1e-12)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), whole_hidden, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(sum(p[2] for p in parts), whole_head, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize("name", weighting.names())
def test_every_registered_weighting_trains_as_plain_autograd_would(name, detach):
    hidden, head, labels = mixed_tokens(24, 6, 31, torch.float64)
    labels[::5] = -100
    w, items = equipoise.weighting(name), 40
    leaf = hidden.clone().requires_grad_()
    halves = [
        fused_linear_loss(leaf[half], head, labels[half], w, detach_weights=detach, num_items=items).loss
        for half in (slice(0, 9), slice(9, 24))
    ]
    (got,) = torch.autograd.grad(sum(halves), leaf)
    z = (hidden @ head.T).requires_grad_()
    top = z.detach()[labels != -100].topk(w.top_k or 1).values.softmax(-1)
    given, p = labels[labels != -100, None], z.detach()[labels != -100].softmax(-1)
    constants = {"topk_entropy": -(top * top.log()).sum(-1), "tail": (p * (p <= p.gather(1, given))).sum(-1)}
    log_v = math.log(31)
    loss, *_ = plain_loss(
        z, labels, lambda nll, h: w(nll, h, entropy=h * log_v, **constants), detach=detach, num_items=items
    )
    (dz,) = torch.autograd.grad(loss, z)
    assert sum(halves).item() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(got, dz @ head, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalize", ["tokens", "weights"])
def test_padding_and_packing_change_nothing(normalize):
    hidden, head, labels = mixed_tokens(12, 6, 19, torch.float64)
    labels[3] = -100
    packed, packed_hidden, packed_head = gradients(hidden, head, labels, normalize=normalize)
    # two sequences of 7 and 5, padded on the right to [2, 9]
    states, targets = torch.full((2, 9, 6), math.nan, dtype=torch.float64), torch.full((2, 9), -100)
    states[0, :7], states[1, :5], targets[0, :7], targets[1, :5] = hidden[:7], hidden[7:], labels[:7], labels[7:]
    padded, padded_hidden, padded_head = gradients(states, head, targets, normalize=normalize)
    assert padded.nll.shape == targets.shape
    assert padded.loss.item() == pytest.approx(packed.loss.item(), rel=1e-12)
    torch.testing.assert_close(torch.cat([padded_hidden[0, :7], padded_hidden[1, :5]]), packed_hidden)
    torch.testing.assert_close(padded_head, packed_head)
    assert not padded_hidden[1, 5:].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_equal_a_head_in_which_only_these_rows_train(dtype):
    hidden, head, labels = mixed_tokens(20, 8, 23, dtype)
    ids = torch.tensor([22, 3, int(labels[0])])
    new = (head[ids].float() + 0.5).to(dtype)
    bias = torch.linspace(-1, 1, 23).to(dtype)
    full = head.clone()
    full[ids] = new
    _, hidden_grad, head_grad = gradients(hidden, full, labels, bias=bias, softcap=20.0)
    rows, states = new.clone().requires_grad_(), hidden.clone().requires_grad_()
    frozen = head.clone().requires_grad_()
    options = {"bias": bias, "softcap": 20.0, "row_ids": ids, "rows": rows}
    fused_linear_loss(states, frozen, labels, "r-eaft", detach_weights=False, **options).loss.backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    assert relative_error(rows.grad, head_grad[ids].double()) < tolerance
    assert relative_error(states.grad, hidden_grad.double()) < tolerance
    assert frozen.grad is None


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_the_head_holds_at_replaced_rows_does_not_matter_to_the_loss(poison):
    hidden, head, labels = mixed_tokens(9, 8, 23, torch.float32)
    rows, ids = head[:2].clone(), torch.tensor([0, 1])
    clean = fused_linear_loss(hidden, head, labels, "eaft", row_ids=ids, rows=rows).loss
    head[:2] = poison
    assert torch.equal(fused_linear_loss(hidden, head, labels, "eaft", row_ids=ids, rows=rows).loss, clean)


@pytest.mark.parametrize(
    "dtypes", [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
)
def test_autocast_decides_the_dtype_of_the_products(dtypes):
    hidden, head, labels = mixed_tokens(15, 8, 23, torch.float64)
    states, weight = hidden.to(dtypes[0]).requires_grad_(), head.to(dtypes[1]).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = fused_linear_loss(states, weight, labels, "r-eaft")
    out.loss.backward()
    same = fused_linear_loss(hidden.bfloat16(), head.bfloat16(), labels, "r-eaft")
    assert out.loss.dtype == torch.float32 and states.grad.dtype == dtypes[0] and weight.grad.dtype == dtypes[1]
    torch.testing.assert_close(out.loss, same.loss)
    torch.testing.assert_close(out.nll, same.nll)
    raw = torch.nn.functional.linear(hidden.bfloat16(), head.bfloat16()).double().requires_grad_()
    loss, *_ = plain_loss(raw, labels, plain_r_eaft)
    (dz,) = torch.autograd.grad(loss, raw)
    assert relative_error(states.grad, dz @ head.bfloat16().double()) < 1e-2
    assert relative_error(weight.grad, dz.T @ hidden.bfloat16().double()) < 1e-2


def test_gradients_off_gives_the_same_statistics_and_no_graph():
    hidden, head, labels = mixed_tokens(15, 8, 23, torch.float32)
    hidden.requires_grad_()
    trained = fused_linear_loss(hidden, head, labels, "r-eaft", tail=True)
    with torch.no_grad():
        evaluated = fused_linear_loss(hidden, head, labels, "r-eaft", tail=True)
    with torch.inference_mode():
        inferred = fused_linear_loss(hidden, head, labels, "r-eaft", tail=True)
    for other in (evaluated, inferred):
        assert not other.loss.requires_grad
        assert all(torch.equal(a, b) for a, b in zip(trained, other))
    assert trained.loss.requires_grad and not any(column.requires_grad for column in trained[1:])


def test_only_what_asks_for_a_gradient_gets_one():
    hidden, head, labels = mixed_tokens(15, 8, 23, torch.float32)
    bias = torch.zeros(23, requires_grad=True)
    fused_linear_loss(hidden, head, labels, "eaft", bias=bias).loss.backward()
    assert bias.grad.abs().sum() > 0 and hidden.grad is None and head.grad is None


def test_tied_embeddings_sum_both_gradients():
    torch.manual_seed(0)
    table = torch.nn.Embedding(23, 8, dtype=torch.float64)
    ids, labels = torch.randint(0, 23, (2, 9)), torch.randint(0, 23, (2, 9))
    fused_linear_loss(table(ids).tanh(), table.weight, labels, "sft").loss.backward()
    got, table.weight.grad = table.weight.grad, None
    torch.nn.functional.cross_entropy((table(ids).tanh() @ table.weight.T).view(-1, 23), labels.view(-1)).backward()
    torch.testing.assert_close(got, table.weight.grad, rtol=1e-10, atol=1e-13)


def test_accuracy_comes_along():
    head, states = torch.eye(4), torch.tensor([[2.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 1, 0]])
    out = fused_linear_loss(states, head, torch.tensor([0, 2, -100]), "sft")
    assert out.correct.tolist() == [True, False, False]


def test_a_function_of_ones_own_is_a_weighting():
    hidden, head, labels = mixed_tokens(15, 8, 23, torch.float64)
    hidden.requires_grad_()
    mine = fused_linear_loss(hidden, head, labels, lambda nll, h: h * nll.detach(), detach_weights=False)
    z = (hidden.detach() @ head.T).requires_grad_()
    loss, *_ = plain_loss(z, labels, lambda nll, h: h * nll.detach(), detach=False)
    (dz,) = torch.autograd.grad(loss, z)
    (grad,) = torch.autograd.grad(mine.loss, hidden)
    torch.testing.assert_close(grad, dz @ head)


def test_topk_entropy_weighs_but_takes_no_gradient():
    hidden, head, labels = mixed_tokens(15, 8, 43, torch.float64)
    hidden.requires_grad_()
    weights = equipoise.weighting("eaft-topk", k=5, divisor=3.0)
    out = fused_linear_loss(hidden, head, labels, weights, detach_weights=False)
    (got,) = torch.autograd.grad(out.loss, hidden)
    z = hidden @ head.T
    top = z.detach().topk(5).values.softmax(-1)
    expected = -(top * top.log()).sum(-1) / 3.0
    torch.testing.assert_close(out.weights, expected)
    loss = (expected * torch.nn.functional.cross_entropy(z, labels, reduction="none")).mean()
    torch.testing.assert_close(got, torch.autograd.grad(loss, hidden)[0])
