"""Connections that cost: too many of them, and clients that ask and do not read."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving import Serving, form, until
from tests.support import TIMEOUT
from tinksched.config.server import load_server
from tinksched.server.main import _listen

DESCRIPTORS = "import resource\nprint(list(resource.getrlimit(resource.RLIMIT_NOFILE)))\n"
LARGE = "import sys\nfor stream in (sys.stdout, sys.stderr): stream.write('é' * 3_000_000)\n"


@contextlib.contextmanager
def connections(server: Serving, count: int, **options: int) -> Iterator[list[socket.socket]]:
    """So many of them, which say nothing."""
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in made:
            one.settimeout(TIMEOUT)
            for name, value in options.items():
                one.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            one.connect((host, int(port)))
        yield made


def ask(one: socket.socket, path: str, token: str = "") -> None:
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())


def told(one: socket.socket) -> str:
    """What comes until the server closes the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := one.recv(65536):
            found += part
    return found.decode(errors="replace")


def sockets(server: Serving) -> int:
    """How many the server has."""
    assert server.process is not None
    links = Path(f"/proc/{server.process.pid}/fd").iterdir()
    found = 0
    for link in links:
        with contextlib.suppress(OSError):
            found += link.readlink().name.startswith("socket:")
    return found


def test_no_answer_waits_for_the_clients_acknowledgement() -> None:
    """asyncio turns Nagle's algorithm off for sockets of which it knows that they are TCP's."""
    settings = load_server(None)
    object.__setattr__(settings, "port", 0)
    with _listen(settings, "port") as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_an_address_has_only_so_many_connections(serving: Callable[..., Serving]) -> None:
    server = serving(ip_connections=5).start()
    with connections(server, 5):
        with connections(server, 1) as (more,):
            answer = told(more)
        assert answer.startswith("HTTP/1.1 429 ") and '"Your address has its 5 connections"' in answer
        assert "\r\nretry-after: 10\r\n" in answer
    with server.client() as client:
        assert until(lambda: client.get("/health"), lambda answer: answer.status_code == 200)


def test_a_proxy_has_as_many_as_it_needs(serving: Callable[..., Serving]) -> None:
    server = serving(ip_connections=2, trusted_proxies=["127.0.0.1"]).start()
    with connections(server, 10) as made:
        for one in made:
            ask(one, "/health")
            assert one.recv(100).startswith(b"HTTP/1.1 200 ")


def test_more_connections_than_descriptors_are_refused_and_jobs_go_on(serving: Callable[..., Serving]) -> None:
    server = serving()
    server.before = ("prlimit", "--nofile=100:400")
    server.start()
    token = server.token("alice")
    with server.client(token) as client, connections(server, 199):
        client.get("/health")  # the last one that there is room for
        with connections(server, 300) as more:
            said = [told(one) for one in more]
        assert {answer[:12] for answer in said} <= {"HTTP/1.1 503", ""} and any(said)
        job = client.post("/api/submit", files=form(DESCRIPTORS)).json()
        assert (job["status"], job["stdout"]) == ("completed", "[100, 400]\n"), "jobs have what the server had"
    assert "Traceback" not in server.log() and len(server.log().splitlines()) == 3


def test_who_asks_and_does_not_read_is_let_go_and_costs_little(serving: Callable[..., Serving]) -> None:
    server = serving(request_timeout=1).start()
    token = server.token("alice")
    job = server.submit(token, LARGE).json()["job_id"]
    before = sockets(server)
    with connections(server, 30, SO_RCVBUF=4096) as made:
        until(lambda: sockets(server), lambda now: now >= before + 30)
        for one in made:
            ask(one, f"/api/results/{job}", token)
        until(lambda: sockets(server), lambda now: now <= before)
        assert all(len(told(one)) < 6_000_000 for one in made[:3])
    assert peak(server) < 250, "thirty times twelve megabytes are not held"


def peak(server: Serving) -> float:
    """The most memory that it has had, in MB."""
    assert server.process is not None
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


@pytest.mark.parametrize("what", ["results", "logs"])
def test_who_reads_slowly_gets_everything(serving: Callable[..., Serving], what: str) -> None:
    server = serving(request_timeout=2).start()
    token = server.token("alice")
    job = server.submit(token, LARGE).json()["job_id"]
    with connections(server, 1, SO_RCVBUF=65536) as (one,):
        ask(one, f"/api/{what}/{job}", token)
        found = bytearray()
        for _ in range(5):
            found += one.recv(100_000, socket.MSG_WAITALL)
            time.sleep(0.5)  # it is slow, and reads
        while not found.endswith(b"0\r\n\r\n"):
            found += (part := one.recv(100_000))
            assert part, "it was cut"
    assert found.decode().count("é") == 6_000_000
