"""Code read out of an answer: fenced blocks, inline code, bare statements, calls named in prose, completions."""

import ast
import keyword
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from equipoise.metrics.syntax import parse

Source = Literal["block", "inline", "bare", "prose", "completion", "prompt"]

_LINES, _SPAN, _CHARS = 300, 30, 60_000  # bounds that keep odd answers cheap; real ones stay far below them
_FENCE = re.compile(r"^(?P<before>[^`~\n]*?)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^`~\n]*$")
_INLINE = re.compile(r"(?<!`)(`{1,3})(?!`)(?P<code>[^`\n]+?)\1(?!`)")
_CALL = re.compile(
    r"(?<![\w.`\])])(?:[A-Za-z_]\w*|'[^'\n]*'(?=\.)|\"[^\"\n]*\"(?=\.))(?:\.[A-Za-z_]\w*|\[[^\[\]\n]*\](?=[.\[]))*\("
    r"|(?<![\w.`/@-])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\b(?![(\[/])"
)
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.|In \[\d*\]:)(?:[ ](?P<code>.*)|(?P<end>[ \t]*))$")
_NOT_PYTHON_TEXT = """
    bash sh shell console zsh cmd powershell json yaml yml toml ini xml html css sql output txt csv java javascript
    js typescript ts c cpp c++ cs csharp go rust ruby r php kotlin swift scala perl lua matlab diff dockerfile
"""
_NOT_PYTHON = frozenset(_NOT_PYTHON_TEXT.split())
_OUTDATED = (
    r"deprecated|obsolete|outdated|removed|replaced|renamed|superseded|no longer|old(?! code works)|not\s+(?:available"
    r"|recommended|supported|correct)|wrong|incorrect|gone"
)
_FILL = (
    r"(?:(?:use|uses|used|using|call|calling|rely|relying|on|to|the|a|an|any|be|now|its|old|older|deprecated|outdated"
    r"|legacy|removed|function|method|class|argument|parameter|call|of|numpy|pandas)\s+){0,5}"
)
_REJECTED_BEFORE = re.compile(
    rf"(?:\b(?:instead\s+of|rather\s+than|in\s+place\s+of|in\s+lieu\s+of|not|never|avoid|avoiding|replace|replaces"
    rf"|replacing|unlike|deprecated|obsolete|outdated|legacy|old|older|former|formerly|previously|no\s+longer"
    rf"|used\s+to\s+be|renamed\s+from|changed\s+from|replacement\s+(?:of|for)|alternative\s+to|successor\s+(?:of|to))"
    rf"|n't)\s+{_FILL}[\s\W]*$",
    re.IGNORECASE,
)
_REJECTED_AFTER = re.compile(
    rf"^[\s,]*(?:(?!(?:if|when|because|since|once|where|and|it|they|so)\b)\w+[\s,]+){{0,3}}?"
    rf"(?:is|was|are|were|has\s+been|have\s+been|had\s+been|got|being|will\s+be|should\s+be|can\s+be|must\s+be)\s+"
    rf"(?:now\s+|also\s+|since\s+|been\s+)?(?:{_OUTDATED})\b"
    rf"|^[\s,]*\(?(?:now\s+)?(?:deprecated|obsolete|outdated|removed)\b|^\s*(?:->|→|=>)\s*\S",
    re.IGNORECASE,
)
_KIND_OF_CODE = r"(?:\s+(?:way|code|syntax|method|version|versions|api|style|call|function|usage|approach))?"
_HEADING = re.compile(  # the last sentence before a block that shows what not to do
    rf"^\W*(?:\d\W*)?(?:in\s+)?(?:the\s+)?(?:old|older|before|previous|previously|wrong|incorrect)\b{_KIND_OF_CODE}"
    r"(?:\s*\([^)]*\))?\W*$|\b(?:don't|do\s+not|never|avoid)\s+(?:use|using|write|call|do)\b"
    r"|^(?!.*\b(?:use|new|now|replace|instead|update|updated|modern|should|following|here)\b)"
    r".*\b(?:deprecated|outdated|obsolete|legacy|no\s+longer)\b",
    re.IGNORECASE,
)
_OLD_COMMENT = re.compile(
    rf"#\W*(?:the\s+)?(?:(?:deprecated|outdated|obsolete|instead of)\b"
    rf"|(?:old|older|before|previously|legacy|wrong)\b{_KIND_OF_CODE}\s*(?:$|[:(,-]))",
    re.IGNORECASE,
)
_OLD_TRAILING = re.compile(r"#.*\b(?:deprecated|outdated|obsolete|removed in|old way|no longer)\b", re.IGNORECASE)
_TWO_WORDS = re.compile(r"\s*(?:\d+[.)]|[-*])?\s*(?P<first>[A-Za-z][\w']*),? (?P<second>[A-Za-z]\w*|`)")
_NEXT_TASK = re.compile(r"#|\"\"\"|'''|```|~~~|<\|")


