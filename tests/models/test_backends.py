"""Servers as they are: answers however they come, patience with what passes, and plain words for what does not."""

import gc
import importlib.util
import threading
import time
from email.utils import formatdate

import pytest
from odd_server import answer, odd_server
from pydantic import ValidationError
from tiny_models import TEMPLATE, tiny_tokenizer

from equipoise.data.formatting import render_prompt
from equipoise.errors import UserError
from equipoise.models.backends.interface import Request
from equipoise.models.backends.openai import Served
from equipoise.models.backends.settings import OLLAMA, BackendSettings
from equipoise.models.backends.vllm import Offline
from equipoise.models.loading import Loaded
from equipoise.models.settings import ModelSettings
from equipoise.models.thinking import without_thinking
from equipoise.records import Message


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def requests(count, samples=1):
    return [
        Request((f"i{i}", k), (Message(role="user", content=f"question {i}"),), 100 * i + k)
        for i in range(count)
        for k in range(samples)
    ]


def served(*servers, **settings):
    given = {"backend": "openai", "backoff": 0.01, "timeout": 5, **settings}
    return Served("some-model", BackendSettings(base_urls=[server.url for server in servers], **given))


def ask(backend, asked):
    found = {reply.key: reply for some in backend.sample(asked) for reply in some}
    gc.collect()  # a client left open would warn here
    return found


def test_each_answer_is_a_request_with_its_own_seed():
    with odd_server() as server:
        found = ask(served(server, temperature=0.7, top_p=0.9, max_new_tokens=33), requests(5, 3))
    assert {key: reply.text for key, reply in found.items()} == {r.key: f"seed {r.seed}.0" for r in requests(5, 3)}
    assert set(server.seeds().values()) == {1}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("some-model", 0.7, 0.9, 33)
    assert body["messages"][0]["content"].startswith("question") and "n" not in body
    assert found["i0", 0].tokens == 3 and found["i0", 0].logprob is None and found["i0", 0].finish == "stop"


def test_as_many_requests_at_a_time_as_told():
    def slow(handler, body):
        time.sleep(0.05)

    with odd_server(*[slow] * 12) as server:
        ask(served(server, concurrency=4), requests(12))
    assert server.busiest == 4


