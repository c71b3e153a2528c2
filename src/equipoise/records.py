"""Typed rows: what goes into training, what comes out of an evaluation, and the flat table of results."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Row(BaseModel):
    """A row of a file that this package writes or reads; unknown fields, other types and non-finite numbers are errors.

    Types are taken strictly: neither "3" nor true is the number 3 or 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Message(Row):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Form = Literal["chat", "text"]


class Example(Row):
    """A conversation that ends in the answer to learn.

    Attributes:
        form: `chat` is rendered through the chat template. `text` has one user and one assistant message, and is
            rendered without a template: the answer continues the user's text as it stands, as code to complete does.
        old: the outdated answer, where the example replaces one.
        rephrasings: other ways to ask the last question; never trained on, asked in evaluation.
    """

    id: str
    messages: list[Message] = Field(min_length=2)
    form: Form = "chat"
    old: str | None = None
    rephrasings: list[str] = []
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _ends_in_an_answer(self) -> "Example":
        if self.messages[-1].role != "assistant" or self.messages[-2].role != "user":
            raise ValueError("the last two messages must be the user's question and the assistant's answer")
        return self

    @property
    def prompt(self) -> str:
        """The last question."""
        return self.messages[-2].content

    @property
    def completion(self) -> str:
        """The answer to learn."""
        return self.messages[-1].content


class PreferencePair(Row):
    """A conversation that ends in a question, and two answers to it of which the first is the better."""

    id: str
    prompt: list[Message] = Field(min_length=1)
    chosen: str
    rejected: str
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _ends_in_a_question(self) -> "PreferencePair":
        if self.prompt[-1].role != "user":
            raise ValueError("the last message of the prompt must be the user's question")
        return self


class Question(Row):
    """A question whose answer can be graded.

    Attributes:
        question: what is asked, answer options included where it has them, one a line as `A) text`.
        context: a passage that the question is about, shown before it.
        dataset: the domain it belongs to, as the recipe names it.
        answer: the right answer: `yes` or `no`, the letter of an option, or a text.
        accepted: other spellings of a right answer in text.
        options: the text of each option by its letter.
        group: what it shares with other questions, as the fact asked for; a group never stands in two splits.
    """

    id: str
    question: str
    dataset: str
    answer: str
    context: str | None = None
    accepted: list[str] = []
    options: dict[str, str] = {}
    group: str | None = None
    meta: dict[str, Any] = {}

    @property
    def prompt(self) -> str:
        """What the user says: the context, if there is one, and the question."""
        return f"{self.context}\n\n{self.question}" if self.context else self.question


class TaggedAnswer(Row):
    """A model's answer to a question, with the confidence token that says whether it was right at its end.

    `question`, `tagged_response` and `dataset` are enough to train on; the rest says where the row comes from. `group`
    is that of the question.
    """

    question: str
    tagged_response: str
    dataset: str
    context: str | None = None
    answer: str | None = None
    correct: bool | None = None
    model: str | None = None
    id: str | None = None
    group: str | None = None

    @property
    def prompt(self) -> str:
        """What the user says: the context, if there is one, and the question."""
        return f"{self.context}\n\n{self.question}" if self.context else self.question


class Entity(Row):
    """A piece of a text that names something, and of what type it is."""

    type: str = Field(min_length=1)
    text: str = Field(min_length=1)


class Sentence(Row):
    """A text to find entities in.

    Attributes:
        dataset: the domain it belongs to, as the recipe names it.
        entities: the right answer, in the order of the text, repeated ones repeated; None where nobody labelled it.
    """

    id: str
    text: str = Field(min_length=1)
    dataset: str
    entities: list[Entity] | None = None
    meta: dict[str, Any] = {}


