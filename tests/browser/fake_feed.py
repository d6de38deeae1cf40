"""A small real HTTP server that speaks the feed with made-up data: python -m tests.browser.fake_feed [JOBS]

It serves the page's own files with the headers of the real server. A test changes its scene and sees what the page
does:

    with FakeFeed(scene(time.time())) as feed:
        feed.change(jobs=[...], counts={...})     # an event to every page that listens
        feed.print("job_1", "a line\n")           # in that job's log
        feed.stop(); feed.start()                 # the server restarts, at the same port
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import tinksched.server

from .scenes import Json, details, scene

STATIC = Path(tinksched.server.__file__).parent / "page" / "static"
KEY = "otk_" + "0123456789abcdef" * 2
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class FakeFeed:
    """The server. `keys` are those it takes; `posted` is what it was asked to do, `seen` each path."""

    def __init__(self, first: Json, keys: tuple[str, ...] = (KEY,), streams: bool = True) -> None:
        self.scene = first
        self.keys = set(keys)
        self.streams = streams  # whether events come through, or only answers to polling
        self.posted: list[tuple[str, str]] = []
        self.seen: list[str] = []
        self.logs: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.users: list[Json] = []
        self.more: Json = {}  # replaces parts of the details of every job
        self.refusal = "API key expired"
        self.session: Json = {}  # replaces parts of the session
        self.port = 0
        self._changed = threading.Condition()
        self._listeners: set[queue.SimpleQueue[str | None]] = set()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> FakeFeed:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        feed = self

        class Bound(_Handler):
            pass

        Bound.feed = feed
        self._server = _Server(("127.0.0.1", self.port), Bound)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End every connection, as the end of a server does."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()
        for connection in list(server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for listener in list(self._listeners):
            listener.put(None)
        with self._changed:
            self._changed.notify_all()

    def change(self, **parts: Any) -> None:
        """Change the scene, and tell whoever listens."""
        jobs = {job["id"]: job for job in self.scene["jobs"]}
        jobs.update({job["id"]: job for job in parts.get("jobs", [])})
        left = [job for key, job in jobs.items() if key not in parts.get("gone", [])]
        fresh = {run["run"] for run in parts.get("runs", [])}
        timeline = [run for run in self.scene["timeline"] if run["run"] not in fresh] + parts.get("runs", [])
        whole = {key: value for key, value in parts.items() if key not in ("gone", "runs")}
        self.scene = {**self.scene, **whole, "jobs": left, "timeline": timeline}
        parts = {"now": time.time(), **parts}
        self.say("change", parts)

    def say(self, event: str, data: Json) -> None:
        """An event to every page that listens."""
        for listener in list(self._listeners):
            listener.put(f"event: {event}\ndata: {json.dumps(data)}\n\n")

    def print(self, job: str, text: str, kind: str = "stdout") -> None:
        """More output of a job; `kind` "end" ends it."""
        with self._changed:
            self.logs[job].append((kind, text))
            self._changed.notify_all()

    def session_of(self, user: str | None) -> Json:
        return {
            "mode": "server", "title": self.scene["title"], "version": "0", "auth": bool(self.keys), "user": user,
            "signed_in": user is not None, "is_admin": self.scene["me"]["is_admin"],
            "may": {"cancel": True, "retry": True}, **self.session,
        }  # fmt: skip

    def events(self) -> Iterator[str]:
        listener: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._listeners.add(listener)
        try:
            yield f"event: state\ndata: {json.dumps(self.first(200))}\n\n"
            while (text := listener.get()) is not None:
                yield text
        finally:
            self._listeners.discard(listener)

    def first(self, count: int) -> Json:
        return {**self.scene, "now": time.time(), "jobs": self.scene["jobs"][:count]}

    def log(self, job: str, last: int) -> Iterator[str]:
        while self._server is not None:
            with self._changed:
                if len(self.logs[job]) <= last:
                    self._changed.wait(15)
                fresh = self.logs[job][last:]
            for kind, text in fresh:
                last += 1
                yield f"event: {kind}\nid: {last}\n" + "".join(f"data: {line}\n" for line in text.split("\n")) + "\n"
                if kind == "end":
                    return

    def job(self, id: str) -> Json | None:
        return next((job for job in self.scene["jobs"] if job["id"] == id), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep the connection: the end of a server is the end of its connections."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """See the standard library."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    feed: FakeFeed
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written one after the other

    def do_GET(self) -> None:
        self.feed.seen.append(self.path)
        path = urlsplit(self.path).path
        if path in ("/dashboard", "/web_dashboard.html"):
            self._file(STATIC / "index.html")
        elif path.startswith("/dashboard/static/"):
            self._file(STATIC / Path(path).name)
        elif path.startswith("/dashboard/api/"):
            self._api(path.removeprefix("/dashboard/api/").split("/"))
        else:
            self._json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        *_, job, verb = self.path.split("/")
        if self._user() is None:
            self._json({"detail": "Invalid API key"}, 401)
            return
        self.feed.posted.append((verb, job))
        self._json({"message": f"Job {job}: {verb} is on its way"})

    def log_message(self, *_: object) -> None:
        """Nothing is written: tests read `seen`."""

    def _user(self) -> str | None:
        key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.feed.scene["me"]["user"] if key in self.feed.keys or not self.feed.keys else None

    def _api(self, parts: list[str]) -> None:
        feed, user = self.feed, self._user()
        given = "Authorization" in self.headers
        if user is None and (given or parts != ["session"]):
            self._json({"detail": feed.refusal if given else "Authorization header required"}, 401)
        elif parts == ["session"]:
            self._json(feed.session_of(user))
        elif parts == ["state"]:
            self._json(feed.first(200))
        elif parts == ["events"] and feed.streams:
            self._stream(feed.events())
        elif parts == ["jobs"]:
            query = parse_qs(urlsplit(self.path).query)
            offset, limit = int(query["offset"][0]), int(query["limit"][0])
            self._json({"jobs": feed.scene["jobs"][offset : offset + limit], "total": len(feed.scene["jobs"])})
        elif parts == ["users"]:
            self._json({"users": feed.users})
        elif parts[0] == "jobs" and (job := feed.job(parts[1])):
            if parts[2:] == ["log"]:
                self._stream(feed.log(job["id"], int(self.headers.get("Last-Event-ID") or 0)))
            else:
                self._json({**details(job, feed.scene["timeline"]), **feed.more})
        else:
            self._json({"detail": "Job not found"}, 404)

    def _json(self, value: Any, code: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", code)

    def _file(self, path: Path) -> None:
        if path.is_file():
            self._send(path.read_bytes(), TYPES[path.suffix])
        else:
            self._json({"detail": "Not Found"}, 404)

    def _send(self, body: bytes, kind: str, code: int = 200) -> None:
        self.send_response(code)
        self._common(kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _common(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")

    def _stream(self, texts: Iterator[str]) -> None:
        self.send_response(200)
        self._common("text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for text in texts:
            self.wfile.write(text.encode())
            self.wfile.flush()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with FakeFeed(scene(time.time(), count), keys=()) as running:
        print(f"{running.url}/dashboard", flush=True)
        threading.Event().wait()
