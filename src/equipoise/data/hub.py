"""Data sets on the Hugging Face Hub, by name and split; the token is the library's business and never passes here."""

from collections.abc import Iterator
from typing import Any

from equipoise.config import nearest
from equipoise.errors import UserError

DOCS = "docs/your-data.md#hub"


def hub_rows(source: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT`, as the library hands them out.

    Raises:
        UserError: the name is malformed or unknown, the data set is gated, the split is not there, or the Hub is not
            to be reached.
    """
    name, config, split = _parts(source)
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises a dozen unrelated types; each is told apart or passed on
        explained = _explained(error, source, name, split)
        if explained is None:
            raise
        raise explained from error
    for row in rows:
        yield dict(row)


def _parts(source: str) -> tuple[str, str | None, str]:
    parts = source.removeprefix("hub:").split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(
            f"{source!r} does not name a data set", where=source, fix="write hub:NAME:SPLIT, as in hub:me/updates:train"
        )
    return parts[0], parts[1] if len(parts) == 3 else None, parts[-1]


def _explained(error: Exception, source: str, name: str, split: str) -> UserError | None:
    text = f"{error}"
    if "gated" in text.lower() or "401" in text or "403" in text:
        return UserError(
            f"the data set {name} is gated or private",
            where=source,
            fix="accept its terms on the Hub, then `hf auth login` or set HF_TOKEN",
            docs=DOCS,
        )
    if isinstance(error, ValueError) and "split" in text.lower():
        known = text[text.find("[") + 1 : text.rfind("]")].replace("'", "").split(", ") if "[" in text else []
        guess = nearest(split, known)
        return UserError(
            f"the data set has no split {split!r}",
            where=source,
            fix=f"did you mean {guess!r}?" if guess else f"its splits: {', '.join(known)}",
        )
    if isinstance(error, (ConnectionError, TimeoutError)) or "offline" in text.lower() or "reach" in text.lower():
        return UserError(
            f"the Hub cannot be reached, and {name} is not in the cache",
            where=source,
            fix="check the network (and HF_HUB_OFFLINE), or give a JSONL file",
        )
    if isinstance(error, (FileNotFoundError, ValueError)):
        return UserError(f"cannot load the data set: {text.splitlines()[0]}", where=source, fix="check its name")
    return None
