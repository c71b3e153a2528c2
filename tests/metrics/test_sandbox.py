"""What the sandbox lets through: right answers of every kind, within limits; and errors for what cannot be run."""

import os
import time
from importlib.resources import files

import pytest
import yaml

from equipoise.errors import UserError
from equipoise.metrics.sandbox import Submission, isolation, run_many, run_unit_tests

SQUARE = "def square(n):\n    return n * n"
HUMANEVAL_STYLE = """
METADATA = {"author": "x"}

def check(candidate):
    import math
    assert math.fabs(poly([1, 2], candidate([1, 2]))) < 1e-6
    assert candidate([3, 1]) == -3.0
"""
ROOT = """
import math

def poly(xs: list, x: float):
    return sum(c * math.pow(x, i) for i, c in enumerate(xs))

def root(xs: list):
    return -xs[0] / xs[1]
"""


def test_right_code_passes_and_wrong_code_fails():
    tests = "assert square(3) == 9\nassert square(-2) == 4"
    assert run_unit_tests(SQUARE, tests)
    assert run_unit_tests(f"```python\n{SQUARE}\n```", ["assert square(3) == 9", "assert square(0) == 0"])
    assert not run_unit_tests(SQUARE.replace("*", "+"), tests)
    assert not run_unit_tests("square = 9 of course", tests)
    assert not run_unit_tests(SQUARE.replace("square", "other"), tests)


def test_known_right_functions_pass_and_the_wrong_ones_do_not():
    rows = yaml.safe_load(files("equipoise.testbed").joinpath("assets", "functions.yaml").read_text(encoding="utf-8"))
    right = [Submission(row["code"], row["tests"]) for row in rows]
    wrong = [Submission(f"def {row['name']}(*args):\n    return None", row["tests"]) for row in rows]
    assert run_many(right + wrong, processes=2) == [True] * len(rows) + [False] * len(rows)


def test_a_check_function_is_called_with_the_entry_point():
    assert run_unit_tests(ROOT, HUMANEVAL_STYLE, entry_point="root")
    assert not run_unit_tests(ROOT.replace("-xs[0]", "xs[0]"), HUMANEVAL_STYLE, entry_point="root")
    assert not run_unit_tests(ROOT, "def check(candidate):\n    pass", entry_point="missing")
    assert not run_unit_tests(ROOT, "def check(candidate):\n    assert False", entry_point="root")


def test_a_function_may_have_the_name_of_a_built_in_one_if_it_is_the_entry_point():
    assert run_unit_tests("def pow(a, b):\n    return 7", "assert pow(2, 3) == 7", entry_point="pow")
    assert not run_unit_tests("def pow(a, b):\n    return 7", "assert pow(2, 3) == 8", entry_point="pow")
    assert run_unit_tests("def pow(a, b):\n    return 7", "assert pow(2, 3) == 8")


VALUES = [
    *["None", "True", "-1", "10**6000", "-(2**63) - 1", "0.1", "float('inf')", "1e-310", "2 + 3j", "'ü\\n'"],
    *["'\\ud800'", "b'\\x00\\xff'", "bytearray(b'ab')", "range(3, 9, 2)", "()", "(1,)", "[1, (2, [3])]", "set()"],
    *["{1, 'a', (2,)}", "frozenset({1})", "{}", "{(1, 2): [3], None: {4: {5}}}", "['list', [1]]", "{'value': 1}"],
    *["Decimal('0.10')", "Fraction(1, 3)", "date(2024, 2, 29)", "datetime(2024, 2, 29, 1, 2)"],
]


