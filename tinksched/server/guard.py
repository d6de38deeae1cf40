"""What stands before every endpoint: addresses that may not call, bodies that are too large or never end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config.server import ServerSettings
from .limits import address_of, is_in

BODY_SECONDS = 60.0  # so long a client may take to send a request
_SLACK = 64 * 1024  # what multipart adds
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
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
        body = _Body(receive, self._most)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            await self._app(scope, body.receive, sending)
        except _BodyError as error:
            if not started:
                await _answer(send, error.status, error.detail)


class _BodyError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class _Body:
    """Passes a request's body on, as long as it is not too large and comes in time."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._size = 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._is_whole = False

    async def receive(self) -> Message:
        if self._is_whole:  # what still comes is that the client has gone
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except asyncio.TimeoutError:
            raise _BodyError(408, f"The request did not come within {BODY_SECONDS:.0f} seconds") from None
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise _BodyError(413, f"The request is larger than {self._most} bytes")
        self._is_whole = not message.get("more_body", False)
        return message


async def _answer(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})
