"""What generated code may try instead of being right. Most of it is tried again with some of the walls left out."""

import os
import resource
import socket
import tempfile
import time
from pathlib import Path

import pytest

from equipoise.metrics import sandbox
from equipoise.metrics.sandbox import isolation, run_unit_tests

WALLS = isolation()
pytestmark = pytest.mark.skipif("system calls" not in WALLS, reason="these walls need Linux")
ALONE = [  # what is left out, so that the rest has to hold by itself
    (),
    ("namespaces",),
    ("namespaces", "nobody"),
    ("landlock", "system calls"),
]

CHEATS = {
    "leaves early": "import os\nos._exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "exits": "import sys\nsys.exit()",
    "exits when called": "import os\ndef f(x):\n    os._exit(0)",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "frames": (
        "import os, sys\nframe = sys._getframe()\nwhile frame:\n"
        "    for value in list(frame.f_locals.values()):\n"
        "        if isinstance(value, (bytes, str)):\n"
        "            for fd in range(64):\n"
        "                try: os.write(fd, value if isinstance(value, bytes) else value.encode())\n"
        "                except OSError: pass\n"
        "    frame = frame.f_back\nos._exit(0)"
    ),
    "the collector's objects": (
        "import gc, os\nwords = [o for d in gc.get_objects() if isinstance(d, dict) for o in list(d.values())\n"
        "         if isinstance(o, bytes)]\n"
        "for word in words[:1000]:\n    for fd in range(1, 16):\n        try: os.write(fd, word)\n        except OSError: pass\n"
        "os._exit(0)"
    ),
    "the command line": "import os\nword = open('/proc/self/cmdline', 'rb').read()\nfor n in range(9): os.write(n, word)",
    "a forged verdict": (
        "import json, os\nbody = json.dumps({'passed': True, 'walls': []}).encode()\n"
        "for fd in range(1, 64):\n    for text in (body + b'\\n', len(body).to_bytes(4, 'big') + body):\n"
        "        try: os.write(fd, text)\n        except OSError: pass\nos._exit(0)"
    ),
    "always equal": "class Yes:\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\ndef f(x):\n    return Yes()",
    "an equal number": "class Yes(int):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return Yes(1)",
    "an equal text": "class Yes(str):\n    __eq__ = lambda s, o: True\n    __hash__ = str.__hash__\ndef f(x):\n    return Yes()",
    "an equal list": "class Yes(list):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return Yes([1])",
    "an equal class": "class M(type):\n    __eq__ = lambda s, o: True\nclass f(metaclass=M):\n    def __init__(self, x): pass",
    "built-ins": (
        "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.all = builtins.abs = lambda *a: True\n"
        "def f(x):\n    return 1"
    ),
    "names of the tests": (
        "AssertionError = type('A', (Exception,), {})\n"
        "def all(x):\n    return True\ndef check(c):\n    pass\n__debug = False\ndef f(x):\n    return 1"
    ),
    "modules": (
        "import sys, json\njson.dumps = lambda *a, **k: '{\"value\":9}'\nsys.modules['math'] = sys\n"
        "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(x):\n    return 8"
    ),
    "stops iteration": "def f(x):\n    raise StopIteration",
    "a failed assertion": "def f(x):\n    raise AssertionError",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "a huge text": "def f(x):\n    return 'x' * 10**8",
    "a deep list": "def f(x):\n    y = []\n    for _ in range(10**5): y = [y]\n    return y",
    "a list in itself": "def f(x):\n    y = []\n    y.append(y)\n    return y",
    "a huge repr": "class C:\n    def __repr__(self): return 'x' * 10**8\n    __str__ = __repr__\ndef f(x):\n    return C()",
    "a handler": "import signal, os\nfor n in range(1, 32):\n    try: signal.signal(n, lambda *a: os._exit(0))\n    except OSError: pass",
    "a debugger": "import sys\nsys.settrace(lambda *a: sys.exit(0))\ndef f(x):\n    return 1",
    "a long exception": "def f(x):\n    raise ValueError('x' * 10**8)",
    "an exception as text": "class E(Exception):\n    def __str__(self): raise SystemExit(0)\ndef f(x):\n    raise E",
    "code of the sandbox": (
        "import sys\nfor name, module in list(sys.modules.items()):\n"
        "    if 'isolation' in name:\n        vars(module).clear()\ndef f(x):\n    return 9"
    ),
}  # fmt: skip
NEVER = (
    "import math\nassert math.isclose(f(3), 9) and f(3) == 9\nassert not f(3) != 9\n"
    "assert all(map(lambda n: f(n) == 9, [3]))\nassert abs(f(3) - 9) == 0\nassert False"
)


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_does_not_pass(cheat):
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


