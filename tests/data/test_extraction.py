"""Sentences and entities from users' files and published data sets, and how they are asked for."""

import pytest

from equipoise.data.extraction import prompt
from equipoise.errors import UserError


def test_the_prompt_replaces_its_two_fields_and_nothing_else():
    assert prompt("A {types} {x}.", ["person", "place"]) == (
        "Extract the entities as JSON. Types: person, place.\nA {types} {x}."
    )
    assert prompt("{text}!", ["a"], "{x} {text} ({types})") == "{x} {text}! (a)"
    with pytest.raises(UserError, match="where the sentence belongs"):
        prompt("text", ["a"], "Find {types}.")
