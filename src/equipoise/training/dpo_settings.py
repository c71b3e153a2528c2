"""What can be said about preference training in a configuration."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from equipoise.training.settings import CommonSettings

SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")  # the losses in which TRL uses label smoothing


class DPOSettings(CommonSettings):
    """Direct preference optimisation on pairs of answers; batches and steps count pairs.

    `beta` is the weight of staying near the reference: higher moves less. `loss_type` is one of TRL's; `robust`,
    `exo_pair`, `aot` and `aot_unpaired` alone know `label_smoothing`, the share of pairs taken to be the wrong way
    round. `sft_weight` times the nll of the better answers, in nats a token, is added to the loss, so that they do not
    become less likely while the others do. `max_length` counts a prompt with one of its answers. `lora` is for a model
    that brings no adapter; one that it brings is trained on.
    """

    section: ClassVar[str] = "dpo"
    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    loss_type: Literal[
        "sigmoid",
        "sigmoid_norm",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
    ] = "sigmoid"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    sft_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=5e-6, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> Self:
        if self.label_smoothing and self.loss_type not in SMOOTHED:
            raise ValueError(
                f"loss_type {self.loss_type} knows no label_smoothing; use robust for pairs of which some are wrong"
            )
        if self.loss_type == "exo_pair" and not self.label_smoothing:
            raise ValueError("loss_type exo_pair needs a label_smoothing above 0, such as 1e-3")
        return self
