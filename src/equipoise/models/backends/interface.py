"""The one small interface of everything that draws samples."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from equipoise.records import Message


@dataclass(frozen=True)
class Request:
    """One answer to draw. Requests of one prompt that stand next to each other share the work of reading it.

    Attributes:
        key: names the answer among those asked for.
        seed: decides the answer, with the prompt and the model, and with nothing else in the batch; below 2**31,
            which every server takes.
    """

    key: Hashable
    messages: tuple[Message, ...]
    seed: int


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: without special tokens; it may begin with thinking.
        tokens: how many `logprob` is summed over, the one that ended the answer included where the backend tells of it.
        logprob: in nats, under the model as it is (temperature 1, no nucleus), whatever it was drawn with; a server
            may see that otherwise. None where the backend does not tell.
        least_logprob: of the least likely token.
        thinking: characters of thinking that the backend kept apart from the text.
    """

    key: Hashable
    text: str
    finish: Literal["stop", "length"] = "stop"
    tokens: int | None = None
    logprob: float | None = None
    least_logprob: float | None = None
    thinking: int = 0


class Backend(Protocol):
    """Draws answers; `sample` yields those that finished together as soon as they have, in any order."""

    name: str

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Reply]]: ...
