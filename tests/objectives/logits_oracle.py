"""The loss as its definition says, by plain autograd on full logits in float64: what the fused head must equal."""

import math

import torch
from torch import Tensor


def plain_loss(
    z: Tensor, labels: Tensor, weight, *, detach=True, normalize="tokens", num_items=None, ignore_index=-100
):
    """Loss, nll, H and w of supervised rows of float64 logits [N, V]; `weight(nll, h)` is a function."""
    keep = labels != ignore_index
    z, labels = z[keep], labels[keep]
    log_p = z.log_softmax(-1)
    nll = -log_p[torch.arange(len(z)), labels]
    entropy = -(log_p.exp() * log_p.masked_fill(log_p == -math.inf, 0.0)).sum(-1)
    w = weight(nll, entropy / math.log(z.shape[1]))
    w = w.detach() if detach else w
    divisor = (num_items or len(z)) if normalize == "tokens" else w.sum() + 1e-6
    return (w * nll).sum() / divisor, nll, entropy, w


def plain_r_eaft(nll, h, tau=5.0, alpha=3.0, eps=1e-6, clamp=10.0):
    shock = nll / (h + eps)
    return torch.where(shock > tau, 1 + alpha * torch.clamp(shock / tau, max=clamp), h)


def mixed_tokens(tokens: int, width: int, vocab: int, dtype: torch.dtype, seed: int = 0):
    """Hidden states, head and labels of which a third is sure and right, a third sure and wrong, a third unsure."""
    g = torch.Generator().manual_seed(seed)
    head = torch.randn(vocab, width, generator=g, dtype=torch.float64)
    labels = torch.randint(0, vocab, (tokens,), generator=g)
    hidden = 0.3 * torch.randn(tokens, width, generator=g, dtype=torch.float64)
    third = tokens // 3
    bet = torch.cat([labels[:third], torch.randint(0, vocab, (third,), generator=g)])
    hidden[: 2 * third] += head[bet] * (10.0 / width)
    return hidden.to(dtype), head.to(dtype), labels


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm().clamp(min=1e-30))
