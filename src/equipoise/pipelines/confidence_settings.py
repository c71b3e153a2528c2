"""The schema of a confidence-tokens recipe; torch-free, so that it is checked before anything heavy is imported."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from equipoise.config import Section
from equipoise.models.settings import ModelSettings
from equipoise.training.settings import TrainSettings

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]

# What the method was published with: seven kinds of projection, three epochs.
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TRAINING: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 2e-4,
    "warmup_ratio": 0.03,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "max_length": 2048,
    "checkpoint_every": 500,
    "gradient_checkpointing": True,
    "tensorboard": True,
    "lora": {"r": 16, "alpha": 32, "dropout": 0.05, "target_modules": PROJECTIONS},
}


class DomainSettings(Section):
    """One kind of questions: where they come from, how an answer is graded, and the two tokens that speak of it.

    `source` is a JSONL file, `hub:NAME:SPLIT` or `testbed:PART`; a recipe that starts from tagged rows needs none.
    """

    source: str | None = None
    answers: Literal["yes-no", "choice", "text"] = "text"
    confident: str
    uncertain: str
    limit: int | None = Field(default=None, ge=1)
    instruction: str | None = None  # said after each question, as "Answer yes or no."


class TagSettings(Section):
    """From graded answers to tagged rows in four splits. The shares of one domain's groups; what is left over is train.

    `tagged` is a ready file in the three-field form; it takes the place of generation.
    """

    tagged: str | None = None
    split_seed: Seed = 0  # another one sets other questions apart, to check what was chosen with the first in view
    validation: Share = 0.1  # watched while training, chooses `best_*`
    calibration: Share = 0.1  # fits calibrators and the abstention threshold
    test: Share = 0.1  # only measured
    max_confident: int | None = Field(default=None, ge=1)  # a domain, in train: subsampling of a class
    max_uncertain: int | None = Field(default=None, ge=1)
    max_bad_share: float = Field(default=0.05, ge=0, le=1)
    max_new_tokens: int = Field(default=64, ge=1)
    batch_tokens: int = Field(default=8192, ge=1)

    @model_validator(mode="after")
    def _leave_a_train_split(self) -> Self:
        if self.validation + self.calibration + self.test >= 1:
            raise ValueError("validation, calibration and test leave nothing to train on")
        return self


class ValidationSettings(Section):
    """What is measured while training, every epoch and every `eval_steps` optimizer steps."""

    samples: int = Field(default=500, ge=1)  # a domain
    eval_steps: int | None = Field(default=None, ge=1)
    beta: int = Field(default=100, ge=1)  # samples a bin of the calibration error
    p: Literal["1", "2", "infty"] = "2"
    bins: Literal["all", "hendrycks", "width", "mass"] = "all"
    baselines: bool = True  # sequence log-probability and the existing token, after training


class SelectiveSettings(Section):
    """Abstention: the answered share must hold `target_error` with probability 1 - `delta`."""

    target_error: Probability = 0.1
    delta: Probability = 0.05
    method: Literal["fixed-sequence", "bonferroni"] = "fixed-sequence"
    # one number to fit: a calibration split of few groups tells little of how often answers are right elsewhere
    calibrator: Literal["temperature", "platt", "isotonic", "none"] = "temperature"


class ConfidenceRecipe(Section):
    """Teach a model to end its answers with a token that says whether it is sure, and measure how true that is."""

    pipeline: Literal["confidence_tokens"] = "confidence_tokens"
    name: str = "confidence-tokens"
    description: str = ""
    seeds: list[Seed] = Field(default=[42], min_length=1)
    model: ModelSettings = ModelSettings()
    strong: ModelSettings | None = None  # answers what is routed to it
    domains: dict[str, DomainSettings] = Field(min_length=1)
    data: TagSettings = TagSettings()
    mode: Literal["token", "self-ref", "existing-token"] = "token"
    training: TrainSettings = Field(default_factory=lambda: TrainSettings(**TRAINING))
    validation: ValidationSettings = ValidationSettings()
    selective: SelectiveSettings = SelectiveSettings()
    push_to_hub: str | None = None  # owner/name

    @model_validator(mode="before")
    @classmethod
    def _fill_training(cls, given: Any) -> Any:
        """Settings of training that are not given are the method's, not those of plain fine-tuning."""
        own = given.get("training", {}) if isinstance(given, dict) else None
        if not isinstance(own, dict) or "preset" in own:
            return given
        filled = {**TRAINING, **own}
        if isinstance(filled["lora"], dict):
            filled["lora"] = {**TRAINING["lora"], **filled["lora"]}
        return {**given, "training": filled}

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for name, domain in self.domains.items():
            if domain.confident == domain.uncertain:
                raise ValueError(f"domain {name} has one token for both: {domain.confident}")
        if "overall" in self.domains:
            raise ValueError("no domain can be called overall, which is the name of their total")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        return self
