import time
from pathlib import Path

import pytest

from equipoise.errors import UserError
from equipoise.metrics.sandbox import run_unit_tests

SQUARE = "def square(n):\n    return n * n"


def test_right_code_passes_and_wrong_code_fails():
    tests = "assert square(3) == 9\nassert square(-2) == 4"
    assert run_unit_tests(SQUARE, tests)
    assert run_unit_tests(f"```python\n{SQUARE}\n```", ["assert square(3) == 9", "assert square(0) == 0"])
    assert not run_unit_tests(SQUARE.replace("*", "+"), tests)
    assert not run_unit_tests("square = 9 of course", tests)


@pytest.mark.parametrize(
    "cheat",
    [
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import sys\nsys.exit()",
        "print('passed')\nimport os\nos._exit(0)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_leaving_early_is_no_pass(cheat):
    assert not run_unit_tests(cheat, "assert False")


def test_endless_code_ends_in_time():
    started = time.monotonic()
    assert not run_unit_tests("while True: pass", "assert True", timeout=0.5)
    assert not run_unit_tests("import time\ntime.sleep(60)", "assert True", timeout=0.5)
    assert time.monotonic() - started < 10


def test_memory_and_files_are_limited():
    assert not run_unit_tests("x = bytearray(10**9)", "assert len(x)", memory_mb=200)
    assert run_unit_tests("x = bytearray(10**6)", "assert len(x)", memory_mb=200)
    assert not run_unit_tests("open('big', 'wb').write(bytes(10**7))", "assert True")


def test_it_sees_no_input_no_environment_and_an_empty_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    look = "import os, sys\nnames = os.listdir('.')\nsaid = sys.stdin.read()\nenvironment = dict(os.environ)"
    tests = "assert 'mine.txt' not in names\nassert said == ''\nassert 'HF_TOKEN' not in environment"
    assert run_unit_tests(look, tests)
    assert run_unit_tests("import sys\nisolated = sys.flags.isolated", "assert isolated")
    assert run_unit_tests("open('left.txt', 'w').write('x')", "assert True")
    assert not (tmp_path / "left.txt").exists()


def test_what_it_prints_is_not_taken_for_a_verdict(capfd):
    assert run_unit_tests("import sys\nprint('noise')\nprint('noise', file=sys.stderr)", "assert True")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_a_child_that_it_leaves_behind_is_ended(tmp_path):
    note = tmp_path / "pid"
    leave = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))"
    )
    started = run_unit_tests(leave, "assert True")
    assert started == note.exists()  # only root can start one, as the number of processes is limited for others
    deadline = time.monotonic() + 10
    while started and _runs(note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: str) -> bool:
    try:
        state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


@pytest.mark.parametrize(
    ("tests", "limits"), [("assert (", {}), ("assert 1", {"timeout": 0}), ("assert 1", {"memory_mb": 0})]
)
def test_broken_tests_and_limits_are_errors(tests, limits):
    with pytest.raises(UserError):
        run_unit_tests(SQUARE, tests, **limits)
