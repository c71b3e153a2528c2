"""Put the fused objective onto a model: backbone, then the output embeddings, never a [B, T, V] tensor of logits."""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass
from typing import Any

import torch

from equipoise.models.head import HeadFormula, gathered, output_head, verify
from equipoise.objectives.fused_head import fused_linear_loss

IGNORE = -100


@dataclass(frozen=True)
class Objective:
    """A weighting and how its loss is normalised."""

    weighting: Any
    detach_weights: bool = True
    normalize: str = "tokens"


def attach(model: Any, objective: Objective) -> None:
    """Teach `model` (not its PEFT wrapper) the call `model(..., labels=..., num_items=..., fused_objective=True)`.

    That call returns a dict: the scalar `loss`, and per supervised token `nll`, `entropy`, `weights` and `correct` [N].
    Other calls are the model's own. The head is looked up at each call, since PEFT and FSDP replace it later.

    Raises:
        UserError: the model has no linear head, or its own logits differ from the formula.
    """
    formula = HeadFormula.of(model)
    own_forward = model.forward
    verify(model, formula, own_forward)

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_objective: bool = False, num_items: Any = None, **kwargs: Any) -> Any:
        if not fused_objective:
            return own_forward(*args, **kwargs)
        labels = kwargs.pop("labels")
        kwargs["use_cache"] = False
        outputs = self.base_model(*args, **kwargs)
        out = token_loss(self, outputs.last_hidden_state[:, :-1], labels[:, 1:], formula, objective, num_items)
        if kwargs.get("output_router_logits"):
            out["aux_loss"] = _router_loss(self, outputs, kwargs.get("attention_mask"))
        return out

    model.forward = types.MethodType(forward, model)


def detach(model: Any) -> None:
    """Give the model its class's forward back: a patched one would follow the original into a deep copy."""
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)


def token_loss(
    model: Any, hidden: torch.Tensor, labels: torch.Tensor, formula: HeadFormula, objective: Objective, num_items: Any
) -> dict[str, torch.Tensor]:
    """The fused loss of `hidden [..., D]` under `labels [...]`, shifted already, as the call above returns it."""
    weight, bias, trained = output_head(model)
    hidden = hidden.reshape(-1, hidden.shape[-1]).to(weight.device)
    labels = labels.reshape(-1).to(weight.device)
    with gathered(weight, bias):
        loss = fused_linear_loss(
            hidden,
            weight,
            labels,
            objective.weighting,
            bias=bias,
            num_items=_at_least_one(num_items) if objective.normalize == "tokens" else None,
            detach_weights=objective.detach_weights,
            normalize=objective.normalize,
            ignore_index=IGNORE,
            logit_scale=formula.logit_scale,
            softcap=formula.softcap,
            row_ids=None if trained is None else trained.ids,
            rows=None if trained is None else trained.rows,
        )
    kept = labels != IGNORE
    return {
        "loss": loss.loss,
        "nll": loss.nll.detach()[kept],
        "entropy": loss.entropy.detach()[kept],
        "weights": loss.weights.detach()[kept],
        "correct": loss.correct[kept],
    }


def _at_least_one(num_items: Any) -> Any:
    """A step without a supervised token is a zero, not 0 / 0."""
    return None if num_items is None else torch.as_tensor(num_items).clamp(min=1)


def _router_loss(model: Any, outputs: Any, attention_mask: torch.Tensor | None) -> torch.Tensor:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    loss = load_balancing_loss_func(
        outputs.router_logits, config.num_experts, config.num_experts_per_tok, attention_mask
    )
    assert isinstance(loss, torch.Tensor)
    return loss
