"""What the kernel says about a lack of memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def oom_kills() -> int | None:
    """How many processes the kernel has killed since boot because memory ran out, on the host or in a cgroup.

    None where the kernel does not tell (before Linux 4.13, or in some containers). See proc(5), /proc/vmstat.
    """
    with contextlib.suppress(OSError, ValueError):
        _, found, rest = VMSTAT.read_bytes().partition(b"\noom_kill ")
        return int(rest.split(maxsplit=1)[0]) if found else None
    return None
