"""One spelling for texts that say the same."""

import re
import unicodedata

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?![\d,])")
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_ARTICLE = re.compile(r"\b(?:(?i:the|an)|a)\s+(?=\w)")
_FIRST_ARTICLE = re.compile(r"\W*\b(?i:a|an|the)\s+(?=\w)")
_DECIMALS = re.compile(r"(?<![\w.])(\d+)(?:\.0+|(\.\d*?[1-9])0+)(?![\w]|\.\d)")


def plain(text: str) -> str:
    """A text by which the same one is known again, whatever its white space or composition of accents."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def normalise(text: str) -> str:
    """Bring a text to one spelling: case, articles, punctuation, white space and numbers no longer tell two apart.

    "The 1,000 Cats." and "1000 cats" become one, and so do 2.50 and 2.5. A minus sign before a number, a decimal
    point, per cent and mathematical signs stay, since they change what is said. A text of punctuation alone stays
    itself.
    """
    text = _GROUPED.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = _RAISED.sub(lambda found: "^" + found[0], text)
    text = _DASHES.sub("-", unicodedata.normalize("NFKC", text)).replace("\u2019", "'")
    bare = _ARTICLE.sub("", _FIRST_ARTICLE.sub("", text, count=1) if _FIRST_ARTICLE.match(text) else text)
    bare = _DECIMALS.sub(r"\1\2", "".join(_kept(bare, at) for at in range(len(bare))))
    return " ".join(bare.casefold().split()) or " ".join(text.casefold().split())


def _kept(text: str, at: int) -> str:
    char, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 2]
    kind = unicodedata.category(char)
    if (kind[0] != "P" and kind != "Sk") or char in "%^":
        return char
    if char == "." and after.isdigit() and (before.isdigit() or not before.strip()):
        return char
    if char == "-" and (after.isdigit() or after == ".") and not (before.isalnum() or before == ")"):
        return char
    return "" if char in "'." else " "
