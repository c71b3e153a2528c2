"""Any server that speaks OpenAI's chat protocol: vLLM, SGLang, llama.cpp, Ollama, or OpenAI's own."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from equipoise.console import warn
from equipoise.errors import UserError
from equipoise.models.backends import chat
from equipoise.models.backends.interface import Reply, Request
from equipoise.models.backends.servers import LONGEST_REST_S, Failure, Rotation, Server, retry_after
from equipoise.models.backends.settings import BackendSettings

DOCS = "docs/generating.md#servers"
AGAIN = frozenset({408, 409, 425, 429})  # and 5xx


class Stopped(Exception):
    """Nobody wants the answers any more."""


class Served:
    """Asks servers for answers, `concurrency` at a time; each answer is a request with a seed of its own.

    With `use_n` all answers to a prompt are one request; a server that ignores that is asked for the rest one by one.

    Raises:
        UserError: the package `openai` is missing.
    """

    def __init__(self, model: str, settings: BackendSettings):
        self.name, self._model, self._settings = settings.backend, model, settings
        self._stop = threading.Event()
        self._key = os.environ.get(settings.api_key_env) or "none"
        servers = [Server(url, _client(url, self._key, settings)) for url in settings.servers]
        self._rotation = Rotation(servers, settings.backoff, self._sleep)

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield the replies of each request as it comes back.

        Raises:
            UserError: a server refuses, or none answers after `retries` more tries.
        """
        todo: queue.SimpleQueue[list[Request]] = queue.SimpleQueue()
        done: queue.SimpleQueue[list[Reply] | BaseException] = queue.SimpleQueue()
        for group in self._grouped(requests):
            todo.put(group)
        self._stop.clear()
        # daemons: a process that is to end does not wait for a server that may never answer
        for _ in range(min(self._settings.concurrency, len(requests))):
            threading.Thread(target=self._work, args=(todo, done), daemon=True).start()
        left = len(requests)
        try:
            while left:
                try:
                    some = done.get(timeout=0.5)  # so that Windows sees an interrupt
                except queue.Empty:
                    continue
                if isinstance(some, BaseException):
                    yield from _rest(done)  # what came in the meantime is not lost
                    raise some
                left -= len(some)
                yield some
        finally:
            self._stop.set()

    def _grouped(self, requests: Sequence[Request]) -> list[list[Request]]:
        if not self._settings.use_n:
            return [[request] for request in requests]
        return [list(group) for _, group in groupby(requests, key=lambda request: request.messages)]

    def _work(self, todo: queue.SimpleQueue[list[Request]], done: queue.SimpleQueue[Any]) -> None:
        try:
            while not self._stop.is_set():
                group = todo.get_nowait()
                found = self._ask(group)
                done.put(found)
                for request in group[len(found) :]:
                    todo.put([request])
        except (queue.Empty, Stopped):
            return
        except BaseException as error:  # the main thread raises it
            done.put(error)

    def _ask(self, group: list[Request]) -> list[Reply]:
        """Ask until an answer comes."""
        failure = Failure("")
        for tries in range(1, self._settings.retries + 2):
            server = self._rotation.take()
            try:
                found = self._once(server, group)
            except Failure as again:
                failure = again
                if again.wait is not None and again.wait > LONGEST_REST_S:
                    break
                if tries <= self._settings.retries:
                    self._rotation.failed(server, again, tries)
                continue
            self._rotation.worked(server)
            return found
        raise UserError(
            f"no answer after {tries} tries: {self._hidden(str(failure))}",
            where=", ".join(server.url for server in self._rotation.servers),
            fix="see that the server is up and not overloaded, and go on with --resume; what came is kept. "
            "sampling.timeout, sampling.retries and sampling.concurrency can be changed",
            docs=DOCS,
        )

    def _once(self, server: Server, group: list[Request]) -> list[Reply]:
        """Send one request, without the parameters that this server refuses."""
        import openai

        while True:
            sent = chat.body(
                self._model, group if "n" not in server.refused else group[:1], self._settings, server.refused
            )
            known = {name: sent.pop(name) for name in ("model", "messages")}
            try:
                raw = server.client.chat.completions.with_raw_response.create(**known, extra_body=sent)
                return chat.replies(raw.text, group)
            except openai.APITimeoutError:
                raise Failure(f"no answer within {self._settings.timeout:g} s") from None
            except openai.APIConnectionError as error:
                raise Failure(f"the connection failed: {error.__cause__ or error}") from None
            except openai.APIStatusError as error:
                self._refused(server, error, sent)
            except UnicodeDecodeError:
                raise Failure("what came is not text") from None

    def _refused(self, server: Server, error: Any, sent: dict[str, Any]) -> None:
        """Deal with an HTTP error: returns if the request can be sent again without the parameter it is about."""
        status, message = error.status_code, self._hidden(" ".join(error.response.text.split())[:300])
        if status in AGAIN or status >= 500:
            raise Failure(f"HTTP {status} {message}".strip(), retry_after(error.response.headers))
        name = chat.unknown(message, sent) if status in (400, 422) else None
        if name is not None:
            if name not in server.refused:
                server.refused.add(name)
                warn(f"{server.url} does not know `{name}`; asked without it")
            return
        fixes = {
            401: f"set {self._settings.api_key_env} to a key that this server accepts",
            403: f"set {self._settings.api_key_env} to a key that may use this model",
            404: f"see that the address is right (it often ends in /v1) and that there is a model {self._model}",
        }
        fix = fixes.get(status, "change what the server complains about")
        what = f"the server refuses the request (HTTP {status}): {message or 'no reason given'}"
        raise UserError(what, where=server.url, fix=fix, docs=DOCS)

    def _hidden(self, message: str) -> str:
        return message if self._key == "none" else message.replace(self._key, "[key]")

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def _rest(done: queue.SimpleQueue[Any]) -> Iterator[list[Reply]]:
    while True:
        try:
            some = done.get_nowait()
        except queue.Empty:
            return
        if isinstance(some, list):
            yield some


def _client(url: str, key: str, settings: BackendSettings) -> Any:
    try:
        from openai import OpenAI
    except ImportError:
        raise UserError(
            "asking a server needs the package openai, which is not installed",
            where=f"sampling.backend: {settings.backend}",
            fix='pip install "equipoise[remote]"',
        ) from None
    # its own repetition would not see that an answer of status 200 is no answer
    return OpenAI(base_url=url, api_key=key, timeout=settings.timeout, max_retries=0)
