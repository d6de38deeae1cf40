"""The output of a job as it grows, for the page: of a server's job two files, of a workspace's task its terminal.

event: stdout | stderr | log      data: what was printed      id: which attempt, and how far each file was read
event: end                        data: {"status": …, "exit_code": …}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from ...operations.logs import clean
from ..growth import Growth
from ..streaming import CHUNK, as_event, read
from .cards import Card
from .feed import NET_SECONDS, STILL_THERE, Check, Feed, event, farewell

MOST = 1024 * 1024  # bytes of each file that a stream begins with
_BLIND_SECONDS = 1.0  # where the kernel has no more inotify instances
_LOOK_SECONDS = 5.0  # until a file that is not there yet is looked for again


class Logs:
    """Follows files for whoever reads them."""

    def __init__(self, feed: Feed, growth: Growth) -> None:
        self._feed = feed
        self._growth = growth

    async def follow(self, card: Card, paths: Mapping[str, Path], last_id: str | None, check: Check
                     ) -> AsyncIterator[str]:  # fmt: skip
        """The events of a job's present attempt. It ends with it, with the credential, and with the server."""
        reader = _Reader(card, paths, last_id)
        there = all(path.exists() for path in paths.values())
        with self._growth.of(*paths.values()) as grown:
            net = NET_SECONDS if grown is not None else _BLIND_SECONDS if there else _LOOK_SECONDS
            while True:
                if grown is not None:
                    grown.clear()
                changed = self._feed.changed  # before looking: what comes meanwhile is not missed
                now = (await self._feed.picture()).by_id.get(card.id)
                why = check()
                if why is not None:
                    yield farewell(why)
                    return
                if now is None or now.attempt != card.attempt:  # cleaned away, or tried again: that is another log
                    return
                for text in reader.events(is_over=not now.is_active):
                    yield text
                if not now.is_active:
                    yield event("end", json.dumps({"status": now.status, "exit_code": now.exit_code}))
                    return
                if self._feed.is_ending:
                    return
                if not await _either(net, changed, *([grown] if grown is not None else [])):
                    yield STILL_THERE


class _Reader:
    """Where in the files somebody is."""

    def __init__(self, card: Card, paths: Mapping[str, Path], last_id: str | None) -> None:
        self._attempt = card.attempt
        self._paths = paths
        found = re.fullmatch(r"(\d{1,9})\.(\d{1,18}(?:-\d{1,18})*)", last_id or "")
        at = list(map(int, found[2].split("-"))) if found and int(found[1]) == card.attempt else []
        self._skipped: dict[str, int] = {}
        if len(at) == len(paths):
            self._at = dict(zip(paths, at, strict=True))
        else:
            self._at = {name: max(0, _size(path) - MOST) for name, path in paths.items()}
            self._skipped = {name: count for name, count in self._at.items() if count}

    def events(self, *, is_over: bool) -> Iterator[str]:
        """What has come since."""
        for name, count in self._skipped.items():
            yield as_event(name, self._id, f"[{count} bytes before this are left out]\n")
        self._skipped = {}
        for name, path in self._paths.items():
            look = self._lines if name == "log" else self._read
            while (text := look(name, path, is_over)) is not None:
                if text:
                    yield as_event(name, self._id, text)

    def _read(self, name: str, path: Path, is_over: bool) -> str | None:
        return read(path, self._at, name, is_over=is_over) or None

    def _lines(self, name: str, path: Path, is_over: bool) -> str | None:
        """What a terminal was sent, as whole lines: what a progress bar overwrote is gone."""
        data = _piece(path, self._at[name])
        if not is_over:
            end = data.rfind(b"\n") + 1
            data = data[:end] if end or len(data) < CHUNK else data
        self._at[name] += len(data)
        return clean(data) if data else None

    @property
    def _id(self) -> str:
        return f"{self._attempt}.{'-'.join(map(str, self._at.values()))}"


async def _either(seconds: float, *events: asyncio.Event) -> bool:
    """Wait for one of these; False if none came in time."""
    waiting = [asyncio.ensure_future(one.wait()) for one in events]
    try:
        done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for one in waiting:
            one.cancel()


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def _piece(path: Path, at: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, CHUNK, at)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
