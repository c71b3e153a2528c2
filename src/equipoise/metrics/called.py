"""Whether an answer uses a new call and not the old one: names resolved, arguments free unless they are the change."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from equipoise.metrics.arguments import decide
from equipoise.metrics.names import BUILTINS, CALLED, ITEM, UNKNOWN, Names, Path, clean, is_class, is_package, names_of
from equipoise.metrics.reading import Snippet
from equipoise.metrics.syntax import bare_code, canonical, parse

Verdict = Literal["new", "old"] | None


@dataclass(frozen=True)
class Use:
    """A call, or a name that stands for one, in an answer.

    Attributes:
        loose: it is named in a sentence, where a method may stand without what it is called on.
        said: the sentence around it.
        on: the builtin type of what a method is called on, where the code shows that it is one.
    """

    path: Path
    call: ast.Call | None
    raw: str | None = None
    loose: bool = False
    said: str = ""
    on: type | None = None


class Target:
    """A call to look for: its path, and what of that has to be found.

    A path that begins at a module or a class has to be found whole, or by that end of it which is imported. One that
    begins at a variable (`df.items()`) is found by its attributes, on anything that is not a module.
    """

    def __init__(self, code: str, names: Names, rival: "Target | None" = None):
        self.node = head(code)
        self.call = self.node if isinstance(self.node, ast.Call) else None
        self.path = _path(self.call.func if self.call else self.node, names)
        self.parts = clean(self.path)
        self.operator = _operator(self.node)
        self.whole: Path = ()
        self.tails: list[Path] = []
        self.beside = rival is not None
        self.fixed, self.needed = False, self._needed(names)
        if self.operator or not self.parts:
            return
        if self.path[0] == UNKNOWN:
            self.tails.append(self.parts[1:])
        elif len(self.parts) == 1 or names.is_module(self.path) or is_class(self.path[0]):
            self.whole = self.parts
        else:
            self.whole = self.parts
            self.tails.append(self.parts[1:])
        self.fixed = bool(self.whole) and not self.tails
        if rival is not None and rival.parts:
            self._tails_beside(rival, names)

    def _tails_beside(self, rival: "Target", names: Names) -> None:
        """Add the ends of the path that tell it from the rival's as well as the whole: what both begin with is free."""
        pairs = zip(self.path, rival.path)
        shared = next(
            (n for n, (mine, other) in enumerate(pairs) if mine != other), min(map(len, (self.path, rival.path)))
        )
        start = max((n + 1 for n, part in enumerate(self.path[:shared]) if part == CALLED), default=0)
        if not start and shared and is_class(self.path[0]) and not names.is_module(self.path):
            start = 1
        if not start and CALLED in self.path[:-1]:
            after = len(self.path) - self.path[::-1].index(CALLED)
            if is_class(self.path[after - 2]):
                start = after
        tail = clean(self.path[start:])
        if start and tail and self.parts != rival.parts and tail not in rival.tails:
            self.tails.append(tail)

    def _needed(self, names: Names) -> list[Path]:
        """What a builtin's arguments name, as in `isinstance(x, pd.Index)`: the builtin alone says nothing."""
        if self.call is None or len(self.parts) != 1 or self.parts[0] not in BUILTINS:
            return []
        paths = [names.path(arg) for arg in self.call.args if isinstance(arg, ast.Attribute)]
        return [clean(path) for path in paths if names.is_module(path)]

    def found(self, use: Use, names: Names) -> int:
        """How many parts of a use's path are this call's; 0 if it is another."""
        if self.operator or not self.parts:
            return 0
        if self.beside and use.on is not None and hasattr(use.on, self.parts[-1]):
            return 0  # `rows.append(x)` of a list is no `df.append(other)`
        best = max([self._by_whole(use, names), *(_by_tail(tail, use, names) for tail in self.tails)])
        if best and self.needed:
            args = [clean(names.path(arg)) for arg in use.call.args] if use.call else []
            args += [clean(names.path(each)) for arg in (use.call.args if use.call else []) for each in ast.walk(arg)
                     if isinstance(each, ast.Attribute | ast.Name)]  # fmt: skip
            if not all(any(arg[-1:] == path[-1:] for arg in args) for path in self.needed):
                return 0
        return best

    def _by_whole(self, use: Use, names: Names) -> int:
        mine, its = self.whole, clean(use.path)
        if not mine or its[0] == "<own>":
            return 0
        if use.raw is not None and mine == (use.raw,) and (use.raw not in names.imports):
            return 1
        if len(mine) == 1:
            return _by_name(mine[0], use, names)
        if its[-len(mine) :] == mine:
            return len(mine)
        if its[0] == UNKNOWN:
            return 0
        if len(its) == 1:
            return self._by_bare_name(its[0], use, names)
        guessed = not names.is_imported(its) and (not is_package(its[0]) or its[0] in mine)
        return len(its) if self.fixed and guessed and mine[-len(its) :] == its else 0

    def _by_bare_name(self, name: str, use: Use, names: Names) -> int:
        mine = self.whole
        if name != mine[-1] or not self.fixed:
            return 0
        if any((*star, name)[-len(mine) :] == mine for star in names.stars):
            return len(mine)
        told = use.loose and mine[0].casefold() in use.said.casefold()
        return int(told or (name not in BUILTINS and name not in names.imports and not names.stars))


