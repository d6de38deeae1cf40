"""The question that the scheduler answers at every tick, and that `status` and `explain` ask: what starts, what waits?

Both ask it here, so that an explanation can't differ from what happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..config import Settings
from ..core import placement
from ..core.model import GpuSlots, Reason, Task
from ..core.placement import Decision
from ..core.relations import Fate, Group, waits
from ..host.leases import Held
from .disk import low_disk
from .turns import Turns


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


def decide_among_others(
    turns: Turns,
    held: Sequence[Held],
    last_start: float,
    settings: Settings,
    queue: Sequence[Task],
    slots: Sequence[GpuSlots],
    running: Iterable[str],
    fates: Mapping[str, Fate],
    now: float,
) -> Verdict:
    """The same, with what is left to the other schedulers of this host while they wait.

    `held` are the leases on these GPUs, `last_start` is when this workspace last started a run.
    """
    names = list(running)
    verdict = decide(settings, queue, slots, names, fates, now)
    if not turns.listen():
        return verdict
    left = turns.leave(verdict.decision, queue, slots, held, last_start, now)
    verdict = decide(settings, queue, left, names, fates, now)
    times = [at for at in (verdict.wake_at, turns.wake_at) if at is not None]
    return replace(verdict, wake_at=min(times, default=None))
