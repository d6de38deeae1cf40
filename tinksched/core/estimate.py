"""When things will probably end and start, from how long runs took that completed. Pure.

The expected duration of a task is the median of its siblings: the tasks to which the same globs of `tasks` apply; of
all where none of those has completed. The queue is then played through on the slots in its order. It is an estimate:
runs that fail, memory, fairness between users and `startup_delay` are not foreseen, slots that others hold count as
theirs for ever, and tasks without GPUs always find a slot of the CPU.
"""

from __future__ import annotations

import bisect
import collections
import heapq
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate

from .model import ALONE, GpuSlots, Run, Task
from .relations import named_by

_MOST_RELATIONS = 50  # different lists of `after` that are followed; of a workspace with more, those tasks are unknown


class Typical:
    """How long tasks take: their names and seconds, as often as one completed."""

    def __init__(self, durations: Iterable[tuple[str, float]], globs: Iterable[str]) -> None:
        self._globs = [re.compile(translate(glob)).match for glob in globs]
        self._all: list[float] = []
        self._siblings: dict[tuple[bool, ...], list[float]] = {}
        for name, seconds in durations:
            self._all.append(seconds)
            self._siblings.setdefault(self._group(name), []).append(seconds)
        for known in (self._all, *self._siblings.values()):
            known.sort()
        self._median = {group: _median(known) for group, known in self._siblings.items()}
        self._median_of_all = _median(self._all)

    def seconds(self, name: str, *, elapsed: float = 0.0) -> float | None:
        """The expected duration of a task that has taken `elapsed` already; None if nothing like it is known."""
        group = self._group(name)
        expected = self._median.get(group, self._median_of_all)
        if expected is None or expected > elapsed or not elapsed:
            return expected
        known = self._siblings.get(group, self._all)
        return _median(known[bisect.bisect_right(known, elapsed) :])

    def _group(self, name: str) -> tuple[bool, ...]:
        return tuple([match(name) is not None for match in self._globs]) if self._globs else ()


def _median(ascending: Sequence[float]) -> float | None:
    if not ascending:
        return None
    middle = len(ascending) // 2
    return ascending[middle] if len(ascending) % 2 else (ascending[middle - 1] + ascending[middle]) / 2


@dataclass(frozen=True, slots=True)
class Forecast:
    """Times by the ids of tasks, seconds since the epoch; what is not known is not there."""

    starts: Mapping[int, float] = field(default_factory=dict)  # of queued tasks
    ends: Mapping[int, float] = field(default_factory=dict)  # of queued ones and of those that run
    batch_ends: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is there to be done: the queue in its order, the runs that go on, and the slots.

    `limits` are globs, and how many tasks of each may run at once.
    """

    queue: Sequence[Task]
    running: Sequence[Run]
    slots: Sequence[GpuSlots]
    limits: Sequence[tuple[str, int]] = ()


def forecast(plan: Plan, typical: Typical, now: float) -> Forecast:
    """When each run will end, when each task will start, and when all is done."""
    ends = {run.task_id: end for run in plan.running if (end := _end_of(run, typical, now)) is not None}
    play = _Play(plan, ends, now)
    starts: dict[int, float] = {}
    while (task := play.next()) is not None:
        seconds = typical.seconds(task.name)
        start = None if seconds is None else play.place(task, seconds)
        if start is not None and seconds is not None:
            starts[task.id], ends[task.id] = start, start + seconds
    is_whole = len(starts) == len(plan.queue)
    return Forecast(starts, ends, max(ends.values(), default=None) if is_whole else None)


def _end_of(run: Run, typical: Typical, now: float) -> float | None:
    seconds = typical.seconds(run.task, elapsed=max(0.0, now - run.created_at))
    if seconds is None:
        return None
    end = max(now, run.created_at + seconds)
    return end if run.deadline is None else min(end, max(now, run.deadline))


class _Play:
    """The slots and the queue while time goes on."""

    def __init__(self, plan: Plan, ends: Mapping[int, float], now: float) -> None:
        self._now = now
        self._free = {gpu.index: heap for gpu in plan.slots if (heap := _free(gpu, ends, now))}
        self._all = list(self._free.values())
        names = {task.name for task in plan.queue}
        self._limits = [
            (re.compile(translate(glob)).match, _free_places(glob, limit, plan.running, ends, now))
            for glob, limit in plan.limits
        ]
        self._ready: collections.deque[Task] = collections.deque()  # in the order of the queue
        self._released: list[tuple[tuple[int, int], int, Task]] = []  # and those that had to wait, as a heap
        self._later: list[tuple[float, tuple[int, int], int, Task]] = []  # not before a time
        self._relations = _Relations(plan, names, ends)
        for task in plan.queue:
            if task.not_before is None and task.hold is None and not task.spec.after:
                self._ready.append(task)
            elif task.hold is not None and task.hold.until is None:
                continue  # nobody knows when it is released
            elif not self._relations.waits(task):
                self._release(task, now)

    def next(self) -> Task | None:
        """The task that starts next; None if there is none of which anything can be said."""
        if self._later:
            at = min((heap[0] for heap in self._free.values()), default=self._now)
            if not self._ready and not self._released:
                at = max(at, self._later[0][0])
            while self._later and self._later[0][0] <= at:
                heapq.heappush(self._released, heapq.heappop(self._later)[1:])
        if self._released and (not self._ready or self._released[0][0] < self._ready[0].rank):
            return heapq.heappop(self._released)[2]
        return self._ready.popleft() if self._ready else None

    def place(self, task: Task, seconds: float) -> float | None:
        """Start the task, and note what it takes. Returns when; None if it can't start."""
        earliest = self._now
        if task.not_before is not None or task.hold is not None or task.spec.after:
            earliest = max(earliest, _not_before(task), self._relations.end_before(task))
        limits = [places for match, places in self._limits if match(task.name)] if self._limits else []
        for places in limits:
            earliest = max(earliest, places[0])
        start = self._occupy(task, earliest, seconds)
        if start is None:
            return None
        for places in limits:
            heapq.heapreplace(places, start + seconds)
        for released in self._relations.ended(task, start + seconds):
            self._release(released, self._relations.end_before(released))
        return start

    def _release(self, task: Task, at: float) -> None:
        """It may start from then on."""
        heapq.heappush(self._later, (max(at, _not_before(task)), task.rank, task.id, task))

    def _occupy(self, task: Task, earliest: float, seconds: float) -> float | None:
        spec = task.spec
        if spec.gpus == 0:
            return earliest
        found = self._all
        if spec.pinned:
            found = [self._free[index] for index in spec.pinned if index in self._free]
        if len(found) < spec.gpus:
            return None
        if spec.exclusive or task.need == ALONE:
            chosen = sorted(found, key=max)[: spec.gpus]
            start = max(earliest, *map(max, chosen))
            for heap in chosen:
                heap[:] = [start + seconds] * len(heap)
            return start
        if spec.gpus == 1:
            return _take(found, earliest, seconds, only_now=earliest <= self._now)
        chosen = sorted(found, key=_first)[: spec.gpus]
        start = max(earliest, *map(_first, chosen))
        for heap in chosen:
            heapq.heapreplace(heap, start + seconds)
        return start


