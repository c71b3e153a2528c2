"""The schema of a synthetic-RL recipe; torch-free, so that it is checked before anything heavy is imported."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from equipoise.config import Section, nearest
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.sampling_settings import SamplingSettings
from equipoise.pipelines.settings import Seed, names_a_folder
from equipoise.training.curriculum_settings import CurriculumSettings
from equipoise.training.grpo_settings import GrpoSettings
from equipoise.training.settings import LoraSettings, SftSettings

Share = Annotated[float, Field(ge=0, le=1)]
SIGNALS = ("exact", "consensus", "votes", "logprob", "entropy", "combined")
Signal = Literal["exact", "consensus", "votes", "logprob", "entropy", "combined"]
ZERO_SHOT = "zero-shot"


class ExtractionDomain(Section):
    """Sentences of one domain. A source is a CoNLL or JSONL file, `hub:NAME:SPLIT` or `testbed:source|target`.

    `train` of the target is used without its labels, that of the source for replay. Where `dev` or `test` is null it is
    set apart from `train`. `types: null` takes those that occur; `adapter` names the labels of a known data set.
    """

    train: str
    dev: str | None = None
    test: str | None = None
    adapter: str | None = None
    types: list[str] | None = None
    limit: int | None = Field(default=None, ge=1)  # sentences of each split, the first so many


class LabelSettings(Section):
    """From K samples to a pseudo-label and how sure of it the model is."""

    model: str | None = None  # whose samples, where the file holds those of several models
    samples: str | None = None  # a ready file of samples, in place of generation
    per_seed: bool = False  # each seed draws samples of its own; else all learn from the same ones
    label: Literal["largest", "majority"] = "largest"  # the largest cluster, or every entity with most votes
    signal: Signal = "combined"
    comparable: bool = True  # between sentences of few and of many entities
    calibrator: Literal["temperature", "platt", "none"] = "platt"  # fitted on the target's dev sentences
    max_empty: Share = 0.1  # of the labels that are trained on


class DataSettings(Section):
    """How rows are read and asked for."""

    dev: Share = 0.1  # set apart from train where a domain gives no file
    test: Share = 0.3
    instruction: str | None = None
    max_bad_share: Share = 0.05
    max_new_tokens: int = Field(default=128, ge=1)
    batch_tokens: int = Field(default=8192, ge=1)
    validation: int = Field(default=100, ge=1)  # dev sentences a domain that are asked while training
    select: Literal["best", "last"] = "best"  # the model that is measured: of best F1 on the target's dev, or the last


class Arm(Section):
    """One way to learn from the pseudo-labels, or `zero-shot`, which learns nothing."""

    method: Literal["zero-shot", "sft", "grpo"] = "grpo"
    curriculum: CurriculumSettings = CurriculumSettings()
    grpo: dict[str, Any] = Field(default_factory=dict)  # what differs from the recipe's `grpo`
    sft: dict[str, Any] = Field(default_factory=dict)


class SyntheticRecipe(Section):
    """Adapt a model to a new domain from its own labels, the surest first, and measure what that costs elsewhere.

    `primary` is the arm whose differences from the others are tested; it is named here, before anything is run.
    """

    pipeline: Literal["synthetic_rl"] = "synthetic_rl"
    name: str = "synthetic-rl"
    description: str = ""
    seeds: list[Seed] = Field(default=[42], min_length=1)
    model: ModelSettings = ModelSettings(path="testbed:ner")
    source: ExtractionDomain
    target: ExtractionDomain
    data: DataSettings = DataSettings()
    sampling: SamplingSettings = SamplingSettings()
    labels: LabelSettings = LabelSettings()
    grpo: GrpoSettings = GrpoSettings()
    sft: SftSettings = SftSettings(epochs=3, learning_rate=2e-4, lora=LoraSettings())
    arms: dict[str, Arm] = Field(default={"curriculum": Arm()}, min_length=1)
    primary: str = "curriculum"

    @model_validator(mode="after")
    def _check_arms(self) -> Self:
        for name, arm in self.arms.items():
            if not names_a_folder(name):
                raise ValueError(f"{name!r} is no name for an arm: use letters, digits, '-' and '_'")
            if (name == ZERO_SHOT) != (arm.method == "zero-shot"):
                raise ValueError(f"the arm {ZERO_SHOT} is the untrained model, and no other arm is")
            for part, settings_of in (("grpo", arm_grpo), ("sft", arm_sft)):
                try:
                    settings_of(self, name)
                except ValidationError as error:
                    raise ValueError(f"{name}.{part}: {_first(error, settings_of(self))}") from None
        if self.primary not in self.arms:
            raise ValueError(f"primary names no arm: {self.primary!r}; arms are {', '.join(self.arms)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        return self


def arm_grpo(recipe: SyntheticRecipe, arm: str | None = None) -> GrpoSettings:
    """The GRPO settings of an arm: the recipe's, changed by its own."""
    return GrpoSettings.model_validate(recipe.grpo.model_dump() | (recipe.arms[arm].grpo if arm else {}))


def arm_sft(recipe: SyntheticRecipe, arm: str | None = None) -> SftSettings:
    """The SFT settings of an arm: the recipe's, changed by its own."""
    return SftSettings.model_validate(recipe.sft.model_dump() | (recipe.arms[arm].sft if arm else {}))


def _first(error: ValidationError, settings: Section) -> str:
    """What is wrong, and for a key that is not known the nearest that is."""
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{key}: {problem['msg']}"
    guess = nearest(key, type(settings).model_fields)
    return f"unknown key {key!r}" + (f", did you mean {guess!r}?" if guess else "")
