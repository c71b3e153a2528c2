"""Generated code that would pass without being right: each way to it has to fail."""

import resource

import pytest

from equipoise.metrics.sandbox import isolation, run_unit_tests

pytestmark = pytest.mark.skipif("system calls" not in isolation(), reason="these walls need Linux")


def sections(text: str) -> dict[str, str]:
    """Split a text at its headings."""
    parts = (part.partition("\n") for part in text.split("## ")[1:])
    return {name: code for name, _, code in parts}


CHEATS = sections(r"""
## leaves early
import os
os._exit(0)
## raises SystemExit
raise SystemExit(0)
## exits
import sys
sys.exit()
## exits when called
import os
def f(x):
    os._exit(0)
## kills itself
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
## frames
import os, sys
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()):
        if isinstance(value, (bytes, str)):
            for fd in range(64):
                try: os.write(fd, value if isinstance(value, bytes) else value.encode())
                except OSError: pass
    frame = frame.f_back
os._exit(0)
## the collector's objects
import gc, os
words = [o for d in gc.get_objects() if isinstance(d, dict) for o in list(d.values())
         if isinstance(o, bytes)]
for word in words[:1000]:
    for fd in range(1, 16):
        try: os.write(fd, word)
        except OSError: pass
os._exit(0)
## the command line
import os
word = open('/proc/self/cmdline', 'rb').read()
for n in range(9): os.write(n, word)
## a forged verdict
import json, os
body = json.dumps({'passed': True, 'walls': []}).encode()
for fd in range(1, 64):
    for text in (body + b'\n', len(body).to_bytes(4, 'big') + body):
        try: os.write(fd, text)
        except OSError: pass
os._exit(0)
## always equal
class Yes:
    __eq__ = lambda s, o: True
    __ne__ = lambda s, o: False
def f(x):
    return Yes()
## an equal number
class Yes(int):
    __eq__ = lambda s, o: True
def f(x):
    return Yes(1)
## an equal text
class Yes(str):
    __eq__ = lambda s, o: True
    __hash__ = str.__hash__
def f(x):
    return Yes()
## an equal list
class Yes(list):
    __eq__ = lambda s, o: True
def f(x):
    return Yes([1])
## agreeable
class Yes:
    __sub__ = __rsub__ = __mod__ = __getitem__ = lambda s, o: 0
    __contains__ = startswith = isdigit = lambda s, *o: True
    __iter__ = lambda s: iter(range(100))
def f(x):
    return Yes()
## names not asked for
import json, os
value = ["dict", [[name, ["object", 0]] for name in ("f", "all", "abs", "__builtins__")]]
for reply in [{"value": value}] + [{"value": True}] * 9:
    body = json.dumps(reply).encode()
    for fd in range(3, 16):
        try: os.write(fd, len(body).to_bytes(4, "big") + body)
        except OSError: pass
## an equal class
class M(type):
    __eq__ = lambda s, o: True
class f(metaclass=M):
    def __init__(self, x): pass
## built-ins
import builtins
builtins.AssertionError = ValueError
builtins.all = builtins.abs = lambda *a: True
def f(x):
    return 1
## names of the tests
AssertionError = type('A', (Exception,), {})
def all(x):
    return True
def check(c):
    pass
__debug = False
def f(x):
    return 1
## modules
import sys, json
json.dumps = lambda *a, **k: '{"value":9}'
sys.modules['math'] = sys
class math:
    isclose = staticmethod(lambda *a, **k: True)
def f(x):
    return 8
## stops iteration
def f(x):
    raise StopIteration
## a failed assertion
def f(x):
    raise AssertionError
## recursion
import sys
sys.setrecursionlimit(10**9)
def f(x):
    return f(x)
## a huge text
def f(x):
    return 'x' * 10**8
## a deep list
def f(x):
    y = []
    for _ in range(10**5): y = [y]
    return y
## a list in itself
def f(x):
    y = []
    y.append(y)
    return y
## a huge repr
class C:
    def __repr__(self): return 'x' * 10**8
    __str__ = __repr__
def f(x):
    return C()
## a handler
import signal, os
for n in range(1, 32):
    try: signal.signal(n, lambda *a: os._exit(0))
    except OSError: pass
## a debugger
import sys
sys.settrace(lambda *a: sys.exit(0))
def f(x):
    return 1
## a long exception
def f(x):
    raise ValueError('x' * 10**8)
## an exception as text
class E(Exception):
    def __str__(self): raise SystemExit(0)
def f(x):
    raise E
## code of the sandbox
import sys
for name, module in list(sys.modules.items()):
    if 'isolation' in name:
        vars(module).clear()
def f(x):
    return 9
""")
NEVER = (
    "import math\nassert math.isclose(f(3), 9) and f(3) == 9\nassert not f(3) != 9\n"
    "assert all(map(lambda n: f(n) == 9, [3]))\nassert abs(f(3) - 9) == 0\nassert False"
)


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_does_not_pass(cheat):
    assert compile(CHEATS[cheat], "cheat", "exec")
    assert not run_unit_tests(CHEATS[cheat], NEVER, timeout=1)
    assert not run_unit_tests(CHEATS[cheat], "assert f(3) == 10", timeout=1)


