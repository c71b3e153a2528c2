"""What goes along with a model that is handed on: its card, and how whoever receives it can test it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from equipoise.config import Located, load_yaml
from equipoise.journal import read_journal
from equipoise.models import known
from equipoise.models.files import HUB_NAME

UNKNOWN = "not known here; look at where it comes from, and state it before you hand the model on"
CARD = """# {name}

{about}

## Base

{base}. Licence: {licence}.

## Data

{data}

Equipoise does not decide whether these sources may be used for your purpose: check the licence of each one.

## Intended use

Research, and applications that ask what the training data ask, in the same form, and whose answers are checked. Not
for decisions about people's health, rights, money or safety without a person who answers for them.

## Limits and responsible use

- What it was not trained on, it answers as its base would, with the base's errors, biases and gaps.
- It can state what is wrong with the same fluency as what is right{sure}.
- The figures below hold for questions like those they were measured on; on others, and after further training or
  quantization, measure again.
- Its output is text and no more: do not execute it, and do not show it as HTML, unchecked.
- If it was trained on text about people, it may repeat it.

## Measured

{measured}

## Training

{training}
"""


@dataclass(frozen=True)
class Card:
    """What a model card says; the rest of it is the same for all models."""

    name: str
    base: str
    about: str
    data: str
    measured: str
    training: str
    library: str
    tags: tuple[str, ...] = ()
    sure: str = ""  # what the model does about it when it is not sure

    def markdown(self) -> str:
        """The card as the Hub reads it: metadata, then the text."""
        licence = licence_of(self.base)
        head: dict[str, Any] = {"library_name": self.library, "tags": ["equipoise", *self.tags]}
        if _on_hub(self.base):
            head["base_model"] = self.base
        if licence is not None:
            head["license"] = licence
        text = CARD.format(
            **{k: v for k, v in vars(self).items() if k != "base"}, base=_base(self.base), licence=licence or UNKNOWN
        )
        return f"---\n{yaml.safe_dump(head, sort_keys=True, allow_unicode=True)}---\n{text}"


def _on_hub(base: str) -> bool:
    return "/" in base and HUB_NAME.fullmatch(base) is not None and not Path(base).exists()


def _base(base: str) -> str:
    if base.partition(":")[0] == "testbed":
        return f"`{base}`, the small model that comes with Equipoise, trained from scratch on a made-up world"
    return f"[{base}](https://huggingface.co/{base})" if _on_hub(base) else f"`{base}`"


def licence_of(base: str) -> str | None:
    """The licence that a base model states in its card, as far as that is on this machine."""
    if base.partition(":")[0] == "testbed":
        return "mit"
    if (stated := known.licence(base)) is not None:
        return stated
    path: Any = Path(base).expanduser() / "README.md"
    if _on_hub(base):
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(base, "README.md")
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    head = re.match(r"---\r?\n(.*?)\r?\n---", Path(path).read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", head[1], re.MULTILINE) if head else None
    return found[1] if found else None


@dataclass(frozen=True)
class Origin:
    """What a run tells of one of its models.

    Attributes:
        results: rows of `results.json` about this model.
        answers: its own item-level answers to held-out prompts.
    """

    run: Path
    config: Located
    manifest: dict[str, Any]
    results: list[dict[str, Any]]
    answers: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Path, model: Path) -> Origin:
        """Read `run` for what concerns the model in the folder `model`."""
        cell = next((f for f in model.absolute().parents if (f / "results.json").is_file()), run)
        results = _rows(cell / "results.json")
        answers = read_journal(cell / "predictions.jsonl").rows
        inside = model.absolute().parts
        methods = {row["method"] for row in results if row.get("method") in inside}
        seeds = {row["seed"] for row in results if f"seed-{row.get('seed')}" in inside}

        def mine(row: Mapping[str, Any]) -> bool:
            return row.get("method", None) in (methods or {row.get("method")}) and row.get("seed") in (
                seeds or {row.get("seed")}
            )

        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        return cls(run, load_yaml(run / "config.yaml"), manifest, [*filter(mine, results)], [*filter(mine, answers)])

    def data(self) -> str:
        """The sources that the run's config names, with the hash of what was read."""
        hashes = self.manifest.get("data", {})
        found = {
            **dict(_sources(self.config.get("data"), "data")),
            **dict(_sources(self.config.get("domains"), "domains")),
        }
        lines = [
            f"- `{at}`: `{source}`; licence: {'mit' if source.startswith('testbed:') else UNKNOWN}"
            for at, source in found.items()
        ]
        cleaning = self._read("data.json").get("cleaning", {})
        lines += [
            f"- licences of the rows of {name}: {_counts(of.get('licences', {}))}" for name, of in cleaning.items()
        ]
        lines += [f"- sha256 of {name}: `{digest}`" for name, digest in hashes.items()]
        return "\n".join(lines) or "The run names no source."

    def _read(self, name: str) -> dict[str, Any]:
        path = self.run / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def measured(self) -> str:
        """The run's results as a table."""
        if not self.results:
            return "The run has measured nothing."
        lines = ["| method | seed | task | metric | value | n | better |", "|---|---:|---|---|---:|---:|---|"]
        for row in self.results:
            better = "higher" if row.get("higher_is_better", True) else "lower"
            cells = (row["method"], row["seed"], row["task"], row["metric"], f"{row['value']:.4g}", row["n"], better)
            lines.append(f"| {' | '.join(map(str, cells))} |")
        return "\n".join(lines)

    def training(self) -> str:
        """How the model was trained: command, versions, and the whole config."""
        versions = ", ".join(f"{name} {number}" for name, number in self.manifest.get("versions", {}).items())
        device = self.manifest.get("device", "an unknown device")
        config = (self.run / "config.yaml").read_text(encoding="utf-8")
        return (
            f"Made with Equipoise, begun {self.manifest.get('started', 'at an unknown time')}, on "
            f"{device} ({versions}). The whole recipe:\n\n```yaml\n{config}```"
        )


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in numbers.items()) or "none named"


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return json.loads(path.read_text(encoding="utf-8"))


def _sources(values: Any, at: str) -> Iterable[tuple[str, str]]:
    """Texts in a section of a config that look like a source of data."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _sources(value, f"{at}.{key}")
    elif isinstance(values, list):
        for i, value in enumerate(values):
            yield from _sources(value, f"{at}.{i}")
    elif isinstance(values, str) and re.match(r"(testbed|hub):|.*\.(jsonl?|conll|txt|ya?ml|csv)$", values):
        yield at, values
