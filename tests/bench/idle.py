"""What a scheduler costs while nothing happens: four long tasks run, a hundred wait."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from types import MappingProxyType

from .place import Corner, Place
from .proc import cpu_seconds, memory, wakes
from .results import Results, say
from .systems import System, Tinksched

SETTLING = 5.0  # seconds


class TinkschedUnhurried(Tinksched):
    """This one without its safety net: what is left does not come from the sampling."""

    name = "tinksched, check_interval: 1h"
    settings = MappingProxyType({"check_interval": "1h"})


def idle(place: Place, results: Results, systems: Sequence[System], waiting: int, slots: int, seconds: float) -> None:
    """All of them at once in the same minute: who is idle disturbs nobody."""
    with contextlib.ExitStack() as stack:
        there: list[tuple[System, Corner, int]] = []
        for system in systems:
            say(f"idle: filling {system.name}")
            with system.spared(results, "idle"):
                corner = stack.enter_context(place.corner(system.name.split(",")[0]))
                queue = stack.enter_context(system.queue(corner, waiting, slots))
                for command in queue.enqueue:
                    corner.call(*command, extra=queue.extra)
                there.append((system, corner, system.service(corner)))
        say(f"idle: {seconds:g} s")
        time.sleep(SETTLING)
        before = [(time.monotonic(), cpu_seconds(pid), wakes(pid)) for _, _, pid in there]
        time.sleep(seconds)
        for (system, corner, pid), (then, cpu, woken) in zip(there, before, strict=True):
            span = time.monotonic() - then
            resident, proportional = memory(pid)
            results.add("idle cpu", system.name, [(cpu_seconds(pid) - cpu) / span])
            results.add("idle wakes", system.name, [(wakes(pid) - woken) / span])
            results.add("idle rss", system.name, [resident])
            results.add("idle pss", system.name, [proportional])
            results.add("idle all", system.name, [_all(corner)])


def _all(corner: Corner) -> float:
    """Proportional bytes of everything that the system keeps, the tasks themselves left out."""
    total = 0
    for pid, line in corner.processes().items():
        if not corner.place.is_task(line):
            with contextlib.suppress(OSError):
                total += memory(pid)[1]
    return total
