"""The schema of an instruct recipe; torch-free, so that it is checked before anything heavy is imported."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from equipoise.config import Section
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.cleaning_settings import LengthSettings, NearSettings
from equipoise.pipelines.settings import Seed
from equipoise.training.dpo_settings import DPOSettings
from equipoise.training.settings import LoraSettings, ObjectiveSettings, SftSettings

Share = Annotated[float, Field(ge=0, lt=1)]
HeldOut = Annotated[list[str], Field(min_length=1)] | Share


class InstructData(Section):
    """Where instructions and pairs come from: JSONL files, JSON arrays, `hub:NAME:SPLIT` or `testbed:instructions`.

    Both kinds may stand in one source, in any schema that `data clean` knows. `validation` and `test` are sources of
    their own, or a share of the clean questions, set apart by a hash of each (of `meta.group` where a row has one).
    """

    sources: list[str] = Field(default=["testbed:instructions"], min_length=1)
    validation: HeldOut = 0.05
    test: HeldOut = 0.1
    split_seed: Seed = 0
    limit: int | None = Field(default=None, ge=1)  # the first so many rows of each kind, after cleaning

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if sum(share for share in (self.validation, self.test) if isinstance(share, float)) >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self

    @field_validator("sources", "validation", "test", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given


class InstructCleaning(Section):
    """What `data clean` does to the sources; its own page explains each setting."""

    licences: list[str] | None = None
    near: NearSettings = NearSettings()
    length: LengthSettings = LengthSettings()
    weights: dict[str, float] | None = None
    max_bad_share: float = Field(default=0.25, ge=0, le=1)


class InstructEvaluation(Section):
    """What the models are asked: every test instruction greedily, every test pair by log-probability.

    `by` is a key of `meta` whose values get a row of their own. `validation` is how many validation rows of each kind
    are looked at while training.
    """

    max_new_tokens: int = Field(default=256, ge=1)
    batch_tokens: int = Field(default=8192, ge=1)
    by: str | None = None
    validation: int = Field(default=200, ge=1)
    sanity: str | None = "default"  # a file of prompts that every model answers, for people to read; null for none


class InstructRecipe(Section):
    """Clean instruction data, fine-tune on its answers, align with preference pairs, and measure each step.

    `sft: null` begins with DPO, from `model` (and its `adapter`); `dpo: null` ends after SFT. `select` says which SFT
    model goes on: that of the lowest mean validation loss, or the last.
    """

    pipeline: Literal["instruct"] = "instruct"
    name: str = "instruct"
    description: str = ""
    seeds: list[Seed] = Field(default=[42], min_length=1)
    model: ModelSettings = ModelSettings()
    data: InstructData = InstructData()
    clean: InstructCleaning = InstructCleaning()
    objective: ObjectiveSettings = ObjectiveSettings(name="sft")
    sft: SftSettings | None = SftSettings(learning_rate=2e-4, lora=LoraSettings())
    dpo: DPOSettings | None = DPOSettings()
    select: Literal["best", "last"] = "best"
    evaluation: InstructEvaluation = InstructEvaluation()

    @model_validator(mode="after")
    def _has_a_stage(self) -> Self:
        if self.sft is None and self.dpo is None:
            raise ValueError("sft and dpo are both null: `equipoise data clean` and `evaluate` do the rest alone")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        return self
