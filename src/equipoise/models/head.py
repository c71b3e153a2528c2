"""The output head of a model: where it is, what the model does to its logits, and a check that this is all of it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from equipoise.errors import UserError
from equipoise.models.tables import base_layer, tables
from equipoise.models.token_rows import TrainedRows, trained_rows


class Output(NamedTuple):
    """An output head: weight [V, D], bias [V] or None, and the rows that stand in for some of its own."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    trained: TrainedRows | None


@dataclass(frozen=True)
class HeadFormula:
    """`logits = softcap * tanh(z / softcap)` with `z = logit_scale * (hidden @ W.T + b)`."""

    logit_scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: Any) -> HeadFormula:
        """Read scale and cap from the config, under the names that transformers' models use (as TRL does)."""
        config = model.config.get_text_config()
        for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
            if getattr(config, name, None) is not None:
                return cls(float(getattr(config, name)), _cap(config))
        scaling = getattr(config, "logits_scaling", None)
        if scaling is None:
            return cls(1.0, _cap(config))
        return cls(float(scaling) if config.model_type == "hyperclovax" else 1.0 / float(scaling), _cap(config))

    def logits(self, hidden: torch.Tensor, head: Output) -> torch.Tensor:
        """Logits [..., V] in float32 by the formula; for checks, not for training."""
        z = (hidden.to(head.weight.dtype) @ head.weight.T).float()
        if head.trained is not None:
            z[..., head.trained.ids] = hidden.float() @ head.trained.rows.float().T
        z = (z if head.bias is None else z + head.bias.float()) * self.logit_scale
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)


def _cap(config: Any) -> float | None:
    cap = getattr(config, "final_logit_softcapping", None)
    return None if cap is None else float(cap)


def output_head(model: Any) -> Output:
    """The head as it is now: PEFT and FSDP replace it after loading."""
    from torch.distributed.tensor import DTensor

    module = model.get_output_embeddings()
    head, trained = base_layer(module), trained_rows(module)
    weight, bias = head.weight, getattr(head, "bias", None)
    if isinstance(weight, DTensor):  # FSDP2: gather once, before the tokens are cut into chunks
        weight = weight.full_tensor()
        bias = bias.full_tensor() if isinstance(bias, DTensor) else bias
    if trained is not None and isinstance(trained.rows, DTensor):
        trained = trained._replace(rows=trained.rows.full_tensor())
    return Output(weight, bias, trained)


def gathered(weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """DeepSpeed ZeRO-3 keeps the head in shards; gather it for the time of the projection."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed  # pyright: ignore[reportMissingImports]

    return deepspeed.zero.GatheredParameters([p for p in (weight, bias) if p is not None])


@torch.no_grad()
def verify(model: Any, formula: HeadFormula, own_forward: Any) -> None:
    """Compare the model's own logits with backbone, head and formula on a few tokens.

    A head that does something else (a norm of its own, several matrices, an adapter) would otherwise train on
    another loss without a sign of it.
    """
    name = type(model).__name__
    weight = getattr(base_layer(model.get_output_embeddings()), "weight", None)
    backbone = model.base_model
    if backbone is model or weight is None or weight.ndim != 2:
        raise _unsupported(name, "it has no separate backbone and linear head")
    if hasattr(weight, "ds_id"):  # sharded: there is nothing to compare before the engine runs
        return
    ids = (torch.arange(8, device=model.device) * 7 + 1).remainder(len(tables(model)[0]))[None]
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            own = own_forward(input_ids=ids, use_cache=False).logits.float()
            hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
            ours = formula.logits(hidden.to(weight.device), output_head(model)).to(own.device)
    finally:
        model.train(training)
    if own.isnan().any():
        raise UserError(
            f"{name} gives logits that are not numbers",
            where="model.path",
            fix="its weights are damaged or too large for this precision: fetch them again, or set model.dtype=fp32",
        )
    if own.shape != ours.shape:
        raise _unsupported(name, f"its logits have shape {tuple(own.shape)}, the head gives {tuple(ours.shape)}")
    error = (own - ours).abs().max() / own.abs().max().clamp(min=1e-6)
    if not error <= (1e-4 if hidden.dtype == torch.float32 and weight.dtype == torch.float32 else 5e-2):
        raise _unsupported(name, f"its logits differ from hidden @ head by {float(error):.1%}")


def _unsupported(name: str, detail: str) -> UserError:
    return UserError(
        f"{name} computes its logits in a way the fused objective does not reproduce: {detail}",
        where="model.path",
        fix="remove adapters from the head, or use an architecture whose logits are one linear map of the hidden state",
        docs="docs/models.md#architectures",
    )
