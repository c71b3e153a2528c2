"""Strict YAML into pydantic: unknown keys are errors with the nearest known one, and every error knows its line."""

import difflib
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from equipoise.errors import UserError

Keys = tuple[str | int, ...]
MAX_BYTES = 2**20  # a recipe is a page; what is larger was meant as something else


# ---- schema


class Section(BaseModel):
    """A part of a recipe. Unknown keys, booleans in the place of numbers and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name and (problem := _misplaced(value, cls.model_fields[info.field_name].annotation)):
            raise ValueError(problem)
        return value


def _misplaced(value: Any, kind: Any) -> str | None:
    """Say what pydantic would let pass: a boolean as 0 or 1, and numbers of untyped fields that are not finite."""
    kinds = _unpacked(kind)
    if isinstance(value, bool):
        return "must be a number, not true or false" if kinds & {int, float} and bool not in kinds else None
    if isinstance(value, float):
        return "must hold finite numbers" if Any in kinds and not math.isfinite(value) else None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    inner = [get_args(k)[-1] for k in kinds if get_origin(k) in (list, tuple, set, dict)] or list(kinds & {Any})
    return next((problem for item in items for k in inner if (problem := _misplaced(item, k))), None)


def _unpacked(kind: Any) -> set[Any]:
    """The members of a union, or the type itself; literals are none of our business."""
    if get_origin(kind) in (list, tuple, set, dict) or not get_args(kind):
        return {kind}
    return {found for part in get_args(kind) if not isinstance(part, str | int) for found in _unpacked(part)}


# ---- YAML


class Located(dict[str, Any]):
    """A mapping read from YAML; `lines` gives the line of each value by its path, as in `("arms", "sft", "name")`."""

    lines: dict[Keys, int]


class _Loader(yaml.SafeLoader):
    """Plain data alone, with the scalars of YAML 1.2: `1e-5` is a number, `no` and `2024-01-01` are text."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if self.check_event(yaml.AliasEvent) or event.anchor is not None:
            raise _Refused("anchors and aliases (& and *) are not read in a recipe", event, "write the value out")
        if event.tag not in (None, "!"):
            raise _Refused(f"the tag {event.tag} is not read in a recipe", event, "write plain data; quote a text")
        return super().compose_node(parent, index)


class _Refused(Exception):
    def __init__(self, what: str, at: Any, fix: str, field: str = ""):
        super().__init__(what)
        self.line, self.fix, self.field = at.start_mark.line + 1, fix, field


_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


def load_yaml(source: Path | str, *, name: str | None = None) -> Located:
    """Read one YAML mapping from a file (Path) or from text; nothing but plain data is built.

    Raises:
        UserError: the file cannot be read, is no YAML mapping, repeats a key, or has anchors or tags.
    """
    name = name or (str(source) if isinstance(source, Path) else "text")
    lines: dict[Keys, int] = {}
    values = _parse(_read(source) if isinstance(source, Path) else source, name, lines)
    if not isinstance(values, dict):
        raise UserError("a recipe is a YAML mapping of keys to values", where=name, fix="write key: value lines")
    located = Located(values)
    located.lines = lines
    return located


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError("this is too large to be a recipe", where=str(path), fix="give a YAML file of settings")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read the recipe: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("the recipe is not UTF-8 text", where=str(path), fix="save it as UTF-8") from None


def _parse(text: str, name: str, lines: dict[Keys, int] | None) -> Any:
    """Read one document; `lines` takes the line of each value, and None stands for a text of one line."""

    def at(line: int) -> str:
        return f"{name}:{line}" if lines is not None else name

    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _built(node, (), {} if lines is None else lines)
        finally:
            loader.dispose()
    except _Refused as error:
        where = ":".join([at(error.line), *filter(None, [error.field])])
        raise UserError(str(error), where=where, fix=error.fix) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(
            f"not readable as YAML: {error.problem or error.context}",
            where=at(mark.line + 1) if mark else name,
            fix="look at this line: a text with : # @ ` or brackets needs quotes, and only spaces indent",
        ) from None
    except RecursionError:
        raise UserError("not readable as YAML: it is nested too deeply", where=name) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"not readable as YAML: {str(error).splitlines()[0]}", where=name) from None


def _built(node: yaml.Node, path: Keys, lines: dict[Keys, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_built(item, (*path, i), lines) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _built(key_node, (*path, "?"), {})
        if not isinstance(key, str):
            raise _Refused(f"the key {key!r} is not a text", key_node, "quote it")
        if key == "<<" and key_node.style is None:
            raise _Refused("merge keys (<<) are not read in a recipe", key_node, "write the keys out")
        if key in values:
            first = lines[*path, key]
            raise _Refused(
                f"the key {key!r} stands twice",
                key_node,
                f"remove one; the other is in line {first}",
                _dotted(path, key),
            )
        lines[*path, key] = key_node.start_mark.line + 1
        values[key] = _built(value_node, (*path, key), lines)
    return values


def _scalar(node: Any) -> Any:
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        if len(text) > 4000:  # Python itself refuses them a little later
            raise _Refused("this number has too many digits", node, "write a smaller one")
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower())) if kind == "float" else text


def _dotted(path: Iterable[str | int], *more: str | int) -> str:
    return ".".join(str(part) for part in (*path, *more))


# ---- recipes


