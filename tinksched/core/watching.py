"""What is odd about a run, as its GPUs, its processes and its log show it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from . import instants
from .gpu import GpuState
from .model import Run

IDLE_UTILIZATION = 5  # percent; a GPU that shows no more is idle
IDLE_CPU = 0.02  # of a core; what a program uses that only waits
_SINCE = "%Y-%m-%d %H:%M:%S"
_STALLED = re.compile(r"stalled since ([0-9-]+ [0-9:]+[0-9])")
SETTLING = 60.0  # seconds from a run's start until it is expected to use its GPU


@dataclass(frozen=True, slots=True)
class Sight:
    """A run on the GPUs of its machine, at one moment."""

    memory: tuple[int, ...] | None  # bytes, on each of its GPUs; None where that can't be told, or it is on none
    utilization: float | None  # percent, mean over its GPUs
    untouched: tuple[int, ...]  # its own GPUs, by index, on which it is surely not
    elsewhere: tuple[int, ...]  # GPUs, by index, on which it is and which it was not given
    lost: tuple[int, ...] = ()  # its own GPUs, by index, that have fallen off the bus


class Listing:
    """The GPUs at one moment, and what each run holds on them: sorted once, asked about every run."""

    def __init__(self, states: Mapping[str, GpuState]) -> None:
        self._states = states
        self._held: dict[str, dict[str, int | None]] = {}  # by run and device; None if it can't be told
        for device, state in states.items():
            for process in state.processes or ():
                held = self._held.setdefault(process.run, {})
                before = held.get(device, 0)
                held[device] = None if before is None or process.memory is None else before + process.memory

    def sight_of(self, run: Run) -> Sight:
        """Where the run is seen. Processes and memory that can't be told are unknown, never 0."""
        on = self._held.get(run.id, {})
        own = [self._states[device] for device in run.devices if device in self._states]
        held = [None if one.processes is None else on.get(one.device, 0) for one in own]
        is_here = any(one.device in on for one in own)
        rates = [one.utilization for one in own if one.utilization is not None]
        return Sight(
            memory=tuple(size for size in held if size is not None) if is_here and None not in held else None,
            utilization=sum(rates) / len(rates) if rates and len(rates) == len(run.devices) else None,
            untouched=tuple(one.index for one in own if one.processes is not None and one.device not in on),
            elsewhere=tuple(self._states[device].index for device in on if device not in run.devices),
            lost=tuple(one.index for one in own if one.lost),
        )


def flags_of(run: Run, sight: Sight, now: float, quiet_since: float | None, stall_after: float | None) -> list[str]:
    """What a person should know, as sentences without a full stop; they stay the same while nothing changes.

    `quiet_since` is since when it has done nothing that can be seen; None while it does.
    """
    flags = []
    if sight.lost:
        flags.append(f"{_gpus(sight.lost)}, which it was given, {'are' if len(sight.lost) > 1 else 'is'} lost")
    if sight.elsewhere:
        flags.append(f"it is on {_gpus(sight.elsewhere)}, which it was not given")
    if run.gpus and sight.untouched and now - run.created_at >= SETTLING:
        some = len(sight.untouched) < len(run.gpus)
        flags.append(f"it does not use {_gpus(sight.untouched)}" + (", which it was given" if some else ""))
    if stall_after is not None and quiet_since is not None and now - quiet_since >= stall_after:
        since = datetime.fromtimestamp(quiet_since).strftime(_SINCE)
        flags.append(f"stalled since {since}: no output, and {'its GPU' if run.gpus else 'it'} is idle")
    return flags


def said(flag: str, now: float) -> str:
    """A flag as a person says it now: a time is how long ago it is."""
    if (found := _STALLED.match(flag)) is None:
        return flag
    try:
        since = datetime.strptime(found[1], _SINCE).timestamp()
    except ValueError:  # an older version's, without the year
        return flag
    return f"stalled for {instants.span(now - since)}{flag[found.end() :]}"


def is_idle(sight: Sight, cpu: float | None) -> bool:
    """Whether the run does nothing: its GPUs say so, or where they don't tell, its share of a core (`cpu`) does."""
    if sight.utilization is not None:
        return sight.utilization <= IDLE_UTILIZATION
    return cpu is not None and cpu <= IDLE_CPU


def is_stalled(flags: Iterable[str]) -> bool:
    """Whether one of these says that the run is stalled."""
    return any(flag.startswith("stalled ") for flag in flags)


def _gpus(indices: Sequence[int]) -> str:
    return f"GPU{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