def _take(found: Sequence[list[float]], earliest: float, seconds: float, *, only_now: bool) -> float:
    """One slot, from the earliest time on. Of those that are free by then the last is taken: it leaves the others for
    tasks that may start sooner."""
    by_then = [] if only_now else [(at, heap) for heap in found for at in heap if at <= earliest]
    if not by_then:
        heap = min(found)
        start = max(earliest, heap[0])
        heapq.heapreplace(heap, start + seconds)
        return start
    at, heap = max(by_then)
    heap.remove(at)
    heap.append(earliest + seconds)
    heapq.heapify(heap)
    return earliest


class _Relations:
    """Which tasks come after others, and until when those will take."""

    def __init__(self, plan: Plan, queued: Collection[str], ends: Mapping[int, float]) -> None:
        self._left: dict[tuple[str, ...], int] = {}
        self._end: dict[tuple[str, ...], float] = {}
        self._of: dict[str, list[tuple[str, ...]]] = {}
        self._waiting: dict[tuple[str, ...], list[Task]] = {}
        self._unknown = False
        after = dict.fromkeys(task.spec.after for task in plan.queue if task.spec.after)
        if len(after) > _MOST_RELATIONS and any("*" in glob or "?" in glob for globs in after for glob in globs):
            self._unknown = True
            return
        running = {run.task: ends.get(run.task_id, 0.0) for run in plan.running}
        for globs in after:
            before = named_by(globs, queued)
            self._left[globs] = len(before)
            self._end[globs] = max((running[name] for name in named_by(globs, running)), default=0.0)
            for name in before:
                self._of.setdefault(name, []).append(globs)

    def waits(self, task: Task) -> bool:
        """Whether it comes after tasks of which nothing is known yet; then it is kept here until `ended` says more."""
        globs = task.spec.after
        if not globs or (not self._unknown and not self._left[globs]):
            return False
        self._waiting.setdefault(globs, []).append(task)
        return True

    def end_before(self, task: Task) -> float:
        """When the last of those will have ended that it comes after."""
        return self._end.get(task.spec.after, 0.0)

    def ended(self, task: Task, at: float) -> list[Task]:
        """A task will have ended then. Returns those that wait for nobody else any more."""
        released: list[Task] = []
        for globs in self._of.get(task.name, ()):
            self._left[globs] -= 1
            self._end[globs] = max(self._end[globs], at)
            if not self._left[globs]:
                released += self._waiting.pop(globs, [])
        return released


def _not_before(task: Task) -> float:
    """The end of its pause before a retry, and of its hold."""
    until = task.hold.until if task.hold is not None else None
    return max(task.not_before or 0.0, until or 0.0)


def _first(heap: list[float]) -> float:
    return heap[0]


def _free(gpu: GpuSlots, ends: Mapping[int, float], now: float) -> list[float]:
    """When each of our slots on a GPU falls free, as a heap: a run of which nothing is known ends at any moment."""
    count = min([gpu.slots, *(tenant.limit for tenant in gpu.others)]) - len(gpu.others)
    taken = sorted(ends.get(run.task_id, now) for run in gpu.own)
    if any(run.exclusive for run in gpu.own):
        return [taken[-1]] * count
    return sorted([*taken, *[now] * (count - len(taken))])[-count:] if count > 0 else []


def _free_places(glob: str, limit: int, running: Sequence[Run], ends: Mapping[int, float], now: float) -> list[float]:
    match = re.compile(translate(glob)).match
    taken = sorted(ends.get(run.task_id, now) for run in running if match(run.task))
    return sorted([*taken, *[now] * (limit - len(taken))])[-limit:]