SHORT = {"lr": "learning_rate", "bs": "batch_size", "wd": "weight_decay"}


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Find the most similar of `words`, if one is similar at all; upper and lower case are alike."""
    known = {known.casefold(): known for known in words}
    found = difflib.get_close_matches(word.casefold(), list(known), n=1, cutoff=0.6)
    return known[found[0]] if found else None


T = TypeVar("T", bound=BaseModel)


def resolve(schema: type[T], source: Path | None, overrides: list[str] | None = None) -> T:
    """Read a recipe (or, without a file, the defaults) into `schema`, with `dotted.key=value` overrides in YAML.

    An override makes the sections that it needs; a list is given whole, as in `seeds=[1,2]`. Parameters belong to what
    `name` names: another `name` leaves the `params` beside it behind, unless they are overridden too.

    Raises:
        UserError: with `file:line:field` (or the override), and the nearest known key for an unknown one.
    """
    values = load_yaml(source) if source else load_yaml("{}", name="defaults")
    given = [_read_override(override) for override in overrides or []]
    origins: dict[Keys, str] = {path: origin for path, _, origin in given}
    for path, value, _ in given:
        _apply(values, path, value, origins)
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(error, schema, values, str(source or "defaults"), origins) from None


def _read_override(override: str) -> tuple[tuple[str, ...], Any, str]:
    """Read `dotted.key=value` as path and value, and say where they came from."""
    dotted, equals, text = override.partition("=")
    path = tuple(dotted.strip().split("."))
    origin = f"command line: {override}"
    if not equals or not all(path):
        raise UserError("this is no setting", where=origin, fix="write key=value, as in training.epochs=5")
    return path, _parse(text, origin, None), origin


def _apply(values: Located, path: tuple[str, ...], value: Any, origins: Mapping[Keys, str]) -> None:
    """Set one value, an override from among `origins`."""
    here: dict[str, Any] = values
    for depth, key in enumerate(path[:-1], 1):
        if here.get(key) is None:
            here[key] = {}
        here = here[key]
        if not isinstance(here, dict):
            above = ".".join(path[:depth])
            raise UserError(
                f"{above} holds a value, no keys", where=origins[path], fix=f"set it as a whole, as in {above}=..."
            )
    params = (*path[:-1], "params")
    if path[-1] == "name" and value != here.get("name") and not any(at[: len(params)] == params for at in origins):
        here.pop("params", None)
    here[path[-1]] = value


def _explain(
    error: ValidationError, schema: type[BaseModel], values: Located, source: str, origins: Mapping[Keys, str]
) -> UserError:
    problems = error.errors()
    problem = problems[0]
    path = _path(problem, values)
    where = _where(path, values, source, origins)
    if problem["type"] == "extra_forbidden":
        known = [key for model in _models_at(schema, path[:-1]) for key in model.model_fields]
        return UserError(f"unknown key {path[-1]!r}", where=where, fix=_suggestion(str(path[-1]), known, schema))
    if problem["type"] == "missing":
        return UserError(f"{path[-1]!r} is missing", where=where, fix="add it")
    told = dict.fromkeys(_told(p) for p in problems if _path(p, values) == path)
    value = problem.get("input")
    shown = "" if isinstance(value, dict | BaseModel) else f" (got {reprlib.repr(value)})"
    return UserError("; or: ".join(told) + shown, where=where)


def _told(problem: Any) -> str:
    if problem["type"] == "model_type":
        return "must be a section, with keys of its own"
    return problem["msg"].removeprefix("Value error, ").replace("Input should", "must")


def _path(problem: Any, values: Any) -> Keys:
    """The path in the recipe, without the names that pydantic puts in for the members of a union."""
    path: list[str | int] = []
    for part in problem["loc"]:
        if part in (values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()):
            values = values[part]
            path.append(part)
    if problem["type"] == "missing":
        path.append(problem["loc"][-1])
    return tuple(path)


def _where(path: Keys, values: Located, source: str, origins: Mapping[Keys, str]) -> str:
    """Blame the override that set the value (or, for a whole section, one inside it), else a line of the file."""
    above = [at for at in origins if path[: len(at)] == at]
    below = [at for at in origins if path and at[: len(path)] == path]
    if above or below:
        return origins[max(above, key=len) if above else below[-1]]
    known = next(path[:n] for n in range(len(path), -1, -1) if path[:n] in values.lines)
    return ":".join([source, str(values.lines[known]), *([_dotted(path)] if path else [])])


def _suggestion(word: str, known: list[str], schema: type[BaseModel]) -> str:
    if guess := nearest(SHORT.get(word, word), known):
        return f"did you mean {guess!r}?"
    if elsewhere := [place for place in _places(schema) if place.rpartition(".")[2] == word]:
        return f"it belongs in a section: {elsewhere[0]}"
    return f"known keys: {', '.join(sorted(known))}"


def _places(schema: type[BaseModel], at: str = "") -> Iterator[str]:
    for name, field in schema.model_fields.items():
        yield f"{at}{name}"
        for kind in _unpacked(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _places(kind, f"{at}{name}.")


def _models_at(schema: Any, path: Keys) -> list[type[BaseModel]]:
    """The sections that may stand at `path`, through optional ones, lists and mappings of sections."""
    kinds = {schema}
    for key in path:
        below: set[Any] = set()
        for kind in kinds:
            if get_args(kind):
                below |= _unpacked(get_args(kind)[-1])
            elif isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
                below |= _unpacked(kind.model_fields[str(key)].annotation)
        kinds = below
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of YAML 1.1 or 1.2 would take for something else."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
            *_Loader.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {**yaml.SafeDumper.yaml_implicit_resolvers, **_Loader.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float(dumper: _Dumper, value: float) -> yaml.Node:
    text = repr(value)  # 1e-05 without a dot would be text to a reader of YAML 1.1
    return dumper.represent_scalar(
        "tag:yaml.org,2002:float", text.replace("e", ".0e") if "e" in text and "." not in text else text
    )


_Dumper.add_representer(float, _float)


def dump_yaml(section: BaseModel) -> str:
    """Write a section as YAML that `load_yaml` reads back to the same values."""
    return yaml.dump(section.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
