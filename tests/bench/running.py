"""Benchmarks of tasks that run: hand-over, makespan, launch rate, and the floor beneath them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from .measure import handovers, makespan
from .place import Corner, Place
from .results import Results, say
from .systems import Batch, Ran, System

FLOOR = "bare tmux: the client's call"
FLOOR_FIRST = "bare tmux: to the task's first instruction"


def handover(place: Place, results: Results, systems: Sequence[System], batch: Batch, rounds: int) -> None:
    """A batch with each system in turn, `rounds` times, and the floor each time between them."""
    for number in range(-1, rounds):  # the first one warms up and is not counted
        wanted = batch if number >= 0 else Batch(2 * batch.slots, 0.05, batch.slots)
        with place.corner("floor") as corner:
            calls, firsts = bare_tmux(corner, 50 if number >= 0 else 5)
        if number >= 0:
            results.add("handover", FLOOR, calls)
            results.add("handover", FLOOR_FIRST, firsts)
        for system in systems:
            mine = _cut(wanted, system) if number >= 0 else wanted
            with system.spared(results, "hand-over"):
                ran = _round(place, system, mine, f"hand-over, round {number + 1} of {rounds}")
                if number >= 0:
                    _take_down(results, system, mine, ran)


def launch(place: Place, results: Results, systems: Sequence[System], batch: Batch, rounds: int) -> None:
    """How many tasks that end at once are launched in a second, from the first start to the last end."""
    for number in range(rounds):
        for system in systems:
            mine = replace(batch, count=min(batch.count, system.most_at_once or batch.count))
            with system.spared(results, "launch rate"):
                ran = _round(place, system, mine, f"launch rate on {batch.slots} slots, round {number + 1} of {rounds}")
                results.add(f"launch {batch.slots}", system.name, [mine.count / makespan(ran.spans)])


def _take_down(results: Results, system: System, batch: Batch, ran: Ran) -> None:
    last = max(end for _, end in ran.spans)
    results.add("handover", system.name, handovers(ran.spans, batch.slots))
    results.add("makespan", system.name, [makespan(ran.spans) / _ideal(batch)])
    results.add("whole", system.name, [(last - ran.begun) / _ideal(batch)])


def bare_tmux(corner: Corner, count: int) -> tuple[list[float], list[float]]:
    """Sessions one after another, nothing else: seconds of the client's call, and until the task's first instruction.

    The next call is made when the task of the last one has ended.
    """
    record = corner.record()
    corner.call("tmux", "new-session", "-d", "-s", "hold", "sleep", "3600")
    calls, firsts = [], []
    for _ in range(count):
        before = time.monotonic()
        calls.append(corner.call("tmux", "new-session", "-d", *corner.place.task, record.path, "0"))
        ((start, _end),) = record.read(1)
        firsts.append(start - before)
    return calls, firsts


def _cut(batch: Batch, system: System) -> Batch:
    """The batch as this system can do it in a bearable time."""
    return Batch(min(batch.count, system.most or batch.count), system.seconds or batch.seconds, batch.slots)


def _ideal(batch: Batch) -> float:
    """Seconds that the batch takes if a free slot is filled at once."""
    return batch.count * batch.seconds / batch.slots


def _round(place: Place, system: System, batch: Batch, what: str) -> Ran:
    say(f"{what}: {system.name}")
    with place.corner(system.name.split(",")[0]) as corner:
        return system.run(corner, batch)