@dataclass(frozen=True)
class Snippet:
    """A piece of an answer that parses.

    Attributes:
        source: where it stood. `prompt` is the code of the question, which gives names their meaning and proposes
            nothing.
        rejected: the text around it calls it outdated or advises against it.
        context: the sentence in which inline code stands.
    """

    code: str
    tree: ast.Module
    source: Source
    rejected: bool = False
    context: str = ""


def read_code(output: str, *, prompt_code: str | None = None, cut: bool = False) -> list[Snippet]:
    """Read every piece of Python out of an answer, in order; never raises, whatever the text.

    Args:
        prompt_code: the code that the answer continues, as ``result =`` or ``def f(``. The statement that it leaves
            open and those after it are read, up to the comment, fence or docstring with which a next task begins.
        cut: the answer ran out of tokens. Its last line is then not read unless a bracket or a fence closes it.
    """
    text = output[:_CHARS].replace("\r\n", "\n").replace("\r", "\n")
    if cut:
        text = _without_the_open_line(text)
    if not prompt_code or not prompt_code.strip():
        return list(_answer(text))
    given = [Snippet(code, tree, "prompt") for code, tree in parsed_parts(prompt_code)]
    return [*given, *(_completion(prompt_code, text) or _answer(text))]


def parsed_parts(code: str) -> list[tuple[str, ast.Module]]:
    """Parse code whole, else the most of its beginning that parses, and every run of lines after it that does."""
    lines = textwrap.dedent(code).strip("\n").split("\n")[:_LINES]
    for end in range(len(lines), max(len(lines) - 12, 0), -1):
        start = "\n".join(lines[:end])
        tree = parse(start)
        if tree is not None:
            return [(start, tree), *((code, tree) for _, _, code, tree in _runs(lines[end:]))]
    return [(code, tree) for _, _, code, tree in _runs(lines)]


def _runs(lines: list[str]) -> Iterator[tuple[int, int, str, ast.Module]]:
    """Every longest run of lines that parses, with its first line and the one after its last."""
    at = 0
    while at < len(lines):
        taken = 1
        most = at + (1 if _is_words(lines[at]) else _SPAN)
        for end in range(min(len(lines), most), at, -1):
            code = textwrap.dedent("\n".join(lines[at:end]))
            tree = parse(code) if lines[at].strip() else None
            if tree is not None:
                yield at, end, code, tree
                taken = end - at
                break
        at += taken


def _without_the_open_line(text: str) -> str:
    end = text.rstrip(" \t")
    if not end or end[-1] in "\n)]}`" or (end[-1] in ".!?" and not re.search(r"[.\w]\.$", end[-2:])):
        return text
    before, newline, last = text.rpartition("\n")
    kept = re.match(r".*[.!?`)](?=\s)", last)  # what is closed in the last line of prose stays
    return before + newline + (kept[0] if kept else "")


def _answer(text: str) -> Iterator[Snippet]:
    prose = ""
    for kind, part, heading in _segments(text):
        if kind == "prose":
            prose += part + "\n"
            continue
        yield from _prose(prose)
        prose = ""
        last = list(_sentences(_INLINE.sub(_blank, heading)))[-1]
        rejected = bool(_HEADING.search(last))
        for code, tree in parsed_parts(_current(_unprompted(part))):
            yield Snippet(code, tree, "block", rejected)
    yield from _prose(prose)


