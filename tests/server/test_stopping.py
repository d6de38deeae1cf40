"""The end of the server, and the end of jobs by `cancel`: nobody waits for nothing, and nothing is half done."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving import QUICK, Serving, form, until
from tests.support import TIMEOUT

CANCELS = int(os.environ.get("TINKSCHED_SERVER_CANCELS") or 20)
SEED = os.environ.get("TINKSCHED_SEED") or str(random.randrange(10**6))


def gated(gate: Path) -> str:
    return f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)\nprint('through')\n"


def test_a_server_that_stops_answers_those_who_wait_and_takes_no_more(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    server = serving().start()
    token = server.token("alice")
    answers: list[dict[str, Any]] = []
    clients = [
        threading.Thread(target=lambda: answers.append(server.submit(token, gated(tmp_path / "gate")).json()))
        for _ in range(2)
    ]
    for client in clients:
        client.start()
    with server.client(token) as client:
        until(lambda: client.get("/api/jobs").json(), lambda jobs: [job["status"] for job in jobs].count("running"))
    late = Slow(server, token)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    for thread in clients:
        thread.join(TIMEOUT)
    assert sorted(answer["status"] for answer in answers) == ["pending", "running"]
    assert all(answer["stdout"] is None and answer["job_id"] for answer in answers)
    head = late.finish()
    assert head.startswith("HTTP/1.1 503") and "\r\nretry-after: " in head.lower()
    assert server.stop() == 0
    (tmp_path / "gate").touch()
    server.start()
    for answer in answers:
        assert server.wait_for(token, answer["job_id"], "completed")["exit_code"] == 0
        assert server.job(token, answer["job_id"], "results")["stdout"] == "through\n"
    with server.client(token) as client:
        assert len(client.get("/api/jobs").json()) == 2, "the one that came late left nothing behind"


class Slow:
    """A client that has sent half of a submission."""

    def __init__(self, server: Serving, token: str) -> None:
        import httpx

        request = httpx.Request("POST", f"{server.url}/api/submit", files=form(QUICK))
        body = request.read()
        host, port = server.url.removeprefix("http://").split(":")
        head = f"POST /api/submit HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: {request.headers['content-type']}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._socket = socket.create_connection((host, int(port)), TIMEOUT)
        self._socket.sendall(head.encode() + body[:-10])
        self._rest = body[-10:]

    def finish(self) -> str:
        """Send the rest. Returns what the server answers."""
        self._socket.sendall(self._rest)
        answer = b""
        while part := self._socket.recv(65536):
            answer += part
        self._socket.close()
        return answer.decode()


@pytest.mark.timeout(120 + 5 * CANCELS)
def test_a_cancel_wins_or_is_refused_at_any_instant(serving: Callable[..., Serving]) -> None:
    print(f"TINKSCHED_SEED={SEED} TINKSCHED_SERVER_CANCELS={CANCELS}")
    chance = random.Random(SEED)
    server = serving(cpu_slots=2).start()
    token = server.token("alice")
    told: dict[str, int] = {}
    with server.client(token) as client:
        for _ in range(CANCELS):
            code = f"import time\ntime.sleep({chance.random() * 0.1})\n"
            job = client.post("/api/submit", params={"wait": "false"}, files=form(code)).json()["job_id"]
            time.sleep(chance.random() * 0.3)  # the instant is what is random
            told[job] = client.post(f"/api/cancel/{job}").status_code
            assert server.job(token, job)["completed_at"], "whatever the answer was, it has ended by then"
    for job, answer in told.items():
        status = server.job(token, job)["status"]
        assert (answer, status) in ((200, "cancelled"), (400, "completed")), f"TINKSCHED_SEED={SEED}"


def test_a_cancel_that_a_job_ignores_ends_it_all_the_same(server: Serving) -> None:
    token = server.token("alice")
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(600)\n"
    job = server.submit(token, code, wait=False).json()["job_id"]
    until(lambda: (server.state / "output" / job / "stdout").read_text(), lambda text: text)
    with server.client(token) as client:
        assert client.post(f"/api/cancel/{job}").status_code == 200
    assert server.job(token, job)["status"] == "cancelled"
