"""Waking each other up: a Unix datagram socket in the state folder. A datagram carries no data that matters; whoever
gets one looks at the store, which is the truth. See unix(7).

A socket's path may have 107 bytes only, and a workspace may lie deep in a tree: paths go through `/proc/self/fd/N` of
the open folder, which is always short.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..errors import WorkspaceError

_NOBODY = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR, errno.EPROTOTYPE, errno.ENOTSOCK)
_NO_SOCKETS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # sshfs, some CIFS servers
WAKE = "wake"
LISTENERS = "listeners"
TOKENS = b"tokens"  # the message that credentials have ended


class Receiver:
    """A bound datagram socket. `fileno()` becomes readable when somebody sent a datagram."""

    def __init__(self, folder: Path, name: str) -> None:
        """Bind `folder/name`, taking the place of one that a crash left behind.

        Raises:
            OSError: the folder isn't there or can't be written.
            WorkspaceError: its file system knows no sockets.
        """
        self.path = folder / name
        with contextlib.ExitStack() as stack:
            short = stack.enter_context(_short(folder))
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
            made = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
            try:
                made.bind(f"{short}/{name}")
            except OSError as error:
                if error.errno not in _NO_SOCKETS:
                    raise
                raise WorkspaceError(
                    f"{folder}: this file system holds no sockets", hint="set state_dir to a folder on a local disk"
                ) from None
            self.path.chmod(0o600)
            self._inode = self.path.stat().st_ino
            made.setblocking(False)
            self._socket = made.dup()
            os.set_inheritable(self._socket.fileno(), False)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def clear(self) -> list[bytes]:
        """Take all datagrams that are there. Clear first and look afterwards, never the other way round."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(65536))
        return messages

    def close(self) -> None:
        """Unbind, and remove the name unless somebody else has taken it by now."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        self._socket.close()


def send(folder: Path, name: str, message: bytes = b"") -> bool:
    """Send a datagram to `folder/name`. False if nobody listens there."""
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    try:
        with _short(folder) as short, socket.socket(socket.AF_UNIX, kind) as sender:
            sender.setblocking(False)
            sender.sendto(message, f"{short}/{name}")
    except OSError as error:
        # A full queue wakes its owner anyway; a lack of descriptors here says nothing about the other side.
        return error.errno not in _NOBODY
    return True


def listen(state: Path) -> Receiver:
    """A socket that hears of every change that the scheduler commits. Close it when you are done."""
    folder = state / LISTENERS
    folder.mkdir(mode=0o700, exist_ok=True)
    return Receiver(folder, f"{os.getpid()}-{os.urandom(4).hex()}")


def announce(state: Path, message: bytes = b"") -> None:
    """Tell every listener that the store has changed; those that are gone are forgotten."""
    folder = state / LISTENERS
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if not send(folder, name, message):
            with contextlib.suppress(OSError):
                (folder / name).unlink()


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
