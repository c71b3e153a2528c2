"""Code read out of answers: what a person sees as code, wherever it stands; and any text at all, without an error."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.metrics.grading import KINDS, grade
from equipoise.metrics.reading import parsed_parts, read_code


def read(output, **options):
    """The statements that an answer proposes, unparsed, of every snippet that is neither rejected nor the prompt's."""
    return [
        ast.unparse(statement)
        for snippet in read_code(output, **options)
        if not snippet.rejected and snippet.source != "prompt"
        for statement in snippet.tree.body
    ]


@pytest.mark.parametrize(
    "answer",
    [
        "f(x)",
        "  f(x)  \n",
        "`f(x)`",
        "``f(x)``",
        "```f(x)```",
        "```python\nf(x)\n```",
        "```py\nf(x)\n```",
        "```Python3\nf(x)\n```\n",
        "```\nf(x)\n```",
        "~~~python\nf(x)\n~~~",
        "````python\nf(x)\n````",
        "```python\nf(x)",
        "```python\nf(x)\n``",
        "Use this: ```python\nf(x)\n```",
        "```python\nf(x)```",
        "1. Do this:\n   ```python\n   f(x)\n   ```\n2. Look.",
        "> ```python\nf(x)\n```",
        "You can use `f(x)` for that.",
        "You can use f(x) for that.",
        "Call f(x).",
        "f(x)\n\nThis multiplies all the values of an array together.",
        "Sure! Here is the line of code:\n\nf(x)\n\nIt returns a number.",
        "Answer: f(x)",
        ">>> f(x)\n42",
        "```pycon\n>>> f(x)\n42\n```",
        "In [1]: f(x)",
        "```python\r\nf(x)\r\n```",
        "```markdown\nUse this:\n`f(x)`\n```",
        "```bash\npip install f\n```\n```python\nf(x)\n```",
        "```python\n!pip install f\nf(x)\n```",
        "```\nf(x)\n```\n```text\n42\n```\n```output\ng(y)\n```",
    ],
)
def test_one_call_is_read_wherever_it_stands(answer):
    found = [text for text in read(answer) if "f(x)" in text]
    assert found
    assert not any("g(y)" in text or "pip" in text for text in read(answer))


def test_several_blocks_are_read_in_order_and_what_does_not_parse_is_left_out():
    answer = "First:\n```python\na = f(1)\n```\nor\n```python\nb = g(2)\nthis is no code\nc = h(3)\n```"
    assert read(answer) == ["a = f(1)", "b = g(2)", "c = h(3)"]


def test_a_block_that_was_never_closed_ends_where_the_next_begins():
    assert read("```python\na = 1\n```python\nb = 2\n```") == ["a = 1", "b = 2"]


def test_a_cut_block_is_read_up_to_its_last_whole_statement():
    answer = "```python\nimport numpy as np\n\nx = np.array([1, 2])\ny = np.prod(x, ax"
    assert read(answer, cut=True) == ["import numpy as np", "x = np.array([1, 2])"]


@pytest.mark.parametrize(("tail", "there"), [("np.pro", False), ("np.prod", False), ("np.prod(x)", True)])
def test_a_name_at_a_cut_end_may_be_half_a_name(tail, there):
    assert any("np.prod" in text for text in read(f"```python\nx = 1\ny = {tail}", cut=True)) == there


def test_prose_cut_within_a_sentence_keeps_the_sentences_before():
    assert any("f(x)" in text for text in read("Use `f(x)` for that. It is a function of the ti", cut=True))


@pytest.mark.parametrize(
    ("prompt", "output", "statements"),
    [
        ("result =", " f(x)\nprint(result)\n", ["result = f(x)", "print(result)"]),
        ("result =", " f(x)\n\n# the next task\nresult = g(x)\n", ["result = f(x)"]),
        ("import m\n\n# do it\nprint(", "f(x))\n\nprint(3)", ["print(f(x))", "print(3)"]),
        ("import m\n\n# do it\n", "# by calling f\nf(x)\n\n# another task\ng(x)", ["f(x)"]),
        ("result =", " f(x)\n```\n\nThis calls g(y).", ["result = f(x)"]),
        ("def f(", "n):\n    # a comment within\n    return n\n\n# Example\nprint(f(1))", ["def f(n):\n    return n"]),
        ("result =", " f(x", []),
        ("x = g(1)\nresult =", " (f(x)\n  .h())\n", ["result = f(x).h()"]),
        ("Question: which call?\nAnswer:", " You can use `f(x)`.", ["f(x)"]),
    ],
)
def test_a_completion_is_read_with_the_line_it_completes(prompt, output, statements):
    assert read(output, prompt_code=prompt) == statements


