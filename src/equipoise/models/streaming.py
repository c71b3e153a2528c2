"""One answer as it is written: whole characters, cut exactly where a stop string begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from equipoise.models.generation import last_only, stop_ids
from equipoise.models.sampling import check_finite, choose
from equipoise.models.text_stop import UNDECODED

Finish = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True)
class Piece:
    """A part of an answer that can be shown for good.

    Attributes:
        probability: of the least likely token in it, under the model itself: temperature 1, whole vocabulary.
        finish: why the answer ended, on its last piece alone, whose text may be empty.
    """

    text: str
    probability: float = 1.0
    finish: Finish | None = None


class Unfolding:
    """From tokens, one at a time, to text: held back are halves of characters and what may begin a stop string.

    `stopped` says that a stop string was completed; the text ends before it, and nothing more is taken. Of several the
    one that is complete first counts, so that the cut does not hang on how the text is split into tokens.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()):
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, [s for s in stop if s]
        self._ids: list[int] = []
        self._known, self._shown = "", 0
        self._held: list[tuple[int, float]] = []  # of pieces of `known` that are not shown: the end, and p
        self._least = 1.0

    def feed(self, token: int, probability: float) -> list[Piece]:
        """Take one token; return what can now be shown."""
        self._ids.append(token)
        self._least = min(self._least, probability)
        # All of it anew: what a token adds can hang on those before it.
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return self._take(text, len(text.rstrip(UNDECODED)))

    def rest(self) -> list[Piece]:
        """What is held back when the answer has ended."""
        if self.stopped:
            return []
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return self._take(text, len(text)) + ([] if self.stopped else self._show(len(self._known)))

    def _take(self, text: str, certain: int) -> list[Piece]:
        if certain > len(self._known):
            self._known += text[len(self._known) : certain]
            self._held.append((certain, self._least))
            self._least = 1.0
        found = [(at + len(s), at) for s in self._stop if (at := self._known.find(s, self._shown)) >= 0]
        if found:
            self.stopped = True
            return self._show(min(found)[1])
        return self._show(len(self._known) - self._may_begin_a_stop())

    def _may_begin_a_stop(self) -> int:
        """How many of the last characters could be the beginning of a stop string."""
        open_end = self._known[self._shown :]
        lengths = (
            n for s in self._stop for n in range(min(len(s) - 1, len(open_end)), 0, -1) if open_end.endswith(s[:n])
        )
        return max(lengths, default=0)

    def _show(self, until: int) -> list[Piece]:
        pieces = []
        while self._shown < until:
            end, p = self._held[0]
            pieces.append(Piece(self._known[self._shown : min(end, until)], p))
            self._shown = min(end, until)
            if end <= until:
                self._held.pop(0)
        return pieces


@torch.inference_mode()
def stream(
    model: Any,
    tokenizer: Any,
    prompt: Sequence[int],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.2,
    top_p: float = 0.9,
    seed: int = 0,
    stop: Sequence[str] = (),
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """Yield the answer to a tokenised prompt as it is written; the last piece says why it ended.

    The tokens are those that `sampling.draw` draws with this seed, temperature 0 is greedy, and what ends an answer
    there ends it here. `interrupted` is asked after each token; when it says so, what was held back is yielded too.

    Raises:
        UserError: the model's scores are not finite.
    """
    from transformers import DynamicCache

    ends, text = stop_ids(model, tokenizer), Unfolding(tokenizer, stop)
    finish: Finish = "length"
    training = model.training
    model.eval()
    try:
        ids = torch.tensor([list(prompt)], device=model.device)
        cache, options = DynamicCache(config=model.config), last_only(model)
        for uniform in np.random.default_rng(seed).random(max_new_tokens).tolist():
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, **options).logits[:, -1].float()
            ids = choose(logits, [uniform], temperature, top_p)[:, None]
            logprob = float(logits.gather(1, ids) - logits.logsumexp(-1))
            check_finite(logprob)
            token, ids = int(ids), ids.to(model.device)
            if token in ends:
                finish = "stop"
                break
            yield from text.feed(token, math.exp(logprob))
            if text.stopped or interrupted():
                finish = "stop" if text.stopped else "interrupted"
                break
        yield from text.rest()
        yield Piece("", finish="stop" if text.stopped else finish)
    finally:
        model.train(training)
