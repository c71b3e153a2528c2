"""Whether a text says yes or no."""

import re
from typing import Literal

from equipoise.metrics.statements import NEGATED, clean, sentences, statements

YesNo = Literal["yes", "no"]

# after "no" these begin a clause of their own; any other word makes it "no evidence", "no one", "no longer"
_CLAUSE = (
    "because|since|as|it|they|he|she|this|that|these|those|there|we|you|i|the|is|are|was|were|do|does|did|can|cannot"
    "|could|would|not|but|and|based|according"
)
_ENDS = rf"(?=\s*$|\s*[^\w\s]|\s*\n|\s+(?:{_CLAUSE})\b)"
_WORD = rf"(?<![\w-])(?<!\w')(?:yes|yeah|yep|nope|(?:no(?!\.?\d)|true|false){_ENDS})(?!\w)(?!['-]\w)"
_HEDGE = (
    r"unclear|unknown|uncertain|undetermined|inconclusive|ambiguous|maybe|both|neither|mixed|it depends|depends"
    r"|not (?:clear|known|certain|given|stated|provided)"
)
_STATED = rf"(?i:(?P<open>{_HEDGE}|not\b)|(?:an?\s+(?:\w+\s+)?)?(?P<word>{_WORD}))"
_LEAD_IN = r"(?:so|well|wait|actually|sorry|correction|hence|thus|therefore|ok|okay|hmm+|overall|in \w+|a)[\s,:.-]+"
_OPENING = re.compile(rf"\W*(?:{_LEAD_IN}){{0,3}}(?P<word>{_WORD})", re.IGNORECASE)
_ANYWHERE = re.compile(rf"(?!true|false)(?P<word>{_WORD})", re.IGNORECASE)
_NUMERO = re.compile(r"(?<=\w )no\.\s*(?=\d)", re.IGNORECASE)
_ECHO = re.compile(
    r"\b(?:yes\s*(?:or|/|and)\s*no|no\s*(?:or|/|and)\s*yes|(?:true|false)\s*(?:or|/)\s*(?:true|false))\b", re.IGNORECASE
)


def extract_yes_no(text: str) -> YesNo | None:
    """What a text answers to a yes/no question; None where it does not say, or says both.

    1. The last "the answer is yes" or "Answer: no" decides, whatever stood before it: reasoning may change its mind.
       "The answer is not yes", or "unclear", says neither.
    2. Else the sentences that begin with yes or no, which must agree. "No" counts if punctuation or a clause of its own
       follows ("No, ...", "No it is not"), not as in "No one", "no evidence", "no longer".
    3. Else yes or no within a sentence ("so I would say yes"), unless negated; again all must agree.

    Whole words count, so that "know", "nothing" and "another" say nothing. `True` and `False` are taken for yes and no
    in 1 and 2. An echo of "yes or no" is passed over.
    """
    text = _NUMERO.sub("number ", _ECHO.sub("both", clean(text)))
    said = statements(text, _STATED)
    if said:
        return None if said[-1]["open"] else _polarity(said[-1]["word"])
    parts = sentences(text)
    opening = [found["word"] for part in parts if (found := _OPENING.match(part))]
    if not opening:
        opening = [
            found["word"]
            for part in parts
            for found in _ANYWHERE.finditer(part)
            if not NEGATED.search(part[: found.start()])
        ]
    polarities: set[YesNo] = {_polarity(word) for word in opening}
    return polarities.pop() if len(polarities) == 1 else None


def _polarity(word: str) -> YesNo:
    return "yes" if word.casefold() in ("yes", "yeah", "yep", "true") else "no"
