"""The `openai` backend against a server that was written elsewhere: `transformers serve`, which knows neither `n` nor
log-probabilities."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from equipoise.data.formatting import render_prompt
from equipoise.errors import UserError
from equipoise.models.backends.interface import Request
from equipoise.models.backends.openai import Served
from equipoise.models.backends.settings import BackendSettings
from equipoise.models.generation import generate_greedy
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.records import Message
from equipoise.testbed import questions

MODEL = str(questions.model_path())
ASKED = [question.prompt for question in questions.load("reading")[:3] + questions.load("medical")[:3]]


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port, folder = free_port(), tmp_path_factory.mktemp("serve")
    start = "from transformers.cli.transformers import main; main()"
    words = ["serve", MODEL, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", start, *words], stdout=log, stderr=log, env=env)
    try:
        for _ in range(400):
            assert process.poll() is None, (folder / "log").read_text()
            if answers(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def requests(samples):
    return [
        Request((i, k), (Message(role="user", content=text),), 10 * i + k)
        for i, text in enumerate(ASKED)
        for k in range(samples)
    ]


def ask(server, asked, **settings):
    given = {"backend": "openai", "base_urls": [server], "max_new_tokens": 5, "timeout": 60, **settings}
    return {reply.key: reply for some in Served(MODEL, BackendSettings(**given)).sample(asked) for reply in some}


def test_greedy_answers_are_those_of_the_model_here(server):
    loaded = load_model(ModelSettings(path=MODEL, device="cpu"))
    prompts = [render_prompt(loaded.tokenizer, [Message(role="user", content=text)]) for text in ASKED]
    expected = generate_greedy(loaded.model, loaded.tokenizer, prompts, max_new_tokens=5)
    found = ask(server, requests(1), temperature=0)
    assert [found[i, 0].text for i in range(len(ASKED))] == expected
    assert all(reply.tokens and reply.logprob is None for reply in found.values())


def test_every_sample_comes_though_n_is_ignored(server):
    found = ask(server, requests(3), use_n=True, temperature=1.0)
    assert sorted(found) == [(i, k) for i in range(len(ASKED)) for k in range(3)]
    assert all(reply.text for reply in found.values())


def test_another_model_than_it_serves_is_told(server):
    given = BackendSettings(backend="openai", base_urls=[server], retries=0)
    with pytest.raises(UserError, match=r"HTTP \d+"):
        list(Served("no/such-model", given).sample(requests(1)))
