"""Tables of results from elsewhere: flat (JSON, JSONL, CSV) or nested by metric and method. Errors name the line."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.errors import UserError
from equipoise.protocols import cells
from equipoise.protocols.cells import SHAPE
from equipoise.protocols.nested import read_nested
from equipoise.records import Result

NEEDED = ("method", "seed", "metric", "value")
OPTIONAL = ("task", "n", "higher_is_better")


@dataclass(frozen=True)
class Table:
    """What a file holds. `notes` names what was left unread."""

    results: list[Result]
    notes: list[str]


def read_table(path: str | Path) -> list[Result]:
    """Read results from a file; see `read_table_and_notes`."""
    return read_table_and_notes(path).results


def read_table_and_notes(path: str | Path) -> Table:
    """Read results from a file made elsewhere.

    Flat: a JSON list of objects, JSONL, or CSV with a header (comma, semicolon or tab), with `method`, `seed`, `metric`
    and `value`, and if wanted `task`, `n` and `higher_is_better`. Without a task the metric is one. Nested: JSON
    objects that have `seeds` and, by metric and method, one value a seed; what else there is is left alone and named.

    Raises:
        UserError: with file, line and field: not readable, not in one of these shapes, a field missing or of the wrong
            type, a number that is not finite, or two values for one cell.
    """
    path = Path(path)
    text = _text(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = _csv(path, text)
    elif text.lstrip().startswith("[") or path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = _json_rows(path, text)
    else:
        whole = _one_object(path, text)
        if whole is not None:
            results, unread = read_nested(path, text, whole)
            named = ", ".join(unread)
            return Table(results, [f"Parts of the file that hold no values by seed: {named}."] if unread else [])
        rows = _json_rows(path, text)
    return _flat(path, list(rows))


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path), fix="give the path of a table of results") from None
    except IsADirectoryError:
        raise UserError("this is a folder", where=str(path), fix="give a file; for a run, `equipoise report`") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text (byte {error.start})", where=str(path), fix="save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if not text.strip():
        raise UserError("the file is empty", where=str(path), fix=f"expected {SHAPE}")
    return text


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    first = text.lstrip("\r\n").splitlines()[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"not valid CSV: {error}", where=f"{path}:{reader.line_num}") from None
    line, header = lines[0] if lines else (1, [])
    names = [name.strip().lower() for name in header]
    if missing := [name for name in NEEDED if name not in names]:
        raise UserError(f"the header lacks {', '.join(missing)}", where=f"{path}:{line}", fix=f"expected {SHAPE}")
    if len(set(names)) < len(names):
        raise UserError("the header names a column twice", where=f"{path}:{line}", fix="keep one of them")
    for line, row in lines[1:]:
        if len(row) != len(names):
            fix = "put quotes around a cell that holds the delimiter"
            raise UserError(f"{len(row)} cells under {len(names)} columns", where=f"{path}:{line}", fix=fix)
        yield line, {name: cell.strip() for name, cell in zip(names, row) if cell.strip()}


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read objects from a list or from lines, each with the line on which it begins."""
    rows = _listed(path, text) if text.lstrip().startswith("[") else _lines(path, text)
    for line, row in rows:
        if not isinstance(row, dict):
            raise UserError(
                f"a row has to be an object, not {row!r:.40}", where=f"{path}:{line}", fix=f"expected {SHAPE}"
            )
        yield line, row


def _lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for line, row in enumerate(text.split("\n"), 1):
        if row.strip():
            yield line, _json(path, row, line)


def _listed(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    _json(path, text, 1)
    decoder, at, line, before = json.JSONDecoder(), text.index("[") + 1, 1, 0
    while True:
        while text[at].isspace() or text[at] == ",":
            at += 1
        if text[at] == "]":
            return
        line, before = line + text.count("\n", before, at), at
        row, at = decoder.raw_decode(text, at)
        yield line, row


def _json(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        what, line = error.msg, line + error.lineno - 1
    except RecursionError:
        what = "nested too deeply"
    except ValueError as error:
        what = str(error)
    raise UserError(f"not valid JSON: {what}", where=f"{path}:{line}", fix=f"expected {SHAPE}")


def _one_object(path: Path, text: str) -> dict[str, Any] | None:
    """Read the file as one JSON object; None if it is a flat row, or lines of them."""
    try:
        whole = _json(path, text, 1)
    except UserError as error:
        if "Extra data" in error.what:
            return None
        raise
    if not isinstance(whole, dict):
        raise UserError("this is neither rows nor an object", where=str(path), fix=f"expected {SHAPE}")
    return None if set(NEEDED) <= whole.keys() else whole


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return row


def _flat(path: Path, rows: list[tuple[int, dict[str, Any]]]) -> Table:
    if not rows:
        raise UserError("the table has no rows", where=str(path), fix=f"expected {SHAPE}")
    results, seen = [], {}
    for line, row in rows:
        result = _result(f"{path}:{line}", row)
        key = (result.method, result.seed, result.task, result.metric)
        if key in seen:
            raise UserError(
                f"method {result.method}, seed {result.seed}, {result.task} has a value on line {seen[key]} already",
                where=f"{path}:{line}",
                fix="keep one of the two",
            )
        seen[key] = line
        results.append(result)
    unread = sorted({name for _, row in rows for name in row} - {*NEEDED, *OPTIONAL})
    return Table(results, [f"Columns that were not read: {', '.join(unread)}."] if unread else [])


def _result(where: str, row: Mapping[str, Any]) -> Result:
    metric, task = cells.word(where, row, "metric"), row.get("task")
    if task is not None and not (isinstance(task, str) and task.strip()):
        raise UserError(f"not a name: {task!r}", where=f"{where}:task")
    n = row.get("n")
    return Result(
        method=cells.word(where, row, "method"),
        seed=cells.whole(f"{where}:seed", cells.there(where, row, "seed")),
        task=task or metric,
        metric=metric,
        value=cells.number(f"{where}:value", cells.there(where, row, "value")),
        n=0 if n is None else cells.whole(f"{where}:n", n, least=0),
        higher_is_better=cells.flag(f"{where}:higher_is_better", row.get("higher_is_better", True)),
    )
