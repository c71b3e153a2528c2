"""What can be said about GRPO in a configuration."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from equipoise.config import Section
from equipoise.errors import UserError
from equipoise.schedules.collapse import CollapseSettings
from equipoise.training.settings import LoraSettings, TrainSettings


class RewardSettings(Section):
    """Weights of the parts of a reward; each part lies between 0 and 1.

    `soft_f1` is token F1 against the pseudo-label, in which an entity partly right counts in part; `format` a bonus for
    readable answers that are not empty; `exact` and `entity_f1` are strict; `length_penalty` is taken off, by the share
    of `max_new_tokens` that an answer used.
    """

    soft_f1: float = Field(default=1.0, ge=0)
    format: float = Field(default=0.1, ge=0)
    exact: float = Field(default=0.0, ge=0)
    entity_f1: float = Field(default=0.0, ge=0)
    length_penalty: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _reward_something(self) -> Self:
        if not (self.soft_f1 or self.exact or self.entity_f1):
            raise ValueError(
                "a reward needs soft_f1, exact or entity_f1: format alone would teach form without content"
            )
        return self


class WatchSettings(Section):
    """When rising reward counts as collapse (docs/curriculum.md#collapse), and what is done about it."""

    action: Literal["stop", "warn", "off"] = "stop"
    window: int = Field(default=10, ge=2)
    z: float = Field(default=2.0, ge=0)
    drop: float = Field(default=0.1, gt=0, le=1)
    checks: int = Field(default=2, ge=1)
    entropy: float = Field(default=0.05, gt=0, le=1)
    empty: float = Field(default=0.2, gt=0, le=1)

    def rule(self) -> CollapseSettings:
        """What `CollapseWatch` takes."""
        return CollapseSettings(**self.model_dump(exclude={"action"}))


class GrpoSettings(Section):
    """Group-relative policy optimisation with an adapter whose absence is the reference.

    An optimizer step draws `group` answers to each of `prompts_per_step` prompts and learns from all of them, in
    `accumulation` parts. `epochs` counts passes over as many target sentences as there are. KL divergences are in nats
    a token: `kl_limit` bounds the one from the base on the policy's own answers, smoothed over ten steps; `beta` is its
    weight in the loss. Validations come with each stage, at the end, and every `eval_every` optimizer steps.
    """

    epochs: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0, allow_inf_nan=False)
    group: int = Field(default=8, ge=2)
    prompts_per_step: int = Field(default=16, ge=1)
    accumulation: int = Field(default=1, ge=1)
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=1.0, gt=0, le=10)
    beta: float = Field(default=0.02, ge=0, allow_inf_nan=False)
    kl_limit: float | None = Field(default=0.5, gt=0)
    kl_action: Literal["warn", "stop"] = "warn"
    forward_kl_inputs: int = Field(default=32, ge=0)
    rewards: RewardSettings = RewardSettings()
    resample_attempts: int = Field(default=2, ge=0)
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    lora: LoraSettings = LoraSettings()
    max_grad_norm: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "constant_with_warmup"
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    batch_tokens: int = Field(default=16384, ge=1)  # prompts plus answers that are drawn at once
    eval_every: int | None = Field(default=None, ge=1)
    checkpoint_every: int | None = Field(default=25, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    collapse: WatchSettings = WatchSettings()

    @model_validator(mode="before")
    @classmethod
    def _groups_compare(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("group") == 1:
            raise ValueError("a group of one answer has nothing to compare it with: group must be at least 2")
        return given

    @model_validator(mode="after")
    def _parts_are_equal(self) -> Self:
        if (self.prompts_per_step * self.group) % self.accumulation:
            raise ValueError("accumulation does not divide the answers of a step (prompts_per_step times group)")
        try:
            self.collapse.rule()
        except UserError as error:
            raise ValueError(f"{error.where}: {error.what}") from None
        return self

    def training(self) -> TrainSettings:
        """The settings that GRPO shares with supervised training, as its helpers take them."""
        shared = set(TrainSettings.model_fields) & set(type(self).model_fields)
        return _Shared(**{name: getattr(self, name) for name in shared})


class _Shared(TrainSettings):
    section: ClassVar[str] = "grpo"