@pytest.mark.parametrize(
    ("cheat", "tests"),
    [
        ("stops iteration", "assert all(map(lambda n: f(n) == 9, [3]))"),
        ("names of the tests", "assert all(f(n) == 9 for n in [3])"),
        ("built-ins", "assert all([f(3) == 9])"),
        ("modules", "assert math.isclose(f(3), 9)"),
        ("always equal", "assert f(3) in [9]"),
        ("agreeable", "assert abs(f(3) - 9) < 1e-6"),
        ("agreeable", "assert 9 - f(3) == 0"),
        ("agreeable", "assert 9 in f(3)"),
        ("agreeable", "assert f(3).startswith('nine')"),
        ("agreeable", "assert f(3).isdigit()"),
        ("names not asked for", "assert all([f(3) == 9])"),
        ("always equal", "assert 9 in [f(3)]"),
        ("always equal", "assert not f(3) != 9"),
        ("an equal class", "assert f == 9"),
        ("exits when called", "try:\n    f(3)\nexcept:\n    pass"),
    ],
)
def test_nor_does_it_where_the_tests_invite_it(cheat, tests):
    assert not run_unit_tests(CHEATS[cheat], tests, timeout=2)


REPLIES = [
    *[b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x04null", b"\x00\x00\x00\x01{"],
    *['{"value":["object","x"]}', '{"value":["set",[["list",[]]]]}', '{"value":[]}', '{"value":[["list"],[]]}'],
    *['{"value":{}}', '{"value":["dict",[1]]}', '{"value":["int",5]}', '{"value":["os.system","true"]}'],
    *['{"raise":["eval","1"]}', '{"raise":["SystemExit",""]}', '{"raise":["NoSuch",""]}', '{"raise":5}'],
    *['{"callback":0,"args":1,"named":2}', '{"callback":7,"args":["tuple",[]],"named":["dict",[]]}'],
    *['{"value":1,"args":7}', '{"value":' + "[" * 10**5 + "]" * 10**5 + "}", '{"value":["function",0]}'],
]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: repr(reply[:40]))
def test_a_reply_outside_the_protocol_fails_the_tests_whatever_they_catch(reply):
    frame = reply if isinstance(reply, bytes) else len(reply).to_bytes(4, "big") + reply.encode()
    write = f"import os\nframe = {frame!r}\ndef f(x):\n    for fd in range(3, 16):\n        try: os.write(fd, frame)\n"
    code = f"{write}        except OSError: pass\n    os._exit(0)"
    assert not run_unit_tests(
        code, "try:\n    g = f(3)\n    assert g == 9\nexcept Exception:\n    assert f(3) == 9", timeout=2
    )


def test_a_flood_of_answers_does_not_reach_the_caller():
    flood = (
        "import os\ndef f(x):\n    while True:\n        for fd in range(1, 16):\n            try: os.write(fd, {})\n"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for block in ("b'x' * 65536", "b'\\0\\0\\0\\4null' * 1000", "b'\\0\\x3f\\xff\\xff' + b'[' * (1 << 22)"):
        assert not run_unit_tests(flood.format(block) + "            except OSError: pass", "assert f(1)", timeout=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
