"""Scores of answers that should be one small function: its parsed body is a known right one, whatever its names are."""

import ast
from collections.abc import Iterable, Sequence
from functools import lru_cache

from equipoise.errors import UserError
from equipoise.metrics.reading import read_code
from equipoise.metrics.renaming import Function, Rename, Strip
from equipoise.metrics.sandbox import run_unit_tests as run_unit_tests
from equipoise.metrics.syntax import bare_code, canonical, parse


def score_function(output: str, solutions: Iterable[str]) -> float:
    """Score 1.0 if `output` is one of `solutions` up to names of locals, docstrings and annotations, else 0.0.

    The answer has to be code alone, bare or in one fenced block; prose before or after it makes it wrong
    (`function_code` reads the function out of such an answer). The function's own name, every name that is not local
    to it, and the order of statements count. Nothing is executed.

    Raises:
        UserError: there is no solution, or one does not parse.

    >>> score_function("def double(n):\\n    return 2 * n", ["def double(x):\\n    return 2 * x"])
    1.0
    """
    known = {_right(code) for code in solutions}
    if not known:
        raise UserError("a function needs at least one known right solution", fix="add one, or score by unit tests")
    return float(_normal_form(bare_code(output)) in known)


def function_code(
    output: str, solutions: Sequence[str], *, prompt_code: str | None = None, cut: bool = False
) -> list[str]:
    """Read the function that `solutions` define out of an answer, each time with more of the code beside it.

    The last is the one to run unit tests on: the function with the imports, functions, classes and constants around
    it. The ones before leave out what it does not need. Examples of use, prints and asserts are in none. An answer
    without such a function gives an empty list; of several, the last definition counts.

    Args:
        prompt_code: the code that the answer continues, as `def f(`.
        cut: the answer ran out of tokens.

    >>> function_code("Sure:\\n```python\\ndef f(n):\\n    return n\\n\\nprint(f(2))\\n```", ["def f(x): return x"])
    ['def f(n):\\n    return n']
    """
    names = {name for code in solutions for name in _defined(parse(bare_code(code)))[-1:]}
    for snippet in reversed(read_code(output, prompt_code=prompt_code, cut=cut)):
        if snippet.source == "prompt" or snippet.rejected or not names & set(_defined(snippet.tree)):
            continue
        kept = [node for node in snippet.tree.body if _is_needed(node)]
        imports = [node for node in kept if isinstance(node, ast.Import | ast.ImportFrom)]
        if not any(isinstance(node, ast.Import | ast.ImportFrom) for node in snippet.tree.body):
            kept = [*_given_imports(prompt_code), *kept]
        own = [node for node in kept if isinstance(node, Function) and node.name in names][-1:]
        helpers = [node for node in kept if isinstance(node, Function)]
        return list(dict.fromkeys(map(_unparse, (own, imports + own, imports + helpers, kept))))
    return []


def _unparse(body: Sequence[ast.stmt]) -> str:
    try:
        return ast.unparse(ast.Module(list(body), []))
    except (RecursionError, ValueError):
        return ""


def _given_imports(prompt_code: str | None) -> list[ast.stmt]:
    snippets = read_code("", prompt_code=prompt_code) if prompt_code else []
    return [node for each in snippets for node in each.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def _is_needed(node: ast.stmt) -> bool:
    """Whether a statement of a module is part of what it defines, not an example of its use."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return not any(isinstance(each, ast.Call) for each in ast.walk(node))
    return isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Try | Function)


def _defined(tree: ast.Module | None) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, Function)] if tree else []


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
