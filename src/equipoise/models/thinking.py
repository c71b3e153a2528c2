"""Reasoning models: thinking switched off where the chat template has a switch for it."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

from equipoise.models.loading import Loaded

SWITCHES = ("enable_thinking", "thinking")  # Qwen 3, SmolLM 3, GLM; Granite 3, DeepSeek V3.1


def without_thinking(loaded: Loaded) -> Loaded:
    """The same model with a tokenizer whose chat template has thinking off; `loaded` itself if there is no switch.

    Everything that renders prompts with it, training included, then sees the same ones.
    """
    template = loaded.tokenizer.chat_template
    known = [name for name in SWITCHES if isinstance(template, str) and _reads(template, name)]
    if not known:
        return loaded
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = "".join(f"{{%- set {name} = false -%}}" for name in known) + template
    return replace(loaded, tokenizer=tokenizer)


def _reads(template: str, name: str) -> bool:
    """Whether a tag of the template uses the variable; a text that only mentions the word does not count."""
    tags = re.findall(r"\{%.*?%\}|\{\{.*?\}\}", template, re.DOTALL)
    unquoted = (re.sub(r"'[^']*'|\"[^\"]*\"", "", tag) for tag in tags)
    return any(re.search(rf"(?<![\w.]){name}\b(?!\s*=[^=])", tag) for tag in unquoted)