def _segments(text: str) -> Iterator[tuple[str, str, str]]:
    """Cut a text into prose and Python blocks, each with the last line before it; an unclosed block runs to the end."""
    kept: list[str] = []
    opened, language, heading = "", "", ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        closing = opened and line.strip().startswith(opened) and not line.strip().strip(opened[0] + " .,:)")
        if closing or (opened and line.rstrip().endswith(opened) and not fence):
            kept += [] if closing else [line.rstrip()[: -len(opened)]]
            yield from _block(language, kept, heading)
            opened, kept = "", []
        elif fence and (not opened or (fence["ticks"].startswith(opened) and fence["language"])):
            if opened:  # a new fence although the last is open
                yield from _block(language, kept, heading)
            elif kept or fence["before"].strip():
                yield "prose", "\n".join([*kept, fence["before"]]), ""
            last = next((each for each in (fence["before"], *reversed(kept)) if each.strip()), "") if not opened else ""
            heading = last.strip() if len(last) < 100 else ""
            opened, language, kept = fence["ticks"], fence["language"].casefold(), []
        elif opened and line.rstrip().endswith(opened):
            yield from _block(language, [*kept, line.rstrip()[: -len(opened)]], heading)
            opened, kept = "", []
        else:
            kept.append(line)
    if opened:
        yield from _block(language, kept, heading)
    elif kept:
        yield "prose", "\n".join(kept), ""


def _block(language: str, lines: list[str], heading: str) -> Iterator[tuple[str, str, str]]:
    if language in ("markdown", "md"):
        yield "prose", "\n".join(lines), ""
    elif language not in _NOT_PYTHON:
        yield "block", "\n".join(lines), heading


def _unprompted(code: str) -> str:
    """Take `>>>` off, and what the interpreter printed; drop shell and magic lines."""
    lines = code.split("\n")
    found = [_PROMPT.match(line) for line in lines]
    if any(found):
        return "\n".join(each["code"] or "" for each in found if each)
    return "\n".join(line for line in lines if not line.lstrip().startswith(("!", "%")))


def _current(code: str) -> str:
    """Drop the lines that a comment in the code calls old."""
    kept, old = [], False
    for line in code.split("\n"):
        bare = line.strip()
        if bare.startswith("#") or not bare:
            old = bool(_OLD_COMMENT.match(bare)) or (old and bare.startswith("#") and not kept[-1:])
        elif old or _OLD_TRAILING.search(line):
            continue
        kept.append(line)
    return "\n".join(kept)


def _prose(text: str) -> Iterator[Snippet]:
    """Code in prose: statements on lines of their own, inline code, and calls written out in a sentence."""
    lines = [(found["code"] or "") if (found := _PROMPT.match(line)) else line for line in text.split("\n")]
    lines = lines[:_LINES]
    unread = list(lines)
    for start, end, code, tree in _runs(lines):
        if not _reads_as_words(tree):
            yield Snippet(code, tree, "bare")
            unread[start:end] = [""] * (end - start)
    for sentence in _sentences("\n".join(unread)):
        yield from _mentions(sentence)


def _sentences(text: str) -> Iterator[str]:
    """Cut prose at stops, but not within inline code or brackets."""
    hidden = re.sub(r"\([^()\n]*\)", lambda found: "(" * len(found[0]), _INLINE.sub(_blank, text))
    start = 0
    for stop in re.finditer(r"(?<=[.!?:;])\s+|\n+", hidden):
        yield text[start : stop.start()]
        start = stop.end()
    yield text[start:]


def _blank(found: re.Match[str]) -> str:
    return "`" + " " * (len(found[0]) - 2) + "`"


def _is_words(line: str) -> bool:
    """Whether a line begins like prose: two words that no keyword or operator begins or joins."""
    found = _TWO_WORDS.match(line)
    return found is not None and not any(keyword.iskeyword(found[each]) for each in ("first", "second"))


