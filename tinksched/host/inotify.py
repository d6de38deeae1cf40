"""File events of the kernel, through libc: twenty lines instead of a dependency. See inotify(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

MODIFY = 0x2
ATTRIB = 0x4  # also the number of names, which deleting changes
CLOSE_WRITE = 0x8
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800

_EVENT = struct.Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of the name that follows
_NONBLOCK = os.O_NONBLOCK
_CLOEXEC = os.O_CLOEXEC


class Watch:
    """Watches files or folders. `fileno()` becomes readable when one of the wanted events happened."""

    def __init__(self) -> None:
        """Raises OSError: the kernel's limit of inotify instances is reached."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = int(self._libc.inotify_init1(_NONBLOCK | _CLOEXEC))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def add(self, path: Path, mask: int) -> int:
        """Watch one more path; a path that is watched already stays so. Returns its number, by which events name it.

        Raises:
            OSError: it isn't there, or the limit of watches is reached.
        """
        number = int(self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask)))
        if number < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
        return number

    def remove(self, number: int) -> None:
        """Watch this one no more, if it is still watched."""
        self._libc.inotify_rm_watch(self._descriptor, number)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._descriptor

    def clear(self) -> set[str]:
        """Read all events that are there. Returns the names of the files in watched folders that they are about."""
        return {name for _, name in self.events()}

    def events(self) -> Iterator[tuple[int, str]]:
        """Read all events that are there: of which number, and about which file in a watched folder."""
        while True:
            try:
                events = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return
            at = 0
            while at < len(events):
                number, *_, length = _EVENT.unpack_from(events, at)
                at += _EVENT.size
                yield number, os.fsdecode(events[at : at + length].rstrip(b"\0"))
                at += length

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
