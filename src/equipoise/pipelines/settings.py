"""The schema of a knowledge-update recipe; torch-free, so that it is checked before anything heavy is imported."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from equipoise.config import Section
from equipoise.disk import fits_a_folder
from equipoise.evaluation.settings import ScoringSettings
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.selection import SelectSettings
from equipoise.training.settings import PRESETS, ObjectiveSettings, TrainSettings

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
CohortOf = Literal["seed", "grid", "off"]


def names_a_folder(arm: str) -> bool:
    """Tell whether an arm can be called so: its cells lie in a folder of that name, beside the untrained model's."""
    return fits_a_folder(arm) and arm != "untrained"


class DataSettings(Section):
    """Where the rows come from: a JSONL path, `hub:NAME:SPLIT` or `testbed:PART`.

    `ask` is the form of the testbed's rows: a question (`chat`), code to complete (`code`), or each row in both. Rows
    of your own say their form themselves; `code` makes sure that all of them are in text form.

    `rehearse` trains on rows to keep as well: on every second one, so that the others measure what is kept (`half`), or
    on all of them, so that locality is measured on trained rows (true). `rehearse_general` rehearses so many general
    questions with the untrained model's own answers, so that the update does not reach what it has nothing to do with.
    """

    updates: str = "testbed:api_change"
    keep: str | None = "testbed:api_fact"  # facts that must not move; only evaluated, unless rehearsed
    skills: str | None = "testbed:function"  # unrelated abilities that must survive
    ask: Literal["chat", "code", "both"] = "chat"
    limit: int | None = Field(default=None, ge=1)  # the first so many updates
    select: SelectSettings | None = None  # updates that the untrained model contradicts
    keep_limit: int | None = Field(default=None, ge=1)  # the first so many rows to keep
    train_phrasings: int = Field(default=1, ge=1)  # of each update; one is held out if it has several
    rehearse: bool | Literal["half"] = False
    rehearse_general: int = Field(default=0, ge=0, le=48)
    held_out: str | None = None  # texts that drift is measured on; null takes those that are shipped
    functions: str | None = None  # a file in HumanEval's form; its functions are completed and run in the sandbox
    max_bad_share: float = Field(default=0.05, ge=0, le=1)


class RetentionSettings(ScoringSettings):
    """How answers are scored, and what is measured of everything else that a model knows.

    `drift` compares predictions on held-out texts with those of the untrained model, `general` asks general questions
    that come with the package. Both are on by default for every model but the testbed's own.
    """

    drift: Literal["auto"] | bool = "auto"
    general: Literal["auto"] | bool = "auto"

    def asks_general(self, model: str) -> bool:
        """Tell whether this model is asked general questions."""
        return self.reads_prose(model) if self.general == "auto" else self.general

    def measures_drift(self, model: str) -> bool:
        """Tell whether the drift of this model on held-out texts is measured."""
        return self.reads_prose(model) if self.drift == "auto" else self.drift


class EvaluationSettings(RetentionSettings):
    """How a run is scored and its arms are compared.

    `weights_every` so many epochs the mean weight that the objective gives the tokens of updates, and of rehearsed
    rows, is written to `validation.jsonl`.

    `likelihood` compares the log-probabilities of the new and the old answer; it is on by default for every model but
    the testbed's own.
    """

    margin: float = Field(default=0.05, gt=0, lt=1)  # of the equivalence test on retention
    weights_every: int | None = Field(default=None, ge=1)
    likelihood: Literal["auto"] | bool = "auto"

    def compares(self, model: str) -> bool:
        """Tell whether right and outdated answers of this model are compared by likelihood."""
        return self.reads_prose(model) if self.likelihood == "auto" else self.likelihood


class KnowledgeTrainSettings(TrainSettings):
    """Training on facts. `auto` takes the learning rate and the number of epochs that fit the model and the rows.

    The preset `facts` is `auto` for both, in batches of 8 rows.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **PRESETS,
        "facts": {"learning_rate": "auto", "epochs": "auto", "batch_size": 8},
    }
    preset: Literal["domain", "surgical", "facts"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    learning_rate: Rate | Literal["auto"] = 2e-5  # pyright: ignore[reportIncompatibleVariableOverride]
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = 3  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def is_auto(self) -> bool:
        return "auto" in (self.learning_rate, self.epochs)

    @model_validator(mode="after")
    def _auto_is_for_adapters(self) -> Self:
        if self.is_auto and self.lora is None:
            raise ValueError("auto is measured for LoRA alone: give learning_rate and epochs with lora: null")
        return self


class ArmSettings(ObjectiveSettings):
    """An objective, and whether it rehearses rows to keep: null as `data.rehearse` says.

    Where arms differ in it, set `data.rehearse: half`: locality is then measured on the same rows for all arms.
    """

    rehearse: bool | None = None

    @property
    def objective(self) -> ObjectiveSettings:
        return ObjectiveSettings(**self.model_dump(include=set(ObjectiveSettings.model_fields)))


class KnowledgeUpdateRecipe(Section):
    """One run: correct what a model is confidently wrong about, and see what else moved."""

    pipeline: Literal["knowledge_update"] = "knowledge_update"
    name: str = "knowledge-update"
    description: str = ""
    seed: Seed = 42
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    objective: ArmSettings = ArmSettings()
    training: KnowledgeTrainSettings = KnowledgeTrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _check_trace(self) -> Self:
        if self.evaluation.weights_every is not None and self.training.packing:
            raise ValueError(
                "evaluation.weights_every: with packing, epochs do not end at a step that is known beforehand"
            )
        return self


class ProtocolRecipe(KnowledgeUpdateRecipe):
    """A grid of runs: every arm is an objective, every seed drives initialisation and data order.

    `protocol` says which claims the analysis tests; without one it compares what is there. `objective` and `seed` are
    those of a single run, and an error where no arm or seed of the grid is that. `cohort` says which cells are trained
    together where adapters are trained: those of one seed, the whole `grid` (on a GPU), or none, `off`.
    """

    protocol: Literal["a", "b", "s", "t"] | None = None
    arms: dict[str, ArmSettings] = Field(min_length=1)
    seeds: list[Seed] = Field(default=[42, 123, 456, 789, 2024], min_length=1)
    cohort: CohortOf = "seed"

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        for arm in self.arms:
            if not names_a_folder(arm):
                raise ValueError(
                    f"{arm!r} is no name for an arm: use letters, digits, '-' and '_', and not `untrained`"
                )
        if any(arm.rehearse is not None for arm in self.arms.values()) and self.data.rehearse is True:
            raise ValueError(
                "arms differ in rehearse, so locality needs rows that none of them trains on: set data.rehearse to half"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        if self.objective != ArmSettings() and self.objective not in self.arms.values():
            raise ValueError("objective has no effect in a grid: change arms.NAME instead")
        if self.seed != type(self).model_fields["seed"].default and self.seed not in self.seeds:
            raise ValueError("seed has no effect in a grid: change seeds instead")
        return self
