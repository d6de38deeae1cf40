"""What a decision is about."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ..config import Settings
from ..core.model import CPU, GpuSlots, Reason, Task
from ..core.placement import Decision
from ..core.relations import Relations
from ..core.sharing import Demand, Desk, Terms, demand_of, desks_of, kind_of
from ..host.leases import Held, user_name


@dataclass(frozen=True, slots=True)
class Scene:
    """The workspace's queue, and the GPUs with whoever is on them."""

    settings: Settings
    queue: Sequence[Task]  # in order of rank
    bound: Iterable[Task]  # those of the queue that come after others or wait for a time; all is right, and slower
    slots: Sequence[GpuSlots]
    running: Sequence[str]  # the names of this workspace's tasks on the GPUs
    relations: Relations
    held: Sequence[Held]  # all leases on these GPUs and on the CPU
    last_start: float  # when this workspace last started a run
    now: float
    cpu: GpuSlots | None = None  # for tasks without GPUs
    need_of: Callable[[Task], int | None] | None = None  # see `needs`; None if nothing is known besides the specs
    demands: Mapping[Demand, int] | None = None  # of the queue, if only what starts is asked for, not why others wait
    paused: Reason | None = None  # why nothing starts

    @property
    def terms(self) -> Terms:
        """On which terms this workspace shares GPUs."""
        return terms_of(self.settings)

    def demand(self, task: Task) -> Demand:
        """What a task of the queue asks for."""
        return demand_of(kind_of(task.spec), self.need_of(task) if self.need_of is not None else None)

    def desks(self) -> tuple[list[Desk], list[Desk]]:
        """The GPUs; and the CPU, as one or none."""
        terms = self.terms
        return desks_of(self.slots, terms, self.now), desks_of([self.cpu] if self.cpu else [], terms, self.now)

    def slots_by_holder(self, *, cpu: bool) -> Counter[tuple[str, str]]:
        """How many slots are taken by (user, workspace), of the GPUs or of the CPU."""
        return Counter((lease.user, lease.claim.workspace) for lease in self.held if (lease.device == CPU) is cpu)


def terms_of(settings: Settings) -> Terms:
    """On which terms a workspace shares GPUs."""
    return Terms(
        settings.stop_grace,
        settings.warmup,
        settings.max_utilization,
        settings.respect_other_processes,
        settings.ignore_processes,
        _me(),
    )


@functools.cache
def _me() -> str:
    return user_name(os.geteuid())


def looked_at(queue: Iterable[Task], decision: Decision) -> Iterator[Task]:
    """The tasks that the decision is about, in their order."""
    placed = {placement.task_id for placement in decision.placements}
    about = (task for task in queue if task.id in placed or task.id in decision.waiting)
    return islice(about, decision.looked_at)
