"""Single values of a table from elsewhere, each checked, with its place in the error."""

import math
from collections.abc import Mapping
from typing import Any

from equipoise.errors import UserError

SHAPE = "rows of method, seed, metric and value, or nested as {seeds: [...], METRIC: {METHOD: [a value a seed]}}"
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


def there(where: str, row: Mapping[str, Any], name: str) -> Any:
    """Give a field that has to be there."""
    if row.get(name) is None:
        raise UserError(f"the field {name} is missing", where=f"{where}:{name}", fix=f"expected {SHAPE}")
    return row[name]


def word(where: str, row: Mapping[str, Any], name: str) -> str:
    """Give a field that has to be a name."""
    value = there(where, row, name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"not a name: {value!r}", where=f"{where}:{name}")
    return value.strip()


def number(where: str, value: Any) -> float:
    """Give a finite number; a boolean is none."""
    try:
        x = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        x = math.nan
    if not math.isfinite(x):
        raise UserError(f"not a finite number: {value!r:.40}", where=where)
    return x


def whole(where: str, value: Any, *, least: int | None = None) -> int:
    """Give a whole number, of at least `least` if that is given."""
    x = number(where, value)
    if x != int(x) or (least is not None and x < least):
        bound = "" if least is None else f" of at least {least}"
        raise UserError(f"not a whole number{bound}: {value!r:.40}", where=where)
    return int(x)


def flag(where: str, value: Any) -> bool:
    """Give a boolean, also one written as a word."""
    if isinstance(value, bool):
        return value
    said = str(value).strip().lower()
    if said not in TRUE + FALSE:
        raise UserError(f"neither true nor false: {value!r:.40}", where=where)
    return said in TRUE
