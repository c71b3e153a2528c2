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


class TierSettings(Section):
    """How many groups of questions are taught often, rarely and never, and by how many documents each."""

    often: int = Field(default=350, ge=0)
    rarely: int = Field(default=150, ge=0)
    never: int = Field(default=200, ge=0)
    exposures: int = Field(default=110, ge=1)  # of each group that is taught often
    rarely_least: int = Field(default=2, ge=1)  # those taught rarely have from least to most in turn
    rarely_most: int = Field(default=16, ge=1)
    hearsay: int = Field(default=200, ge=0)  # more names, asked about a few times with answers drawn by lot
    exposures_hearsay: int = Field(default=8, ge=0)
    exposures_practice: int = Field(default=40, ge=0)  # of each word, where the answer stands in the prompt


class ReadingSettings(TierSettings):
    """The tiers of reading, in which luck is right more often."""

    often: int = Field(default=380, ge=0)
    rarely: int = Field(default=180, ge=0)
    never: int = Field(default=140, ge=0)
    exposures: int = Field(default=60, ge=1)
    rarely_least: int = Field(default=1, ge=1)
    rarely_most: int = Field(default=4, ge=1)
    hearsay: int = Field(default=100, ge=0)
    exposures_practice: int = Field(default=10, ge=0)
    things: int = Field(default=500, ge=0)  # passages about each well-known thing


class QuestionSettings(Section):
    """Size and repetition of the world of questions. A *group* is a fact (medical) or a word (reading).

    Where a group is not known, answers are right by luck: one in four in medical, one in two in reading. Luck can't be
    foreseen, so it bounds how well any score can tell right answers from wrong ones; reading has fewer such groups.
    """

    seed: int = 11
    questions: int = Field(default=8, ge=1)  # of a group, none of which stands in the text
    phrasings_seen: int = Field(default=5, ge=1, le=7)  # medical, of 8: the others are held out for the fact
    practice_first: float = Field(default=0.7, ge=0, le=1)  # how much of it comes before any fact: first to read
    lessons: int = Field(default=20, ge=0)  # documents a group for the strong model, where it was not taught often
    rehearsals: int = Field(default=3, ge=0)  # and where it was
    medical: TierSettings = TierSettings()
    reading: ReadingSettings = ReadingSettings()


class DoubtSettings(Section):
    """How often a label of the target's pre-training text is not the right one, by the cue that the entity has."""

    clear: float = Field(default=0.05, ge=0, le=1)
    fair: float = Field(default=0.3, ge=0, le=1)
    weak: float = Field(default=0.58, ge=0, le=1)
    faint: float = Field(default=0.7, ge=0, le=1)

    coarse: float = Field(default=0.7, ge=0)  # which wrong label it is then, in proportions: the source's type,
    sibling: float = Field(default=0.12, ge=0)  # the other fine type of the same source type,
    missed: float = Field(default=0.18, ge=0)  # or none


class NerSettings(Section):
    """Size and repetition of the world of entities: documents of the pre-training text, and sentences held out."""

    seed: int = 13
    source: int = Field(default=16000, ge=0)  # documents
    target: int = Field(default=8000, ge=0)
    copying: int = Field(default=16000, ge=0)
    cues: int = Field(default=150, ge=0)  # of each cue, what it is
    copying_first: float = Field(default=0.6, ge=0, le=1)  # how much of it comes before any sentence
    doubt: DoubtSettings = DoubtSettings()

    train: int = Field(default=400, ge=0)  # sentences a domain
    dev: int = Field(default=100, ge=0)
    test: int = Field(default=400, ge=0)
    empty: float = Field(default=0.07, ge=0, le=1)  # share of sentences without an entity
    names: int = Field(default=200, ge=20)  # invented words of each kind
    fresh: float = Field(default=0.2, ge=0.05, le=0.4)  # share of them for train and dev, and as much for test
