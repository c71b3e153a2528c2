"""`equipoise models fetch` and `list` against a small Hub on this machine."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import save

from equipoise.models.hub import named

COMMIT = "0" * 39 + "1"
WEIGHTS = save({"w": torch.zeros(100)})
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "onnx/model.safetensors": b"another format",
}
ONLY_PICKLES = {name: FILES[name] for name in ("config.json", "pytorch_model.bin")}
REPOS = {"good/model": FILES, "old/model": ONLY_PICKLES}
ANSWERS = {"gated": (401, "GatedRepo"), "broken": (503, ""), "token": (401, "")}


class SmallHub(http.server.BaseHTTPRequestHandler):
    """The few addresses of the Hub that a download asks for, over real HTTP."""

    fetched: list[str] = []  # noqa: RUF012  read by the tests

    def do_GET(self, body=True):
        path = self.path.partition("?")[0]
        found = re.fullmatch(r"(/api/models)?/(\w+/\w+)(/.*)?", path)
        repo, rest = (found[2], found[3] or "") if found else ("", "")
        if repo.partition("/")[0] in ANSWERS:
            return self._send(*ANSWERS[repo.partition("/")[0]])
        if repo not in REPOS:
            return self._send(404, "RepoNotFound")
        if path.startswith("/api"):
            return self._api(repo, rest)
        name = rest.removeprefix(f"/resolve/{COMMIT}/").removeprefix("/resolve/main/")
        data = REPOS[repo].get(name)
        if data is None:
            return self._send(404, "EntryNotFound")
        if body:
            self.fetched.append(name)
        return self._send(200, "", data, body)

    def _api(self, repo, rest):
        sizes = [(name, data) for name, data in REPOS[repo].items()]
        if rest.startswith("/tree/"):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for n, d in sizes]
            return self._send(200, "", json.dumps(tree).encode())
        info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": n, "size": len(d)} for n, d in sizes]}
        return self._send(200, "", json.dumps(info).encode())

    def _send(self, status, code, data=b"", body=True):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_HEAD(self):
        self.do_GET(body=False)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(hub, home, *words, **more):
    env = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"HF_TOKEN": "hf_secretsecret", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}
    env.pop("HF_HUB_OFFLINE", None) if "HF_HUB_OFFLINE" not in more else None
    command = [sys.executable, "-m", "equipoise.cli", "models", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "hf_secretsecret" not in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stderr
    return done


def test_a_model_is_fetched_without_pickles_and_only_once(hub, tmp_path):
    first = run(hub, tmp_path, "fetch", "good/model")
    assert first.returncode == 0 and "fetched" in first.stdout, first.stderr
    there = sorted(path.name for path in tmp_path.glob("hub/models--good--model/snapshots/*/*"))
    assert there == ["config.json", "model.safetensors"]
    SmallHub.fetched.clear()
    again = run(hub, tmp_path, "fetch", "good/model")
    assert again.returncode == 0 and "was there" in again.stdout and SmallHub.fetched == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gated/model", "is gated"),
        ("no/model", "has no model no/model"),
        ("old/model", "no weights as safetensors"),
        ("broken/model", "cannot be reached (HTTP 503)"),
        ("token/model", "refuses the token (HTTP 401)"),
        ("testbed:ner", "comes with the package"),
        ("../etc", "no name on the Hugging Face Hub"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_words(hub, tmp_path, name, expected):
    done = run(hub, tmp_path, "fetch", name)
    assert done.returncode == 2 and expected in done.stderr, done.stderr


def test_no_connection_is_said_in_words(tmp_path):
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = run("http://127.0.0.1:9", tmp_path, "fetch", "good/model", **more)
        assert done.returncode == 2 and "cannot be reached" in done.stderr, done.stderr


def test_all_or_names_have_to_be_given(hub, tmp_path):
    assert run(hub, tmp_path, "fetch").returncode == 2
    assert run(hub, tmp_path, "fetch", "--all", "good/model").returncode == 2


def test_the_list_names_the_recipes_models_and_what_is_there(hub, tmp_path):
    assert "own-model" in named()["Qwen/Qwen2.5-0.5B-Instruct"] and not any("testbed" in name for name in named())
    shown = run(hub, tmp_path, "list")
    assert shown.returncode == 0 and "Qwen/Qwen2.5-0.5B-Instruct" in shown.stdout and "not in the cache" in shown.stdout
