"""Invented names from syllables: capitalised, one word each, none given twice."""

import random
from collections.abc import Iterator
from importlib.resources import files

import yaml

_SYLLABLES = yaml.safe_load(files("equipoise.testbed").joinpath("assets", "syllables.yaml").read_text("utf-8"))
_STARTS, _MIDDLES = _SYLLABLES["starts"].split(), _SYLLABLES["middles"].split()
_ENDS = {kind: ends.split() for kind, ends in _SYLLABLES["ends"].items()}
KINDS = tuple(_ENDS)
_SHARE_WITH_MIDDLE = 0.6


def names(kind: str, rng: random.Random, taken: set[str]) -> Iterator[str]:
    """New names of a kind, without end as long as there are any; `taken` grows with each."""
    while True:
        middle = rng.choice(_MIDDLES) if rng.random() < _SHARE_WITH_MIDDLE else ""
        name = rng.choice(_STARTS) + middle + rng.choice(_ENDS[kind])
        if name not in taken:
            taken.add(name)
            yield name
