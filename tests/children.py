"""Processes of their own for tests, forked from a server that has imported the libraries already.

A test that kills a run needs a process of its own; it does not need to import torch again, which takes longer than
most of these runs.
"""

import atexit
import gc
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from equipoise import cli

LIBRARIES = ["equipoise.protocols.grid", "equipoise.training.cohort", "equipoise.training.dpo"]

_server: Any = get_context("spawn" if os.name == "nt" else "forkserver")
if os.name != "nt":
    _server.set_forkserver_preload(LIBRARIES)


class Child:
    """A forked process with the methods of `subprocess.Popen` that the tests use; its output goes to files.

    Args:
        target: what the process runs; a function of a module, with its arguments.
        stdin: what it reads; nothing by default.
    """

    def __init__(self, target: Callable[..., Any], *args: object, stdin: bytes = b""):
        folder = Path(tempfile.mkdtemp())
        streams = [folder / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(stdin)
        for path in streams[1:]:
            path.touch()
        self._out, self._err = streams[1:]
        place = (str(Path.cwd()), dict(os.environ), [str(path) for path in streams])
        self._process = _server.Process(target=_settled, args=(place, target, args))
        self._process.start()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(self.kill)  # what a failed test left running
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what was written to stdout and stderr."""
        self.wait(timeout)
        return self.stdout, self.stderr

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")


def start(*words: object, **how: Any) -> Child:
    """Start the command line in a process of its own; `how` as for `Child`."""
    return Child(_equipoise, [str(word) for word in words], **how)


def start_script(path: Path, *words: object, **how: Any) -> Child:
    """Start a script as `python PATH WORDS...` does; `how` as for `Child`."""
    return Child(_script, str(path), [str(word) for word in words], **how)


def _equipoise(words: list[str]) -> None:
    sys.argv = ["equipoise", *words]
    cli.main()


def _script(path: str, words: list[str]) -> None:
    sys.argv = [path, *words]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")


def _settled(place: tuple[str, dict[str, str], list[str]], target: Callable[..., Any], args: tuple) -> None:
    """Take the place of a newly started process: its folder, its variables, its streams."""
    folder, variables, files = place
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        with Path(files[number]).open(mode) as stream:
            os.dup2(stream.fileno(), number)
        setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    gc.freeze()  # the libraries that the server has imported are not searched for garbage
    target(*args)
