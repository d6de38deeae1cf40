"""A training server as a test needs it: it answers, and does what its arguments say. Run by the interpreter alone.

python training_server.py server.port=38000 job_id=JOB key=value…
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers /health once it is ready, and says at / what it was started with."""

    ready = threading.Event()

    def do_GET(self) -> None:
        good = self.path != "/health" or self.ready.is_set()
        wanted = dict(word.partition("=")[::2] for word in sys.argv[1:])
        said: dict[str, object] = {"arguments": sys.argv[1:], "environment": dict(os.environ)}
        if "lists" in wanted:
            said["listed"] = sorted(os.listdir(wanted["lists"]))
        text = "" if self.path == "/health" else json.dumps(said)
        self.send_response(200 if good else 503)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    wanted = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if "dies" in wanted:
        print("the first line\nValueError: no such model", file=sys.stderr)
        sys.exit(int(wanted["dies"]))
    if "stamp" in wanted:
        with open(wanted["stamp"], "a") as stamp:  # noqa: PTH123
            stamp.write(f"{os.getpid()} {wanted['server.port']}\n")
    if "never" in wanted:
        time.sleep(3600)
    if "stubborn" in wanted:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server(("127.0.0.1", int(wanted["server.port"])), Handler)
    gate = wanted.get("gate")
    if gate is None:
        Handler.ready.set()
    else:
        threading.Thread(target=open_when_there, args=(gate,), daemon=True).start()
    if "ends" in wanted:
        threading.Timer(float(wanted["ends"]), os._exit, [int(wanted.get("code", "0"))]).start()
    server.serve_forever()


def open_when_there(gate: str) -> None:
    """Ready once somebody opened this FIFO for writing; what they wrote is when, for a measurement."""
    with open(gate) as stream:  # noqa: PTH123
        stream.read()
    with open(f"{gate}.ready", "w") as stream:  # noqa: PTH123
        stream.write(repr(time.time()))
    Handler.ready.set()


if __name__ == "__main__":
    main()
