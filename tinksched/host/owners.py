"""Whose the processes on a GPU are: the user, the command, and the run of tinksched that each belongs to.

NVML names processes by their pids on the host. In a container that has pids of its own nobody can tell them apart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from . import processes
from .leases import user_name
from .processes import Process

COMMAND_LENGTH = 80
_FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h: the inode of the host's pid namespace
_BLANK = re.compile(r"\s+")
Owner = tuple[str | None, str | None, str]  # the user, the command and the run, as GpuProcess has them


class Owners:
    """Remembers whom it has seen: a process is looked at once, and one that has just ended is still known."""

    def __init__(self, namespace: Path = Path("/proc/self/ns/pid")) -> None:
        self._namespace = namespace
        self._seen: dict[int, tuple[Process, Owner]] = {}

    def look(self, pids: Collection[int]) -> Mapping[int, Owner] | None:
        """The owners of all processes that NVML lists now; None if its pids mean nothing here."""
        if not self._has_pids_of_host():
            return None
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in pids}
        return {pid: self._owner(pid) for pid in pids}

    def _owner(self, pid: int) -> Owner:
        now = processes.identify(pid)
        before = self._seen.get(pid)
        if before is not None and now in (None, before[0]):
            return before[1]
        if now is None:  # it has ended, or is hidden from us; with hidepid=1 its user is not
            return _user(pid), None, ""
        owner = (_user(pid), command_of(pid), processes.run_of(pid) or "")
        self._seen[pid] = (now, owner)
        return owner

    def _has_pids_of_host(self) -> bool:
        try:
            return self._namespace.stat().st_ino == _FIRST_NAMESPACE
        except OSError:
            return False


def hides_others() -> bool:
    """Whether `/proc` hides the processes of other users from us, as with the option hidepid (proc(5))."""
    return processes.identify(1) is None  # it is always there, and root's


def command_of(pid: int) -> str | None:
    """The program and its arguments: short, printable, on one line. None if it can't be read."""
    words = processes.arguments(pid)
    if not words:
        return None
    text = _BLANK.sub(" ", " ".join([os.path.basename(words[0]) or words[0], *words[1:]])).strip()
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= COMMAND_LENGTH else f"{text[: COMMAND_LENGTH - 1]}…"


def _user(pid: int) -> str | None:
    try:
        return user_name(os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return None
