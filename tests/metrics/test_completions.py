"""Where a completed function ends, and what of an answer belongs to it."""

import pytest

from equipoise.metrics.completions import function_body, function_end

HEAD = 'def f(x):\n    """Double it."""\n'


@pytest.mark.parametrize(
    "rest",
    [
        "\nprint(f(1))\n",
        "\n\ndef g(x):\n    return 1\n",
        "# that is all\n",
        "```\nThis function doubles.",
        "@cache\ndef g(): ...",
        "if __name__ == '__main__':\n    f(1)",
    ],
)
def test_what_follows_the_function_is_cut_off(rest):
    body = "    y = x\n\n    return 2 * y\n"
    assert function_body(HEAD, body + rest) == body
    assert body + rest[: rest.index(rest.strip()[0])] == (body + rest)[: function_end(HEAD, body + rest)]


@pytest.mark.parametrize(
    "body",
    [
        "    return 2 * x\n",
        "    # twice\n\n\n    return 2 * x\n",
        "    return sum([\n        x,\nx,\n    ])\n",
        "    return sum([\n        x, x,\n])\n",
        '    s = """\nnot indented\n"""\n    return 2 * x\n',
        "    def g(y):\n        return 2 * y\n    return g(x)\n",
        "",
    ],
)
def test_a_function_that_goes_on_has_no_end(body):
    assert function_end(HEAD, body) is None
    for at in range(len(body)):
        assert function_end(HEAD, body[:at]) is None
    assert function_end(HEAD, body + "\nx = 1") == len(body) + 1


def test_an_answer_that_continues_a_line_is_not_at_its_beginning():
    assert function_end("def f(x): return", " x\n") is None
    assert function_end("def f(x):\n    return", "2\nprint()") == 2


def test_code_that_is_no_python_ends_too():
    assert function_end(HEAD, "    return 'x\n  y\nz\n") is not None


def test_brackets_of_the_head_count():
    assert function_end("def f(\n", "x,\n):\n    return x\n") is None
