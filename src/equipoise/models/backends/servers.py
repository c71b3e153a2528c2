"""Several servers of one model asked in turn: who is asked next, who rests, and how long to wait after a failure."""

import email.utils
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_WAIT_S = 60.0  # between two tries of ours
LONGEST_REST_S = 600.0  # that a server may ask for


@dataclass
class Server:
    """One address. `refused` holds the optional parameters that it does not know."""

    url: str
    client: Any
    failures: int = 0  # in a row
    turn: int = 0  # when it was last asked
    rests_until: float = 0.0  # time.monotonic()
    refused: set[str] = field(default_factory=set)


class Failure(Exception):
    """A try that failed and may be repeated; `wait` is how many seconds the server wants to be left alone."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class Rotation:
    """Hands out servers in turn, those that answered before those that failed; safe to use from threads."""

    def __init__(self, servers: list[Server], backoff: float, sleep: Callable[[float], Any] = time.sleep):
        self.servers, self._backoff, self._sleep = servers, backoff, sleep
        self._lock, self._asked = threading.Lock(), 0

    def take(self) -> Server:
        """The server to ask now, after its rest if all of them rest."""
        with self._lock:
            now = time.monotonic()
            server = min(self.servers, key=lambda s: (max(s.rests_until - now, 0.0), s.failures, s.turn))
            self._asked += 1
            server.turn = self._asked
            rest = server.rests_until - now
        if rest > 0:
            self._sleep(rest)
        return server

    def worked(self, server: Server) -> None:
        """Take note of an answer."""
        with self._lock:
            server.failures = 0

    def failed(self, server: Server, failure: Failure, tries: int) -> None:
        """Take note of a failure, and wait before the next of a request's `tries`; another server is tried at once."""
        with self._lock:
            server.failures += 1
            if failure.wait is not None:
                server.rests_until = max(server.rests_until, time.monotonic() + min(failure.wait, LONGEST_REST_S))
        if failure.wait is None and tries % len(self.servers) == 0:
            doubled = self._backoff * 2.0 ** min(tries // len(self.servers) - 1, 16)
            self._sleep(min(doubled, LONGEST_WAIT_S) * random.uniform(0.5, 1))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the header Retry-After asks for, in either of its forms (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), 1e9)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
