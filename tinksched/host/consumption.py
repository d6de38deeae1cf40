"""What processes have used: processor time and memory, from proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from . import processes
from .processes import Process

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Consumption:
    """Of several processes together."""

    cpu_seconds: float
    """Since each began, in user and system mode, those of children that it has waited for included."""
    memory: int
    """Bytes, resident. What several processes share is counted for each of them, as `top` does."""


def consumption(found: Iterable[Process]) -> Consumption | None:
    """What these processes use; None if none of them lives any more."""
    rows = [row for process in found if (row := processes.usage(process)) is not None]
    if not rows:
        return None
    ticks, pages = (sum(column) for column in zip(*rows, strict=True))
    return Consumption(ticks / _TICKS, pages * _PAGE)
