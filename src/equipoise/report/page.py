"""What every page is made of: sections that say why when they have nothing to show, and the templates."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2

from equipoise.report.reading import RunData

MARKS = {"yes": "✓", "no": "✗", "open": "?", "none": "–", "blind": "⊘"}


@dataclass(frozen=True)
class Verdict:
    """One finding as it is shown; `kind` is one of `MARKS`, and `id` that of a hypothesis."""

    claim: str
    kind: str
    word: str
    sentence: str
    details: str = ""
    id: str = ""

    @property
    def mark(self) -> str:
        """The sign that says the same as the colour, for those who do not see it."""
        return MARKS[self.kind]


@dataclass(frozen=True)
class Part:
    """One section: what it shows, or why it shows nothing."""

    content: Any = None
    why: str = ""


def part(run: RunData, file: str, make: Callable[[], Any], *, empty_is_content: bool = False) -> Part:
    """Make a section, or say in a sentence why it cannot be made."""
    try:
        content = make()
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        return Part(why=f"Left out: {file} does not have the expected form ({type(error).__name__}: {error}).")
    if content or (empty_is_content and content is not None):
        return Part(content)
    return Part(why=f"Left out: {run.problems.get(file, f'{file} holds nothing to show here.')}")


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def frame(run: RunData) -> dict[str, Any]:
    """Give what every page has: title, description, and what its set-up section shows."""
    return {
        "run": run,
        "title": str(run.config.get("name") or run.path.resolve().name),
        "description": run.config.get("description"),
        "manifest": json.dumps(run.manifest, indent=2, ensure_ascii=False, sort_keys=True) if run.manifest else "",
        "versions": mapping(run.manifest.get("versions")),
    }


def environment() -> jinja2.Environment:
    """Give the templates, with every text escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("equipoise.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["short"] = lambda value: "–" if value is None else f"{value:.3g}"
    return found
