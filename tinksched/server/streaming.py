"""The output of a job as it grows, as server-sent events.

    event: stdout | stderr      data: what was printed, line by line      id: how far both files were read
    event: end                  data: {"status": …, "exit_code": …}

Whoever comes back with the last id (`Last-Event-ID`) gets what came since. The stream ends with the token by which it
is read.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from .desk import Desk
from .tables import Job

CHUNK = 64 * 1024
_NET_SECONDS = 15.0  # after so long without news a comment is sent, so that a proxy keeps the connection
_BLIND_SECONDS = 1.0  # where the kernel has no more inotify instances
_AT = re.compile(r"(\d{1,18})-(\d{1,18})")


async def follow(desk: Desk, job: Job, last_id: str | None, may_go_on: Callable[[], bool]) -> AsyncIterator[str]:
    """The events of a job, from its beginning or from where somebody was, while the token that they are read by is
    good."""
    begun = _AT.fullmatch(last_id or "")
    at = {"stdout": int(begun[1]), "stderr": int(begun[2])} if begun else {"stdout": 0, "stderr": 0}
    paths = {"stdout": desk.folders.stdout(job.id), "stderr": desk.folders.stderr(job.id)}
    with desk.growth.of(*paths.values()) as grown:
        while True:
            if grown is not None:
                grown.clear()
            revoked = desk.revoked
            if not may_go_on():
                return
            is_over = desk.known(job.id).is_over  # before the files are read: what was printed is there by then
            for event in _events(paths, at, is_over=is_over):
                yield event
            if is_over:
                break
            if desk.closing or not desk.engine.is_alive():  # nothing would ever be heard of it
                return
            ended = asyncio.ensure_future(desk.ended(job.id, _NET_SECONDS if grown else _BLIND_SECONDS))
            both = {ended, asyncio.ensure_future(revoked.wait())}
            both |= {asyncio.ensure_future(grown.wait())} if grown else set()
            try:
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
            if ended in done and not ended.result().is_over:
                yield ": still there\n\n"
    final = desk.known(job.id)
    yield f"event: end\ndata: {json.dumps({'status': final.status, 'exit_code': final.exit_code})}\n\n"


def _events(paths: dict[str, Path], at: dict[str, int], *, is_over: bool) -> Iterator[str]:
    for name, path in paths.items():
        while text := read(path, at, name, is_over=is_over):
            yield as_event(name, f"{at['stdout']}-{at['stderr']}", text)


def as_event(name: str, at: str, text: str) -> str:
    """A piece of text as an event."""
    lines = "".join(f"data: {line}\n" for line in re.split(r"\r\n|\r|\n", text))
    return f"event: {name}\nid: {at}\n{lines}\n"


def read(path: Path, at: dict[str, int], name: str, *, is_over: bool) -> str:
    """What has come since, without half a character at its end unless the rest of it will never come."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = os.pread(descriptor, CHUNK, at[name])
    finally:
        os.close(descriptor)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(found)
    if not text and is_over:
        text = decoder.decode(b"", final=True)
    at[name] += len(found) - len(decoder.getstate()[0])
    return text
