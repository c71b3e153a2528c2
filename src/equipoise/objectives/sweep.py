"""The pass over the supervised tokens that reads every chunk of logits once and leaves loss and gradients behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.errors import UserError
from equipoise.objectives.products import HALF_SCALE, Gradients
from equipoise.objectives.weighting import WEIGHT_SUM_EPS, Weighting
from equipoise.signals.logits import Block, Head, Plan, Scratch, read_block, statistics_dtype, topk_entropy
from equipoise.signals.tokens import normalized_entropy


@dataclass(frozen=True)
class Job:
    """What to compute, apart from the tensors that may want a gradient."""

    weighting: Weighting
    keep: Tensor | None  # supervised positions; None means all
    num_items: int | float | Tensor | None
    detach: bool
    by_weights: bool
    scale: float
    softcap: float | None
    row_ids: Tensor | None
    wanted: bool
    tail: bool  # wanted as a statistic, whether or not the weighting reads it


@dataclass(frozen=True)
class Coefficients:
    """How the objective moves with each token's nll and entropy; `d_entropy` is None where it does not."""

    d_nll: Tensor
    d_entropy: Tensor | None
    weights: Tensor

    def __getitem__(self, at: slice) -> Coefficients:
        return Coefficients(self.d_nll[at], None if self.d_entropy is None else self.d_entropy[at], self.weights[at])


def weigh(weighting: Weighting, nll: Tensor, entropy: Tensor, others: Mapping[str, Tensor], vocab: int) -> Tensor:
    """The weights of tokens, [n]; a UserError if a function of the user's returns something else."""
    weights = weighting(nll, normalized_entropy(entropy, vocab), entropy=entropy, **others)
    if not isinstance(weights, Tensor) or weights.shape != nll.shape:
        got = tuple(weights.shape) if isinstance(weights, Tensor) else repr(weights)
        raise UserError(f"weighting {weighting.name!r} returned {got} for nll {tuple(nll.shape)}")
    return weights.to(nll.dtype)


def differentiate(
    weighting: Weighting, nll: Tensor, entropy: Tensor, others: Mapping[str, Tensor], vocab: int, *, ratio: bool
) -> Coefficients:
    """Derivatives of `sum w * nll` (with `ratio`, of that over `sum w`) through the weights.

    `others` are constants: top-k entropy, and the tail, which jumps where two tokens change places and is flat between.
    """
    with torch.enable_grad():
        nll, entropy = nll.detach().requires_grad_(), entropy.detach().requires_grad_()
        weights = weigh(weighting, nll, entropy, others, vocab)
        total = (weights * nll).sum()
        total = total / (weights.sum() + WEIGHT_SUM_EPS) if ratio else total
        d_nll, d_entropy = torch.autograd.grad(total, (nll, entropy), allow_unused=True)
    return Coefficients(d_nll, d_entropy, weights.detach())