def cut(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
    handler.close_connection = True
    raise ConnectionError


PASSING = {
    "429": 429,
    "500": 500,
    "503": 503,
    "408": 408,
    "HTML": (200, {"content-type": "text/html", "body": b"<html>busy</html>"}),
    "HTML called JSON": b"<html>busy</html>",
    "truncated": b'{"choices": [{"message": {"content": "hal',
    "nothing": b"",
    "no UTF-8": b'{"choices": "\xff\xfe"}',
    "no choices": {"id": "x"},
    "empty choices": {"choices": []},
    "null choices": {"choices": None},
    "no message": {"choices": [{"index": 0}]},
    "no content": {"choices": [{"message": {"role": "assistant"}}]},
    "null content": {"choices": [{"message": {"role": "assistant", "content": None}}]},
    "a list": b"[]",
    "an error with status 200": {"error": {"message": "overloaded"}},
    "nested deeply": b"[" * 100_000,
    "cut in the body": cut,
}


@pytest.mark.parametrize("what", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(what):
    with odd_server(what, what) as server:
        found = ask(served(server, concurrency=1), requests(2))
    assert {reply.text for reply in found.values()} == {"seed 0.0", "seed 100.0"}
    assert len(server.bodies) == 4


def test_a_server_that_hangs_is_given_up_and_asked_again():
    def hang(handler, body):
        time.sleep(0.6)
        return 500

    with odd_server(hang) as server:
        found = ask(served(server, timeout=0.2), requests(1))
    assert found["i0", 0].text == "seed 0.0" and len(server.bodies) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(form):
    wait = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    with odd_server((429, {"retry-after": wait})) as server:
        ask(served(server, concurrency=1), requests(1))
    assert server.times[1] - server.times[0] >= 0.9


def test_a_server_that_wants_hours_is_told_of_at_once():
    with odd_server((429, {"retry-after": "7200"})) as server, pytest.raises(UserError, match="HTTP 429"):
        ask(served(server), requests(1))
    assert len(server.bodies) == 1


def test_waits_grow_between_tries():
    with odd_server(500, 500, 500, 500) as server:
        ask(served(server, backoff=0.05), requests(1))
    gaps = [b - a for a, b in zip(server.times, server.times[1:])]
    assert gaps[3] > gaps[0] and gaps[3] >= 0.2


def test_in_the_end_it_is_one_clear_error_and_what_came_is_kept():
    def one_bad(handler, body):
        if body["seed"] == 300:
            return 500
        return None

    with odd_server(*[one_bad] * 99) as server:
        found = []
        with pytest.raises(UserError) as told:
            for some in served(server, retries=2, backoff=0.3).sample(requests(6)):
                found += some
    assert "no answer after 3 tries: HTTP 500" in str(told.value) and "--resume" in str(told.value)
    assert server.url in str(told.value)
    assert len(found) == 5 and server.seeds()[300] == 3


@pytest.mark.parametrize("status", [401, 403, 404, 400, 422])
def test_a_refusal_is_not_repeated(status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    body = b'{"error": {"message": "no good: key sk-secret-of-mine"}}'
    with odd_server(*[(status, {"body": body})] * 3) as server, pytest.raises(UserError) as told:
        ask(served(server, concurrency=1), requests(1))
    assert len(server.bodies) == 1
    assert f"HTTP {status}" in str(told.value) and "secret" not in str(told.value)
    assert server.headers[0]["authorization"] == "Bearer sk-secret-of-mine"
    assert status not in (401, 403) or "OPENAI_API_KEY" in str(told.value)


def test_nobody_there():
    with odd_server() as server:
        pass
    with pytest.raises(UserError, match="the connection failed"):
        ask(served(server, retries=1), requests(1))


def test_several_servers_take_turns_and_a_dead_one_is_left_out():
    with odd_server() as dead:
        pass
    with odd_server() as one, odd_server(*[500] * 50) as other:
        found = ask(served(dead, one, other, concurrency=2, retries=8), requests(40))
        assert len(found) == 40
        assert len(one.bodies) >= 40 > len(other.bodies)
    with odd_server() as one, odd_server() as other:
        ask(served(one, other, concurrency=1), requests(10))
        assert len(one.bodies) == len(other.bodies) == 5


def test_a_server_that_asks_for_rest_is_left_alone_meanwhile():
    with odd_server((429, {"retry-after": "30"})) as one, odd_server() as other:
        assert len(ask(served(one, other, concurrency=1), requests(6))) == 6
        assert len(one.bodies) == 1


def test_one_request_for_all_answers_where_n_is_heard():
    with odd_server() as server:
        found = ask(served(server, use_n=True), requests(3, 4))
    assert [body["n"] for body in server.bodies] == [4, 4, 4]
    assert len(found) == 12 and {found["i1", k].text for k in range(4)} == {f"seed 100.{k}" for k in range(4)}
    assert found["i1", 0].tokens is None  # counted for all four together


def test_the_rest_one_by_one_where_n_is_ignored():
    def deaf(handler, body):
        return answer(body, choices=1)

    with odd_server(*[deaf] * 99) as server:
        found = ask(served(server, use_n=True), requests(3, 4))
    assert len(found) == 12 and len(server.bodies) == 12
    assert {found["i1", k].text for k in range(4)} == {f"seed {100 + k}.0" for k in range(4)}


@pytest.mark.parametrize("name", ["logprobs", "chat_template_kwargs", "seed", "n", "max_tokens"])
def test_a_parameter_that_a_server_does_not_know_is_left_out(name, capsys):
    message = "use max_completion_tokens" if name == "max_tokens" else f"unknown parameter: '{name}'"

    def strict(handler, body):
        if name in body:
            return 400, {"body": f'{{"error": {{"message": "{message}"}}}}'.encode()}
        return answer({"seed": 0, **body}, choices=1)

    with odd_server(*[strict] * 50) as server:
        found = ask(served(server, use_n=True, concurrency=1), requests(2, 3))
    assert len(found) == 6
    assert sum(name in body for body in server.bodies) == 1
    assert (name != "max_tokens") or server.bodies[-1]["max_completion_tokens"] == 128


def test_log_probabilities_are_summed_and_odd_ones_are_not_trusted():
    def telling(*logprobs):
        def say(handler, body):
            sent = answer(body)
            sent["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": x} for x in logprobs]}
            sent["choices"][0]["finish_reason"] = "length"
            return sent

        return say

    with odd_server(telling(-0.5, -2, 0), telling(-0.5, None), telling(-1, -9999.0)) as server:
        found = ask(served(server, concurrency=1), requests(3))
    assert server.bodies[0]["logprobs"] is True
    first = found["i0", 0]
    assert (first.tokens, first.logprob, first.least_logprob, first.finish) == (3, -2.5, -2, "length")
    assert found["i1", 0].logprob is None and found["i1", 0].tokens == 3
    assert found["i2", 0].logprob is None


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thinking_that_a_server_keeps_apart_is_counted(field):
    def think(content):
        message = {"role": "assistant", "content": content, field: "Well, well."}
        return lambda handler, body: {"choices": [{"message": message, "finish_reason": "length"}]}

    with odd_server(think("{}"), think(None)) as server:
        found = ask(served(server, concurrency=1), requests(2))
    assert [(r.text, r.thinking) for r in found.values()] == [("{}", 11), ("", 11)]


@pytest.mark.parametrize(
    ("backend", "thinking", "field", "value"),
    [
        ("openai", False, "chat_template_kwargs", {"enable_thinking": False, "thinking": False}),
        ("openai", True, "chat_template_kwargs", None),
        ("ollama", False, "reasoning_effort", "none"),
        ("ollama", True, "reasoning_effort", None),
    ],
)
def test_thinking_is_switched_off_as_each_server_wants_it(backend, thinking, field, value):
    with odd_server() as server:
        ask(served(server, backend=backend, enable_thinking=thinking), requests(1))
    assert server.bodies[0].get(field) == value


def test_who_stops_listening_does_not_wait():
    hung = threading.Event()

    def hang(handler, body):
        hung.wait(20)
        return 500

    with odd_server(None, *[hang] * 20) as server:
        replies = served(server, concurrency=3, timeout=20).sample(requests(9))
        next(replies)
        before = time.monotonic()
        replies.close()
        assert time.monotonic() - before < 1
        hung.set()


def test_settings_say_where_servers_are():
    assert BackendSettings(backend="ollama").servers == [OLLAMA]
    assert BackendSettings(backend="ollama", base_urls=["http://far:1/v1"]).servers == ["http://far:1/v1"]
    for wrong, told in [
        ({"backend": "openai"}, "needs base_urls"),
        ({"backend": "openai", "base_urls": ["localhost:8000"]}, "no address of a server"),
        ({"base_urls": ["http://localhost:8000/v1"]}, "no effect with backend hf"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"concurrency": 0}, "concurrency"),
    ]:
        with pytest.raises(ValidationError, match=told):
            BackendSettings(**wrong)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_vllm_that_is_missing_is_told():
    with pytest.raises(UserError, match="needs the package vllm") as told:
        Offline(ModelSettings(path="some/model"), BackendSettings(backend="vllm"))
    assert "equipoise[vllm]" in str(told.value)


def test_the_switch_of_a_reasoning_model_is_thrown():
    template = TEMPLATE.replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}",
    )
    asked = [Message(role="user", content="Is it so?")]
    loaded = Loaded(None, tiny_tokenizer(chat_template=template), "tiny")
    off = without_thinking(loaded)
    assert off.tokenizer.decode(render_prompt(off.tokenizer, asked)).endswith("<think></think>")
    assert "<think>" not in loaded.tokenizer.decode(render_prompt(loaded.tokenizer, asked))
    for plain in (TEMPLATE, TEMPLATE.replace("assistant", "thinking")):
        loaded = Loaded(None, tiny_tokenizer(chat_template=plain), "tiny")
        assert without_thinking(loaded) is loaded
