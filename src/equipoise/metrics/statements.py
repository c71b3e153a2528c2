"""Where a text states its answer: what to ignore around it, and "the answer is ..." with what follows."""

import re
import unicodedata

_NOUNS = "answer|choice|option|response|conclusion|verdict|decision|statement|claim"
_VERBS = "would be|could be|might be|should be|must be|has to be|is|was|are|remains"
_FILLERS = r"(?:\w+ly|therefore|thus|still|indeed|also|that|just|but|rather|instead|in fact|the)[\s:,]+"
_GAP = rf"(?:(?!\b(?:{_NOUNS})\b|[.!;](?:\s|$))[^\n]){{0,200}}?"
_LEAD = rf"(?i:\b(?:{_NOUNS})\b(?P<gap>{_GAP})(?:\b(?P<verb>{_VERBS})\b|[:=])[\s:=,'-]*(?:{_FILLERS}){{0,4}})"
_NEXT_TURN = re.compile(
    r"\n[#*\s]*(?:question|q|passage|context|user|human|instruction)\s*\d*\s*(?::|\n)", re.IGNORECASE
)
_BOXED = re.compile(r"\\boxed\s*\{(?:\\\w+\s*\{)?([^{}]*)\}+")
NEGATED = re.compile(  # what stands before a word that a sentence denies
    r"(?:\b(?:not|never|cannot|neither|nor|without|whether)|n't)\s+(?:[\w']+\s+){0,2}$", re.IGNORECASE
)
_PLAIN = str.maketrans({**dict.fromkeys('*`"“”„«»\ue000\ue001'), "’": "'", "‘": "'", "—": " - ", "–": "-", "‑": "-"})


def clean(text: str) -> str:
    r"""Drop markdown and double quotes, write `\boxed{x}` as "answer: x.", and end before a next question.

    A base model that has answered often goes on with a question of its own; what it says to that is no answer to this.
    """
    text = unicodedata.normalize("NFKC", _BOXED.sub(r" answer: \1. ", text.translate(_PLAIN))).replace("__", "")
    turn = next((found for found in _NEXT_TURN.finditer(text) if text[: found.start()].strip()), None)
    return text[: turn.start()].strip() if turn else text.strip()


def statements(text: str, value: str) -> list[re.Match[str]]:
    """Find every "the answer (to ...) is VALUE" or "Answer: VALUE", in order; groups within `value` are its own.

    What only would be the answer under a condition ("if ..., the answer would be no") is none.

    Args:
        value: a regular expression, matched with regard to case.
    """
    return [found for found in re.finditer(_LEAD + value, text) if not _conditional(text, found)]


def _conditional(text: str, found: re.Match[str]) -> bool:
    if (found["verb"] or "").casefold() not in ("would be", "could be", "might be"):
        return False
    before = re.split(r"[.!?;\n]", text[: found.start()])[-1]
    return re.search(r"(?i)\b(?:if|unless|otherwise)\b", before + found["gap"]) is not None


def sentences(text: str) -> list[str]:
    """Cut a text at full stops, question and exclamation marks, semicolons and line ends."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+|;\s", text) if part.strip()]
