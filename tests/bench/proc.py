"""What the kernel says of a process: processor time, wake-ups, memory (proc(5))."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_USER_TIME = 11  # the place of `utime` after the command's name in /proc/PID/stat; stime, cutime and cstime follow


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[_USER_TIME : _USER_TIME + 4]) * _TICK


def wakes(pid: int) -> int:
    """Voluntary context switches of all its threads: how often one of them had waited and went on."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += _number((thread / "status").read_text(), "voluntary_ctxt_switches")
    return total


def memory(pid: int) -> tuple[int, int]:
    """Bytes: the resident set, and the proportional one, in which shared pages count by their share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return _number(text, "Rss") * 1024, _number(text, "Pss") * 1024


def _number(text: str, name: str) -> int:
    found = re.search(rf"(?m)^{name}:\s+(\d+)", text)
    return int(found[1]) if found else 0
