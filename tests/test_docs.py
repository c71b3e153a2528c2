"""The documentation keeps the promises that the code makes about it."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FORMS = (
    *({"prompt", "completion"}, {"question", "answer"}, {"question", "tagged_response", "dataset"}),
    *({"text", "entities"}, {"tokens", "tags"}, {"text", "kind"}),
)
PROMISED = sorted(
    {
        target
        for file in (ROOT / "src").rglob("*.py")
        for target in re.findall(r'"docs/([\w./-]+\.md(?:#[\w-]+)?)"', file.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize("target", PROMISED)
def test_every_page_an_error_names_is_there(target):
    page, _, anchor = target.partition("#")
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert not anchor or f"{{#{anchor}}}" in text


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"([\w-]+\.md)", str(yaml.safe_load(menu)["nav"])))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_every_verb_of_the_quick_start_exists():
    from equipoise.cli import app

    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^\| `(\w+)", text, re.MULTILINE))
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert verbs == commands | {group.name for group in app.registered_groups}


def test_json_examples_can_be_read():
    blocks = [
        block
        for page in (ROOT / "docs").glob("*.md")
        for block in re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert blocks
    for block in blocks:
        for line in block.strip().splitlines():
            fields = set(json.loads(line))
            assert any(form <= fields for form in FORMS)
