"""Scores of answers that should be one API call: strict, by parsed syntax; beside it the published substring rule."""

from functools import lru_cache

from equipoise.errors import UserError
from equipoise.metrics.syntax import bare_code, canonical, comments, parse


def score_call(output: str, gold: str, old: str | None = None) -> float:
    """Score 1.0 if `output` is the call `gold` and nothing else, else 0.0.

    Both are parsed, so quotes, spacing, line breaks and the order of keyword arguments do not matter; the order of
    positional arguments, the spelling of names and every value do. The whole answer has to be the call: bare, in one
    pair of backticks, or in one fenced block. Prose around it, an assignment of it, a second statement (the old call,
    say) or a comment (unless gold has the same one) make it wrong.

    Args:
        old: the outdated call. It always scores 0, so it has to differ from `gold`.

    Raises:
        UserError: `gold` is not one Python statement, or `old` is the same call.

    >>> score_call("pd.concat([a, b], axis = 1)", "pd.concat([a, b], axis=1)", "a.append(b)")
    1.0
    >>> score_call("pd.concat([a, b]) or a.append(b)", "pd.concat([a, b])", "a.append(b)")
    0.0
    """
    wanted, wanted_comments = _gold(gold)
    if old is not None and _statement(bare_code(old)) == wanted:
        raise UserError(f"the old answer is the same call as the new one: {gold!r}", fix="correct one of the two")
    code = bare_code(output)
    if _statement(code) != wanted:
        return 0.0
    return float(comments(code) in ([], wanted_comments))


def published_score(output: str, gold: str, old: str) -> float:
    """Score by the rule of the published R-EAFT scripts, which looks for substrings.

    1.0 if the answer contains `gold` and not `old`, 0.5 if it contains neither (so gibberish scores half), else 0.0.
    For comparison with published numbers only.

    >>> published_score("no idea", "pd.concat([a, b])", "a.append(b)")
    0.5
    """
    new_there, old_there = gold in output, old in output
    if new_there and not old_there:
        return 1.0
    return 0.5 if not new_there and not old_there else 0.0


@lru_cache(maxsize=4096)
def _gold(gold: str) -> tuple[str, list[str]]:
    code = bare_code(gold)
    wanted = _statement(code)
    if wanted is None:
        raise UserError(
            f"the right answer is not one Python statement: {gold!r}",
            fix="correct it, or score this data by `exact` text",
        )
    return wanted, comments(code)


@lru_cache(maxsize=4096)
def _statement(code: str) -> str | None:
    """Give the canonical text of code that is exactly one statement."""
    tree = parse(code)
    return canonical(tree) if tree is not None and len(tree.body) == 1 else None
