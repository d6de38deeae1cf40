"""What there is room for on one GPU, by the truth about it: slots, memory, and the processes of other people.

A `Desk` is one GPU while a queue is walked. It knows who is there and what NVML saw, and counts what is placed and held
meanwhile. Within one walk it only ever fills up: what it has no room for once, it has no room for later.

Free memory is what NVML says, less what the **young** have reserved and not yet allocated. A run is young until its
warm-up had ended when NVML was asked: what it allocates later, that look can't have seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from .gpu import GpuProcess, GpuState
from .model import ALONE, GpuSlots, Task, TaskSpec

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a workspace shares GPUs with others. Times are in seconds."""

    stop_grace: float = 10.0  # what a run may take beyond its time limit
    warmup: float = 60.0  # how long a run of this workspace reserves what it has not yet allocated
    max_utilization: int | None = None  # percent
    respect_others: bool = True  # nothing starts beside a compute process that is not tinksched's
    ignored: tuple[str, ...] = ()  # globs of the users and commands that are not meant by that
    user: str = ""  # whose workspace it is


class Demand(NamedTuple):
    """What a task asks of the GPUs. Tasks with the same demand are all the same to placement."""

    gpus: int
    pinned: tuple[int, ...] = ()
    exclusive: bool = False
    memory: int | Literal["auto"] | None = None  # bytes that must be free on each of them
    time_limit: float | None = None

    @property
    def spots(self) -> int:
        """On how many desks at once: a task without GPUs takes one slot of the CPU."""
        return self.gpus or 1

    @property
    def bytes(self) -> int | None:
        """The memory, if that is a number."""
        return self.memory if isinstance(self.memory, int) else None

    @property
    def holds(self) -> bool:
        """Whether a stream of small tasks could starve it, so that it holds the GPUs that it waits for."""
        return self.gpus > 1 or self.exclusive or self.memory is not None


def kind_of(spec: TaskSpec) -> Demand:
    """What the spec alone says that the task asks for."""
    if not spec.gpus:
        return Demand(0)  # all else is about GPUs
    return Demand(spec.gpus, spec.pinned, spec.exclusive, spec.min_free_memory or None, spec.time_limit)


def demand_of(kind: Demand, need: int | None) -> Demand:
    """The demand of a task of this kind. `need` is what is known besides: bytes (the larger counts), or ALONE."""
    if need == ALONE:
        return kind._replace(exclusive=True) if kind.gpus else kind
    memory = max(kind.bytes or 0, need or 0) or None
    return kind if memory == kind.memory or not kind.gpus else kind._replace(memory=memory)


class Stay(NamedTuple):
    """Somebody who is on a GPU: until when at the latest (infinite if nobody can say), and what that frees."""

    until: float
    memory: int
    exclusive: bool


class Young(NamedTuple):
    """A run that has reserved memory and not yet allocated it."""

    run: str
    task: str
    memory: int  # what it still reserves
    since: float
    until: float


