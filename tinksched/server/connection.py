"""The connections to clients: how many there may be, and how long one may be silent.

uvicorn itself takes as many as there are descriptors, waits for the first lines of a request for ever, and as long for
a client to read its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import sys
import termios
from collections import Counter

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..config.server import ServerSettings
from .limits import address_of, is_in


def protocol_for(settings: ServerSettings, most: int) -> type[asyncio.Protocol]:
    """The protocol of a server with these settings, and with room for so many connections."""

    class Connection(_Connection):
        patience = settings.request_timeout
        crowd = Crowd(settings, most)

    return Connection


class Crowd:
    """Who is connected."""

    def __init__(self, settings: ServerSettings, most: int) -> None:
        self._settings = settings
        self._most = most
        self._all = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, peer: str) -> tuple[int, str] | None:
        """Count a connection until it leaves. Returns the answer to one that is too many."""
        address = address_of(peer, (), ())
        self._all += 1
        self._by_address[address] += 1
        if self._all > self._most:
            return 503, f"The server has its {self._most} connections"
        most, proxies = self._settings.ip_connections, self._settings.trusted_proxies
        if self._by_address[address] > most and not is_in(address, proxies):
            return 429, f"Your address has its {most} connections"
        return None

    def leave(self, peer: str) -> None:
        """It has ended."""
        address = address_of(peer, (), ())
        self._all -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class _Connection(H11Protocol):
    patience: float
    crowd: Crowd
    _timer: asyncio.TimerHandle | None = None  # until the head of a request must be there
    _reader: asyncio.TimerHandle | None = None  # until the client must have read something

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if refused := self.crowd.enter(self._peer):
            self._answer(*refused, ("retry-after", "10"))
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop()
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self.resume_writing()
        self.crowd.leave(self._peer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._await_reader(self._unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP at all is answered in the same form as everything else."""
        self._answer(400, msg)

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def _unread(self) -> int:
        """The bytes that wait for the client: here and, until its own buffer has room, in the kernel (tcp(7))."""
        queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _await_reader(self, left: int) -> None:
        self._reader = self.loop.call_later(self.patience, self._look_at_reader, left)

    def _look_at_reader(self, before: int) -> None:
        left = self._unread
        if left < before:
            self._await_reader(left)
        else:
            self.transport.abort()

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.patience, self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._answer(408, f"The request did not come within {self.patience:g} seconds")

    def _answer(self, status: int, detail: str, *more: tuple[str, str]) -> None:
        body = json.dumps({"detail": detail}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *more,
        ]
        events = (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        with contextlib.suppress(h11.LocalProtocolError):  # another answer has begun
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True  # what is still at work on a request of this client has nobody to answer
        self.transport.close()
