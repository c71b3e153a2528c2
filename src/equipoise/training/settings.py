"""What can be said about training in a configuration."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from equipoise.config import Section
from equipoise.runs import FALSE_ALARM
from equipoise.schedules.stopping import StoppingSettings as StoppingRule

PRESETS: dict[str, dict[str, Any]] = {
    "domain": {"epochs": 3, "learning_rate": 1e-5, "batch_size": 4},
    "surgical": {"epochs": 50, "learning_rate": 2e-5, "batch_size": 1, "gradient_accumulation": 8},
}


class ObjectiveSettings(Section):
    """The weighting by name with its parameters; `detach_weights` and `normalize` as in `fused_linear_loss`.

    `params: {tau: auto, false_alarm: 0.05}` of r-eaft takes the tau at which the model flags at most that share of
    tokens that it wrote itself; a run finds it once, before it trains.
    """

    name: str = "r-eaft"
    params: dict[str, Any] = Field(default_factory=dict)
    detach_weights: bool = True
    normalize: Literal["tokens", "weights"] = "tokens"

    @property
    def false_alarm(self) -> float | None:
        """The rate that tau is to be found for where it is `auto`, else None."""
        return self.params.get("false_alarm", FALSE_ALARM) if self.params.get("tau") == "auto" else None

    def with_tau(self, tau: float) -> Self:
        """The same with the number that was found for `tau: auto`."""
        given = {name: value for name, value in self.params.items() if name != "false_alarm"}
        return self.model_copy(update={"params": given | {"tau": tau}})

    @model_validator(mode="after")
    def _check_auto(self) -> Self:
        rate = self.params.get("false_alarm", FALSE_ALARM)
        if self.params.get("tau") == "auto" and self.name != "r-eaft":
            raise ValueError(f"params.tau: auto is for r-eaft; give {self.name} a number")
        if "false_alarm" in self.params and self.params.get("tau") != "auto":
            raise ValueError("params.false_alarm goes with tau: auto; a tau that is a number has its own rate")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
            raise ValueError(f"params.false_alarm must be a number above 0 and below 1, not {rate!r}")
        return self


class LoraSettings(Section):
    """Low-rank adapters as in PEFT; `all-linear` is every linear layer but the head."""

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"

    @field_validator("target_modules")
    @classmethod
    def _is_a_pattern(cls, names: str | list[str]) -> str | list[str]:
        if isinstance(names, str):
            try:
                re.compile(names)
            except re.error as error:
                raise ValueError(f"no regular expression: {error}") from None
        return names


RULE = StoppingRule()


class StoppingSettings(Section):
    """When to stop before the last epoch; `equipoise.schedules.stopping.StoppingSettings` explains each setting."""

    floor: float = Field(default=RULE.floor, ge=0, le=1)
    delta: float = Field(default=RULE.delta, gt=0)
    z: float = Field(default=RULE.z, gt=0)
    unsure: float = Field(default=RULE.unsure, gt=0)
    checks: int = Field(default=RULE.checks, ge=1)
    window: float = Field(default=RULE.window, ge=0.2, le=0.5)
    block: int = Field(default=RULE.block, ge=2)
    k: float = Field(default=RULE.k, gt=0)
    rise_z: float = Field(default=RULE.rise_z, gt=0)
    rises: int = Field(default=RULE.rises, ge=1)
    divergence: float = Field(default=RULE.divergence, gt=1)
    non_finite: int = Field(default=RULE.non_finite, ge=1)
    restarts: int = Field(default=RULE.restarts, ge=0)


class CommonSettings(Section):
    """What training on answers and on preferences have in common.

    `lora: null` trains all weights, which are kept in float32. `precision: auto` is bf16 on a GPU that has it, fp16 on
    one that does not, and fp32 elsewhere; but bf16 for `lora: null` on a CPU that computes in it, if the model was
    loaded in 16 bits. `checkpoint_every` counts optimizer steps; `epoch` saves after each epoch, null only when
    interrupted. An optimizer step sees `batch_size * gradient_accumulation` rows (per device). `cycles` is how often
    `cosine_with_restarts` falls from the full rate to zero.
    """

    section: ClassVar[str] = "training"  # where a recipe has these settings, as errors name it
    epochs: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=2e-5, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=4, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    max_length: int = Field(default=1024, ge=2)
    gradient_checkpointing: bool = False
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    scheduler: Literal["linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup"] = "linear"
    cycles: int = Field(default=2, ge=1)
    max_grad_norm: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    optimizer: str = "adamw_torch"
    lora: LoraSettings | None = Field(default_factory=LoraSettings)
    logging_steps: int = Field(default=1, ge=1)
    checkpoint_every: int | Literal["epoch"] | None = "epoch"
    keep_checkpoints: int = Field(default=2, ge=1)
    max_bad_share: float = Field(default=0.05, ge=0, le=1)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _positive_interval(self) -> Self:
        if isinstance(self.checkpoint_every, int) and self.checkpoint_every < 1:
            raise ValueError("checkpoint_every must be at least 1")
        return self


class TrainSettings(CommonSettings):
    """Supervised fine-tuning. A preset fills in what is not given: `domain` 3 epochs, `surgical` 50.

    `token_learning_rate` is that of the rows of new tokens, null the same as the others'. `stopping: {}` stops in time;
    null trains to the end.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    preset: Literal["domain", "surgical"] | None = None
    token_learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    packing: bool = False
    train_on_prompt: bool = False
    stopping: StoppingSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("preset"), str):
            return {**cls.presets.get(given["preset"], {}), **given}
        return given


class SftSettings(TrainSettings):
    """Supervised fine-tuning in a recipe that trains in other ways too."""

    section: ClassVar[str] = "sft"
