"""File events of the kernel, through libc: twenty lines instead of a dependency. See inotify(7)."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

MODIFY = 0x2
CLOSE_WRITE = 0x8
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800

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

    def add(self, path: Path, mask: int) -> None:
        """Watch one more path. Raises OSError: it isn't there, or the limit of watches is reached."""
        if self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._descriptor

    def clear(self) -> bool:
        """Read all events that are there. True if there was any."""
        seen = False
        while True:
            try:
                if not os.read(self._descriptor, 65536):
                    return seen
                seen = True
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                return seen

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
