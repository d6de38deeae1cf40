"""What schedulers that wait for slots say to each other, in the lease folder of the host.

A scheduler writes its notice while tasks of it wait for slots that others hold: what it asks for, and when it last
started something. Like a lease, a notice is alive as long as somebody holds a lock on it, so it can't outlive its
scheduler. Whoever has the admission locks reads the notices and leaves others their turn (see `core.fairness`).

To write a notice is to close a file that was open for writing: whoever watches the folder is woken by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ..core.fairness import Ask, Rival
from .leases import is_locked, user_name

_PREFIX = "waiting."
_MOST_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Heard:
    """The notice of another scheduler. `stamp` changes with every word of it."""

    rival: Rival
    stamp: int


class Notice:
    """The notice of one scheduler. It need not be there: without it, others only don't know that somebody waits."""

    def __init__(self, folder: Path, workspace_id: str) -> None:
        self._path = folder / f"{_PREFIX}{workspace_id}"
        self._held = -1
        self._said = b""

    @property
    def name(self) -> str:
        """The name of its file."""
        return self._path.name

    def say(self, workspace: str, last_start: float, asks: tuple[Ask, ...]) -> None:
        """Say this from now on. Others are woken only if it is news."""
        words = [[list(ask.devices), ask.gpus, ask.limit, ask.count] for ask in asks]
        record: dict[str, object] = {"workspace": workspace, "last_start": last_start, "asks": words}
        if any(ask.memory for ask in asks):  # apart, so that older versions understand the rest
            record["memory"] = [ask.memory for ask in asks]
        text = json.dumps(record).encode() + b"\n"
        if text == self._said.rstrip(b" ") and self._is_there():
            return
        with contextlib.suppress(OSError):
            self._hold()
            self._write(text)

    def withdraw(self) -> None:
        """Nothing waits any more."""
        if self._held < 0:
            return
        with contextlib.suppress(OSError):
            if self._is_there():
                self._path.unlink()
        os.close(self._held)
        self._held, self._said = -1, b""

    def remove_former(self) -> None:
        """Remove what an earlier scheduler of this workspace said, which died: the next one may have nothing to say."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _is_there(self) -> bool:
        """Whether the file that is held is the one that others see; a cleaner may have deleted it."""
        with contextlib.suppress(OSError):
            return self._held >= 0 and os.path.samestat(os.fstat(self._held), self._path.lstat())
        return False

    def _hold(self) -> None:
        if self._is_there():
            return
        self.withdraw()
        self.remove_former()
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o644)
        os.fchmod(descriptor, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._held = descriptor

    def _write(self, text: bytes) -> None:
        """In one write that never makes the file shorter, so that a reader sees either the old text or the new one."""
        padded = text.ljust(len(self._said))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, padded, 0)
        finally:
            os.close(descriptor)
        self._said = padded


def listen(folder: Path, own: str) -> list[Heard]:
    """The living notices of others, in the order of their names. Called under the admission locks of the GPUs.

    Raises:
        OSError: the folder can't be read.
    """
    names = (name for name in sorted(os.listdir(folder)) if name.startswith(_PREFIX) and name != own)
    heard = [_read(folder / name) for name in names]
    return [notice for notice in heard if notice is not None]


def _read(path: Path) -> Heard | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not is_locked(descriptor):
            return None
        rival = _understand(os.pread(descriptor, _MOST_BYTES, 0), path.name.removeprefix(_PREFIX), status.st_uid)
        return Heard(rival, hash((status.st_mtime_ns, status.st_ino, rival))) if rival else None
    finally:
        os.close(descriptor)


def _understand(text: bytes, workspace_id: str, uid: int) -> Rival | None:
    """What a notice says; None if it can't be understood. Nobody loses more than a turn by that."""
    try:
        record = json.loads(text)
        words = record["asks"]
        memory = record.get("memory") or [0] * len(words)
        asks = tuple(
            Ask(tuple(map(str, devices)), max(1, int(gpus)), max(1, int(limit)), max(1, int(count)), max(0, int(need)))
            for (devices, gpus, limit, count), need in zip(words, memory, strict=True)
        )
        return Rival(workspace_id, str(record["workspace"]), user_name(uid), float(record["last_start"]), asks)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