@pytest.mark.parametrize(
    "answer",
    [
        "Instead of `old(x)`, use `new(x)`.",
        "Use `new(x)` instead of `old(x)`.",
        "Use `new(x)` rather than the old `old(x)`.",
        "`old(x)` is deprecated; use `new(x)`.",
        "`old(x)` was removed in version 2. Use `new(x)`.",
        "The `old(x)` function has been renamed. It is now `new(x)`.",
        "`old(x)` (deprecated) is now `new(x)`.",
        "Do not use `old(x)`. Call `new(x)`.",
        "`old(x)` -> `new(x)`",
        "`old(x)` → `new(x)`",
        "`new(x)` replaces `old(x)`.",
        "Replace `old(x)` with `new(x)`.",
        "`old(x)` should be replaced by `new(x)`.",
        "You can no longer use `old(x)`, so call `new(x)`.",
        "Old code:\n```python\nold(x)\n```\nNew code:\n```python\nnew(x)\n```",
        "**Before:**\n\n```python\nold(x)\n```\n\n**After:**\n\n```python\nnew(x)\n```",
        "```python\n# Old (deprecated)\nold(x)\n\n# New\nnew(x)\n```",
        "```python\nold(x)  # deprecated\nnew(x)\n```",
    ],
)
def test_what_a_text_calls_outdated_is_not_proposed(answer):
    proposed = read(answer)
    assert any("new(x)" in text for text in proposed)
    assert not any("old(x)" in text for text in proposed)


@pytest.mark.parametrize(
    "answer",
    [
        "Instead of `old(x)`, use:\n```python\nnew(x)\n```",
        "Use this instead of the old function:\n```python\nnew(x)\n```",
        "`old(x)` is deprecated. Use:\n```python\nnew(x)\n```",
        "Since `old(x)` is deprecated, use the following code:\n\n```python\nnew(x)\n```",
        "Before you start, import it:\n```python\nnew(x)\n```",
        "This removes old rows:\n```python\nnew(x)\n```",
        "```python\n# Before the loop, take the old value\nnew(x)\n```",
        "```python\nnew(x)  # before the loop\n```",
        "It is not only fast: `new(x)` is also short.",
        "`new(x)` replaced `old(x)`.",
        "Call `new(x)` if it is no longer needed.",
    ],
)
def test_what_only_sounds_outdated_is_proposed(answer):
    assert any("new(x)" in text for text in read(answer))


@pytest.mark.parametrize(
    "answer", ["Use `new(x)` or `old(x)`.", "Use `old(x)`.\n```python\nnew(x)\n```", "`old(x)` and `new(x)` both work."]
)
def test_what_is_offered_beside_another_is_proposed(answer):
    proposed = read(answer)
    assert any("new(x)" in text for text in proposed)
    assert any("old(x)" in text for text in proposed)


PIECES = """```|~~~|`|``| |f(x)|f(|)|'|>>> |... |# |is |def f(|:|    |return|old|instead of |\\|é|[|{|lambda: |=|."""
MARKUP = st.lists(st.sampled_from([*PIECES.split("|"), "\n", "```python\n", '"""', "\x00", "\u2028"]), max_size=40).map(
    "".join
)


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(max_size=200), MARKUP), st.one_of(st.none(), st.text(max_size=30), MARKUP), st.booleans())
def test_any_text_is_read_without_an_error(output, prompt, cut):
    for snippet in read_code(output, prompt_code=prompt, cut=cut):
        assert isinstance(snippet.tree, ast.Module)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=200), MARKUP), st.one_of(st.none(), MARKUP), st.booleans(), st.sampled_from(KINDS))
def test_any_text_is_graded_without_an_error(output, prompt, cut, kind):
    gold, old = {"call": ("f(x)", "g(x)"), "function": ("def f(x):\n    return x", None), "text": ("Paris", "Rome")}[
        kind
    ]
    grades = grade(output, gold, old=old, kind=kind, question=output, prompt_code=prompt, cut=cut)
    assert {grades.exact, grades.right} <= {0.0, 1.0}


@pytest.mark.parametrize(
    "monster",
    [
        *(
            "(" * 5000,
            "f(" * 3000,
            "`" * 9999,
            "```\n" * 3000,
            "a" + ".b" * 50_000,
            "f()\0",
            "x " * 9000,
            "f(x)\n" * 9000,
        ),
        *("1 " * 9000, "two hundred and " * 4000, "Paris or " * 5000, "not " * 9000 + "Paris", "A b " * 9000),
    ],
)
def test_monsters_are_read_in_reasonable_time(monster):
    read_code(monster)
    read_code(monster, prompt_code="result =", cut=True)
    grade(monster, "Paris", kind="text", old="Rome", question="Where?")


def test_code_that_parses_whole_is_one_part():
    assert len(parsed_parts("a = 1\n\nb = 2")) == 1
