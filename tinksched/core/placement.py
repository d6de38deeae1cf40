"""Which queued task starts now, on which GPUs; and for every other one, why it does not.

`decide` walks the queue once, in order, over a picture of the GPUs. `place` takes its placements and `explain` its
reasons, so an explanation can't differ from what happens. Everything is deterministic in its arguments.

The rules, in the words of the design: priority, then queue number. A task that can't start is passed by, except that
one which needs several slots at once (several GPUs, or a GPU for itself alone) holds the GPUs that it waits for:
otherwise a stream of small tasks would starve it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .model import GpuSlots, Placement, Reason, ReasonCode, Task
from .relations import Group

_NOBODY: Mapping[int, Reason] = {}


class Policy(str, enum.Enum):
    """How a GPU is chosen among those that have a free slot."""

    SPREAD = "spread"  # the least loaded first
    PACK = "pack"  # the most loaded first, so that whole GPUs stay free


@dataclass(frozen=True, slots=True)
class Decision:
    """What starts now, in order; and for each other task that was looked at, why it waits."""

    placements: tuple[Placement, ...]
    waiting: Mapping[int, Reason]
    wake_at: float | None  # the earliest time at which a startup_delay ends; None if none matters
    looked_at: int = 0  # how many tasks from the head of the queue


@dataclass(slots=True)
class _Desk:
    """One GPU while the queue is walked: what is taken, what is held, and for whom."""

    gpu: GpuSlots
    order: int
    started: list[Task] = field(default_factory=list)  # placed in this walk
    held: int = 0
    held_for: str = ""
    wanted: int = 0  # by tasks that found no room

    @property
    def used(self) -> int:
        return self.gpu.used + len(self.started)

    @property
    def allowed(self) -> int:
        return 1 if any(task.spec.exclusive for task in self.started) else self.gpu.allowed

    def has_slot(self, task: Task) -> bool:
        """Room for one more that leaves everybody's limit respected, held slots aside."""
        return self.used == 0 if task.spec.exclusive else self.used < self.allowed

    @property
    def left_to_others(self) -> int:
        return self.gpu.reserved.count if self.gpu.reserved else 0

    def has_slot_unheld(self, task: Task) -> bool:
        kept = self.held + self.left_to_others
        if task.spec.exclusive:
            return self.used == 0 and not kept
        return self.used + kept < self.allowed

    def is_settled(self, delay: float, now: float) -> bool:
        """Nothing more of the queue can start here now, and as many tasks wait for it as could ever start at once."""
        if self.wanted < self.gpu.slots:
            return False
        return self.used + self.held + self.left_to_others >= self.allowed or self.ready_at(delay, now) is not None

    def ready_at(self, delay: float, now: float) -> float | None:
        """When the startup delay ends, or None if it has."""
        if delay <= 0:
            return None
        last = now if self.started else self.gpu.last_start
        return None if last is None or last + delay <= now or last > now + delay else last + delay


def place(
    queue: Sequence[Task], gpus: Sequence[GpuSlots], now: float, *, policy: Policy, startup_delay: float = 0
) -> tuple[Placement, ...]:
    """The tasks that start now. `queue` is in order of rank; `gpus` in order of preference."""
    return decide(queue, gpus, now, policy=policy, startup_delay=startup_delay).placements


def explain(
    task: Task, queue: Sequence[Task], gpus: Sequence[GpuSlots], now: float, *, policy: Policy, startup_delay: float = 0
) -> Reason:
    """Why `task`, which is in `queue`, does not run yet."""
    decision = decide(queue, gpus, now, policy=policy, startup_delay=startup_delay)
    return decision.waiting.get(task.id, Reason(ReasonCode.STARTS_NEXT))


def decide(
    queue: Iterable[Task],
    gpus: Sequence[GpuSlots],
    now: float,
    *,
    policy: Policy,
    startup_delay: float = 0,
    waiting: Mapping[int, Reason] = _NOBODY,
    groups: Sequence[Group] = (),
    brief: bool = False,
) -> Decision:
    """Walk the queue once. Times are seconds since the epoch, `startup_delay` is in seconds.

    `waiting` are tasks that may not start yet whatever the GPUs say, and why; `groups` the limits on how many tasks of
    a kind run at once, with those that run already counted. Neither kind of waiting holds a GPU. A `brief` walk ends
    where it can't find anything more to start, so that a long queue costs no more than a short one.
    """
    desks = [_Desk(gpu, order) for order, gpu in enumerate(gpus)]
    placements: list[Placement] = []
    why: dict[int, Reason] = {}
    wake_at: float | None = None
    looked_at = 0
    for task in queue:
        if brief and all(desk.is_settled(startup_delay, now) for desk in desks):
            break
        looked_at += 1
        full = next((group.full for group in groups if not group.has_room(task)), None)
        if task.id in waiting or full is not None:
            why[task.id] = waiting.get(task.id) or full or Reason(ReasonCode.STARTS_NEXT)
            continue
        candidates = _candidates(task, desks)
        if candidates is None:
            why[task.id] = _no_such_gpu(task, desks)
            continue
        free = [desk for desk in candidates if desk.has_slot_unheld(task)]
        ready = [desk for desk in free if desk.ready_at(startup_delay, now) is None]
        if len(ready) >= task.spec.gpus:
            chosen = sorted(ready, key=lambda desk: _preference(desk, policy))[: task.spec.gpus]
            for desk in chosen:
                desk.started.append(task)
            for group in groups:
                group.add(task.name)
            placements.append(Placement(task.id, tuple(sorted(desk.gpu.index for desk in chosen))))
            continue
        why[task.id] = _why(task, candidates, free, startup_delay, now)
        for desk in candidates:
            desk.wanted += 1
        if len(free) >= task.spec.gpus:
            _, until = _enough_ready(task, free, startup_delay, now)
            wake_at = until if wake_at is None else min(until, wake_at)
        if task.spec.gpus > 1 or task.spec.exclusive:
            _hold(task, candidates, startup_delay, now)
    return Decision(tuple(placements), why, wake_at, looked_at)


