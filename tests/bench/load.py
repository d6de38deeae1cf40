"""Clients of a server, many at once, in a process of their own: an order as JSON on standard input, times as JSON on
standard output.

Requests are due at a fixed rate whether earlier ones were answered or not, and are timed from when they were due: a
server that stands still for a second is late for all that were due in that second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

BOUNDARY = "tinksched-bench"


def get(path: str, token: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def submission(code: str, name: str, token: str, *, wait: bool) -> bytes:
    """A request that submits a job."""
    config = f"competition_id: {name}\nproject_id: bench\nuser_id: bench\nexpected_time: 60\n"
    parts = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{field}"\r\n'
        f"Content-Type: text/plain\r\n\r\n{text}\r\n"
        for field, text in (("code", code), ("config_file", config))
    )
    body = f"{parts}--{BOUNDARY}--\r\n"
    head = f"POST /api/submit?wait={str(wait).lower()} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class Connection:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        lengths = [int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")]
        body = await self._reader.readexactly(lengths[0]) if lengths else await _chunks(self._reader)
        return int(head.split(" ", 2)[1]), body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body that comes in pieces (RFC 9112, 7.1)."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def paced(order: dict[str, Any]) -> dict[str, Any]:
    """Requests at a rate, over a few connections."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(order["connections"]):
        free.put_nowait(Connection(order["port"]))
    seconds: list[float] = []
    statuses: list[int] = []

    async def one(request: bytes, due: float) -> None:
        connection = await free.get()
        status, _ = await connection.ask(request)
        free.put_nowait(connection)
        seconds.append(time.monotonic() - due)
        statuses.append(status)

    begun = time.monotonic() + 0.1
    tasks = []
    for number, request in enumerate(_requests(order)):
        due = begun + number / order["rate"]
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(request, due)))
    await asyncio.gather(*tasks)
    return {"seconds": seconds, "bad": sum(status != 200 for status in statuses), "took": time.monotonic() - begun}


async def waiting(order: dict[str, Any]) -> dict[str, Any]:
    """Clients that all wait for their jobs at once. Says so on standard error when all have asked."""

    async def one(request: bytes) -> tuple[int, str]:
        status, body = await Connection(order["port"]).ask(request)
        return status, json.loads(body).get("status", "")

    answers = await asyncio.gather(*(one(request) for request in _requests(order)))
    return {"completed": answers.count((200, "completed")), "others": [one for one in answers if one[1] != "completed"]}


def _requests(order: dict[str, Any]) -> list[bytes]:
    token, count = order["token"], order["count"]
    if order["what"] == "status":
        return [get(f"/api/status/{order['jobs'][number % len(order['jobs'])]}", token) for number in range(count)]
    return [submission(order["code"], f"n{number}", token, wait=order["what"] == "wait") for number in range(count)]


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps(asyncio.run(waiting(given) if given["what"] == "wait" else paced(given))))
