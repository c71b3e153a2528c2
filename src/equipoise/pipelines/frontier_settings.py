"""The schema of a frontier: arms, each at several learning rates, scored at several epochs; torch-free."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from equipoise.config import Section
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.settings import (
    ArmSettings,
    CohortOf,
    DataSettings,
    Rate,
    RetentionSettings,
    Seed,
    names_a_folder,
)
from equipoise.training.settings import StoppingSettings, TrainSettings

Epoch = Annotated[int, Field(ge=1)]
Level = Annotated[float, Field(gt=0, le=1)]


class FrontierArm(ArmSettings):
    """A method: an objective, and what goes with it.

    Attributes:
        rehearse: train on every second row to keep as well; locality is measured on the others, for all arms.
        stopping: a rule that ends each training; the arm is then scored where it ended and nowhere else.
        learning_rates: instead of those of the grid, for an arm that is at its best with other steps.
    """

    stopping: StoppingSettings | None = None
    learning_rates: list[Rate] | None = Field(default=None, min_length=1)


class FrontierRecipe(Section):
    """What each method can reach: every arm is trained at every learning rate with every seed, and scored on the way.

    Attributes:
        score_at: epochs after which a training is scored; the last of them ends it.
        against: the arm that the others are compared with.
        levels: shares of corrected items at which it is asked how much else is kept.
        cohort: which trainings go together, as in a protocol.
    """

    pipeline: Literal["frontier"] = "frontier"
    name: str = "frontier"
    description: str = ""
    seeds: list[Seed] = Field(default=[42, 123, 456, 789, 2024], min_length=1)
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    arms: dict[str, FrontierArm] = Field(min_length=1)
    learning_rates: list[Rate] = Field(min_length=1)
    score_at: list[Epoch] = Field(min_length=1)
    against: str = "sft"
    levels: list[Level] = Field(default=[0.8, 0.9, 0.95], min_length=1)
    cohort: CohortOf = "seed"
    training: TrainSettings = TrainSettings()
    evaluation: RetentionSettings = RetentionSettings()

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        for arm in self.arms:
            if not names_a_folder(arm) or "@" in arm:
                raise ValueError(
                    f"{arm!r} is no name for an arm: use letters, digits, '-' and '_', and not `untrained`"
                )
        if self.against not in self.arms:
            raise ValueError(f"against: there is no arm {self.against!r}; one of {', '.join(self.arms)}")
        named = {"seeds": self.seeds, "score_at": self.score_at, "levels": self.levels}
        rates = {"learning_rates": self.learning_rates}
        rates |= {f"arms.{name}.learning_rates": arm.learning_rates or [] for name, arm in self.arms.items()}
        named |= {field: [f"{rate:g}" for rate in values] for field, values in rates.items()}
        for field, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"a value stands twice in {field}")
        return self

    @model_validator(mode="after")
    def _check_training(self) -> Self:
        """A setting that the grid decides must not stand elsewhere too, where it would be passed over."""
        training, default = self.training, TrainSettings()
        for field, instead in (("learning_rate", "learning_rates"), ("epochs", "score_at")):
            if getattr(training, field) != getattr(default, field):
                raise ValueError(f"training.{field} has no effect in a frontier: change {instead} instead")
        if training.stopping is not None or self.data.rehearse:
            field = "training.stopping" if training.stopping else "data.rehearse"
            raise ValueError(f"{field} has no effect in a frontier: change arms.NAME.{field.split('.')[1]} instead")
        if training.packing:
            raise ValueError("training.packing: with packing, epochs do not end at a step that is known beforehand")
        if self.data.keep is None and any(arm.rehearse for arm in self.arms.values()):
            raise ValueError("an arm cannot rehearse without data.keep")
        return self

    @property
    def seed(self) -> int:
        """The one that stands for the run where one has to."""
        return self.seeds[0]

    @property
    def rehearses(self) -> bool:
        """Whether any arm does, so that the rows to keep are split for all."""
        return any(arm.rehearse for arm in self.arms.values())

    def rates_of(self, arm: str) -> list[float]:
        """The learning rates that an arm is trained at."""
        return self.arms[arm].learning_rates or self.learning_rates

    def settings_of(self, arm: str, rate: float) -> TrainSettings:
        """How one training goes."""
        own = {"epochs": max(self.score_at), "learning_rate": rate, "stopping": self.arms[arm].stopping}
        return self.training.model_copy(update=own)

    def trainings(self) -> Iterator[tuple[str, float, int]]:
        """Arm, learning rate and seed of each training, by seed first: a grid that is cut off still compares arms."""
        for seed in self.seeds:
            for arm in self.arms:
                for rate in self.rates_of(arm):
                    yield arm, rate, seed
