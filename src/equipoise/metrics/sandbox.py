"""Generated code run against unit tests, in a limited subprocess, and only when someone asks for it."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from equipoise.errors import UserError
from equipoise.metrics.syntax import bare_code, parse

# The child limits itself before it reads the code, and hides its way to say "passed" from it: an early exit is no pass.
_RUNNER = """
import os, sys
def main(word, seconds, memory):
    try:
        import resource
    except ImportError:
        resource = None
    if resource:
        def limit(name, value):
            kind = getattr(resource, name, None)
            if kind is not None:
                hard = resource.getrlimit(kind)[1]
                value = value if hard == resource.RLIM_INFINITY else min(value, hard)
                try:
                    resource.setrlimit(kind, (value, value))
                except (ValueError, OSError):
                    pass  # macOS has some of these in name only
        limit("RLIMIT_CPU", seconds)
        limit("RLIMIT_AS", memory)
        limit("RLIMIT_FSIZE", 1 << 20)
        limit("RLIMIT_CORE", 0)
        limit("RLIMIT_NPROC", 0)
    with open("code.py", encoding="utf-8") as file:
        code = file.read()
    with open("tests.py", encoding="utf-8") as file:
        tests = file.read()
    answer = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    names = {"__name__": "answer"}
    exec(compile(code, "code.py", "exec"), names)
    exec(compile(tests, "tests.py", "exec"), names)
    os.write(answer, word)
    os._exit(0)
"""


def run_unit_tests(code: str, tests: str | Iterable[str], *, timeout: float = 5.0, memory_mb: int = 256) -> bool:
    """Tell whether `code`, an answer of a model, passes `tests` (assert statements over what it defines).

    It runs in a subprocess of its own: isolated interpreter (`-I`), empty temporary folder, no input, no environment,
    at most `timeout` seconds of wall and processor time, and, where the system can limit them (not on Windows),
    `memory_mb` of memory, 1 MiB a file and, unless run as root, no further processes. This stops accidents. It is no
    prison: the code can read what its user can read, and reach the network. Never called unless asked for.

    Raises:
        UserError: the tests do not parse, or a limit is not positive.
    """
    suite = tests if isinstance(tests, str) else "\n".join(tests)
    if parse(suite) is None:
        raise UserError(f"unit tests do not parse: {suite[:80]!r}", fix="write them as Python assert statements")
    if not (timeout > 0 and memory_mb > 0):
        raise UserError(f"limits have to be positive, not {timeout} s and {memory_mb} MB")
    body = bare_code(code)
    if parse(body) is None:
        return False
    word = secrets.token_hex(16)
    call = f"main({word.encode()!r}, {max(1, int(timeout + 1))}, {memory_mb << 20})"
    with tempfile.TemporaryDirectory(prefix="equipoise-", ignore_cleanup_errors=True) as folder:
        Path(folder, "code.py").write_text(body, encoding="utf-8", errors="replace")
        Path(folder, "tests.py").write_text(suite, encoding="utf-8")
        return _run(f"{_RUNNER}\n{call}", folder, timeout) == word.encode()


def _run(source: str, folder: str, timeout: float) -> bytes:
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", source],
        cwd=folder,
        env={"SYSTEMROOT": os.environ["SYSTEMROOT"]} if "SYSTEMROOT" in os.environ else {},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return child.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        return b""
    finally:
        _end(child)


def _end(child: subprocess.Popen) -> None:
    """End the child and whatever it left running in its session."""
    if sys.platform == "win32":
        child.kill()
    else:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            child.kill()
    child.communicate()
