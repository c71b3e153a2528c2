"""What can be said about the order of training rows in a configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from equipoise.config import Section
from equipoise.errors import UserError
from equipoise.schedules.curriculum import Order, Schedule
from equipoise.schedules.pacing import Pacing

Share = Annotated[float, Field(gt=0, le=1)]


class CurriculumSettings(Section):
    """In which order and how fast rows come into use; the meaning of each key is that of `Schedule`."""

    pacing: Pacing = "linear"
    start: Share = 0.1
    full: Share = 0.8
    bins: list[Share] = Field(default=[0.1, 0.2, 0.4, 1.0], min_length=1)
    stages: int = Field(default=4, ge=1)
    order: Order = "confident"
    threshold: float | None = Field(default=None, ge=0, le=1)
    replay: float = Field(default=0.05, ge=0, lt=1)
    dynamic: bool = False

    @model_validator(mode="after")
    def _rises(self) -> CurriculumSettings:
        try:
            self.schedule()
        except UserError as error:
            raise ValueError(f"{error.what}: bins rise, and the last is 1") from None
        return self

    def schedule(self) -> Schedule:
        """What `Curriculum` takes."""
        values = self.model_dump()
        values["bins"] = tuple(self.bins)
        return Schedule(**values)