class Sample(Row):
    """One of the K answers that a model gave to an input; (`id`, `model`, `sample`) names it.

    Attributes:
        id: of the input.
        sample: 0 to K-1.
        seed: what this one answer was drawn with.
        text: the answer as it came, without special tokens and without thinking.
        entities: what it says, or None where it cannot be read; `problem` says why.
        logprob: summed over its tokens, in nats; None where the backend does not tell.
        least_logprob: of its least likely token.
        thinking: characters of thinking that were stripped before the answer.
    """

    id: str
    model: str
    sample: int = Field(ge=0)
    seed: int = Field(ge=0)
    prompt_sha256: str
    text: str
    entities: list[Entity] | None = None
    problem: str | None = None
    finish: Literal["stop", "length"] = "stop"
    tokens: int | None = Field(default=None, ge=0)
    logprob: float | None = None
    least_logprob: float | None = None
    thinking: int = Field(default=0, ge=0)


class Prediction(Row):
    """One answer of one model to one item, scored.

    Attributes:
        phrasing: 0 is the trained one.
        output: the whole answer, so that it can be scored again without a model.
        score: what the task counts.
        exact: the answer has the syntax of `gold`.
        call: the new call is used and the old one is not. None where the item is no call, as `published_score` is.
        cut: the answer did not end by itself before its token limit.
    """

    method: str
    seed: int
    task: str
    item: str
    phrasing: int = 0
    form: Form = "chat"
    prompt: str
    gold: str
    old: str | None = None
    output: str
    score: float = Field(ge=0, le=1)
    exact: float | None = None
    call: float | None = None
    published_score: float | None = None
    cut: bool = False


class Preference(Row):
    """How likely one model finds the right answer to one item, and another one: the outdated, or a distractor.

    Attributes:
        phrasing: 0 is the trained one.
        logp_new, logp_old: log-probability of `new` and `old` after the prompt, in nats, summed over their tokens.
    """

    method: str
    seed: int
    task: str
    item: str
    phrasing: int = 0
    form: Form = "chat"
    new: str
    old: str
    logp_new: float = Field(le=0)
    logp_old: float = Field(le=0)
    tokens_new: int = Field(ge=1)
    tokens_old: int = Field(ge=1)

    @property
    def margin(self) -> float:
        """Nats by which the right answer is the likelier one."""
        return self.logp_new - self.logp_old

    @property
    def margin_per_token(self) -> float:
        """Nats a token, each answer over its own tokens: longer answers are not less likely for their length alone."""
        return self.logp_new / self.tokens_new - self.logp_old / self.tokens_old


# Tasks of a knowledge update that ask for what must stay; their shares are of what the untrained model knew.
KEEP_TASKS = ("locality", "preference kept", "retention", "functions", "general")
STABILITY = "stability"  # exp(-drift) of a held-out text
IN_NATS = ("drift", "held-out")  # tasks whose values are nats per token, of which less is better; all others are shares

# What an instruct run measures, in this order: the model that it was given, and what each stage made of it.
INSTRUCT_STAGES = ("untrained", "sft", "dpo")


class Result(Row):
    """One number of the flat table: a metric of a method with a seed on a task, and over how many items."""

    method: str
    seed: int
    task: str
    metric: str
    value: float
    n: int = Field(ge=0)
    higher_is_better: bool = True


class HeldOutText(Row):
    """A text that is never trained on, to see how a model's predictions move on it.

    Attributes:
        kind: `prose` or `code`, or a name of the user's.
        text: what is predicted, token by token.
        prompt: what stands before it and is not predicted itself.
        form: how a prompt is put before the text: through the chat template, or `text`, as it stands.
    """

    id: str
    kind: str = Field(min_length=1)
    text: str = Field(min_length=1)
    prompt: str | None = None
    form: Form = "text"


class Drift(Row):
    """How far a model has moved from the untrained one on a held-out text: means over its tokens, in nats.

    Attributes:
        kl: KL divergence of the untrained model's prediction from this one's, forward: 0 where nothing has changed.
        nll, nll_base: of the text under this model and under the untrained one.
    """

    method: str
    seed: int
    text: str
    kind: str
    tokens: int = Field(ge=1)
    kl: float = Field(ge=0)
    nll: float = Field(ge=0)
    nll_base: float = Field(ge=0)
