"""What stands before every endpoint: addresses that may not call, bodies that are too large or never end.

A request is read to its end before it is answered: a client that still sends hears the answer, and does not find its
connection closed. That costs no more than the largest body that is allowed, and no longer than `request_timeout`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config.server import ServerSettings
from .limits import address_of, is_in

_SLACK = 64 * 1024  # what multipart adds
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """An ASGI middleware. The address of the client is in the scope's state afterwards."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._most = settings.max_code_size + settings.max_config_size + _SLACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else None
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        address = address_of(peer, forwarded, self._settings.trusted_proxies)
        scope.setdefault("state", {})["address"] = address
        if self._settings.allowed_ips and not is_in(address, self._settings.allowed_ips):
            await _answer(send, 403, "Your address may not call this server")
            return
        body = _Body(receive, self._most, self._settings.request_timeout)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.drain()
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": [*given, *(item for item in _HEADERS if item[0] not in names)]}
            await send(message)

        try:
            await self._app(scope, body.receive, sending)
        except _BodyError as error:  # nothing was answered yet
            await _answer(send, error.status, error.detail)
        except ClientDisconnect:
            return  # nobody is there to be answered


class _BodyError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class _Body:
    """Passes a request's body on, as long as it is not too large and comes in time."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most = most
        self._seconds = seconds
        self._size = 0
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._is_whole = False
        self._lock = asyncio.Lock()  # an answer that streams waits for the end of the connection beside its beginning

    async def receive(self) -> Message:
        """See the ASGI specification. Raises _BodyError."""
        async with self._lock:
            if not self._is_whole:
                return await self._part()
        return await self._receive()  # that the client has gone

    async def drain(self) -> None:
        """Read what is left, and forget it. Raises _BodyError."""
        async with self._lock:
            while not self._is_whole:
                await self._part()

    async def _part(self) -> Message:
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except asyncio.TimeoutError:
            raise _BodyError(408, f"The request did not come within {self._seconds:g} seconds") from None
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise _BodyError(413, f"The request is larger than {self._most} bytes")
        self._is_whole = not message.get("more_body", False)
        return message


async def _answer(send: Send, status: int, detail: str) -> None:
    """Answer a request that is not read to its end: so the connection can't be used for another one."""
    body = json.dumps({"detail": detail}).encode()
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})
