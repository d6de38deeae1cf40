"""Which node a job that waits will get, as far as anybody can say: the one with the least work ahead.

The engine starts the next job on whichever GPU falls free, so nothing is bound to a node before it runs; this is what
comes of that if all jobs take as long as their owners expect.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Work:
    """A job, and how long it still takes: seconds, never less than 0."""

    job: str
    left: float
    nodes: tuple[int, ...] = ()  # where it runs


@dataclass(frozen=True, slots=True)
class Projection:
    """What lies ahead of each node, and the node and the place (from 0) of each job that waits."""

    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lengths: Mapping[int, int] = field(default_factory=dict)  # jobs that wait, by node
    times: Mapping[int, float] = field(default_factory=dict)  # seconds of all jobs, by node


def project(nodes: Sequence[int], running: Iterable[Work], waiting: Iterable[Work]) -> Projection:
    """Give the jobs that wait, in their order, to the node with the least work ahead; of equals the lowest number."""
    ahead = dict.fromkeys(nodes, 0.0)
    for work in running:
        for node in work.nodes:
            if node in ahead:
                ahead[node] += max(0.0, work.left)
    if not ahead:
        return Projection()
    heap = [(seconds, node) for node, seconds in ahead.items()]
    heapq.heapify(heap)
    places, lengths = {}, dict.fromkeys(nodes, 0)
    for place, work in enumerate(waiting):
        seconds, node = heap[0]
        places[work.job] = (node, place)
        lengths[node] += 1
        ahead[node] = seconds + max(0.0, work.left)
        heapq.heapreplace(heap, (ahead[node], node))
    return Projection(places, lengths, ahead)
