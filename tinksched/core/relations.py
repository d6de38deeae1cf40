"""What tasks have to do with each other: which come after which, and how many of a kind run at once. Pure.

A task that comes `after` others waits until all of them have completed. If one of them is done without having
completed, it never can, so the task fails with that reason, and so on down the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .model import Outcome, Reason, ReasonCode, Task, TaskState

_NAMED = 3  # names that a reason lists, before it only counts


@dataclass(frozen=True, slots=True)
class Fate:
    """What has become of a task so far."""

    state: TaskState
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Waits:
    """Which queued tasks may not start yet whatever the GPUs say, and which never can."""

    waiting: Mapping[int, Reason]
    hopeless: Mapping[int, Reason]
    wake_at: float | None  # when the first of the waiting ones may have changed by time alone


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether the name matches one of the globs; case counts."""
    return any(fnmatchcase(name, glob) for glob in globs)


def predecessors(name: str, after: Sequence[str], names: Iterable[str]) -> list[str]:
    """The tasks that `name` comes after. A glob that matches the task itself does not mean it."""
    return [other for other in names if other != name and matches(other, after)]


def waits(queue: Sequence[Task], fates: Mapping[str, Fate], now: float) -> Waits:
    """Look at the relations and retry delays of all queued tasks."""
    waiting: dict[int, Reason] = {}
    hopeless: dict[int, Reason] = {}
    times = []
    for task in queue:
        if task.spec.after:
            before = predecessors(task.name, task.spec.after, fates)
            bad = next((name for name in before if _never_completes(fates[name])), None)
            if bad is not None:
                how = (fates[bad].outcome or Outcome.FAILED).value.replace("_", " ")
                hopeless[task.id] = Reason(ReasonCode.DEPENDENCY, {"task": bad, "how": f"ended: {how}"})
                continue
            left = [name for name in before if fates[name].outcome is not Outcome.COMPLETED]
            if left:
                waiting[task.id] = Reason(ReasonCode.WAITS_FOR, {"tasks": _listed(left)})
                continue
        # Before the time at which the delay began: the clock was set back, and nobody knows how long it has waited.
        if task.not_before is not None and task.changed_at <= now < task.not_before and task.reason is not None:
            waiting[task.id] = task.reason
            times.append(task.not_before)
    return Waits(waiting, hopeless, min(times, default=None))


def find_cycle(after: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str] | None:
    """The names along a cycle of `after` (the first one again at the end), or None. `after` is globs by task."""
    edges = {name: predecessors(name, after.get(name, ()), names) if after.get(name) else [] for name in names}
    done: set[str] = set()
    for start in names:
        path: list[str] = []
        stack = [(start, iter(edges[start]))]
        on_path = {start}
        path.append(start)
        while stack:
            name, rest = stack[-1]
            following = next((other for other in rest if other not in done), None)
            if following is None:
                stack.pop()
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif following in on_path:
                return [*path[path.index(following) :], following]
            else:
                stack.append((following, iter(edges[following])))
                path.append(following)
                on_path.add(following)
    return None


@dataclass(slots=True)
class Group:
    """A `max_running` limit while the queue is walked."""

    pattern: str
    limit: int
    running: int = 0

    def has_room(self, task: Task) -> bool:
        """Whether the task is none of this group, or one more may run."""
        return self.running < self.limit or not fnmatchcase(task.name, self.pattern)

    def add(self, name: str) -> None:
        """Count a running task, if it is one of the group."""
        self.running += fnmatchcase(name, self.pattern)

    @property
    def full(self) -> Reason:
        """Why one more may not run."""
        return Reason(ReasonCode.MAX_RUNNING, {"limit": self.limit, "pattern": self.pattern})


def _never_completes(fate: Fate) -> bool:
    return fate.state is TaskState.DONE and fate.outcome is not Outcome.COMPLETED


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
