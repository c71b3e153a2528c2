"""SIGINT and SIGTERM while training: finish the step, save, stop. A second signal stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """A context that turns the first SIGINT or SIGTERM into `requested`; outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, has saved, and can be resumed; the text says how. The command line exits with 130."""

    def __init__(self, signal_name: str, step: int, folder: object):
        super().__init__(
            f"{signal_name} received: stopped after step {step}, everything is saved in {folder}; "
            "run the same command again to go on from there"
        )
        self.step = step
