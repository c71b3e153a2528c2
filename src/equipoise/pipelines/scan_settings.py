"""The settings of `scan`; torch-free, so that they are checked before a model is loaded."""

from pydantic import Field

from equipoise.config import Section
from equipoise.models.settings import ModelSettings
from equipoise.signals.classes import Thresholds


class ScanSettings(Section):
    """How a data set is scanned.

    `limit` takes the first so many examples. A longer example than `max_length` tokens is left out, as in training.
    `batch_tokens` positions go through the model at once. With `train_on_prompt` the prompts' tokens are looked at too.
    `max_bad_share` is the share of rows that cannot be read above which the source is refused. `top` examples that
    contradict the model most are listed. With `form` each row is read a second time, after two other rows that show the
    form of the answers.
    """

    model: ModelSettings = ModelSettings()
    limit: int | None = Field(default=None, ge=1)
    max_length: int = Field(default=1024, ge=2)
    batch_tokens: int = Field(default=4096, ge=1)
    train_on_prompt: bool = False
    max_bad_share: float = Field(default=0.25, ge=0, le=1)
    form: bool = True
    top: int = Field(default=20, ge=0)
    classes: Thresholds = Thresholds()