def _by_name(name: str, use: Use, names: Names) -> int:
    its = clean(use.path)
    if its in ((name,), ("builtins", name)):
        return 1
    if name in BUILTINS or its[-1] != name or CALLED in use.path[:-1]:
        return 0
    return int(names.is_module(use.path))


def _by_tail(tail: Path, use: Use, names: Names) -> int:
    its = clean(use.path)
    if its == tail:
        return len(tail) if use.loose or len(tail) > 1 else 0
    if its[-len(tail) :] != tail or its[0] == "<own>":
        return 0
    before = _before(use.path, len(tail))
    last = clean(before)[-1:]
    on_object = CALLED in before or ITEM in before or not names.is_module(before)
    on_type = bool(last) and (is_class(last[0]) or last[0] in BUILTINS)
    return len(tail) if len(tail) > 1 or on_object or on_type else 0


def _before(path: Path, count: int) -> Path:
    """A path without its last `count` names."""
    end = len(path)
    while count:
        end -= 1
        count -= path[end] not in (CALLED, ITEM)
    return path[:end]


def _path(node: ast.expr | None, names: Names) -> Path:
    return () if node is None else names.path(node)


def head(code: str) -> ast.expr | None:
    """The expression that one statement of code is about: what it assigns or returns, without `await`, `not`, `[0]`."""
    tree = parse(bare_code(code))
    if tree is None or len(tree.body) != 1:
        return None
    node = getattr(tree.body[0], "value", None)
    while isinstance(node, ast.Await | ast.UnaryOp | ast.Subscript):
        inner = node.operand if isinstance(node, ast.UnaryOp) else node.value
        if isinstance(node, ast.Subscript) and not isinstance(inner, ast.Call | ast.Attribute):
            break
        node = inner
    return node


def _operator(node: ast.AST | None) -> str:
    if isinstance(node, ast.BinOp):
        return type(node.op).__name__
    if isinstance(node, ast.Compare):
        return type(node.ops[0]).__name__
    return "" if node is None or isinstance(node, ast.Call | ast.Attribute | ast.Name) else type(node).__name__


@lru_cache(maxsize=4096)
def _targets(gold: str, old: str | None, given: str) -> tuple[Target, Target | None]:
    tree = parse(given)
    names = names_of([tree] if tree else [])
    if old is None:
        return Target(gold, names), None
    return Target(gold, names, Target(old, names)), Target(old, names, Target(gold, names))


def uses_new(snippets: Sequence[Snippet], gold: str, old: str | None) -> tuple[bool, bool]:
    """Tell whether an answer's code proposes the call `gold`, and whether it proposes `old`.

    What the text around it rejects is not proposed.
    """
    given = "\n".join(each.code for each in snippets if each.source == "prompt")
    new, former = _targets(gold, old, given)
    proposed = [each for each in snippets if each.source != "prompt" and not each.rejected]
    trees = [each.tree for each in sorted(snippets, key=lambda each: not each.rejected)]
    shared = names_of(trees)
    verdicts: set[Verdict] = set()
    for snippet in proposed:
        loose = snippet.source in ("inline", "prose")
        names = shared if loose else names_of([*trees, snippet.tree])
        verdicts |= {_verdict(use, new, former, names) for use in _uses(snippet, names)}
        verdicts |= _by_operator(snippet.tree, new, former)
    verdicts |= _told_in_parts(proposed, new, "new") | _told_in_parts(proposed, former, "old")
    if former is not None and _same(new, former):
        verdicts |= _named_argument(proposed, new, former, shared)
    return "new" in verdicts, "old" in verdicts


def _told_in_parts(proposed: Sequence[Snippet], target: Target | None, verdict: Verdict) -> set[Verdict]:
    """A chain of calls that one sentence names one by one: "the `groupby` method along with the `mean` function"."""
    if target is None or target.operator or CALLED not in target.path[:-1]:
        return set()
    parts = target.tails[0] if target.tails else target.whole
    said: dict[str, set[str]] = {}
    for each in proposed:
        if each.source == "inline":
            found = [node for node in ast.walk(each.tree) if isinstance(node, ast.Name | ast.Attribute)]
            said.setdefault(each.context, set()).update(
                node.id if isinstance(node, ast.Name) else node.attr for node in found
            )
    return {verdict} if len(parts) > 1 and any(set(parts) <= names for names in said.values()) else set()


def _same(new: Target, old: Target) -> bool:
    return bool(new.parts) and new.parts == old.parts and new.call is not None and old.call is not None


