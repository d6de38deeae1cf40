"""The question that the scheduler answers at every tick, and that `status` and `explain` ask: what starts, what waits?

Both ask it here, so that an explanation can't differ from what happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..config import Settings
from ..core import placement
from ..core.model import GpuSlots, Reason, Task
from ..core.placement import Decision
from ..core.relations import Fate, Group, waits
from .disk import low_disk


@dataclass(frozen=True, slots=True)
class Verdict:
    """What starts now and why the rest waits; and which tasks can never start, because of what they come after."""

    decision: Decision
    hopeless: Mapping[int, Reason]
    wake_at: float | None  # when time alone may change the answer


def decide(
    settings: Settings,
    queue: Sequence[Task],
    slots: Sequence[GpuSlots],
    running: Iterable[str],
    fates: Mapping[str, Fate],
    now: float,
) -> Verdict:
    """Decide about the queue (in order of rank). `running` are the names of this workspace's tasks on the GPUs."""
    relations = waits(queue, fates, now)
    left = [task for task in queue if task.id not in relations.hopeless]
    groups = [Group(limit.pattern, limit.limit) for limit in settings.running_limits]
    for name in running:
        for group in groups:
            group.add(name)
    no_room = low_disk(settings) if left else None
    decision = placement.decide(
        left,
        slots,
        now,
        policy=placement.Policy(settings.placement),
        startup_delay=settings.startup_delay,
        waiting={task.id: no_room for task in left} if no_room is not None else relations.waiting,
        groups=groups,
    )
    times = [at for at in (decision.wake_at, relations.wake_at) if at is not None]
    return Verdict(decision, relations.hopeless, min(times, default=None))
