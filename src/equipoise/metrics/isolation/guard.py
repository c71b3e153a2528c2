"""The process that holds the clock: it starts tester and worker, and ends all there is when the time is up."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from equipoise.metrics.isolation import walls
from equipoise.metrics.isolation.tester import Unsendable, passes
from equipoise.metrics.isolation.values import Channel
from equipoise.metrics.isolation.worker import Worker

STARTUP = 30.0  # seconds until the code runs, which take 0.05 on an idle machine
TESTER_MEMORY = 512 << 20


def main(timeout: float, memory: int, without: list[str]) -> None:
    """Read a job from stdin, write what came of it to stdout: `{"passed": ..., "walls": ...}` or `{"error": ...}`."""
    folder = os.getcwd()
    walls.end_with_parent()
    walls.adopt_orphans()
    held = walls.enter_namespaces(without)
    inlet, outlet = os.pipe()
    tester = os.fork()
    if tester == 0:
        os.close(inlet)
        _in_child(lambda: _test(outlet, folder, held, timeout, memory, without), outlet)
    os.close(outlet)
    try:
        answer = _hear(inlet, STARTUP)
        if "walls" in answer:
            answer |= _hear(inlet, timeout) or {"passed": False}
    finally:
        _end(tester)
    os.write(1, json.dumps(answer or {"error": "it did not start"}).encode())


def _hear(inlet: int, seconds: float) -> dict:
    """Read one line from the tester; nothing if none comes in time."""
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        if not select.select([inlet], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return {}
        some = os.read(inlet, 1)
        if not some:
            return {}
        line += some
    return json.loads(line)


def _end(tester: int) -> None:
    """End the tester and all that descends from it: in a PID namespace, the kernel does so as the tester ends."""
    os.kill(tester, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        for child in _children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.001)


def _children() -> list[int]:
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if parent == os.getpid():
            found.append(int(name))
    return found


def _in_child(work: Callable[[], None], outlet: int) -> None:
    try:
        work()
    except BaseException as error:
        os.write(outlet, json.dumps({"error": f"{type(error).__name__}: {error}"[:2000]}).encode() + b"\n")
    finally:
        os._exit(0)


def _test(outlet: int, folder: str, held: set[str], timeout: float, memory: int, without: Collection[str]) -> None:
    walls.end_with_parent()
    if not {"namespaces", "files"} & set(without) and walls.enter_root(folder):
        held = held | {"files"}
    (requests, to_worker), (from_worker, replies) = os.pipe(), os.pipe()
    seconds = max(1, int(timeout + 1))
    if os.fork() == 0:
        _work(requests, replies, seconds, memory, without)
    walls.hide_memory()
    os.close(requests)
    os.close(replies)
    channel = Channel(from_worker, to_worker)
    ready = channel.receive()
    if "error" in ready:
        raise OSError(ready["error"])
    job = json.loads(_read_all(0))
    walls.confine(seconds, TESTER_MEMORY, nobody=False, without=without)
    _say(outlet, {"walls": sorted(held | set(ready["walls"]))})
    try:
        _say(outlet, {"passed": passes(channel, job)})
    except Unsendable as error:
        _say(outlet, {"unsendable": str(error)})


def _say(outlet: int, message: dict) -> None:
    os.write(outlet, json.dumps(message).encode() + b"\n")


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def _work(requests: int, replies: int, seconds: int, memory: int, without: Collection[str]) -> None:
    """Become the worker: nothing of the tests is in this process, and no way to the guard."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        for descriptor in range(3, 64):  # the guard had nothing open but its standard streams and a few pipes
            if descriptor not in (requests, replies):
                with suppress(OSError):
                    os.close(descriptor)
        channel = Channel(requests, replies)
        os.environ.clear()
        try:
            held = walls.confine(seconds, memory, nobody=True, without=without)
            channel.send({"walls": sorted(held)})
        except BaseException as error:
            channel.send({"error": str(error)})
            raise
        Worker(channel).serve()
    finally:
        os._exit(0)
