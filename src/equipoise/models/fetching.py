"""`equipoise models`: which models there are, and how each is fetched."""

from __future__ import annotations

from pathlib import Path

from equipoise.errors import UserError
from equipoise.models import gguf, hub, index, known
from equipoise.models.known import KNOWN


def fetch(name: str, *, from_index: bool = False) -> tuple[Path, int]:
    """Fetch a model by short name or Hub name; return its folder and the bytes that were fetched.

    Raises:
        UserError: there is no such model or no way to it, or no space for it.
    """
    if from_index and name not in KNOWN:
        raise UserError(
            f"the package index has no model {name}", where="--from-index", fix=f"give one of {', '.join(KNOWN)}"
        )
    if from_index:
        return index.fetch(name)
    folder, size = hub.download(KNOWN[name].hub if name in KNOWN else name)
    if name in KNOWN:
        known.choose(name, known.HUB)
    return folder, size


def listed() -> list[list[str]]:
    """Name, state, licence and purpose of every model that has a short name or stands in a recipe."""
    short = [[name, _state(name), model.licence, model.about] for name, model in KNOWN.items()]
    of_recipes = [
        [name, hub.state(name), "see its page", f"recipes: {', '.join(recipes)}"]
        for name, recipes in hub.named().items()
    ]
    return short + of_recipes


def _state(name: str) -> str:
    source = known.source_of(name)
    if source == known.HUB:
        return f"{hub.state(KNOWN[name].hub)}, from the Hub"
    if source == known.INDEX:
        ready = gguf.cached(KNOWN[name].sha256) is not None
        return f"in the cache, from the package index{'' if ready else '; converted at first use'}"
    parts = known.gguf_of(name).with_suffix(".parts")
    there = [package for package in KNOWN[name].packages if (parts / package).is_file()]
    if there:
        return f"{len(there)} of {len(KNOWN[name].packages)} parts fetched"
    return f"not fetched ({KNOWN[name].size / 1e6:.0f} MB from the package index)"
