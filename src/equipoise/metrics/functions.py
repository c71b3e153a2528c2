"""Scores of answers that should be one small function: its parsed body is a known right one, whatever its names are."""

from collections.abc import Iterable
from functools import lru_cache

from equipoise.errors import UserError
from equipoise.metrics.renaming import Function, Rename, Strip
from equipoise.metrics.sandbox import run_unit_tests as run_unit_tests
from equipoise.metrics.syntax import bare_code, canonical, parse


def score_function(output: str, solutions: Iterable[str]) -> float:
    """Score 1.0 if `output` is one of `solutions` up to names of locals, docstrings and annotations, else 0.0.

    The answer has to be code alone, bare or in one fenced block; prose before or after it makes it wrong. The
    function's own name, every name that is not local to it, and the order of statements count. Nothing is executed.

    Raises:
        UserError: there is no solution, or one does not parse.

    >>> score_function("def double(n):\\n    return 2 * n", ["def double(x):\\n    return 2 * x"])
    1.0
    """
    known = {_right(code) for code in solutions}
    if not known:
        raise UserError("a function needs at least one known right solution", fix="add one, or score by unit tests")
    return float(_normal_form(bare_code(output)) in known)


def _right(code: str) -> str:
    bare = bare_code(code)
    tree, form = parse(bare), _normal_form(bare)
    if tree is None or form is None or not any(isinstance(node, Function) for node in tree.body):
        raise UserError(f"a known right solution is no Python function: {code!r}", fix="correct it")
    return form


@lru_cache(maxsize=4096)
def _normal_form(code: str) -> str | None:
    tree = parse(code)
    if tree is None:
        return None
    try:
        return canonical(Rename(tree).visit(Strip().visit(tree)))
    except RecursionError:
        return None
