"""The question that the scheduler answers at every tick, and that `status` and `explain` ask: what starts, what waits?

Both ask it here, so that an explanation can't differ from what happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..core import placement
from ..core.model import Reason
from ..core.placement import Decision
from ..core.relations import Group, waits
from .disk import low_disk
from .scene import Scene
from .turns import Turns


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
    verdict = _decide(turns.leave(verdict.decision, scene))
    times = [at for at in (verdict.wake_at, turns.wake_at) if at is not None]
    return replace(verdict, wake_at=min(times, default=None))


def _decide(scene: Scene) -> Verdict:
    settings = scene.settings
    bound = waits(scene.bound, scene.relations, scene.now)
    queue = scene.queue
    if bound.hopeless:
        queue = [task for task in queue if task.id not in bound.hopeless]
    if scene.paused is not None:
        waiting = {task.id: bound.waiting.get(task.id, scene.paused) for task in queue}
        return Verdict(Decision((), waiting, None), bound.hopeless, bound.wake_at)
    groups = [Group(limit.pattern, limit.limit) for limit in settings.running_limits]
    for name in scene.running:
        for group in groups:
            group.add(name)
    no_room = low_disk(settings) if queue else None
    decision = placement.decide(
        queue,
        scene.slots,
        scene.now,
        policy=placement.Policy(settings.placement),
        startup_delay=settings.startup_delay,
        terms=scene.terms,
        cpu=scene.cpu,
        need_of=scene.need_of,
        waiting=bound.waiting if no_room is None else dict.fromkeys((task.id for task in queue), no_room),
        groups=groups,
        demands=scene.demands,
    )
    times = [at for at in (decision.wake_at, bound.wake_at) if at is not None]
    return Verdict(decision, bound.hopeless, min(times, default=None))
