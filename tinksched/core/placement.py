"""Which queued task starts now, on which GPUs; and for every other one, why it does not.

`decide` walks the queue once, in order, over a picture of the GPUs. `place` takes its placements and `explain` its
reasons, so an explanation can't differ from what happens. Everything is deterministic in its arguments.

The rules, in the words of the design: priority, then queue number. A task that can't start is passed by, except that
one which needs more than one slot (several GPUs, a GPU for itself alone, or GPU memory) holds the GPUs that it waits
for: otherwise a stream of small tasks would starve it. It holds only what runs of tinksched will give back: for other
people's processes no GPU stands idle. A task that is sure to have ended when the holder can start may pass.

What a GPU has room for is said in `sharing`, the sentences are made in `explanation`.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .explanation import cpu_full, no_such_gpu, why
from .linking import best_set
from .model import GpuSlots, Placement, Reason, ReasonCode, Task
from .relations import Group
from .sharing import Demand, Desk, Terms, demand_of, desks_of, kind_of

LOOK_AGAIN_SECONDS = 1.0  # for what nothing reports: memory, utilisation, and the processes of others
_NOBODY: Mapping[int, Reason] = {}
_USUAL = Terms()


class Policy(str, enum.Enum):
    """How a GPU is chosen among those that have a free slot."""

    SPREAD = "spread"  # the least loaded first
    PACK = "pack"  # the most loaded first, so that whole GPUs stay free


@dataclass(frozen=True, slots=True)
class Decision:
    """What starts now, in order; and for each other task that was looked at, why it waits."""

    placements: tuple[Placement, ...]
    waiting: Mapping[int, Reason]
    wake_at: float | None  # the earliest time at which it may come out differently by itself; None if none is known
    looked_at: int = 0  # how many tasks of the queue


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
    terms: Terms = _USUAL,
    cpu: GpuSlots | None = None,
    need_of: Callable[[Task], int | None] | None = None,
    waiting: Mapping[int, Reason] = _NOBODY,
    groups: Sequence[Group] = (),
    demands: Mapping[Demand, int] | None = None,
) -> Decision:
    """Walk the queue once. Times are seconds since the epoch, `startup_delay` is in seconds.

    `cpu` are the slots of tasks without GPUs. `need_of` says what is known of a task's need of memory besides its spec:
    of two numbers of bytes the larger counts, ALONE asks for GPUs for itself, and `auto` without a number for nothing.
    `waiting` are tasks that may not start yet whatever the GPUs say, and why; `groups` the limits on how many tasks of
    a kind run at once, with those that run already counted. Neither kind of waiting holds a GPU.

    With `demands`, how many tasks of the queue ask for the same, by all that is known, the walk is brief: it ends where
    it can't find anything more to start, so that a long queue costs no more than a short one, and not all that wait
    have a reason.
    """
    desks, on_cpu = desks_of(gpus, terms, now, startup_delay), desks_of([cpu] if cpu else [], terms, now)
    walk = _Walk(desks, on_cpu, policy, now)
    left = Counter(demands) if demands is not None else None
    unsettled = list(left or ())
    why_not: dict[int, Reason] = {}
    refused = True
    looked_at = 0
    for task in queue:
        if left is not None and refused and walk.is_over(unsettled, left):
            break
        demand = demand_of(kind_of(task.spec), need_of(task) if need_of is not None else None)
        if left is not None:
            refused = False
            left[demand] -= 1
            if demand in walk.spent:
                continue
        looked_at += 1
        full = next((group.full for group in groups if not group.has_room(task)), None)
        if task.id in waiting or full is not None:
            why_not[task.id] = waiting.get(task.id) or full or Reason(ReasonCode.STARTS_NEXT)
            continue
        reason = walk.look(task, demand)
        if reason is not None:
            why_not[task.id] = reason
            refused = True
            continue
        for group in groups:
            group.add(task.name)
    return Decision(tuple(walk.placements), why_not, walk.wake_at, looked_at)


def can_ever_start(kind: Demand, gpus: Iterable[int], *, cpu: bool = True) -> bool:
    """Whether these GPUs (indices) could run tasks of this kind if nobody else were there, and all were well."""
    if not kind.gpus:
        return cpu
    return sum(not kind.pinned or index in kind.pinned for index in gpus) >= kind.gpus


@dataclass(slots=True)
class _Walk:
    """The desks while the queue is walked. They only fill up: what can't start once, can't start later in the walk."""

    desks: list[Desk]
    cpu: list[Desk]  # one or none
    policy: Policy
    now: float
    placements: list[Placement] = field(default_factory=list)
    wake_at: float | None = None
    # Demands that found no room, and whose tasks change nothing more by waiting, with the reason and its `_changes`.
    spent: dict[Demand, tuple[Reason, int]] = field(default_factory=dict)
    _changes: int = 0
    _able: dict[tuple[object, ...], list[Desk]] = field(default_factory=dict)

    def look(self, task: Task, demand: Demand) -> Reason | None:
        """Start the task if there is room for it, else say why there is none."""
        known = self.spent.get(demand)
        if known is not None and known[1] == self._changes:
            return known[0]
        desks = self._candidates(demand)
        if len(desks) < demand.spots:
            return no_such_gpu(demand, self.desks, task.spec.pinned_devices)
        free = [desk for desk in desks if desk.admits(demand)]
        ready = [desk for desk in free if desk.ready_at() is None]
        if len(ready) >= demand.spots:
            self._start(task, demand, ready)
            return None
        reason = why(demand, desks, free, self.now) if demand.gpus else cpu_full(desks[0])
        for desk in desks:
            desk.wanted += 1
        self._wake_when_ready(demand, free)
        self._wake_for_truth(demand, desks)
        if demand.holds:
            self._hold(task, demand, desks)
        if self._is_spent(demand, desks):
            self.spent[demand] = (reason, self._changes)
        return reason

    def is_over(self, unsettled: list[Demand], left: Mapping[Demand, int]) -> bool:
        """Whether no task that is left can start any more, and enough of them wait that others know of it.

        What is settled stays so, and is taken from the list: each demand is judged until then, and never again.
        """
        while unsettled and (left[unsettled[-1]] <= 0 or self._is_settled(unsettled[-1])):
            unsettled.pop()
        return not unsettled

    # -- inside

    def _candidates(self, demand: Demand) -> list[Desk]:
        if not demand.gpus:
            return self.cpu
        key = (demand.pinned, demand.bytes, demand.gpus > 1)
        able = self._able.get(key)
        if able is None:
            able = self._able[key] = [desk for desk in self.desks if desk.could_ever(demand)]
        return able

    def _start(self, task: Task, demand: Demand, ready: Sequence[Desk]) -> None:
        chosen = best_set(sorted(ready, key=self._preference), demand.spots)
        for desk in chosen:
            desk.start(task, demand)
        gpus = tuple(sorted(desk.gpu.index for desk in chosen)) if demand.gpus else ()
        self.placements.append(Placement(task.id, gpus, demand.bytes or 0, demand.exclusive))
        self._changes += 1

    def _preference(self, desk: Desk) -> tuple[int, int]:
        return (desk.used if self.policy is Policy.SPREAD else -desk.used, desk.order)

    def _wake_by(self, *times: float) -> None:
        self.wake_at = min(times if self.wake_at is None else (self.wake_at, *times))

    def _wake_when_ready(self, demand: Demand, free: Sequence[Desk]) -> None:
        """If the task waits for nothing but startup delays."""
        if len(free) >= demand.spots:
            self._wake_by(sorted(desk.ready_at() or self.now for desk in free)[demand.spots - 1])

    def _wake_for_truth(self, demand: Demand, desks: Sequence[Desk]) -> None:
        """If the task waits for what no event tells: holds aside, there are slots for it, or a run is leaving one."""
        if any(desk.gpu.leaving for desk in desks):
            self._wake_by(self.now + LOOK_AGAIN_SECONDS)
        there = [desk for desk in desks if desk.has_slot(demand)]
        if len(there) >= demand.spots and sum(desk.is_open(demand) for desk in there) < demand.spots:
            ends = (run.until for desk in there for run in desk.young if run.until > self.now)
            self._wake_by(self.now + LOOK_AGAIN_SECONDS, *ends)

    def _hold(self, task: Task, demand: Demand, desks: Sequence[Desk]) -> None:
        """Reserve the GPUs that the task will get: those that it is certain to get first, then the nearest to it."""
        able = [desk for desk in desks if desk.can_open(demand)]
        if len(able) < demand.spots:
            return
        certain = {desk.order: desk.certain_at(demand) for desk in able}

        def nearness(desk: Desk) -> tuple[bool, float, int, int, int]:
            return (desk.held > 0, certain[desk.order], desk.missing(demand), desk.used, desk.order)

        nearest = sorted(able, key=nearness)[: demand.spots]
        until = max(certain[desk.order] for desk in nearest)
        self._changes += not all(desk.is_held_shut for desk in nearest)
        for desk in nearest:
            desk.hold(task, demand, until)

    def _is_spent(self, demand: Demand, desks: Sequence[Desk]) -> bool:
        if any(desk.wanted < desk.gpu.slots for desk in desks):
            return False
        able = [desk for desk in desks if desk.can_open(demand)]
        return not demand.holds or len(able) < demand.spots or all(desk.is_held_shut for desk in able)

    def _is_settled(self, demand: Demand) -> bool:
        """Whether no task that asks for this can start."""
        if demand in self.spent:
            return True
        desks = self._candidates(demand)
        if len(desks) >= demand.spots:
            if any(desk.wanted < desk.gpu.slots for desk in desks) or self._has_room(demand, desks):
                return False
            self._wake_for_truth(demand, desks)
        return True

    def _has_room(self, demand: Demand, desks: Sequence[Desk]) -> bool:
        free = [desk for desk in desks if desk.admits(demand)]
        if sum(desk.ready_at() is None for desk in free) >= demand.spots:
            return True
        self._wake_when_ready(demand, free)
        return False
