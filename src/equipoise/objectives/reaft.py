"""`REAFTLoss`, a drop-in for the published loss on logits; plain autograd, and the oracle of the fused head."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from equipoise.errors import UserError
from equipoise.objectives.weighting import WEIGHT_SUM_EPS, weighting
from equipoise.signals.checks import supervised_positions
from equipoise.signals.logits import FLOOR, statistics_dtype
from equipoise.signals.tokens import normalized_entropy, shock_ratio

RECOMMENDED_CONFIG = {
    "shock_threshold": 5.0,
    "alpha": 3.0,
    "learning_rate": 1e-5,
    "epochs": 3,
    "batch_size": 4,
}

IGNORE = -100


class _Tokens(NamedTuple):
    """The supervised tokens of a batch, each [N]; `positions` are their places in the flattened [B, T-1]."""

    positions: Tensor
    nll: Tensor
    h: Tensor
    shock: Tensor
    weights: Tensor


class REAFTLoss(nn.Module):
    """The R-EAFT loss on logits: correct what the model is confidently wrong about, protect what else it is sure of.

    `shock = nll / (h + eps)`; the weight is `1 + alpha * min(shock / tau, 10)` where shock > tau, else `h`. The loss is
    `sum w * nll` over the number of supervised tokens, or over `sum w + 1e-6`. The shift by one happens inside.

    Unlike the paper's listing, `attention_mask` is applied: a label whose position the mask excludes does not count.
    As printed there, the gradient flows through the weights; `detach_weights=True` stops it.

    Holds the full logits, so it is for small batches and for checking. Trainers use `fused_linear_loss`.

    Args:
        shock_threshold: tau, above 0. It depends on the vocabulary (see `equipoise.weighting("r-eaft")`).
        alpha: strength of the correction, at least 0; 0 is EAFT.
        eps: keeps the shock ratio finite, above 0.
        detach_weights: keep the gradient from flowing through the weights.
        normalize: "tokens" or "weights".

    Raises:
        UserError: a parameter out of range, or (when called) shapes that do not fit and labels outside the vocabulary.

    Source: R-EAFT technical report (2026-02-16).

    >>> loss = REAFTLoss()(torch.zeros(1, 3, 8), torch.tensor([[0, 1, -100]]))
    >>> round(loss.item(), 4)  # h = 1, shock = ln 8 = 2.08: the weight is h and the loss ln 8
    2.0794
    """

    def __init__(
        self,
        shock_threshold: float = 5.0,
        alpha: float = 3.0,
        eps: float = 1e-6,
        *,
        detach_weights: bool = False,
        normalize: str = "tokens",
    ):
        super().__init__()
        if normalize not in ("tokens", "weights"):
            raise UserError(f"normalize is {normalize!r}", fix="use 'tokens' or 'weights'")
        self.weighting = weighting("r-eaft", tau=shock_threshold, alpha=alpha, eps=eps)
        self.shock_threshold, self.alpha, self.eps = shock_threshold, alpha, eps
        self.detach_weights, self.normalize = detach_weights, normalize

    def forward(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Scalar loss, at least float32, of logits [B, T, V], labels [B, T] and attention_mask [B, T]."""
        return self._reduce(self._read(logits, labels, attention_mask), logits)

    def forward_with_diagnostics(
        self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Any]:
        """The loss (with its graph) and what made it; everything else is detached.

        Returns:
            dict with `loss`; [B, T-1] tensors, 0 or False at positions that do not count: `token_losses` (nll, nats,
            before weighting), `weights`, `shock_ratio`, `shocked_mask`, `protected_mask` (supervised and not shocked);
            `n_shocked` and `n_protected` (int); `mean_weight` (float, over supervised tokens; 0 where there are none).
        """
        tokens = self._read(logits, labels, attention_mask)
        shocked = tokens.shock > self.shock_threshold
        shape = (labels.shape[0], labels.shape[1] - 1)

        def spread(values: Tensor) -> Tensor:
            flat = values.new_zeros(shape[0] * shape[1])
            return flat.index_copy_(0, tokens.positions, values.detach()).view(shape)

        n_shocked = int(shocked.sum())
        return {
            "loss": self._reduce(tokens, logits),
            "token_losses": spread(tokens.nll),
            "weights": spread(tokens.weights),
            "shock_ratio": spread(tokens.shock),
            "shocked_mask": spread(shocked),
            "protected_mask": spread(~shocked),
            "n_shocked": n_shocked,
            "n_protected": len(shocked) - n_shocked,
            "mean_weight": float(tokens.weights.detach().mean()) if len(shocked) else 0.0,
        }

    def extra_repr(self) -> str:
        return (
            f"shock_threshold={self.shock_threshold}, alpha={self.alpha}, eps={self.eps}, "
            f"detach_weights={self.detach_weights}, normalize={self.normalize!r}"
        )

    def _read(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> _Tokens:
        _check(logits, labels, attention_mask)
        vocab = logits.shape[-1]
        targets = labels[:, 1:].reshape(-1)
        if attention_mask is not None:
            targets = targets.masked_fill(attention_mask[:, 1:].reshape(-1) == 0, IGNORE)
        keep = supervised_positions(targets, vocab, IGNORE)
        positions = torch.arange(len(targets), device=targets.device) if keep is None else keep
        # Selected before any arithmetic: a NaN at a masked position must not reach the loss or the gradient.
        z = logits[:, :-1].reshape(-1, vocab)[positions].to(statistics_dtype(logits.dtype))
        log_p = z.log_softmax(-1)
        nll = -log_p.gather(1, targets[positions].unsqueeze(1)).squeeze(1)
        h = normalized_entropy(-(log_p.exp() * log_p.clamp(min=FLOOR)).sum(-1), vocab)
        weights = self.weighting(nll, h)
        shock = shock_ratio(nll, h, self.eps).detach()
        return _Tokens(positions, nll, h, shock, weights.detach() if self.detach_weights else weights)

    def _reduce(self, tokens: _Tokens, logits: Tensor) -> Tensor:
        if not len(tokens.nll):
            return logits[:0].sum(dtype=statistics_dtype(logits.dtype))
        total = (tokens.weights * tokens.nll).sum()
        if self.normalize == "tokens":
            return total / len(tokens.nll)
        return total / (tokens.weights.sum() + WEIGHT_SUM_EPS)


def _check(logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> None:
    if logits.dim() != 3 or labels.shape != logits.shape[:2] or labels.dtype.is_floating_point:
        raise UserError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} {labels.dtype} do not fit together",
            fix="pass logits [B, T, V] and integer labels [B, T], not shifted: the loss shifts them",
        )
    if logits.shape[-1] < 2:
        raise UserError("a vocabulary of one token has no entropy", fix="pass logits over at least two tokens")
    if attention_mask is not None and attention_mask.shape != labels.shape:
        raise UserError(f"attention_mask {tuple(attention_mask.shape)} does not fit labels {tuple(labels.shape)}")