class Sweep:
    """Fills `nll`, `entropy`, `weights` and `correct`, each [n], and sums gradients where `needs` asks for them.

    `others` has what not every weighting reads and is computed on demand, each [n].
    One pass; two where weights are attached and normalized by their own sum, as that sum comes before the gradient.
    """

    def __init__(self, job: Job, head: Head, states: Tensor, targets: Tensor, needs: Sequence[bool]):
        self.job, self.head, self.states, self.targets = job, head, states, targets
        n, self.vocab, dtype = len(states), len(head.weight), statistics_dtype(states.dtype)
        self.sums = Gradients(head, states, needs) if any(needs) else None
        self.nll, self.entropy, self.weights = (states.new_zeros(n, dtype=dtype) for _ in range(3))
        on_demand = {"topk_entropy": job.weighting.top_k, "tail": job.tail or "tail" in job.weighting.reads}
        self.others = {name: states.new_zeros(n, dtype=dtype) for name, wanted in on_demand.items() if wanted}
        self.correct = torch.zeros(n, dtype=torch.bool, device=states.device)
        self.plan = Plan.make(n, self.vocab, states.dtype, states.device)
        if n:
            self.scratch = Scratch(head, self.plan, dtype)
            self.logits = states.new_empty(self.plan.chunk, self.vocab)
            # fp16 would lose a gradient of p / N: its rows are scaled up for the product, and back after it.
            self.row_scale = states.new_ones(self.plan.chunk, dtype=dtype) if states.dtype == torch.float16 else None

    def run(self) -> tuple[Tensor, Tensor]:
        """The loss, and what the summed gradients are to be divided by."""
        job, one = self.job, self.nll.new_ones(())
        ratio = job.by_weights and not job.detach
        fixed = None
        if ratio and self.sums is not None:
            self._pass(gradient=False)
            fixed = differentiate(job.weighting, self.nll, self.entropy, self.others, self.vocab, ratio=True)
        self._pass(gradient=self.sums is not None, fixed=fixed)
        total = (self.weights * self.nll).sum()
        if job.by_weights:
            divisor = self.weights.sum() + WEIGHT_SUM_EPS
            return total / divisor, one if ratio else divisor
        items = max(len(self.nll), 1) if job.num_items is None else job.num_items
        divisor = torch.as_tensor(items, dtype=one.dtype, device=one.device).reshape(())
        return total / divisor, divisor

    def gradients(self) -> tuple[Tensor | None, ...]:
        """With respect to hidden states, head, bias and rows, before the division; None where not asked for."""
        sums = self.sums
        return (None,) * 4 if sums is None else (sums.hidden, sums.weight, sums.bias, sums.rows)

    def _pass(self, *, gradient: bool, fixed: Coefficients | None = None) -> None:
        for here in self.plan.chunks(len(self.states)):
            states = self.states[here]
            raw = self.head.project(states, self.logits[: len(states)])
            for rows in self.plan.blocks(len(raw)):
                at = slice(here.start + rows.start, here.start + rows.stop)
                block = read_block(raw[rows], self.targets[at], self.head, self.scratch, tail="tail" in self.others)
                coefficients = self._record(at, block, gradient) if fixed is None else fixed[at]
                if gradient:
                    self._write_gradient(raw[rows], rows, self.targets[at], block, coefficients)
            if gradient and self.sums is not None:
                scale = None if self.row_scale is None else self.row_scale[: len(raw)]
                self.sums.add(here, states, raw, scale)

    def _record(self, at: slice, block: Block, gradient: bool) -> Coefficients:
        self.nll[at], self.entropy[at], self.correct[at] = block.nll, block.entropy, block.correct
        weighting = self.job.weighting
        if weighting.top_k:
            self.others["topk_entropy"][at] = topk_entropy(block.shifted, weighting.top_k)
        if block.tail is not None:
            self.others["tail"][at] = block.tail
        others = {name: values[at] for name, values in self.others.items()}
        if gradient and not self.job.detach:
            found = differentiate(weighting, block.nll, block.entropy, others, self.vocab, ratio=False)
        else:
            weights = weigh(weighting, block.nll, block.entropy, others, self.vocab)
            found = Coefficients(weights, None, weights)
        self.weights[at] = found.weights
        return found

    def _write_gradient(self, raw: Tensor, rows: slice, targets: Tensor, block: Block, by: Coefficients) -> None:
        """Overwrite raw logits [rows, V] by the gradient with respect to them."""
        a, b, head = by.d_nll, by.d_entropy, self.head
        dz, size = block.shifted, a.abs()
        if b is None:
            torch.mul(block.exponentials, (a / block.total).unsqueeze(1), out=dz)
        else:
            size = size + b.abs() * block.entropy
            constant = (a - b * (block.entropy - block.log_total)) / block.total
            dz.mul_((-b / block.total).unsqueeze(1)).add_(constant.unsqueeze(1)).mul_(block.exponentials)
        dz.scatter_add_(1, targets.unsqueeze(1), -a.unsqueeze(1))
        if block.squashed is not None:
            dz.mul_(block.squashed.square_().neg_().add_(1))
        if head.scale != 1.0:
            dz.mul_(head.scale)
        if self.sums is not None and self.sums.bias is not None:
            self.sums.bias.add_(dz.sum(0))
        if self.row_scale is not None:
            size = size * head.scale / HALF_SCALE
            scale = self.row_scale[rows] = torch.where(size == 0, torch.ones_like(size), size)
            dz.div_(scale.unsqueeze(1))
        if dz is not raw:
            raw.copy_(dz)
