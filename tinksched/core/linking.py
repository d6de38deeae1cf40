"""Which GPUs to take together: runs on several of them talk all the time, and that is fastest over NVLink."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from .sharing import Desk

MOST_SETS = 2000  # while there are no more, all are compared: any choice from 13 GPUs, 4 of 16


def best_set(desks: Sequence[Desk], count: int) -> Sequence[Desk]:
    """So many of these desks, which come in order of preference: those with the most links between them, of these
    those on the fewest NUMA nodes, and of these the first.
    """
    if count < 2 or len(desks) == count or not any(_is_known(desk) for desk in desks):
        return desks[:count]
    if math.comb(len(desks), count) <= MOST_SETS:
        return min(combinations(desks, count), key=_badness)  # of equal ones it keeps the first
    return min((_grown(first, desks, count) for first in desks), key=_badness)


def _grown(first: Desk, desks: Sequence[Desk], count: int) -> tuple[Desk, ...]:
    """A good set with this one, found step by step."""
    chosen: tuple[Desk, ...] = (first,)
    while len(chosen) < count:
        rest = (desk for desk in desks if desk not in chosen)
        chosen = min(((*chosen, desk) for desk in rest), key=_badness)
    return chosen


def _badness(desks: Sequence[Desk]) -> tuple[int, int]:
    linked = sum(_are_linked(one, other) for one, other in combinations(desks, 2))
    nodes = {desk.gpu.state.numa if desk.gpu.state is not None else None for desk in desks}
    return (-linked, len(nodes))


def _are_linked(one: Desk, other: Desk) -> bool:
    return other.gpu.device in _links(one) or one.gpu.device in _links(other)


def _links(desk: Desk) -> frozenset[str]:
    return desk.gpu.state.links if desk.gpu.state is not None else frozenset()


def _is_known(desk: Desk) -> bool:
    return bool(_links(desk)) or (desk.gpu.state is not None and desk.gpu.state.numa is not None)