def train_with_reaft(
    model: nn.Module,
    dataloader: Any,
    optimizer: torch.optim.Optimizer,
    epochs: int = 3,
    shock_threshold: float = 5.0,
    alpha: float = 3.0,
    device: str | torch.device | None = None,
) -> list[dict[str, float]]:
    """Train a model with `REAFTLoss` in a plain loop, for small experiments; use `equipoise run` for real ones.

    Args:
        model: called with each batch but its labels; returns an object with `.logits` [B, T, V]. Left in train mode.
        dataloader: yields dicts of tensors with `labels` [B, T] (-100 where a token does not count) and, as a rule,
            `input_ids` and `attention_mask`. It is gone through once an epoch, so a generator will not do.
        optimizer: over the parameters that are to train; stepped once a batch.
        epochs: at least 1.
        shock_threshold, alpha: of REAFTLoss.
        device: where to train; by default where the model is. Moving a model keeps its optimizer valid.

    Returns:
        One dict an epoch: epoch (from 1), loss (mean over batches), n_shocked, n_protected, mean_weight (over tokens),
        skipped (batches whose loss or gradient was not finite; they leave the model as it was).

    Raises:
        UserError: input that cannot work, or five batches in a row that are not finite.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"epochs must be a whole number of at least 1, not {epochs!r}")
    loss_fn = REAFTLoss(shock_threshold, alpha)
    if device is not None:
        model.to(device)
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.train()
    steps = _Steps(model, optimizer, loss_fn, place)
    return [steps.epoch(number, dataloader) for number in range(1, epochs + 1)]


class _Steps:
    """The loop of `train_with_reaft`: one optimizer step a batch, none where it would not be finite."""

    patience = 5

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: REAFTLoss, device: torch.device):
        self.model, self.optimizer, self.loss_fn, self.device = model, optimizer, loss_fn, device
        self.in_a_row = 0

    def epoch(self, number: int, batches: Any) -> dict[str, float]:
        losses, shocked, protected, weight, skipped = [], 0, 0, 0.0, 0
        for batch in batches:
            found = self.step(batch)
            if found is None:
                skipped += 1
                continue
            tokens = found["n_shocked"] + found["n_protected"]
            losses.append(float(found["loss"].detach()))
            shocked, protected = shocked + found["n_shocked"], protected + found["n_protected"]
            weight += found["mean_weight"] * tokens
        if not losses and not skipped:
            raise UserError(
                f"the dataloader gave no batch in epoch {number}",
                fix="pass something that can be gone through once an epoch, such as a list or a DataLoader",
            )
        return {
            "epoch": number,
            "loss": math.fsum(losses) / len(losses) if losses else math.nan,
            "n_shocked": shocked,
            "n_protected": protected,
            "mean_weight": weight / max(shocked + protected, 1),
            "skipped": skipped,
        }

    def step(self, batch: Any) -> dict[str, Any] | None:
        """One batch; None if it was skipped."""
        if not hasattr(batch, "items") or "labels" not in batch:
            raise UserError(
                "a batch has no 'labels'", fix="yield dicts with 'labels', 'input_ids' and 'attention_mask'"
            )
        batch = {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        labels = batch.pop("labels")
        output = self.model(**batch)
        if not hasattr(output, "logits"):
            raise UserError("the model's output has no .logits", fix="pass a causal language model of transformers")
        found = self.loss_fn.forward_with_diagnostics(output.logits, labels, batch.get("attention_mask"))
        self.optimizer.zero_grad(set_to_none=True)
        found["loss"].backward()
        if self._finite(found["loss"]):
            self.optimizer.step()
            self.in_a_row = 0
            return found
        self.optimizer.zero_grad(set_to_none=True)
        self.in_a_row += 1
        if self.in_a_row == self.patience:
            raise UserError(
                f"loss or gradient was not finite in {self.patience} batches in a row",
                fix="lower the learning rate, and look at the batch for labels the model gives a probability of 0",
            )
        return None

    def _finite(self, loss: Tensor) -> bool:
        grads = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return all(bool(torch.isfinite(t).all()) for t in (loss, *grads))
