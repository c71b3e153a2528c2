"""Strict YAML into pydantic: unknown keys are errors with the nearest known one, and every error knows its line."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from equipoise.errors import UserError


class Section(BaseModel):
    """A part of a recipe. Unknown keys, booleans in the place of numbers and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_number(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name, value in values.items():
                field = cls.model_fields.get(name)
                if isinstance(value, bool) and field is not None and _wants_number(field.annotation):
                    raise ValueError(f"{name} must be a number, not {str(value).lower()}")
        return values


def _wants_number(annotation: Any) -> bool:
    kinds = {annotation, *get_args(annotation)}
    return bool(kinds & {int, float}) and bool not in kinds


class Located(dict[str, Any]):
    """A mapping from YAML that remembers the line of each key."""

    def __init__(self, values: dict[str, Any], lines: dict[str, int]):
        super().__init__(values)
        self.lines = lines


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 numbers (`1e-5`), and without duplicate keys."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Located:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise UserError(
                f"the key {key!r} is not a string", where=f"{key_node.start_mark.name}:{line}", fix="quote it"
            )
        if key in values:
            raise UserError(
                f"the key {key!r} stands twice",
                where=f"{key_node.start_mark.name}:{line}:{key}",
                fix=f"remove one; the other is in line {lines[key]}",
            )
        values[key], lines[key] = loader.construct_object(value_node, deep=True), line
    return Located(values, lines)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load_yaml(source: Path | str, *, name: str | None = None) -> Located:
    """Read one YAML mapping from a file (Path) or from text; nothing but plain data is built.

    Raises:
        UserError: the file cannot be read, is no YAML mapping, repeats a key or uses a tag that builds objects.
    """
    name = name or (str(source) if isinstance(source, Path) else "text")
    text = _read(source) if isinstance(source, Path) else source
    loaded = _parse(text, name)
    if not isinstance(loaded, Located):
        raise UserError("a recipe is a YAML mapping of keys to values", where=name)
    return loaded


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the recipe: {error}", where=str(path), fix="give a UTF-8 YAML file") from None


def _parse(text: str, name: str) -> Any:
    loader = _Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise UserError(f"not readable as YAML: {error.problem}", where=where, fix="plain YAML data only") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"not readable as YAML: {error}", where=name) from None
    finally:
        loader.dispose()


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Find the most similar of `words`, if one is similar at all."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return found[0] if found else None


T = TypeVar("T", bound=BaseModel)


def resolve(schema: type[T], source: Path | None, overrides: list[str] | None = None) -> T:
    """Read a recipe (or, without a file, the defaults) into `schema`, with `dotted.key=value` overrides in YAML.

    Raises:
        UserError: with `file:line:field` (or the override), and the nearest known key for an unknown one.
    """
    values = load_yaml(source) if source else Located({}, {})
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides or []:
        _apply(values, override, origins)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise _explain(error, schema, values, str(source or "defaults"), origins) from None


def _apply(values: Located, override: str, origins: dict[tuple[str, ...], str]) -> None:
    dotted, equals, text = override.partition("=")
    path = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        raise UserError(
            f"{override!r} is no setting", where="command line", fix="write key=value, as in training.epochs=5"
        )
    here: dict[str, Any] = values
    for key in path[:-1]:
        below = here.get(key)
        if not isinstance(below, dict):
            below = here[key] = Located({}, {})
        here = below
    here[path[-1]] = _parse(text, f"command line: {dotted}")
    origins[path] = f"command line: {override}"


def _explain(
    error: ValidationError, schema: type[BaseModel], values: Located, source: str, origins: dict
) -> UserError:
    problem = error.errors()[0]
    path = tuple(str(part) for part in problem["loc"])
    where = next(
        (origin for at, origin in origins.items() if at[: len(path)] == path or path[: len(at)] == at),
        f"{source}:{_line(values, path)}:{'.'.join(path)}",
    )
    if problem["type"] == "extra_forbidden":
        known = _keys(schema, path[:-1])
        guess = nearest(path[-1], known)
        fix = f"did you mean {guess!r}?" if guess else f"known keys: {', '.join(sorted(known))}"
        return UserError(f"unknown key {path[-1]!r}", where=where, fix=fix)
    value = problem.get("input")
    shown = "" if isinstance(value, dict) or problem["type"] == "missing" else f" (got {value!r})"
    return UserError(problem["msg"].removeprefix("Value error, ") + shown, where=where)


def _line(values: Any, path: tuple[str, ...]) -> int:
    line = 1
    for key in path:
        if not isinstance(values, Located) or key not in values:
            break
        line, values = values.lines.get(key, line), values[key]
    return line


def _keys(schema: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    current: Any = schema
    for key in path:
        field = current.model_fields.get(key) if isinstance(current, type) and issubclass(current, BaseModel) else None
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not sections and not (isinstance(current, type) and issubclass(current, BaseModel) and field is None):
            return []
        current = sections[0] if sections else current
    return list(current.model_fields)


def dump_yaml(section: BaseModel) -> str:
    """Write a section as YAML that `load_yaml` reads back to the same values."""

    class Dumper(yaml.SafeDumper):
        pass

    # 1e-05 without a dot would be a string to other YAML 1.1 readers.
    Dumper.add_representer(
        float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", _float(value))
    )
    return yaml.dump(section.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def _float(value: float) -> str:
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text
