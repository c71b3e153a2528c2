"""The schema of a sampling job; torch-free, so that it is checked before anything heavy is imported."""

from typing import Literal, Self

from pydantic import Field, model_validator

from equipoise.config import Section
from equipoise.models.backends.settings import BackendSettings
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.settings import Seed


class SamplingSettings(BackendSettings):
    """How many answers are drawn for each input, and how."""

    samples: int = Field(default=8, ge=1, le=1000)


class SamplingRecipe(Section):
    """Draw answers for the inputs of a source into one file of samples.

    `inputs` is a CoNLL or JSONL file, `hub:NAME:SPLIT` or `testbed:DOMAIN` (`source` or `target`; `testbed:target:test`
    for another split than train). `types: null` takes those that the labels of the source show; a source without
    labels needs them given. `adapter` names the labels of a known data set.
    """

    pipeline: Literal["sampling"] = "sampling"
    name: str = "samples"
    description: str = ""
    seed: Seed = 42
    model: ModelSettings = ModelSettings(path="testbed:ner")
    inputs: str = "testbed:target"
    adapter: str | None = None
    types: list[str] | None = None
    instruction: str | None = None
    max_inputs: int | None = Field(default=None, ge=1)  # the first so many of the source
    max_bad_share: float = Field(default=0.05, ge=0, le=1)
    sampling: SamplingSettings = SamplingSettings()

    @model_validator(mode="after")
    def _named_model(self) -> Self:
        if self.sampling.backend != "hf" and self.model.path.startswith("testbed"):
            raise ValueError(f"backend {self.sampling.backend} needs model.path (--model): what it calls the model")
        return self
