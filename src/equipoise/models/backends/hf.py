"""The embedded backend: a transformers model in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from equipoise.data.formatting import render_prompt
from equipoise.models.backends.interface import Reply, Request
from equipoise.models.backends.settings import BackendSettings
from equipoise.models.loading import Loaded
from equipoise.models.sampling import Drawn, draw
from equipoise.models.thinking import without_thinking


class Embedded:
    """Draws from a loaded model. `loaded` is called when the first sample is wanted."""

    name = "hf"

    def __init__(self, loaded: Callable[[], Loaded], settings: BackendSettings):
        self._loaded, self._settings = loaded, settings

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield the replies that ended in the same step of the same batch.

        Raises:
            UserError: the model cannot be loaded, or its scores are not finite.
        """
        if not requests:
            return
        options = self._settings
        loaded = self._loaded()
        if not options.enable_thinking:
            loaded = without_thinking(loaded)
        by_prompt: dict[tuple, list[Request]] = {}
        for request in requests:
            by_prompt.setdefault(request.messages, []).append(request)
        groups = list(by_prompt.values())
        for drawn in draw(
            loaded.model,
            loaded.tokenizer,
            [render_prompt(loaded.tokenizer, list(messages)) for messages in by_prompt],
            [[request.seed for request in group] for group in groups],
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            batch_tokens=options.batch_tokens,
        ):
            texts = loaded.tokenizer.batch_decode([one.ids for one in drawn], skip_special_tokens=True)
            yield [_reply(groups[one.prompt][one.sample], one, text) for one, text in zip(drawn, texts)]


def _reply(request: Request, drawn: Drawn, text: str) -> Reply:
    return Reply(
        request.key,
        text,
        "length" if drawn.stop is None else "stop",
        len(drawn.logprobs),
        sum(drawn.logprobs),
        min(drawn.logprobs),
    )
