"""Python answers as syntax: the code of an answer, parsed and brought to a form that can be compared as text."""

import ast
import io
import re
import tokenize
import warnings

FENCE = re.compile(
    r"\A(?P<ticks>`{3,})[ \t]*(?:python3?|py)?[ \t]*\r?\n(?P<code>.*?)\r?\n?[ \t]*(?P=ticks)\Z", re.DOTALL
)
NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # ValueError: NUL bytes, integers of 5,000 digits


def bare_code(answer: str) -> str:
    """Take the one fence or the one pair of backticks off that encloses the whole answer; leave anything else as it is.

    Words before or after a fence stay where they are, so that such an answer does not parse.
    """
    text = answer.strip()
    if fenced := FENCE.match(text):
        return fenced["code"].strip("\r\n")
    if len(text) > 2 and text[0] == text[-1] == "`" and "`" not in text[1:-1]:
        return text[1:-1].strip()
    return text


def parse(code: str) -> ast.Module | None:
    """Parse `code`; None if it is not Python, is empty, or is nested more deeply than Python can read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape in a model's answer is no warning to our user
        try:
            tree = ast.parse(code)
        except NOT_PYTHON:
            return None
    return tree if tree.body else None


def dump(tree: ast.AST) -> str | None:
    """Give the tree as comparable text; None if it is too deep or holds a number too long to print."""
    try:
        return ast.dump(tree)
    except (ValueError, RecursionError):
        return None


def comments(code: str) -> list[str]:
    """List the comments in code that parses."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    try:
        return [token.string for token in tokens if token.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError):
        return []


class SortKeywords(ast.NodeTransformer):
    """Put keyword arguments of calls into one order (`**mappings` first, as they came); drop the `u` of u-strings."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords.sort(key=lambda keyword: keyword.arg or "")
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        node.kind = None
        return node


def canonical(tree: ast.Module) -> str | None:
    """Give the text of a tree in which quotes, layout and the order of keyword arguments no longer show."""
    try:
        return dump(SortKeywords().visit(tree))
    except RecursionError:
        return None
