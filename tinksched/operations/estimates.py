"""When things will probably start and end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..config import Settings
from ..core.estimate import Forecast, Plan, Typical, forecast
from ..core.model import GpuSlots, Run, Task


def of(
    settings: Settings,
    durations: Sequence[tuple[str, float]],
    queue: Sequence[Task] | None,
    running: Sequence[Run],
    slots: Sequence[GpuSlots],
    now: float,
) -> Forecast:
    """What is to be expected, by runs that have completed (`Store.durations`). Without any nothing is known.

    `queue` is None while nothing starts: no scheduler runs, or all is paused.
    """
    if not durations:
        return Forecast()
    limits = [(limit.pattern, limit.limit) for limit in settings.running_limits]
    typical = Typical(durations, [rule.pattern for rule in settings.tasks])
    found = forecast(Plan(queue or (), running, slots, limits), typical, now)
    return replace(found, batch_ends=None) if queue is None else found
