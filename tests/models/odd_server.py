"""A server that speaks OpenAI's chat protocol, and misbehaves on demand."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(body, choices=None):
    """What a good server says: an answer that tells which seed it was asked with."""
    count = body.get("n", 1) if choices is None else choices
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {"index": i, "finish_reason": "stop", "message": {"content": f"seed {body['seed']}.{i}"}}
            for i in range(count)
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }  # fmt: skip


class Odd(ThreadingHTTPServer):
    """`script` holds what to do with the first requests; with later ones it does as it should.

    An entry is a status, (status, headers), bytes to send as JSON with status 200, a dictionary, or a function of the
    handler and the request's body that returns one of these, or None for a good answer.
    """

    daemon_threads = True

    def __init__(self, script=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.bodies, self.headers, self.times = list(script), [], [], []
        self.lock, self.busy, self.busiest = threading.Lock(), 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def seeds(self):
        return Counter(body["seed"] for body in self.bodies)

    def handle_error(self, request, client_address):
        """A client that has hung up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Odd

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.times.append(time.monotonic())
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
            what = server.script.pop(0) if server.script else None
        try:
            what = what(self, body) if callable(what) else what
        finally:
            with server.lock:  # before the answer: a client that has it may ask again at once
                server.busy -= 1
        self.respond(answer(body) if what is None else what)

    def respond(self, what):
        status, headers, data = 200, {"content-type": "application/json"}, b""
        if isinstance(what, int):
            status, data = what, b'{"error": {"message": "as told"}}'
        elif isinstance(what, tuple):
            status, more = what
            data = more.pop("body", b"") if isinstance(more, dict) else b""
            headers |= more
        else:
            data = json.dumps(what).encode() if isinstance(what, dict) else what
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


@contextmanager
def odd_server(*script):
    server = Odd(script)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