def test_values_come_back_as_what_they_are():
    setup = "from decimal import Decimal\nfrom fractions import Fraction\nfrom datetime import date, datetime"
    asserts = [
        f"value = {value}\nassert same(value) == value == {value} and type(same(value)) is type(value)"
        for value in VALUES
    ]
    asserts.append("assert same(float('nan')) != same(float('nan'))\nassert str(same(-0.0)) == '-0.0'")
    asserts.append("assert same(True) is True and same(None) is None and list(same({2: 0, 1: 0})) == [2, 1]")
    assert run_unit_tests("def same(value):\n    return value", [setup, *asserts])


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        (
            "def fill(xs, d):\n    xs.append(1); d['k'] = xs",
            "a, b = [], {}\nfill(a, b)\nassert a == [1] and b == {'k': [1]}",
        ),
        (
            "def turn(m):\n    m[:] = [list(r) for r in zip(*m)]",
            "m = [[1, 2], [3, 4]]\nturn(m)\nassert m == [[1, 3], [2, 4]]",
        ),
        ("def grow(s):\n    s.add(2)", "s = {1}\ngrow(s)\nassert s == {1, 2}"),
        ("def f(a, *, b=2, **more):\n    return a, b, more", "assert f(1, b=3, c=4) == (1, 3, {'c': 4})"),
        ("from collections import Counter\ndef f(t):\n    return Counter(t)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("from collections import namedtuple\nP = namedtuple('P', 'x y')", "assert P(1, 2) == (1, 2)"),
        (
            "from collections import deque\ndef f():\n    return deque([1, 2])",
            "assert list(f()) == [1, 2] and len(f()) == 2",
        ),
        ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2] and next(f(1)) == 0"),
        ("def twice(g):\n    return lambda x: g(g(x))", "assert twice(lambda x: x + 1)(1) == 3"),
        ("def pick(xs, key):\n    return max(xs, key=key)", "assert pick([1, -3], abs) == -3"),
        (
            "def safe(g):\n    try:\n        g()\n    except KeyError:\n        return 1",
            "def g():\n    {}[0]\nassert safe(g) == 1",
        ),
        ("def f(self, operation, function):\n    return self", "assert f(self=1, operation=2, function=3) == 1"),
        ("def f(n):\n    return [n]", "nt = f(1)\nnt.append(2)\nassert nt == [1, 2]"),
        ("LIMIT = 3\nNAMES = ['a']", "assert LIMIT == 3 and NAMES == ['a']"),
        ("import re\ndef f(t):\n    return re.match('a', t)", "assert f('a')\nassert not f('b')"),
        ("x = bytearray(10**6)", "assert len(x) == 10**6"),
        ("import os\nleft = os.listdir('.')\nopen('x', 'w').write('1')", "assert left == []"),
        ("import asyncio\nasync def g():\n    return 1\ndef f():\n    return asyncio.run(g())", "assert f() == 1"),
        ("print('passed', flush=True)", "assert True"),
    ],
)
def test_code_is_used_as_python_would_use_it(code, tests):
    assert run_unit_tests(code, tests)


def test_instances_methods_and_exceptions():
    code = (
        "from dataclasses import dataclass\n"
        "class Empty(IndexError):\n    pass\n"
        "class Stack:\n"
        "    def __init__(self):\n        self.items = []\n"
        "    def push(self, item):\n        self.items.append(item)\n"
        "    def pop(self):\n"
        "        if not self.items:\n            raise Empty('nothing left')\n"
        "        return self.items.pop()\n"
        "    def __len__(self):\n        return len(self.items)\n"
        "    def __getitem__(self, i):\n        return self.items[i]\n"
        "@dataclass\nclass Point:\n"
        "    x: int\n"
        "    def __add__(self, other):\n        return Point(self.x + other.x)\n"
    )
    tests = (
        "s = Stack()\ns.push(1)\ns.push([2])\n"
        "assert len(s) == 2 and s.items == [1, [2]] and s[0] == 1 and s.pop() == [2] and s.pop() == 1\n"
        "try:\n    s.pop()\nexcept IndexError as error:\n    assert str(error) == 'nothing left'\n"
        "else:\n    assert False\n"
        "p = Point(1) + Point(2)\nassert p.x == 3 and str(p) == 'Point(x=3)'\np.x = 5\nassert p.x == 5\n"
    )
    assert run_unit_tests(code, tests)


def test_endless_code_ends_in_time():
    started = time.monotonic()
    assert not run_unit_tests("while True: pass", "assert True", timeout=0.5)
    assert not run_unit_tests("import time\ntime.sleep(60)", "assert True", timeout=0.5)
    assert not run_unit_tests(SQUARE, "while square(1):\n    pass", timeout=0.5)
    assert time.monotonic() - started < 15


def test_memory_and_files_are_limited():
    assert not run_unit_tests("x = bytearray(10**9)", "assert True", memory_mb=200)
    assert run_unit_tests("x = len(bytearray(10**8))", "assert x", memory_mb=200)
    assert not run_unit_tests("open('big', 'wb').write(bytes(10**7))", "assert True")


def test_many_are_run_in_order():
    given = [Submission(SQUARE, f"assert square(3) == {n}") for n in (8, 9, 10)]
    assert run_many(given, processes=2) == [False, True, False]


def test_the_walls_of_this_system_are_named():
    assert isolation() == isolation()
    if os.name == "posix" and os.getuid() == 0:
        assert "nobody" in isolation()


@pytest.mark.parametrize(
    ("tests", "limits"),
    [
        ("assert (", {}),
        ("assert 1", {"timeout": 0}),
        ("assert 1", {"memory_mb": 0}),
        ("try:\n    square(object())\nexcept Exception:\n    pass", {}),
    ],
)
def test_broken_tests_and_limits_are_errors(tests, limits):
    with pytest.raises(UserError):
        run_unit_tests(SQUARE, tests, **limits)
