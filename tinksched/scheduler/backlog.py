"""What is still to be done, as the scheduler knows it: read once, then kept up to date by what it does itself.

The database stays the truth. SQLite tells whether anybody else has written to it since, for the price of one look at
shared memory (https://www.sqlite.org/pragma.html#pragma_data_version); only then everything is read again. Inside of a
write transaction nobody else can write, so what was refreshed there is exact until its end.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..core.model import Reason, Request, Task, TaskState
from ..core.placement import can_ever_start
from ..core.relations import Fate, Relations
from ..errors import Damaged
from ..store import REPAIR, STOPPED, Store
from .needs import Needs, Sort


class Backlog:
    """The queued and the active tasks of a workspace."""

    def __init__(self, store: Store, needs: Needs) -> None:
        self._store = store
        self._needs = needs
        self._version: int | None = None
        self._queue: list[Task] = []  # in order of rank
        self._tasks: dict[int, Task] = {}  # queued and active
        self._requests: dict[int, Request] = {}  # by task id
        self._bound: dict[int, Task] = {}  # queued ones that come after others, are held, or wait for a time
        self._relations: Relations | None = None  # read when somebody asks for it
        self._gpus: Mapping[int, str] = {}
        self._has_cpu = True
        self._sorts: Counter[Sort] | None = None  # of the queue; counted when somebody asks
        self.stopped: str | None = None  # who stopped the scheduler
        self.paused: Reason | None = None  # why nothing starts
        self.has_news = False  # of others, on which nothing has been decided yet

    def refresh(self) -> bool:
        """Read what others have written. Returns whether there was anything.

        Raises:
            StoreError: it can't be read.
        """
        version = self._store.version()
        if version == self._version:
            return False
        self._queue = [task.on(self._gpus) for task in self._store.queue()]
        self._tasks = {task.id: task for task in (*self._queue, *self._store.active_tasks())}
        self._requests = {task.id: task.request for task in self._tasks.values() if task.request is not None}
        self._bound = {task.id: task for task in self._queue if _is_bound(task)}
        self._relations = self._sorts = None
        self.stopped = self._store.fact(STOPPED)
        self.paused = self._store.paused()
        self._version = version
        self.has_news = True
        return True

    def forget(self) -> None:
        """What was put here may not have been committed: read everything again at the next refresh."""
        self._version = None

    def put(self, task: Task) -> None:
        """The process of the scheduler itself has moved this task."""
        before = self._tasks.pop(task.id, None)
        if before is not None and before.state is TaskState.QUEUED:
            at = bisect.bisect_left(self._queue, before.rank, key=_rank)
            del self._queue[at]
            self._bound.pop(task.id, None)
            self._count(before, -1)
        if task.state is TaskState.QUEUED:
            bisect.insort(self._queue, task, key=_rank)
            self._count(task, 1)
            if _is_bound(task):
                self._bound[task.id] = task
        if task.state is TaskState.DONE:
            self._requests.pop(task.id, None)
        else:
            self._tasks[task.id] = task
            if task.request is not None:
                self._requests[task.id] = task.request
        if self._relations is not None:
            self._relations.put(task.name, Fate(task.state, task.outcome))

    # -- looking

    @property
    def queue(self) -> Sequence[Task]:
        """The queued tasks, in the order in which they are considered."""
        return self._queue

    @property
    def bound(self) -> Iterable[Task]:
        """Those of the queue that come after others, are held, or wait for a time."""
        return self._bound.values()

    @property
    def relations(self) -> Relations:
        """What has become of all tasks, for those that come after others.

        Raises:
            StoreError: it can't be read.
        """
        if self._relations is None:
            if not any(task.spec.after for task in self._bound.values()):
                return Relations()
            self._relations = Relations(self._store.fates())
        return self._relations

    @property
    def requests(self) -> Mapping[int, Request]:
        """What users have asked for, by the id of the task, active or queued."""
        return self._requests

    def task(self, task_id: int) -> Task:
        """A task that is queued or active.

        Raises:
            Damaged: it is neither.
        """
        try:
            return self._tasks[task_id]
        except KeyError:
            raise Damaged(
                f"{self._store.path}: task {task_id} is done, but has a run that goes on", hint=REPAIR
            ) from None

    def use(self, gpus: Mapping[int, str], *, cpu: bool = True) -> None:
        """These are the GPUs (index to device name) from now on, and whether there are slots for tasks without.

        Called whenever the settings have changed.
        """
        if gpus != self._gpus:
            self.forget()  # pinned ones may have other indices now
        self._gpus = gpus
        self._has_cpu = cpu
        self._sorts = None

    @property
    def sorts(self) -> Mapping[Sort, int]:
        """How many tasks of each sort are queued."""
        if self._sorts is None:
            self._sorts = Counter(map(self._needs.sort_of, self._queue))
        return self._sorts

    @property
    def wants_gpus(self) -> bool:
        """Whether tasks are queued that need some."""
        return any(sort.kind.gpus for sort in self.sorts)

    @property
    def impossible(self) -> int:
        """How many queued tasks can't ever start on these GPUs."""
        sorts = self.sorts.items()
        return sum(count for sort, count in sorts if not can_ever_start(sort.kind, self._gpus, cpu=self._has_cpu))

    def _count(self, task: Task, change: int) -> None:
        if self._sorts is not None:
            sort = self._needs.sort_of(task)
            self._sorts[sort] += change
            if not self._sorts[sort]:
                del self._sorts[sort]


def _is_bound(task: Task) -> bool:
    return bool(task.spec.after) or task.not_before is not None or task.hold is not None


def _rank(task: Task) -> tuple[int, int]:
    return task.rank