@dataclass(slots=True, eq=False)
class Desk:
    """One GPU while the queue is walked: what is taken, what is held, and for whom."""

    gpu: GpuSlots
    order: int
    terms: Terms
    now: float
    delay: float = 0.0  # seconds that must lie between two starts
    started: list[tuple[Task, Demand]] = field(default_factory=list)  # placed in this walk
    held: int = 0  # slots
    held_memory: int = 0
    held_for: str = ""
    held_until: float = math.inf  # when the first holder can start; -inf if nobody can say
    wanted: int = 0  # by tasks that found no room
    runs: set[str] = field(init=False)  # whose processes belong here: they hold a slot, or have just given it back
    used: int = field(init=False)
    allowed: int = field(init=False)
    young: tuple[Young, ...] = field(init=False)
    available: int | None = field(init=False)
    attainable: int | None = field(init=False)  # what would be free if all runs of tinksched here ended
    closed: str = field(init=False)  # why nothing at all may start here now: "", "lost", "others" or "busy"

    def __post_init__(self) -> None:
        state = self.gpu.state
        self.used, self.allowed = self.gpu.used, self.gpu.allowed
        own, others = (run.id for run in self.gpu.own), (tenant.run for tenant in self.gpu.others)
        self.runs = {*own, *others, *self.gpu.fading} - {""}
        self.young = tuple(_young(self.gpu, self.terms, self.now))
        free = state.memory_free if state is not None else None
        self.available = None if free is None else free - sum(run.memory for run in self.young)
        self.attainable = self._attainable(state)
        self.closed = self._closed(state)

    def _closed(self, state: GpuState | None) -> str:
        if state is None:
            return ""
        if state.lost:
            return "lost"
        if self.strangers:
            return "others"
        most = self.terms.max_utilization
        return "busy" if most is not None and state.utilization is not None and state.utilization > most else ""

    # -- what it has

    @property
    def strangers(self) -> list[GpuProcess]:
        """The compute processes beside which nothing starts."""
        state = self.gpu.state
        if state is None or not self.terms.respect_others:
            return []
        return [process for process in state.processes or () if self._is_strange(process)]

    def _is_strange(self, process: GpuProcess) -> bool:
        if not process.compute or self._is_of_a_run(process):
            return False
        command = process.command or ""
        program = command.split(" ", 1)[0].rsplit("/", 1)[-1]
        names = (process.user or "", command, program)
        return not any(fnmatchcase(name, glob) for glob in self.terms.ignored for name in names)

    def _is_of_a_run(self, process: GpuProcess) -> bool:
        """Whether it is of a run that belongs here, or may be: what is hidden from us is of another user."""
        if not process.hidden:
            return process.run in self.runs
        users = {tenant.user for tenant in self.gpu.others}
        return process.user in users if process.user is not None else bool(users - {self.terms.user})

    @property
    def total(self) -> int | None:
        """All its memory, if that is known."""
        return self.gpu.state.memory_total if self.gpu.state is not None else None

    def _attainable(self, state: GpuState | None) -> int | None:
        """None if nobody knows what is free."""
        if state is None or state.memory_free is None:
            return None
        runs = [process for process in state.processes or () if self._is_of_a_run(process)]
        if state.processes is not None and all(process.memory is not None for process in runs):
            return state.memory_free + sum(process.memory or 0 for process in runs)
        # Nobody can say whose memory it is. Where none of us is, it isn't ours.
        return state.memory_total if self.gpu.used and state.memory_total is not None else state.memory_free

    @property
    def left_to_others(self) -> int:
        """Free slots that are left to other schedulers, whose turn it is."""
        return self.gpu.reserved.count if self.gpu.reserved else 0

    def ready_at(self) -> float | None:
        """When the startup delay ends, or None if it has."""
        if self.delay <= 0:
            return None
        last = self.now if self.started else self.gpu.last_start
        if last is None or last + self.delay <= self.now or last > self.now + self.delay:
            return None
        return last + self.delay

    # -- what fits

    def could_ever(self, demand: Demand) -> bool:
        """Whether the task could start here if nobody else were there."""
        if demand.pinned and self.gpu.index not in demand.pinned:
            return False
        if demand.gpus > 1 and self.gpu.device.startswith("MIG-"):  # a process can use one of them only
            return False
        return demand.bytes is None or self.total is None or demand.bytes <= self.total

    def has_slot(self, demand: Demand) -> bool:
        """Room for one more that leaves everybody's limit respected, held slots aside."""
        return self.used == 0 if demand.exclusive else self.used < self.allowed

    def has_memory(self, demand: Demand) -> bool:
        """Enough is free, holds aside. What is not known is never enough."""
        need = demand.bytes
        return need is None or (self.available is not None and self.available >= need)

    def is_open(self, demand: Demand) -> bool:
        """Whether it could start here now, if nobody else wanted to."""
        return not self.closed and self.has_slot(demand) and self.has_memory(demand)

    def admits(self, demand: Demand) -> bool:
        """Whether it may start here, as soon as the startup delay has ended."""
        if not self.is_open(demand):
            return False
        kept, need = self.left_to_others, demand.bytes
        lent = self.gpu.reserved.memory if self.gpu.reserved else 0
        if lent and (need is None or (self.available or 0) - lent < need):
            return False
        if not self.held or self._is_gone_in_time(demand):
            return not kept if demand.exclusive else self.used + kept < self.allowed
        if demand.exclusive or self.used + self.held + kept >= self.allowed:
            return False
        # Of a task that doesn't say what it needs, nobody knows what it would leave.
        kept_memory = self.held_memory + lent
        return not self.held_memory or (need is not None and (self.available or 0) - kept_memory >= need)

    def _is_gone_in_time(self, demand: Demand) -> bool:
        """Whether the task is sure to have ended when those can start that hold this GPU."""
        if demand.time_limit is None:
            return False
        end = self.now + max(demand.time_limit + self.terms.stop_grace, self.delay)
        return end <= self.held_until

    def can_open(self, demand: Demand) -> bool:
        """Whether there will be room once runs of tinksched end: what others do, nobody waits for with idle slots."""
        if self.closed in ("lost", "others") or (self.closed == "busy" and not self.used):
            return False
        need, attainable = demand.bytes, self.attainable
        return need is None or (attainable is not None and attainable >= need)

    def certain_at(self, demand: Demand) -> float:
        """When it is certain that the task can start here, by the deadlines of those who are here; else infinite."""
        if self.closed:
            return math.inf
        stays = sorted(self._stays())
        limit = min([self.gpu.slots, *(tenant.limit for tenant in self.gpu.others)])
        start, freed = self.ready_at() or self.now, 0
        for gone in range(len(stays) + 1):
            if gone:
                start, freed = max(start, stays[gone - 1].until), freed + stays[gone - 1].memory
            rest = stays[gone:]
            taken = rest if demand.exclusive else len(rest) >= limit or any(stay.exclusive for stay in rest)
            enough = demand.bytes is None or (self.available is not None and self.available + freed >= demand.bytes)
            if not taken and enough:
                return start
        return math.inf

    def _stays(self) -> Iterable[Stay]:
        grace, frees = self.terms.stop_grace, self._memory_by_run()
        for run in self.gpu.own:
            until = math.inf if run.deadline is None else run.deadline + grace
            yield Stay(until, frees.get(run.id, 0), run.exclusive)
        for tenant in self.gpu.others:
            yield Stay(math.inf, frees.get(tenant.run, 0), False)
        for left in self.gpu.leaving:  # it may hang in the driver: nobody can say how long
            yield Stay(math.inf, frees.get(left, 0), False)
        for _, demand in self.started:
            until = math.inf if demand.time_limit is None else self.now + demand.time_limit + grace
            yield Stay(until, demand.bytes or 0, demand.exclusive)

    def _memory_by_run(self) -> dict[str, int]:
        """What each run here has allocated or still reserves."""
        found = _listed(self.gpu.state)
        for run in self.young:
            found[run.run] = found.get(run.run, 0) + run.memory
        return found

    def missing(self, demand: Demand) -> int:
        """Bytes that are too few."""
        return 0 if demand.bytes is None else max(0, demand.bytes - (self.available or 0))

    # -- while the queue is walked

    def start(self, task: Task, demand: Demand) -> None:
        """The task starts here."""
        self.started.append((task, demand))
        self.used += 1
        if demand.exclusive:
            self.allowed = 1
        if self.available is not None:
            self.available -= demand.bytes or 0

    def hold(self, task: Task, demand: Demand, until: float) -> None:
        """Keep room for a task that waits. `until` is when it is certain to start; infinite if nothing is."""
        if self.is_held_shut:
            return
        self.held = self.allowed if demand.exclusive else self.held + 1
        self.held_memory += demand.bytes or 0
        self.held_for = self.held_for or task.name
        self.held_until = min(self.held_until, until if until < math.inf else -math.inf)

    @property
    def is_held_shut(self) -> bool:
        """Whether every slot that is free, or falls free in this walk, is held: to hold more changes nothing."""
        return self.held > 0 and self.used + self.held + self.left_to_others >= self.allowed


def desks_of(gpus: Iterable[GpuSlots], terms: Terms, now: float, delay: float = 0.0) -> list[Desk]:
    """A desk for each GPU, in order of preference."""
    return [Desk(gpu, order, terms, now, delay) for order, gpu in enumerate(gpus)]


def _listed(state: GpuState | None) -> dict[str, int]:
    """What NVML saw that each run holds, by its id."""
    found: dict[str, int] = {}
    for process in (state.processes if state is not None else None) or ():
        if process.run:
            found[process.run] = found.get(process.run, 0) + (process.memory or 0)
    return found


def _young(gpu: GpuSlots, terms: Terms, now: float) -> Iterable[Young]:
    state = gpu.state
    if state is None:
        return
    seen = _listed(state)
    claims = [(run.id, run.task, run.record.memory, run.created_at, terms.warmup) for run in gpu.own]
    claims += [(other.run, other.task, other.memory, other.since, other.warmup) for other in gpu.others]
    for run, task, memory, since, warmup in claims:
        left = memory - seen.get(run, 0)
        # One that began later than now: the clock was set back, and nobody knows how long ago it was.
        if left > 0 and state.at < since + warmup and since <= now + warmup:
            yield Young(run, task, left, since, since + warmup)
