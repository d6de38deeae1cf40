"""The question that the scheduler answers at every tick, and that `status` and `explain` ask: what starts, what waits?

Both ask it here, so that an explanation can't differ from what happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Scene:
    """What a decision is about: the workspace's queue, and the GPUs with whoever is on them."""

    settings: Settings
    queue: Sequence[Task]  # in order of rank
    slots: Sequence[GpuSlots]
    running: Sequence[str]  # the names of this workspace's tasks on the GPUs
    fates: Mapping[str, Fate]
    held: Sequence[Held]  # all leases on these GPUs
    last_start: float  # when this workspace last started a run
    now: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What starts now and why the rest waits; and which tasks can never start, because of what they come after."""

    decision: Decision
    hopeless: Mapping[int, Reason]
    wake_at: float | None  # when time alone may change the answer


def decide(scene: Scene, turns: Turns) -> Verdict:
    """Decide about the queue, with what is left to the other schedulers of this host while they wait."""
    verdict = _decide(scene)
    if not turns.listen():
        return verdict
    left = turns.leave(verdict.decision, scene.queue, scene.slots, scene.held, scene.last_start, scene.now)
    verdict = _decide(replace(scene, slots=left))
    times = [at for at in (verdict.wake_at, turns.wake_at) if at is not None]
    return replace(verdict, wake_at=min(times, default=None))


def _decide(scene: Scene) -> Verdict:
    settings = scene.settings
    relations = waits(scene.queue, scene.fates, scene.now)
    left = [task for task in scene.queue if task.id not in relations.hopeless]
    groups = [Group(limit.pattern, limit.limit) for limit in settings.running_limits]
    for name in scene.running:
        for group in groups:
            group.add(name)
    no_room = low_disk(settings) if left else None
    decision = placement.decide(
        left,
        scene.slots,
        scene.now,
        policy=placement.Policy(settings.placement),
        startup_delay=settings.startup_delay,
        waiting={task.id: no_room for task in left} if no_room is not None else relations.waiting,
        groups=groups,
    )
    times = [at for at in (decision.wake_at, relations.wake_at) if at is not None]
    return Verdict(decision, relations.hopeless, min(times, default=None))