def _reads_as_words(tree: ast.Module) -> bool:
    """Whether code may be a sentence that happens to parse: `x is old`, `not f(x)`, `Answer: f(x)`, `f(x) or g(x)`."""
    statement = tree.body[0]
    if len(tree.body) > 1:
        return False
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    value = statement.value if isinstance(statement, ast.Expr) else None
    words = isinstance(value, ast.Compare) and isinstance(value.ops[0], ast.Is | ast.IsNot | ast.In | ast.NotIn)
    return (
        words
        or isinstance(value, ast.BoolOp | ast.IfExp | ast.Name | ast.Constant)
        or (isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not))
    )


def _mentions(sentence: str) -> Iterator[Snippet]:
    spans = [(found.start(), found.end(), found["code"], "inline") for found in _INLINE.finditer(sentence)]
    blank = _INLINE.sub(_blank, sentence)
    spans += [(start, end, blank[start:end], "prose") for start, end in _calls(blank)]
    for start, end, code, source in sorted(spans):
        code = code.strip()
        tree = parse(code) or parse(f"_{code}" if code.startswith(".") else code.rstrip(":("))
        if tree is None:
            continue
        before, after = sentence[:start].rsplit("`", 1)[-1], sentence[end:]
        rejected = _REJECTED_BEFORE.search(before) or _REJECTED_AFTER.match(after)
        yield Snippet(code, tree, "inline" if source == "inline" else "prose", bool(rejected), sentence)


def _calls(text: str) -> Iterator[tuple[int, int]]:
    """The spans of calls and dotted names in prose."""
    done = 0
    for found in _CALL.finditer(text):
        if found.start() < done:
            continue
        end = found.end()
        if found[0].endswith("("):
            closed = _closing(text, end - 1)
            while closed is not None:
                end = closed
                more = re.match(r"(?:\.[A-Za-z_]\w*)+(?P<open>\()?|(?P<again>[(\[])", text[closed:])
                if more is None:
                    break
                end = closed + more.end()
                closed = _closing(text, end - 1) if more["open"] or more["again"] else None
            if end == found.end():
                continue
        done = end
        yield found.start(), end


def _closing(text: str, at: int) -> int | None:
    depth = 0
    for n, char in enumerate(text[at : at + 300]):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return at + n + 1
    return None


def _completion(prompt: str, text: str) -> list[Snippet]:
    """The statements that a continued piece of code ends with, without those that stood in it."""
    prompt = prompt.replace("\r\n", "\n")
    code = _this_task(prompt, text)
    if not code.strip():
        return []
    lines = (prompt + code).split("\n")
    last = prompt.count("\n")  # index of the line that the answer continues
    if len(lines) > _LINES + last:
        lines = lines[: _LINES + last]
    for end in range(len(lines), last, -1):
        tree = parse("\n".join(lines[:end]))
        if tree is not None:
            tree.body = [each for each in tree.body if _after(each, last + 1, len(_last_line(prompt)))]
            return [Snippet("\n".join(lines[:end]), tree, "completion")] if tree.body else []
    return []


def _last_line(prompt: str) -> bytes:
    """The last line of a text, in the units in which `ast` counts columns."""
    return prompt.rpartition("\n")[2].encode("utf-8", "replace")


def _after(statement: ast.stmt, line: int, column: int) -> bool:
    end = (statement.end_lineno or 0, statement.end_col_offset or 0)
    return end > (line, column)


def _this_task(prompt: str, text: str) -> str:
    """The part of a completion that belongs to what was asked: up to the next comment, docstring or fence."""
    indent = len(_last_line(prompt)) - len(_last_line(prompt).lstrip())
    lines = text.split("\n")
    begun = bool(_last_line(prompt).strip())
    kept = []
    for n, line in enumerate(lines):
        new = _NEXT_TASK.match(line.strip()) and len(line) - len(line.lstrip()) <= indent
        if new and begun and (n or not _last_line(prompt).strip()):
            break
        kept.append(line)
        begun = begun or bool(line.strip() and not line.strip().startswith("#"))
    return "\n".join(kept)
