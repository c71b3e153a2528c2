"""Generated code run against unit tests, shut in by what the system has for that, and only when someone asks for it."""

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import equipoise
from equipoise.errors import UserError
from equipoise.metrics.syntax import bare_code, parse

_SOURCE = Path(equipoise.__file__).resolve().parent.parent
_START = """
import sys
sys.path.insert(0, {source!r})
from equipoise.metrics.isolation.guard import main
del sys.path[0]
main({timeout!r}, {memory!r}, {without!r})
"""
WITHOUT: tuple[str, ...] = ()  # walls to leave out, so that what the others hold by themselves can be tested
_GRACE = 60.0  # seconds that a busy machine may take to start the processes and to end them


class Submission(NamedTuple):
    """One answer and what it is tested by, for `run_many`."""

    code: str
    tests: str | Sequence[str]
    entry_point: str | None = None


def run_unit_tests(
    code: str,
    tests: str | Iterable[str],
    *,
    entry_point: str | None = None,
    timeout: float = 5.0,
    memory_mb: int = 256,
) -> bool:
    """Return whether `code`, an answer of a model, passes `tests` (assert statements over what it defines).

    The code runs in a process of its own and only gives values; the tests run in another one, which compares them. So
    there is nothing to forge: what passes has computed the values that the tests ask for. `docs/sandbox.md` says what
    the code cannot reach on which system. It has the standard library, an empty folder, `memory_mb` of memory, 1 MiB a
    file, no input, environment, network or further processes, and `timeout` seconds from its first line to the verdict.

    Tests may define `check(candidate)`, as HumanEval's do: it is called with what the code defines as `entry_point`,
    which has to be there. Built-in functions in the tests are never the code's own, save under that name.

    Raises:
        UserError: the tests do not parse or give the code a value that cannot be sent to it, a limit is not positive,
            or the system cannot run the sandbox (Windows).
    """
    suite = tests if isinstance(tests, str) else "\n".join(tests)
    tree = parse(suite)
    if tree is None:
        raise UserError(f"unit tests do not parse: {suite[:80]!r}", fix="write them as Python assert statements")
    if not (timeout > 0 and memory_mb > 0):
        raise UserError(f"limits have to be positive, not {timeout} s and {memory_mb} MB")
    body = bare_code(code)
    if parse(body) is None:
        return False
    job = {"code": body, "tests": suite, "entry_point": entry_point, "modules": _modules(tree)}
    answer = _run(job, timeout, memory_mb)
    if "unsendable" in answer:
        raise UserError(answer["unsendable"], fix="give plain values: numbers, texts, lists, tuples, dicts, sets")
    return answer["passed"]


def run_many(
    submissions: Iterable[Submission],
    *,
    processes: int | None = None,
    timeout: float = 5.0,
    memory_mb: int = 256,
) -> list[bool]:
    """Return `run_unit_tests` of each submission, in their order, `processes` at a time (default: one a processor)."""

    def one(given: Submission) -> bool:
        return run_unit_tests(
            given.code, given.tests, entry_point=given.entry_point, timeout=timeout, memory_mb=memory_mb
        )

    with ThreadPoolExecutor(processes or os.cpu_count() or 1) as pool:
        return list(pool.map(one, submissions))


def isolation() -> frozenset[str]:
    """Return the names of the walls that this system lets the sandbox raise; `docs/sandbox.md` lists them."""
    return frozenset(_run({"code": "", "tests": "", "entry_point": None, "modules": []}, 5.0, 256)["walls"])


def _modules(tests: ast.Module) -> list[str]:
    """List the modules of the standard library that tests use: `math.isclose` is not to be the code's own `math`."""
    nodes = ast.walk(tests)
    bases = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    return sorted(bases & sys.stdlib_module_names)


def _run(job: dict[str, Any], timeout: float, memory_mb: int) -> dict[str, Any]:
    if not hasattr(os, "fork"):
        raise UserError("generated code cannot be run on this system", fix="run it on Linux or macOS, or in WSL")
    source = _START.format(source=str(_SOURCE), timeout=timeout, memory=memory_mb << 20, without=list(WITHOUT))
    folder = tempfile.mkdtemp(prefix="equipoise-")
    try:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source],
            cwd=folder,
            env={
                name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ
            },  # some need it to start
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said, complaint = guard.communicate(json.dumps(job).encode(), timeout=timeout + _GRACE)
        except subprocess.TimeoutExpired:
            said, complaint = b"", b"it did not end in time"
        finally:
            _end(guard)
    finally:
        _remove(folder)
    answer = json.loads(said or b"{}")
    if "walls" not in answer:
        why = answer.get("error") or complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(
            f"the sandbox for generated code could not start: {why}", fix="leave evaluation.run_unit_tests off"
        )
    return answer


def _end(guard: subprocess.Popen) -> None:
    """End the guard, if it has not ended by itself, and with it what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(guard.pid, signal.SIGKILL)
    guard.kill()
    guard.communicate()


def _remove(folder: str) -> None:
    """Delete a folder whatever was put into it: links, locked folders, folders nested without end."""
    at = os.open(folder, os.O_RDONLY)
    folders = [_clear(at)]  # what is left at each level, from `folder` down to `at`
    try:
        while folders:
            if folders[-1]:
                os.chmod(folders[-1][-1], 0o700, dir_fd=at)
                at = _step(at, folders[-1][-1])
                folders.append(_clear(at))
            elif folders.pop() == [] and folders:
                at = _step(at, "..")
                os.rmdir(folders[-1].pop(), dir_fd=at)
        Path(folder).rmdir()
    except OSError:
        pass  # what resists, such as a file that was made immutable, stays
    finally:
        os.close(at)


def _step(at: int, name: str) -> int:
    into = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    os.close(at)
    return into


def _clear(at: int) -> list[str]:
    """Delete all but the folders in an open folder; return their names."""
    folders = []
    with os.scandir(at) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=at)
    return folders
