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


STAYERS = sections(r"""
## a grandchild in a session of its own
if os.fork() == 0:
    os.setsid()
    beat()
## a daemon
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        beat()
    os._exit(0)
os.wait()
## a chain
while time.time() < end:
    if os.fork():
        os._exit(0)
    note()
## deaf to signals
import signal
for n in (1, 2, 13, 15): signal.signal(n, signal.SIG_IGN)
os.closerange(0, 64)
beat()
## a bomb
while time.time() < end: os.fork()
## at exit
import atexit
atexit.register(beat)
## a thread
import threading
threading.Thread(target=beat).start()
## a reset of what ends it
import ctypes
ctypes.CDLL(None).prctl(1, 0)
beat()
""")
BEAT = """
import os, time
end = time.time() + 20
def note():
    with open({note!r}, "a") as file:
        file.write("x")
def beat():
    while time.time() < end:
        try:
            note()
        except OSError:
            pass
        time.sleep(0.01)
"""


@pytest.mark.parametrize(
    "without", [(), ("namespaces", "system calls"), ("namespaces", "nobody", "landlock", "system calls")]
)
@pytest.mark.parametrize("stayer", STAYERS)
def test_nothing_outlives_the_call_or_holds_it(stayer, without, tmp_path, monkeypatch):
    tmp_path.chmod(0o777)
    note = tmp_path / "note"
    if stayer == "a bomb" and "nobody" in without:
        pytest.skip("root's processes are not counted; with no wall left, a bomb is a bomb")
    code = BEAT.format(note=str(note)) + STAYERS[stayer] + "\ntime.sleep(0.2)"
    assert compile(code, "code", "exec")
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    started = time.monotonic()
    run_unit_tests(code, "assert True", timeout=0.5)
    assert time.monotonic() - started < 10
    size = note.stat().st_size if note.exists() else 0
    time.sleep(0.1)
    assert (note.stat().st_size if note.exists() else 0) == size
    if os.getuid() == 0 and "nobody" in without and stayer in list(STAYERS)[:2]:
        assert size  # with the walls left out it did what it is here for


REACHED = """
import ctypes, os
libc = ctypes.CDLL(None)
def reached(pid):
    attempts = {
        "signal": lambda: os.kill(pid, 0),
        "group": lambda: os.killpg(pid, 0),
        "everyone": lambda: os.kill(-1, 0),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "memory": lambda: open(f"/proc/{pid}/mem", "rb").close(),
        "environment": lambda: open(f"/proc/{pid}/environ", "rb").read(),
        "files": lambda: os.listdir(f"/proc/{pid}/fd"),
        "folder": lambda: os.listdir(f"/proc/{pid}/cwd"),
    }
    found = ["trace"] if libc.ptrace(16, pid, 0, 0) == 0 else []
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        found.append(name)
    return found
"""
READ = """
import os, sys
environment, said = dict(os.environ), sys.stdin.read()
def read(path):
    try:
        return open(path).read()
    except OSError:
        return None
def listed(path):
    try:
        return os.listdir(path)
    except OSError:
        return []
"""
CONNECT = """
import socket
def reach(port):
    try:
        socket.socket().connect(("127.0.0.1", port))
        return True
    except OSError:
        return False
"""
WRITE = """
import os
def tried(action, *args):
    try:
        action(*args)
        return True
    except OSError:
        return False
def wrote(path):
    return tried(lambda: open(path, "w").write("x"))
def removed(path):
    return tried(os.unlink, path)
"""
LITTER = """
import os
os.symlink({precious!r}, "link")
os.symlink({precious!r} + "/file", "other")
os.mkdir("locked")
os.symlink({precious!r}, "locked/link")
open("locked/x", "w").close()
os.chmod("locked", 0)
os.mkfifo("pipe")
for _ in range(1200):
    os.mkdir("d")
    os.chdir("d")
"""
FILL = """
def fill():
    for n in range(10**4):
        try:
            open(str(n), "wb").write(bytes(1 << 20))
        except OSError:
            return n
"""


@pytest.mark.parametrize("without", ALONE)
def test_it_can_neither_signal_nor_trace_its_caller(without, monkeypatch):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    alone = ["everyone"] if "system calls" in without else []  # in a namespace of its own, that is itself
    tests = [f"assert [n for n in reached({pid}) if n not in {alone}] == []" for pid in (os.getpid(), os.getppid())]
    assert run_unit_tests(REACHED, tests)


@pytest.mark.parametrize("without", ALONE)
def test_the_token_is_out_of_reach(without, monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("hf_secret")
    tests = (
        f"assert environment.get('HF_TOKEN') is None and said == ''\nassert read({str(token)!r}) is None\n"
        f"assert listed({str(tmp_path)!r}) == [] and read('/etc/passwd') is None\n"
        f"assert read('/proc/{os.getpid()}/environ') is None and read('/proc/{os.getppid()}/environ') is None\n"
    )
    assert run_unit_tests(READ, tests)


@pytest.mark.parametrize("without", ALONE)
def test_the_network_is_off(without, monkeypatch):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run_unit_tests(CONNECT, f"assert reach({server.getsockname()[1]}) is False")
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("without", ALONE)
def test_it_writes_into_its_own_folder_alone(without, monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "WITHOUT", without)
    tmp_path.chmod(0o777)
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "mine").chmod(0o666)
    outside = [str(tmp_path / "new"), str(tmp_path / "mine"), os.__file__]
    tests = [f"assert not wrote({path!r})\nassert not removed({path!r})" for path in outside]
    assert run_unit_tests(WRITE, [*tests, "assert wrote('here') and removed('here')"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.fixture
def fast_folder():
    """Return a folder in memory: on some disks it takes 5 ms to delete each of a thousand folders."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


def test_what_it_leaves_in_its_folder_is_removed_and_links_are_not_followed(monkeypatch, tmp_path, fast_folder):
    monkeypatch.setattr(sandbox, "WITHOUT", ("namespaces", "landlock"))  # so that the folder is on the disk
    fast_folder.chmod(0o777)
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o750)
    (precious / "file").write_text("mine")
    monkeypatch.setattr(tempfile, "tempdir", str(fast_folder))
    assert run_unit_tests(LITTER.format(precious=str(precious)), "assert True")
    assert list(fast_folder.iterdir()) == []
    assert (precious / "file").read_text() == "mine"
    assert precious.stat().st_mode & 0o777 == 0o750


@pytest.mark.skipif("files" not in WALLS, reason="needs a file system in memory")
def test_it_cannot_fill_the_disk():
    assert run_unit_tests(FILL, "assert fill() < 20", memory_mb=200)


def test_what_it_prints_is_not_taken_for_a_verdict(capfd):
    assert run_unit_tests("import sys\nprint('noise')\nprint('noise', file=sys.stderr)", "assert True")
    assert capfd.readouterr() == ("", "")