def _verdict(use: Use, new: Target, old: Target | None, names: Names) -> Verdict:
    mine, other = new.found(use, names), old.found(use, names) if old else 0
    if mine != other or not mine or old is None:
        return "new" if mine > other else "old" if other else None
    if new.call and old.call and _same(new, old):
        return decide(use.call, new.call, old.call, names) if use.call else None
    if new.tails and new.tails == old.tails:
        return _by_receiver(use, new, old)
    return None


def _by_receiver(use: Use, new: Target, old: Target) -> Verdict:
    """Where only what it is called on tells two calls apart: the one whose variable the receiver is called like."""
    receiver = [part.casefold() for part in clean(_before(use.path, len(new.tails[0])))][-1:]
    like = [
        any(min(len(a), len(b)) > 2 and (a.startswith(b) or b.startswith(a)) for a in receiver)
        for b in (new.parts[0].casefold(), old.parts[0].casefold())
    ]
    return "new" if like == [True, False] else "old" if like == [False, True] else None


def _uses(snippet: Snippet, names: Names) -> Iterator[Use]:
    loose = snippet.source in ("inline", "prose")
    inside: set[int] = set()  # what is a part of a path, and so no path of its own
    for node in ast.walk(snippet.tree):
        if isinstance(node, ast.Call):
            inside.add(id(node.func))
            raw = node.func.id if isinstance(node.func, ast.Name) else None
            on = names.builtin_type(node.func.value) if isinstance(node.func, ast.Attribute) else None
            yield Use(names.path(node.func), node, raw, loose, snippet.context, on)
        elif isinstance(node, ast.Attribute):
            inside.add(id(node.value))
            if id(node) not in inside and isinstance(node.ctx, ast.Load):
                yield Use(names.path(node), None, None, loose, snippet.context)
        elif isinstance(node, ast.Subscript | ast.Await):
            pass
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for each in node.decorator_list:
                if isinstance(each, ast.Name):
                    yield Use(names.path(each), None, each.id, loose, snippet.context)
    only = snippet.tree.body[0]
    if snippet.source == "inline" and isinstance(only, ast.Expr) and isinstance(only.value, ast.Name):
        yield Use(names.path(only.value), None, only.value.id, loose, snippet.context)


def _by_operator(tree: ast.AST, new: Target, old: Target | None) -> set[Verdict]:
    """What an expression without a name, such as `x @ y`, is found by: its operator."""
    found: set[Verdict] = set()
    wanted: list[tuple[Target | None, Verdict]] = [(new, "new"), (old, "old")]
    for target, verdict in wanted:
        if target is not None and target.operator:
            hit = any(_operator(node) == target.operator for node in ast.walk(tree) if isinstance(node, ast.expr))
            found |= {verdict} if hit else set()
    return found


def _named_argument(proposed: Sequence[Snippet], new: Target, old: Target, names: Names) -> set[Verdict]:
    """An argument that a sentence names beside the call: "`OneHotEncoder` with `sparse_output=False`"."""
    assert new.call is not None and old.call is not None
    added, removed = ({each.arg for each in call.keywords if each.arg} for call in (new.call, old.call))
    added, removed = added - removed, removed - added
    named = any(new.found(use, names) for each in proposed for use in _uses(each, names))
    said = {
        name.id
        for each in proposed
        if each.source == "inline" and len(each.tree.body) == 1
        for name in _single_name(each.tree.body[0])
    }
    if not named or not (said & (added | removed)):
        return set()
    return {"old"} if said & removed else {"new"} if added <= said else set()


def _single_name(statement: ast.stmt) -> list[ast.Name]:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "value", None)
    return [target] if isinstance(target, ast.Name) else []


def states_exactly(snippets: Sequence[Snippet], gold: str) -> bool:
    """Tell whether some statement of the code has the syntax of `gold`, whatever assigns, prints or returns it."""
    tree = parse(bare_code(gold))
    wanted = {_text(each) for each in _expressions(tree)} if tree else set()
    wanted = wanted or ({canonical(tree)} if tree else set())
    return any(
        _text(each) in wanted
        for snippet in snippets
        if snippet.source != "prompt" and not snippet.rejected
        for node in ast.walk(snippet.tree)
        if isinstance(node, ast.stmt)
        for each in [node, *_of_statement(node)]
    )


def _expressions(tree: ast.Module) -> list[ast.expr]:
    return [tree.body[0].value] if isinstance(tree.body[0], ast.Expr | ast.Assign) and tree.body[0].value else []


def _of_statement(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions that a statement is made of: what it assigns, returns, prints, loops over, enters or tests."""
    for name in ("value", "annotation", "iter", "test"):
        value = getattr(node, name, None)
        value = value.value if isinstance(value, ast.Await) else value
        if isinstance(value, ast.expr):
            yield value
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
                yield from value.args
    yield from getattr(node, "decorator_list", [])
    for item in getattr(node, "items", []):
        yield item.context_expr


def _text(node: ast.AST) -> str | None:
    statement = node if isinstance(node, ast.stmt) else ast.Expr(node)  # pyright: ignore[reportArgumentType]
    return canonical(ast.Module([statement], []))
