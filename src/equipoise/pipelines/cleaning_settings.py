"""The settings of `data clean`; torch-free, so that they are checked before anything is read."""

from typing import Self

from pydantic import Field, model_validator

from equipoise.config import Section
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.settings import Seed


class NearSettings(Section):
    """Near duplicates: rows whose runs of `shingle` words have this Jaccard index or more; null leaves them."""

    threshold: float | None = Field(default=0.8, ge=0.3, le=1)
    shingle: int = Field(default=3, ge=1, le=20)


class LengthSettings(Section):
    """The window of lengths, in the model's tokens, or in words where no model is named.

    Of the rows longer than `long_over` only the share `long_keep` is kept, so that short and medium ones prevail; which
    ones is decided by seed and text.
    """

    min: int = Field(default=1, ge=0)
    max: int | None = Field(default=None, ge=1)
    long_over: int | None = Field(default=None, ge=1)
    long_keep: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"no row is at least {self.min} and at most {self.max} long")
        return self


class CleaningSettings(Section):
    """How instruction data is cleaned.

    `against` are held-out sets (paths or `hub:NAME:SPLIT`) whose questions leave the training data. `licences` is the
    allow-list; `unknown` in it lets rows pass that name none. `weights` are the shares of the sources in the mixture,
    by the name of a file without its ending, or as it was given; no row is ever repeated for it. `model` only lends its
    tokenizer.
    """

    seed: Seed = 42
    model: ModelSettings | None = None
    licences: list[str] | None = None
    against: tuple[str, ...] = ()
    near: NearSettings = NearSettings()
    length: LengthSettings = LengthSettings()
    weights: dict[str, float] | None = None
    max_bad_share: float = Field(default=0.25, ge=0, le=1)  # of a source; broken rows are what cleaning is for

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.weights is not None and not all(weight > 0 for weight in self.weights.values()):
            raise ValueError("every weight must be above 0; leave the source out instead")
        return self
