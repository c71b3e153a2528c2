import ast
import builtins
import keyword
from importlib.resources import files

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.metrics.functions import score_function

ROWS = yaml.safe_load(files("equipoise.testbed").joinpath("assets", "functions.yaml").read_text(encoding="utf-8"))
GCD = "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_shipped_solution_is_right_and_no_other_functions_is(row):
    solutions = [row["code"], *row.get("also", ())]
    for code in solutions:
        assert score_function(code, solutions) == 1.0
        assert score_function(f"```python\n{code}\n```", solutions) == 1.0
        assert score_function(ast.unparse(ast.parse(code)), solutions) == 1.0
    for other in ROWS:
        if other is not row:
            assert score_function(other["code"], solutions) == 0.0


@pytest.mark.parametrize(
    "same",
    [
        "def gcd(m, n):\n    while n:\n        m, n = n, m % n\n    return m",
        'def gcd(a: int, b: int) -> int:\n    """Euclid."""\n    while b:\n        a, b = b, a % b\n    return a\n',
        "def gcd(b, a):\n    while a:\n        b, a = a, b % a\n    return b",
    ],
)
def test_names_docstrings_and_annotations_do_not_matter(same):
    assert score_function(same, [GCD]) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        "def gcd(a, b):\n    while a:\n        a, b = b, a % b\n    return a",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return b",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return c",
        "def gcd(a, b, c=1):\n    while b:\n        a, b = b, a % b\n    return a",
        GCD.replace("gcd", "lcm"),
        f"Here it is:\n{GCD}",
        f"{GCD}\nThis is Euclid's algorithm.",
        f"{GCD}\nprint(gcd(4, 6))",
        f"```python\n{GCD}\n```\nThis is Euclid's algorithm.",
        "gcd = math.gcd",
        "",
    ],
)
def test_another_body_other_code_or_prose_is_wrong(wrong):
    assert score_function(wrong, [GCD]) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        ("return sum(x for x in v)", "return sum(i for i in v)", 1.0),
        ("return sum(x for x in v)", "return sum(x for i in v)", 0.0),
        ("return [f(x, y) for x in v for y in x]", "return [f(a, b) for a in v for b in a]", 1.0),
        ("return [f(x, y) for x in v for y in x]", "return [f(b, a) for a in v for b in a]", 0.0),
        ("return sorted(v, key=lambda x: -x)", "return sorted(v, key=lambda y: -y)", 1.0),
        ("return sorted(v, key=lambda x: -x)", "return sorted(v, key=lambda y: -x)", 0.0),
        ("def g(x):\n        return x\n    return g(v)", "def h(y):\n        return y\n    return h(v)", 1.0),
        ("def g(x):\n        return x\n    return g(x=v)", "def g(y):\n        return y\n    return g(x=v)", 0.0),
        ("import math\n    return math.pi", "import cmath\n    return cmath.pi", 0.0),
        ("import math as m\n    return m.pi", "import math as k\n    return k.pi", 0.0),
        (
            "try:\n        return v\n    except ValueError as e:\n        raise e",
            "try:\n        return v\n    except ValueError as x:\n        raise x",
            1.0,
        ),
        ("global x\n    x = v", "global y\n    y = v", 0.0),
        ("return (t := v) + t", "return (u := v) + u", 1.0),
        ("return [t := v for _ in v], t", "return [u := v for _ in v], u", 1.0),
        ("return [len(x) for len in v]", "return [len(x) for y in v]", 0.0),
        ("class A:\n        x = v\n    return A.x", "class A:\n        y = v\n    return A.y", 0.0),
        (
            "x = y = v\n    def g():\n        nonlocal x\n        x = 1\n    g()\n    return x",
            "x = y = v\n    def g():\n        nonlocal y\n        y = 1\n    g()\n    return x",
            0.0,
        ),
        ("import math as m\n    m = m.pi\n    return m", "import math as m\n    k = k.pi\n    return k", 0.0),
        ("t: int = v\n    return t", "u = v\n    return u", 1.0),
        ("return len(v)", "return sum(v)", 0.0),
    ],
)
def test_scopes_are_pythons_own(one, other, score):
    assert score_function(f"def f(v):\n    {other}", [f"def f(v):\n    {one}"]) == score
    assert score_function(f"def f(v):\n    {one}", [f"def f(v):\n    {other}"]) == score


IDENTIFIERS = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and not hasattr(builtins, name) and name != "collect"
)


@given(IDENTIFIERS, IDENTIFIERS, IDENTIFIERS)
def test_any_consistent_renaming_is_the_same_function_and_a_merger_of_names_is_not(a, b, c):
    template = "def collect({0}, {1}):\n    {2} = []\n    for {0} in {1}:\n        {2}.append({0})\n    return {2}"
    gold = template.format("item", "items", "found")
    assert score_function(template.format(a, b, c), [gold]) == float(len({a, b, c}) == 3)


@given(st.text(max_size=60))
def test_no_text_at_all_passes_for_a_function(text):
    assume("def" not in text)
    assert score_function(text, [GCD]) == 0.0


@pytest.mark.parametrize("solutions", [[], ["def f(:"], ["words, not code"]])
def test_solutions_that_cannot_be_right_are_an_error(solutions):
    with pytest.raises(UserError):
        score_function(GCD, solutions)


def test_an_answer_nested_too_deeply_is_wrong():
    assert score_function("def gcd(a, b):\n    return " + "-" * 50_000 + "1", [GCD]) == 0.0
