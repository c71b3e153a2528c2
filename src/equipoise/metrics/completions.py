"""Where the body of a function ends in what a model wrote on from its head: it goes on with the rest of a file."""

import io
import tokenize

_CLOSING = (")", "]", "}")


def function_end(prompt: str, output: str) -> int | None:
    """Where in `output` the function that `prompt` begins is over, or None while it may go on.

    It is over at the first line that is not indented, unless this line closes a bracket or stands within a bracket or
    a string of several lines.

    >>> function_end("def f(x):\\n", "    return x\\n\\nprint(f(1))")
    14
    >>> function_end("def f(x):\\n", "    return x") is None
    True
    """
    at = 0
    for line in output.splitlines(keepends=True):
        begins_a_line = at > 0 or prompt.endswith("\n") or not prompt
        outside = begins_a_line and line.strip() and line[0] not in " \t" and not line.startswith(_CLOSING)
        if outside and not _is_open(prompt + output[:at]):
            return at
        at += len(line)
    return None


def function_body(prompt: str, output: str) -> str:
    """What of `output` belongs to the function that `prompt` begins, ending in one line break."""
    return output[: function_end(prompt, output)].rstrip() + "\n"


def _is_open(code: str) -> bool:
    """Whether code ends within a bracket or a string of several lines."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(code).readline):
            pass
    except tokenize.TokenError as error:
        said = str(error.args[0])
        return "EOF in multi-line" in said or "unterminated triple-quoted" in said
    except SyntaxError:  # indentation that fits no block
        return False
    return False
