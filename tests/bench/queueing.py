"""Benchmarks of tasks that wait: how long it takes to queue them, and to list them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from .place import Corner, Place
from .results import Results, say
from .systems import Queue, System

LISTINGS = 5  # of each queue, in alternation


def queueing(place: Place, results: Results, systems: Sequence[System], count: int, slots: int, rounds: int) -> None:
    """With all slots taken, queue `count` tasks with each system in turn; then list all the queues in alternation."""
    for number in range(rounds):
        with contextlib.ExitStack() as stack:
            filled: list[tuple[str, Corner, Queue]] = []
            for system in systems:
                mine = min(count, system.queues_at_most or count)
                if mine < count / 2:
                    results.note(f"{system.name} can't hold {count:,} waiting tasks; its most is about {mine:,}.")
                    continue
                fewer = f", {mine:,} tasks" if mine < count else ""
                say(f"queueing {count:,}, round {number + 1} of {rounds}: {system.name}")
                with system.spared(results, f"queueing {count:,}"):
                    corner = stack.enter_context(place.corner(system.name))
                    queue = stack.enter_context(system.queue(corner, mine, slots))
                    results.add(f"enqueue {count}", f"{system.name}{fewer}", [_fill(corner, queue)])
                    filled.append((fewer, corner, queue))
            say(f"listing {count:,}, round {number + 1} of {rounds}")
            for name, samples in _list(filled).items():
                results.add(f"status {count}", name, samples)


def _fill(corner: Corner, queue: Queue) -> float:
    before = time.monotonic()
    for command in queue.enqueue:
        corner.call(*command, extra=queue.extra)
    return time.monotonic() - before


def _list(filled: Sequence[tuple[str, Corner, Queue]]) -> dict[str, list[float]]:
    """Seconds of each listing command, by its name; the first one of each warms up."""
    samples: dict[str, list[float]] = {}
    for number in range(LISTINGS + 1):
        for fewer, corner, queue in filled:
            for name, command in queue.lists.items():
                seconds = corner.call(*command, extra=queue.extra)
                if number:
                    samples.setdefault(f"{name}{fewer}", []).append(seconds)
    return samples
