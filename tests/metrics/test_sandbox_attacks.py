"""What generated code may try instead of being right. Most of it is tried again with some of the walls left out."""

import os
import socket
import subprocess
import sys
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
OPEN = ("namespaces", "nobody", "landlock", "system calls")

STAYERS = {
    "a grandchild in a session of its own": """
if os.fork() == 0:
    os.setsid()
    beat()
""",
    "a daemon": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        beat()
    os._exit(0)
os.wait()
""",
    "a chain": """
while time.time() < end:
    if os.fork():
        os._exit(0)
    note()
""",
    "deaf to signals": """
import signal
for n in (1, 2, 13, 15): signal.signal(n, signal.SIG_IGN)
os.closerange(0, 64)
beat()
""",
    "a bomb": "while time.time() < end: os.fork()",
    "at exit": """
import atexit
atexit.register(beat)
""",
    "a thread": """
import threading
threading.Thread(target=beat).start()
""",
    "a reset of what ends it": """
import ctypes
ctypes.CDLL(None).prctl(1, 0)
beat()
""",
}
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


@pytest.mark.parametrize("without", [(), ("namespaces", "system calls"), OPEN])
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


def test_it_ends_with_its_caller(tmp_path):
    note = tmp_path / "note"
    tmp_path.chmod(0o777)
    code = BEAT.format(note=str(note)) + "beat()"
    call = f"from equipoise.metrics import sandbox\nsandbox.WITHOUT = {OPEN!r}\n"
    caller = subprocess.Popen(
        [sys.executable, "-c", f"{call}sandbox.run_unit_tests({code!r}, 'assert True', timeout=20)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 30
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    caller.kill()
    caller.wait()
    time.sleep(0.5)
    size = note.stat().st_size
    time.sleep(0.2)
    assert note.stat().st_size == size > 0