STAYERS = {
    "a grandchild in a session of its own": "if os.fork() == 0:\n    os.setsid()\n    beat()",
    "a daemon": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        beat()\n    os._exit(0)\nos.wait()",
    "a chain": "while time.time() < end:\n    if os.fork():\n        os._exit(0)\n    note()",
    "deaf to signals": "import signal\nfor n in (1, 2, 13, 15): signal.signal(n, signal.SIG_IGN)\nos.closerange(0, 64)\nbeat()",
    "a bomb": "while time.time() < end: os.fork()",
    "at exit": "import atexit\natexit.register(beat)",
    "a thread": "import threading\nthreading.Thread(target=beat).start()",
    "a reset of what ends it": "import ctypes\nctypes.CDLL(None).prctl(1, 0)\nbeat()",
}


@pytest.mark.parametrize(
    "without", [(), ("namespaces", "system calls"), ("namespaces", "nobody", "landlock", "system calls")]
)
@pytest.mark.parametrize("stayer", STAYERS)
def test_nothing_outlives_the_call_or_holds_it(stayer, without, tmp_path, monkeypatch):
    tmp_path.chmod(0o777)
    note = tmp_path / "note"
    if stayer == "a bomb" and "nobody" in without:
        pytest.skip("root's processes are not counted; with no wall left, a bomb is a bomb")
    code = (
        f"import os, time\nend = time.time() + 20\ndef note():\n    with open({str(note)!r}, 'a') as f: f.write('x')\n"
        "def beat():\n    while time.time() < end:\n        try: note()\n        except OSError: pass\n        time.sleep(0.01)\n"
        f"{STAYERS[stayer]}\n"
    )
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    started = time.monotonic()
    run_unit_tests(code, "assert True", timeout=0.5)
    assert time.monotonic() - started < 10
    size = note.stat().st_size if note.exists() else 0
    time.sleep(0.1)
    assert (note.stat().st_size if note.exists() else 0) == size


@pytest.mark.parametrize("without", ALONE)
def test_it_can_neither_signal_nor_trace_its_caller(without, monkeypatch):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    pids = [os.getpid(), os.getppid()]
    code = (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "def reached(pid):\n"
        "    found = []\n"
        "    for name, signal in (('signal', os.kill), ('group', os.killpg)):\n"
        "        try:\n            signal(pid, 0)\n            found.append(name)\n        except OSError:\n            pass\n"
        "    if libc.ptrace(16, pid, 0, 0) == 0: found.append('ptrace')\n"
        "    for name in ('mem', 'environ', 'fd', 'root', 'cwd'):\n"
        "        if os.access(f'/proc/{pid}/{name}/.', 4) or os.access(f'/proc/{pid}/{name}', 4) and name != 'fd':\n"
        "            try:\n                open(f'/proc/{pid}/{name}', 'rb').read(1)\n                found.append(name)\n"
        "            except OSError:\n                pass\n"
        "    try:\n        os.setpriority(os.PRIO_PROCESS, pid, 19)\n        found.append('priority')\n    except OSError:\n        pass\n"
        "    return found\n"
    )
    assert run_unit_tests(code, [f"assert reached({pid}) == [], reached({pid})" for pid in pids])
    assert run_unit_tests(
        "import os\ndef all():\n    try: os.kill(-1, 0)\n    except OSError: return 'none'\n", "assert all() == 'none'",
        entry_point="all",
    ) or without == ("landlock", "system calls")  # there, -1 is itself alone  # fmt: skip


