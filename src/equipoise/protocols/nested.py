"""Results nested by section, metric and method, as papers and their scripts tend to keep them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.errors import UserError
from equipoise.protocols import cells
from equipoise.protocols.cells import SHAPE
from equipoise.records import Result


def read_nested(path: Path, text: str, whole: dict[str, Any]) -> tuple[list[Result], list[str]]:
    """Read every section of `whole` that has `seeds`; return the results, and the names of what holds none.

    Raises:
        UserError: no seeds, no values, a list of another length than the seeds, or a value that is not a finite number.
    """
    sections = list(_sections(whole, ()))
    if not sections:
        raise UserError("there are no `seeds` in this object", where=str(path), fix=f"expected {SHAPE}")
    results, unread = [], []
    for keys, section in sections:
        seeds = _seeds(_where(path, text, (*keys, "seeds")), section["seeds"])
        for metric, by_method in section.items():
            if _is_metric(by_method):
                task = f"{keys[-1]} {metric}" if len(sections) > 1 and keys else metric
                results += _metric(path, text, (*keys, metric), task, seeds, by_method)
            elif metric != "seeds":
                unread.append(".".join((*keys, metric)))
    if not results:
        raise UserError("there are seeds but no metric with a list of values by method", where=str(path), fix=SHAPE)
    top = {keys[0] for keys, _ in sections if keys} or set(whole)
    return results, unread + [key for key in whole if key not in top]


def _metric(
    path: Path, text: str, keys: tuple[str, ...], task: str, seeds: list[int], by_method: dict[str, list[Any]]
) -> Iterator[Result]:
    for method, values in by_method.items():
        where = _where(path, text, (*keys, method))
        if len(values) != len(seeds):
            raise UserError(f"{len(values)} values for {len(seeds)} seeds", where=where)
        for seed, value in zip(seeds, values):
            number = cells.number(where, value)
            yield Result(method=method, seed=seed, task=task, metric=task, value=number, n=0)


def _sections(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(node, dict) or len(keys) > 20:
        return
    if isinstance(node.get("seeds"), list):
        yield keys, node
        return
    for key, inner in node.items():
        yield from _sections(inner, (*keys, key))


def _is_metric(node: Any) -> bool:
    return isinstance(node, dict) and bool(node) and all(isinstance(values, list) for values in node.values())


def _seeds(where: str, values: list[Any]) -> list[int]:
    seeds = [cells.whole(where, value) for value in values]
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError("seeds have to be given, and each once", where=where)
    return seeds


def _where(path: Path, text: str, keys: tuple[str, ...]) -> str:
    """Name file, line and field of a nested value, by looking for its keys one after the other."""
    at = 0
    for key in keys:
        found = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:").search(text, at)
        at = found.start() if found else at
    return f"{path}:{text.count(chr(10), 0, at) + 1}:{'.'.join(keys)}"