def can_ever_start(task: Task, gpus: Iterable[int]) -> bool:
    """Whether these GPUs (indices) could run the task if nobody else were there."""
    return sum(_may_use(task, index) for index in gpus) >= task.spec.gpus


def _may_use(task: Task, gpu: int) -> bool:
    return not task.spec.pinned or gpu in task.spec.pinned


def _candidates(task: Task, desks: list[_Desk]) -> list[_Desk] | None:
    """The GPUs that the task may ever get; None if it can never have enough of them."""
    allowed = [desk for desk in desks if _may_use(task, desk.gpu.index)]
    return allowed if len(allowed) >= task.spec.gpus else None


def _preference(desk: _Desk, policy: Policy) -> tuple[float, int]:
    load = desk.used if policy is Policy.SPREAD else -desk.used
    return (load, desk.order)


def _enough_ready(task: Task, free: list[_Desk], delay: float, now: float) -> tuple[_Desk, float]:
    """The GPU whose startup delay ends last of the first ones that are enough for the task, and when."""
    ends = sorted(((desk.ready_at(delay, now) or now, desk.order, desk) for desk in free), key=lambda end: end[:2])
    until, _, desk = ends[task.spec.gpus - 1]
    return desk, until


def _hold(task: Task, candidates: list[_Desk], delay: float, now: float) -> None:
    """Reserve the GPUs that the task will get: those with a free slot that may start first, then the least loaded."""

    def nearness(desk: _Desk) -> tuple[bool, bool, float, int, int]:
        return (desk.held > 0, not desk.has_slot(task), desk.ready_at(delay, now) or now, desk.used, desk.order)

    for desk in sorted(candidates, key=nearness)[: task.spec.gpus]:
        desk.held = desk.allowed if task.spec.exclusive else desk.held + 1
        desk.held_for = desk.held_for or task.name


def _why(task: Task, candidates: list[_Desk], free: list[_Desk], delay: float, now: float) -> Reason:
    """The one sentence that helps most. The order of the checks is the order of their weight."""
    wanted = task.spec.gpus
    if len(free) >= wanted:
        desk, until = _enough_ready(task, free, delay, now)
        return Reason(ReasonCode.STARTUP_DELAY, {"gpu": desk.gpu.index, "until": until})
    count = sum(desk.has_slot(task) for desk in candidates)
    if count >= wanted:
        return _kept([desk for desk in candidates if desk.has_slot(task)])
    others = _others(candidates)
    if task.spec.exclusive:
        what = "a GPU" if wanted == 1 else f"{wanted} GPUs"
        empty = {"free": count or "none", "free_is": "is" if count <= 1 else "are"}
        return Reason(ReasonCode.NEEDS_EMPTY_GPUS, {"wanted": what, **empty, "others": others})
    if wanted > 1:
        some = {"free": count or "none", "free_has": "has" if count <= 1 else "have"}
        return Reason(ReasonCode.TOO_FEW_GPUS, {"wanted": wanted, **some, "others": others})
    taken: dict[str, str | int | float] = {
        "used": sum(desk.used for desk in candidates),
        "slots": sum(desk.gpu.slots for desk in candidates),
        "others": others,
    }
    if task.spec.pinned:
        return Reason(ReasonCode.PINNED_GPU_FULL, {"gpu": _listed(candidates), **taken})
    return Reason(ReasonCode.GPUS_FULL, taken)


def _kept(desks: list[_Desk]) -> Reason:
    """For whom free slots are kept: another task of this queue, or another scheduler of this host."""
    holder = next((desk.held_for for desk in desks if desk.held_for), None)
    if holder is not None:
        return Reason(ReasonCode.HELD_FOR, {"task": holder})
    turn = next(desk.gpu.reserved for desk in desks if desk.gpu.reserved)
    return Reason(ReasonCode.OTHERS_TURN, {"user": turn.user, "workspace": turn.workspace})


def _others(desks: list[_Desk]) -> str:
    """What a person must know of those on these GPUs who are not of this workspace, as an ending of a sentence."""
    tenants = [tenant for desk in desks for tenant in desk.gpu.others]
    if tenants:
        first = tenants[0]
        more = f" and {len(tenants) - 1} more" if len(tenants) > 1 else ""
        return f"; one by {first.user}, {first.task} of {first.workspace}{more}"
    alone = [run.task for desk in desks for run in desk.gpu.own if run.exclusive]
    alone += [task.name for desk in desks for task in desk.started if task.spec.exclusive]
    return f"; {alone[0]} has one for itself alone" if alone else ""


def _no_such_gpu(task: Task, desks: list[_Desk]) -> Reason:
    spec = task.spec
    names = spec.pinned_devices or tuple(map(str, spec.pinned))
    pinned = ", ".join(name if gpu < 0 else str(gpu) for gpu, name in zip(spec.pinned, names, strict=True))
    wanted = f"GPU {pinned}" if task.spec.pinned else f"{task.spec.gpus} GPUs"
    exists = f"GPU {_listed(desks)}" if len(desks) == 1 else f"GPUs {_listed(desks)}"
    return Reason(ReasonCode.NO_SUCH_GPU, {"wanted": wanted, "exists": exists if desks else "no GPU"})


def _listed(desks: list[_Desk]) -> str:
    return ", ".join(str(desk.gpu.index) for desk in desks)
