"""Data sets of the Hub, against a server that refuses in the Hub's own words, and from a local folder."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from equipoise.data.loading import load_examples
from equipoise.errors import UserError

CHILD = Path(__file__).with_name("hub_child.py")
TOKEN = "hf_thisMustNeverBeShown"
ANSWERS = {  # what stands in the path: status, X-Error-Code, X-Error-Message
    "org/gated": (403, "GatedRepo", "Access to dataset org/gated is restricted"),
    "org/login": (401, "GatedRepo", "Access to dataset org/login is restricted, log in"),
    "org/missing": (404, "RepoNotFound", "Repository not found"),
    "org/expired": (401, None, "Invalid credentials in Authorization header"),
    "org/busy": (429, None, "Too many requests"),
}


class FakeHub(BaseHTTPRequestHandler):
    """Answers as the Hub does to someone who may not have what he asks for."""

    asked: list[tuple[str, str | None]]

    def do_HEAD(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        status, code, message = next((answer for part, answer in ANSWERS.items() if part in self.path), (404, None, ""))
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message), ("Content-Length", "0")):
            if value:
                self.send_header(name, value)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def hub() -> Iterator[ThreadingHTTPServer]:
    FakeHub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(sources: list[str], folder: Path, **environment: str) -> tuple[dict[str, dict], str]:
    """What came of each source, and everything that was printed or logged on the way."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    child = subprocess.run(
        [sys.executable, str(CHILD), json.dumps(sources)],
        env=kept | {"HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(child.stdout.splitlines()[-1]), child.stdout + child.stderr


def test_what_the_hub_refuses_is_said_plainly_and_the_token_never(tmp_path, hub):
    names = ["org/gated", "org/login", "org/missing", "org/expired", "json"]
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')  # no builder may pick this up
    outcomes, printed = run(
        [f"hub:{name}:train" for name in names], tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}"
    )
    said = {name: outcomes[f"hub:{name}:train"] for name in names}
    for name in names:
        assert said[name]["where"] == f"hub:{name}:train" and name in said[name]["what"]
        assert said[name]["docs"] == "docs/troubleshooting.md#gated" and "HF_TOKEN" in said[name]["fix"]
    assert all("is gated" in said[name]["what"] and "terms" in said[name]["fix"] for name in ("org/gated", "org/login"))
    assert all("no data set" in said[name]["what"] for name in ("org/missing", "org/expired", "json"))
    assert {sent for path, sent in FakeHub.asked if "org/gated" in path} == {f"Bearer {TOKEN}"}
    assert "HEAD" in printed and TOKEN not in printed


def test_offline_is_said_and_another_way_given(tmp_path):
    outcomes, _ = run(["hub:org/name:train"], tmp_path, HF_HUB_OFFLINE="1")
    error = outcomes["hub:org/name:train"]
    assert "cannot be reached" in error["what"] and "not in the cache" in error["what"]
    assert "HF_HUB_OFFLINE" in error["fix"] and "JSONL" in error["fix"]


@pytest.mark.soak
def test_a_busy_or_absent_hub_is_tried_again_before_it_is_given_up(tmp_path, hub):
    source = "hub:org/busy:train"
    outcomes, _ = run([source], tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}")
    assert "cannot be reached (HTTP 429)" in outcomes[source]["what"]
    assert sum("org/busy" in path for path, _ in FakeHub.asked) > 1
    outcomes, _ = run([source], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in outcomes[source]["what"]


def test_rows_of_a_data_set_are_checked_like_those_of_a_file(tmp_path):
    folder = tmp_path / "updates"
    folder.mkdir()
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        {"prompt": "a", "completion": "b", "stars": 1},
        {"prompt": "c", "completion": None, "stars": 2},
        {"prompt": "e", "completion": "f", "old": "g", "rephrasings": ["h"], "meta": {"accepted": ["i"]}},
        {"messages": turns},
        {"prompt": "a", "completion": "b", "stars": 3},
        {"prompt": "j\0", "completion": "k"},
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_text('{"prompt": "t", "completion": "u"}\n')
    name = f"hub:{folder}"
    sources = [f"{name}:train", f"{name}:train[:1]", f"{name}:default:test", f"{name}:tset", f"{name}:nope:train"]
    outcomes, _ = run(sources, tmp_path, HF_HUB_OFFLINE="1")
    whole, slice_, test, no_split, no_config = (outcomes[source] for source in sources)
    first, second, third = whole["examples"]
    assert (first["id"], first["old"], first["rephrasings"]) == ("row-000001", None, [])
    assert (second["id"], second["old"], second["rephrasings"]) == ("row-000003", "g", ["h"])
    assert second["meta"] == {"accepted": ["i"], "source": f"{name}:train:3"}
    assert (third["id"], third["messages"]) == ("row-000004", turns)
    assert [row[:2] for row in whole["dropped"]] == [[2, "completion"], [5, ""], [6, "prompt"]]
    assert whole["notes"] == ["unknown field 'stars' ignored in 3 rows, first in line 1"]
    assert [example["messages"][0]["content"] for example in slice_["examples"] + test["examples"]] == ["a", "t"]
    assert len({whole["sha256"], slice_["sha256"], test["sha256"]}) == 3
    assert "tset" in no_split["what"] and "'train', 'test'" in no_split["what"]
    assert "nope" in no_config["what"] and no_config["where"] == sources[4]


@pytest.mark.parametrize("source", ["hub:", "hub:name", "hub::train", "hub:name:", "hub:a:b:c:d"])
def test_a_malformed_name_is_refused_before_anything_is_asked(source):
    with pytest.raises(UserError, match="hub:NAME:SPLIT") as error:
        load_examples(source)
    assert error.value.where == source and error.value.fix
