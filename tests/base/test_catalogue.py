"""Built-in recipes by name, users' recipes by path."""

import re

import pytest

from equipoise import catalogue
from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.pipelines.confidence_settings import ConfidenceRecipe
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.pipelines.settings import KnowledgeUpdateRecipe, ProtocolRecipe
from equipoise.pipelines.synthetic_settings import SyntheticRecipe

PIPELINES = {
    "confidence_tokens": ConfidenceRecipe,
    "synthetic_rl": SyntheticRecipe,
    "instruct": InstructRecipe,
    "frontier": FrontierRecipe,
}


def test_every_built_in_recipe_is_found_described_and_valid():
    assert {"demo", "knowledge-update", "protocol-a"} <= set(catalogue.names())
    for name, description in catalogue.described():
        path = catalogue.find(name)
        text = path.read_text(encoding="utf-8")
        named = re.search(r"^pipeline: (\w+)", text, re.MULTILINE)
        plain = ProtocolRecipe if "arms:" in text else KnowledgeUpdateRecipe
        recipe = resolve(PIPELINES.get(named[1], plain) if named else plain, path)
        assert (recipe.name or name) and len(description) > 20
        assert recipe.description == description


def test_a_path_is_a_recipe_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\n")
    assert catalogue.find(str(path)) == path


@pytest.mark.parametrize(
    ("asked", "suggested"),
    [("dmeo", "'demo'"), ("protocol_a", "'protocol-a'"), ("Demo", "'demo'"), ("demo.yml", "'demo'")],
)
def test_a_recipe_that_does_not_exist_suggests_the_nearest(asked, suggested):
    with pytest.raises(UserError, match=f"no recipe '{asked}'") as caught:
        catalogue.find(asked)
    assert suggested in str(caught.value)


@pytest.mark.parametrize("asked", ["", ".", "nowhere/at/all.yaml", "\0", "x" * 5000])
def test_what_is_like_nothing_is_an_error_without_a_guess(asked):
    with pytest.raises(UserError, match="no recipe") as caught:
        catalogue.find(asked)
    assert "recipes list" in str(caught.value)


def test_a_copy_is_the_recipe_itself_and_overwrites_nothing(tmp_path):
    copied = catalogue.copy("demo", tmp_path / "new" / "mine.yaml")
    assert copied.read_bytes() == catalogue.find("demo").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        catalogue.copy("protocol-a", copied)
    assert copied.read_bytes() == catalogue.find("demo").read_bytes()


def test_a_copy_goes_into_a_folder_or_here(tmp_path, monkeypatch):
    assert catalogue.copy("demo", tmp_path) == tmp_path / "demo.yaml"
    monkeypatch.chdir(tmp_path)
    assert catalogue.copy("protocol-a").read_text(encoding="utf-8").startswith("name:")
    assert (tmp_path / "protocol-a.yaml").is_file()
