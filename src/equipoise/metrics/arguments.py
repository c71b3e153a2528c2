"""Which of two calls of one name a call is, where only their arguments differ."""

import ast
from itertools import zip_longest
from typing import Literal

from equipoise.metrics.names import Names, Path, clean
from equipoise.metrics.syntax import dump

Verdict = Literal["new", "old"] | None


def decide(call: ast.Call, new: ast.Call, old: ast.Call, names: Names) -> Verdict:
    """Decide by what the two calls differ in, the first of these that they do; None if the call shows neither.

    1. keyword names: the new has to be there and the old must not (`Word2Vec(iter=5)`, now `epochs=5`);
    2. values of the same keyword (`loss='log'`, now `'log_loss'`);
    3. positional arguments: another constant (`resample('M')`), another form (`select([x])`), another order.
    """
    mine, theirs = _keywords(new), _keywords(old)
    added, removed = mine.keys() - theirs.keys(), theirs.keys() - mine.keys()
    given = _keywords(call)
    if added or removed:
        return _by_names(set(given), added, removed)
    changed = [key for key in mine if dump(mine[key]) != dump(theirs[key])]
    pairs = [(mine[key], theirs[key], given.get(key)) for key in changed]
    if not changed:
        ours, its = new.args, old.args
        everything = [*call.args, *given.values()]
        pairs = [
            (a, b, _argument(call, n, everything, a, b, names))
            for n, (a, b) in enumerate(zip_longest(ours, its))
            if a is None or b is None or dump(a) != dump(b)
        ]
    swapped = sorted(str(dump(a)) for a, _, _ in pairs if a) == sorted(str(dump(b)) for _, b, _ in pairs if b)
    for_new = [_fits(arg, a, b, names, swapped) for a, b, arg in pairs]
    for_old = [_fits(arg, b, a, names, swapped) for a, b, arg in pairs]
    if True in for_new and False not in for_new:
        return "new"
    return "old" if True in for_old and False not in for_old else None


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {each.arg: each.value for each in call.keywords if each.arg}


def _by_names(given: set[str], added: set[str], removed: set[str]) -> Verdict:
    if given & removed:
        return "old"
    if added <= given:
        return "new" if added else None
    return None if removed else "old"


def _argument(
    call: ast.Call, n: int, everything: list[ast.expr], new: ast.expr | None, old: ast.expr | None, names: Names
) -> ast.expr | None:
    """The argument at a position; a constant that is looked for may also have been given by keyword."""
    for wanted in (new, old):
        if isinstance(wanted, ast.Constant) and n >= len(call.args):
            hit = next((each for each in everything if dump(names.value(each)) == dump(wanted)), None)
            if hit is not None:
                return hit
    return call.args[n] if n < len(call.args) else None


def _fits(
    arg: ast.expr | None, wanted: ast.expr | None, rival: ast.expr | None, names: Names, swapped: bool
) -> bool | None:
    """Whether an argument is of the form that is wanted; None if that does not show, as in a variable."""
    if arg is None or wanted is None:
        return arg is wanted
    node = names.value(arg)
    if swapped:
        return _fits_swapped(node, wanted, rival)
    if isinstance(wanted, ast.Constant):
        if isinstance(node, ast.Constant):
            return node.value == wanted.value
        return None if isinstance(node, ast.Name) else False
    if isinstance(wanted, ast.Attribute):
        return _same_path(clean(names.path(node)), clean(names.path(wanted)))
    if isinstance(wanted, ast.Name):
        if isinstance(rival, ast.Constant) and isinstance(node, ast.Name):
            return None
        return not isinstance(node, type(rival)) if rival is not None else True
    if isinstance(node, ast.Name):
        return None
    if isinstance(wanted, ast.Call) and isinstance(node, ast.Call):
        return clean(names.path(wanted.func))[-1:] == clean(names.path(node.func))[-1:]
    return isinstance(node, type(wanted))


def _fits_swapped(node: ast.expr, wanted: ast.expr, rival: ast.expr | None) -> bool | None:
    """Two arguments in the other order: a constant's type, or the name of a variable, says which is which."""
    if isinstance(wanted, ast.Constant):
        return type(node.value) is type(wanted.value) if isinstance(node, ast.Constant) else None
    if isinstance(rival, ast.Constant) and isinstance(node, ast.Constant):
        return False if type(node.value) is type(rival.value) else None
    return True if dump(node) == dump(wanted) else None


def _same_path(path: Path, wanted: Path) -> bool:
    return path == wanted or path[-len(wanted) :] == wanted or (len(path) > 1 and wanted[-len(path) :] == path)
