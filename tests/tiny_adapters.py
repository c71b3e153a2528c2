"""Tiny models with LoRA adapters of random weights, alone and stacked."""

from typing import Any

import torch
from tiny_models import tiny_model

from equipoise.models.lora_stack import LoraStack, parameters_of, slots
from equipoise.models.quiet import quiet
from equipoise.models.token_rows import indices


def tiny_adapted(architecture: str = "llama", *, strength: float = 0.3, token_rows: tuple[int, ...] = ()) -> Any:
    """A PEFT model on `tiny_model(architecture)`, whose adapter moves its predictions; `strength` 0 does not."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model(architecture)
    fused = architecture == "gpt2"
    config = LoraConfig(
        r=2,
        target_modules=["c_attn"] if fused else ["q_proj", "v_proj"],
        fan_in_fan_out=fused,
        task_type="CAUSAL_LM",
        trainable_token_indices=indices(model, token_rows) if token_rows else None,
    )
    with quiet():
        adapted = get_peft_model(model, config)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_B" in name or "trainable_tokens" in name:
                parameter += strength * torch.randn(parameter.shape, generator=draw)
    return adapted.eval()


def tiny_stack(runs: int) -> LoraStack:
    """A stack of adapters that all move the model another way."""
    model = tiny_adapted()
    row = parameters_of(slots(model))
    draw = torch.Generator().manual_seed(9)
    return LoraStack(model, row + 0.2 * torch.randn(runs, len(row), generator=draw))
