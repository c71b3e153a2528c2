"""Answers that end by what they say: each is turned into text as it grows, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

UNDECODED = "\ufffd"  # what the bytes of half a character are decoded to


class GrowingText:
    """The text of tokens that come one by one. Only the last few are decoded anew: what they add can hang on them."""

    def __init__(self, tokenizer: Any):
        self.text = ""
        self._tokenizer = tokenizer
        self._start = self._end = 0  # the tokens that the last piece of text came from

    def update(self, ids: Sequence[int]) -> str:
        """The text so far of `ids`, all tokens up to now; half a character is left out until it is whole."""
        known, longer = self._decode(ids[self._start : self._end]), self._decode(ids[self._start :])
        if len(longer) > len(known) and not longer.endswith(UNDECODED):
            self.text += longer[len(known) :]
            self._start, self._end = self._end, len(ids)
        return self.text

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


StopWhen = Callable[[int, str], bool]


class TextStop:
    """Tells which answers have ended, by a predicate on the text of each.

    Args:
        says: whether the answer to the prompt of this number has ended, by its text. It is asked after each token that
            adds to the text.
        answers: lists of answers with `ids`, each in the order of the prompts.
    """

    def __init__(self, tokenizer: Any, says: StopWhen, *answers: Sequence[Any]):
        self._says = says
        self._growing = {
            id(answer): (number, GrowingText(tokenizer)) for mine in answers for number, answer in enumerate(mine)
        }

    def __call__(self, answer: Any) -> bool:
        """Whether `answer`, which has one token more in its `ids` than when it was asked about last, has ended."""
        number, growing = self._growing[id(answer)]
        before = growing.text
        return growing.update(answer.ids) != before and self._says(number, growing.text)
