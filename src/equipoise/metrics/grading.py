"""Grades of a model's answer, however it talks: an API call, a small function, or a text."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from equipoise.errors import UserError
from equipoise.metrics.api_calls import published_score
from equipoise.metrics.called import head, states_exactly, uses_new
from equipoise.metrics.functions import function_code, score_function
from equipoise.metrics.reading import read_code
from equipoise.metrics.stated import states
from equipoise.metrics.syntax import bare_code, parse

Kind = Literal["call", "function", "text"]
KINDS: tuple[Kind, ...] = ("call", "function", "text")


@dataclass(frozen=True)
class Grades:
    """Every score of one answer, 0 or 1; None for what its kind does not have.

    Attributes:
        exact: call: a statement of the answer's code has the syntax of gold, and the old call is not offered.
            function: the function in it is a known right one. text: the whole answer is gold, white space aside.
        call: the new call is used, whatever its arguments, and the old one is not.
        published: the substring rule of the published scripts (1, 0.5 or 0), for a call that replaces an old one.
        stated: a sentence states gold and no other value of its kind.
    """

    kind: Kind
    exact: float
    call: float | None = None
    published: float | None = None
    stated: float | None = None

    @property
    def right(self) -> float:
        """The score that does not depend on how a model talks: `call`, `stated`, or `exact` of a function."""
        return next((each for each in (self.call, self.stated) if each is not None), self.exact)


def grade(
    output: str,
    gold: str,
    *,
    old: str | None = None,
    accepted: Sequence[str] = (),
    question: str | None = None,
    kind: Kind | Literal["auto"] = "auto",
    prompt_code: str | None = None,
    cut: bool = False,
) -> Grades:
    """Grade an answer as a person would who reads it: code in fences, in backticks, in prose or as a continued line.

    Args:
        old: the outdated answer; an answer that offers it, alone or beside gold, is wrong.
        accepted: further right answers: variants of a text, solutions of a function, calls as good as gold.
        question: what was asked; values that stand in it are no answer by themselves.
        kind: `auto` takes it from gold and old (see `kind_of`).
        prompt_code: the text that the answer continues, where it was asked so (`form: text`).
        cut: the answer ran out of tokens. What is there is graded, but for a last statement that is incomplete.

    Raises:
        UserError: gold does not fit the kind, or old is the same as gold.

    >>> grade("Do this:\\n```python\\nimport numpy\\nn = numpy.prod(a)\\n```", "np.prod(x)", old="np.product(x)")
    Grades(kind='call', exact=0.0, call=1.0, published=0.5, stated=None)
    >>> grade("The capital of France is Paris.", "Paris").stated
    1.0
    """
    kind = kind_of(gold, old) if kind == "auto" else kind
    if kind == "call":
        return _grade_call(output, gold, old, accepted, prompt_code, cut)
    if kind == "function":
        code = function_code(output, [gold, *accepted], prompt_code=prompt_code, cut=cut)
        return Grades(kind, exact=max((score_function(each, [gold, *accepted]) for each in code), default=0.0))
    if kind != "text":
        raise UserError(f"answers are of kind {kind!r}", fix=f"one of auto, {', '.join(KINDS)}")
    if old is not None and same_text(gold, old):
        raise UserError(f"the old answer is the same as the new one: {gold!r}", fix="correct one of the two")
    exact = any(same_text(output, each) for each in (gold, *accepted))
    stated = states(output, gold, accepted=accepted, old=old, question=question, cut=cut)
    return Grades(kind, exact=float(exact), stated=float(stated))


def _grade_call(
    output: str, gold: str, old: str | None, accepted: Sequence[str], prompt_code: str | None, cut: bool
) -> Grades:
    if head(gold) is None and parse(bare_code(gold)) is None:
        raise UserError(f"the right answer is no Python: {gold!r}", fix="correct it, or grade this data as `text`")
    if old is not None and _same_code(gold, old):
        raise UserError(f"the old answer is the same call as the new one: {gold!r}", fix="correct one of the two")
    snippets = read_code(output, prompt_code=prompt_code, cut=cut)
    used = [uses_new(snippets, each, old) for each in (gold, *accepted)]
    offered = old is not None and used[0][1]
    exact = not offered and any(states_exactly(snippets, each) for each in (gold, *accepted))
    return Grades(
        "call",
        exact=float(exact),
        call=float(not offered and any(new and not former for new, former in used)),
        published=None if old is None else published_score(output, gold, old),
    )


def kind_of(gold: str, old: str | None = None) -> Kind:
    """Tell how an answer is graded from the form of gold: a function definition, an expression that calls, else a text.

    An expression without a call (`x @ y`) is graded as a call where it replaces one.
    """
    tree = parse(bare_code(gold))
    if tree is None or len(tree.body) != 1:
        return "function" if tree is not None and _defines(tree) else "text"
    if _defines(tree):
        return "function"
    if _calls(gold):
        return "call"
    bare = isinstance(head(gold), ast.Name | ast.Constant | None)
    return "call" if old is not None and not bare and _calls(old) else "text"


def _defines(tree: ast.Module) -> bool:
    """Whether a module is a function, after imports and other functions it needs."""
    *before, last = tree.body
    allowed = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef) and all(isinstance(one, allowed) for one in before)


def _calls(code: str) -> bool:
    """Whether code is one expression, or the assignment of one, that calls; "Mercury (Hg)" is none."""
    code = bare_code(code)
    tree = parse(code)
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr | ast.Assign):
        return False
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lines = code.strip().splitlines()
    spaced = [
        call
        for call in calls
        if call.func.end_lineno
        and lines[call.func.end_lineno - 1].encode()[call.func.end_col_offset or 0 :][:1] == b" "
    ]
    return bool(calls) and not spaced


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same but for white space."""
    return " ".join(one.split()) == " ".join(other.split())


def _same_code(one: str, other: str) -> bool:
    tree = parse(bare_code(other))
    snippets = read_code(bare_code(one))
    return tree is not None and bool(snippets) and states_exactly(snippets, other)
