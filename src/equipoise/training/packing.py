"""Packing puts several documents into one row; this checks that the model keeps them apart."""

from __future__ import annotations

from typing import Any

import torch

from equipoise.errors import UserError


@torch.no_grad()
def check_documents_stay_apart(model: Any, section: str) -> None:
    """Compare a document's hidden states alone and behind another one in the same row.

    A model whose attention mask does not follow the positions would train each answer on other documents' questions,
    without a sign of it.

    Args:
        section: of the recipe, to which `packing` belongs.

    Raises:
        UserError: the document is seen to depend on what was packed before it.
    """
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    first, second = [5, 6, 7, 8], [9, 10, 11]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    packed = collate([{"input_ids": first + second, "seq_lengths": [len(first), len(second)]}])
    inputs = {name: v.to(model.device) if torch.is_tensor(v) else v for name, v in packed.items() if name != "labels"}
    training = model.training
    model.eval()
    together = model.base_model(**inputs, use_cache=False).last_hidden_state[0, len(first) :].float()
    alone = model.base_model(input_ids=torch.tensor([second], device=model.device), use_cache=False)
    model.train(training)
    difference = (together - alone.last_hidden_state[0].float()).abs().max() / together.abs().max()
    if not difference < 0.02:
        raise UserError(
            f"{type(model).__name__} lets packed documents see each other",
            where=f"{section}.packing",
            fix=f"set {section}.packing: false, or load the model with attn_implementation: flash_attention_2",
            docs="docs/troubleshooting.md#packing",
        )