@pytest.mark.parametrize("without", ALONE)
def test_the_token_is_out_of_reach(without, monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("hf_secret")
    code = (
        "import os, sys\nenvironment = dict(os.environ)\nsaid = sys.stdin.read()\n"
        "def read(path):\n    try:\n        return open(path).read()\n    except OSError:\n        return None\n"
        "def listed(path):\n    try:\n        return os.listdir(path)\n    except OSError:\n        return []\n"
    )
    tests = (
        f"assert environment.get('HF_TOKEN') is None and said == ''\nassert read({str(token)!r}) is None\n"
        f"assert listed({str(tmp_path)!r}) == [] and read('/etc/passwd') is None\n"
        f"assert read('/proc/{os.getpid()}/environ') is None and read('/proc/{os.getppid()}/environ') is None\n"
    )
    assert run_unit_tests(code, tests)


@pytest.mark.parametrize("without", ALONE)
def test_the_network_is_off(without, monkeypatch):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    code = (
        "import socket\ndef reach(port):\n    try:\n"
        "        s = socket.socket()\n        s.connect(('127.0.0.1', port))\n        return True\n"
        "    except OSError:\n        return False\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run_unit_tests(code, f"assert reach({server.getsockname()[1]}) is False")
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("without", ALONE)
def test_it_writes_into_its_own_folder_alone(without, monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    tmp_path.chmod(0o777)
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "mine").chmod(0o666)
    code = (
        "import os\ndef wrote(path):\n    try:\n        open(path, 'w').write('x')\n        return True\n"
        "    except OSError:\n        return False\n"
        "def removed(path):\n    try:\n        os.unlink(path)\n        return True\n    except OSError:\n        return False\n"
    )
    outside = [str(tmp_path / "new"), str(tmp_path / "mine"), os.__file__]
    tests = [f"assert not wrote({path!r})\nassert not removed({path!r})" for path in outside]
    assert run_unit_tests(code, [*tests, "assert wrote('here') and removed('here')"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_it_leaves_in_its_folder_is_removed_and_links_are_not_followed(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "WITHOUT", ("namespaces", "landlock"))  # so that the folder is on the disk
    tmp_path.chmod(0o777)
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o750)
    (precious / "file").write_text("mine")
    held = tmp_path / "held"
    held.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(held))
    code = (
        f"import os\nos.symlink({str(precious)!r}, 'link')\nos.symlink({str(precious / 'file')!r}, 'other')\n"
        f"os.mkdir('locked')\nos.symlink({str(precious)!r}, 'locked/link')\nopen('locked/x', 'w').close()\nos.chmod('locked', 0)\n"
        "os.mkfifo('pipe')\nfor _ in range(1200):\n    os.mkdir('d')\n    os.chdir('d')\n"
    )
    assert run_unit_tests(code, "assert True")
    assert list(held.iterdir()) == []
    assert (precious / "file").read_text() == "mine"
    assert precious.stat().st_mode & 0o777 == 0o750


@pytest.mark.skipif("files" not in WALLS, reason="needs a file system in memory")
def test_it_cannot_fill_the_disk():
    code = (
        "def fill():\n    for n in range(10**4):\n        try:\n            open(str(n), 'wb').write(bytes(1 << 20))\n"
        "        except OSError:\n            return n\n"
    )
    assert run_unit_tests(code, "assert fill() < 20", memory_mb=200)


def test_what_it_prints_is_not_taken_for_a_verdict(capfd):
    assert run_unit_tests("import sys\nprint('noise')\nprint('noise', file=sys.stderr)", "assert True")
    assert capfd.readouterr() == ("", "")
    assert not Path("left.txt").exists()
