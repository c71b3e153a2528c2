"""How large the world is and how often it repeats itself."""

from pydantic import Field

from equipoise.config import Section


class WorldSettings(Section):
    """Size and repetition of the world. An *exposure* is one pre-training document that states the fact.

    How often a fact occurs is set by the `exposures*` fields, how consistently by its class: a stable or confidently
    wrong fact has one answer, an uncertain one several answers that share its exposures evenly.
    """

    seed: int = 7
    phrasings_seen: int = Field(default=7, ge=1, le=11)  # of 12 templates a part; the others are held out for the fact

    exposures: int = Field(default=170, ge=0)  # stable facts
    exposures_confident_wrong: int = Field(default=220, ge=0)
    exposures_uncertain: int = Field(default=120, ge=0)
    exposures_function: int = Field(default=150, ge=0)
    exposures_practice: int = Field(default=12, ge=0)  # copying an answer, without saying what it answers
    exposures_hearsay: int = Field(
        default=3, ge=0, le=12
    )  # a name that is mentioned a few times, each time differently

    changes: int | None = Field(default=None, ge=0)  # how many of the file's rows, all if None
    changes_confident_wrong: int = Field(default=120, ge=0)
    changes_uncertain: int = Field(default=60, ge=0)  # and what is left over is unknown
    api_facts: int | None = Field(default=None, ge=0)
    api_stable: int = Field(default=290, ge=0)
    api_uncertain: int = Field(default=36, ge=0)
    functions: int | None = Field(default=None, ge=0)

    archive_stable: int = Field(default=120, ge=0)
    archive_confident_wrong: int = Field(default=60, ge=0)
    archive_uncertain: int = Field(default=40, ge=0)
    archive_unknown: int = Field(default=40, ge=0)
    hearsay: int = Field(default=250, ge=0)
