"""The output of a job as it grows, as server-sent events.

    event: stdout | stderr      data: what was printed, line by line      id: how far both files were read
    event: end                  data: {"status": …, "exit_code": …}

Whoever comes back with the last id (`Last-Event-ID`) gets what came since.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ..host import inotify
from .desk import Desk
from .tables import Job

_CHUNK = 64 * 1024
_NET_SECONDS = 15.0  # after so long without news a comment is sent, so that a proxy keeps the connection
_BLIND_SECONDS = 1.0  # where the kernel has no more inotify instances
_AT = re.compile(r"(\d{1,18})-(\d{1,18})")


async def follow(desk: Desk, job: Job, last_id: str | None) -> AsyncIterator[str]:
    """The events of a job, from its beginning or from where somebody was."""
    begun = _AT.fullmatch(last_id or "")
    at = {"stdout": int(begun[1]), "stderr": int(begun[2])} if begun else {"stdout": 0, "stderr": 0}
    paths = {"stdout": desk.folders.stdout(job.id), "stderr": desk.folders.stderr(job.id)}
    with _Growth(paths.values()) as growth:
        while True:
            growth.clear()
            is_over = desk.known(job.id).is_over  # before the files are read: what was printed is there by then
            for event in _events(paths, at):
                yield event
            if is_over:
                break
            ended = asyncio.ensure_future(desk.ended(job.id, growth.patience))
            grown = asyncio.ensure_future(growth.wait())
            try:
                done, _ = await asyncio.wait({ended, grown}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                grown.cancel()
            if ended in done and not ended.result().is_over:
                yield ": still there\n\n"
            if desk.closing:
                return
    final = desk.known(job.id)
    yield f"event: end\ndata: {json.dumps({'status': final.status, 'exit_code': final.exit_code})}\n\n"


def _events(paths: dict[str, Path], at: dict[str, int]) -> Iterator[str]:
    for name, path in paths.items():
        while text := _read(path, at, name):
            lines = "".join(f"data: {line}\n" for line in re.split(r"\r\n|\r|\n", text))
            yield f"event: {name}\nid: {at['stdout']}-{at['stderr']}\n{lines}\n"


def _read(path: Path, at: dict[str, int], name: str) -> str:
    """What has come since, without half a character at its end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = os.pread(descriptor, _CHUNK, at[name])
    finally:
        os.close(descriptor)
    whole = found
    for cut in range(1, 4):
        if len(found) >= cut and found[-cut] & 0xC0 == 0xC0:
            with contextlib.suppress(UnicodeDecodeError):
                found[-cut:].decode()
                break
            whole = found[:-cut] if len(found) > cut else found
            break
    at[name] += len(whole)
    return whole.decode(errors="replace")


class _Growth:
    """Hears of files that grow."""

    def __init__(self, paths: object) -> None:
        self._event = asyncio.Event()
        self._watch: inotify.Watch | None = None
        with contextlib.suppress(OSError):
            self._watch = inotify.Watch()
            for path in paths:  # type: ignore[attr-defined]
                self._watch.add(path, inotify.MODIFY)

    @property
    def patience(self) -> float:
        """How long to wait for the next news."""
        return _NET_SECONDS if self._watch is not None else _BLIND_SECONDS

    def clear(self) -> None:
        """What grows from now on is news."""
        self._event.clear()

    async def wait(self) -> None:
        """Until one of them has grown."""
        await self._event.wait()

    def _heard(self) -> None:
        assert self._watch is not None
        self._watch.clear()
        self._event.set()

    def __enter__(self) -> _Growth:
        if self._watch is not None:
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
