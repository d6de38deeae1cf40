"""What tasks have to do with each other: which come after which, and how many of a kind run at once. Pure.

A task that comes `after` others waits until all of them have completed. If one of them is done without having
completed, it never can, so the task fails with that reason, and so on down the line.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate

from .model import Outcome, Reason, ReasonCode, Task, TaskState

_GLOB = frozenset("*?[")
_NAMED = 3  # names that a reason lists, before it only counts


@dataclass(frozen=True, slots=True)
class Fate:
    """What has become of a task so far."""

    state: TaskState
    outcome: Outcome | None


_NOBODY: Mapping[str, Fate] = {}


@dataclass(frozen=True, slots=True)
class Waits:
    """Which queued tasks may not start yet whatever the GPUs say, and which never can."""

    waiting: Mapping[int, Reason]
    hopeless: Mapping[int, Reason]
    wake_at: float | None  # when the first of the waiting ones may have changed by time alone


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether the name matches one of the globs; case counts."""
    return any(fnmatchcase(name, glob) for glob in globs)


def named_by(globs: Sequence[str], names: Collection[str]) -> list[str]:
    """Which of the names the globs mean. `names` is a set or a mapping: plain names among the globs are looked up."""
    if _GLOB.isdisjoint("".join(globs)):
        return [name for name in dict.fromkeys(globs) if name in names]
    match = re.compile("|".join(map(translate, globs))).match
    return [name for name in names if match(name)]


class Relations:
    """What has become of the tasks that others come after. Kept up to date by `put`, so that nothing grows with time.

    A glob that matches a task itself does not mean it.
    """

    def __init__(self, fates: Mapping[str, Fate] = _NOBODY) -> None:
        """`fates` are those of all tasks, by name."""
        self._fates = dict(fates)
        self._before: dict[tuple[str, ...], _Before] = {}
        self._naming: dict[str, list[_Before]] = {}  # by the name of a task: who comes after it

    def put(self, name: str, fate: Fate) -> None:
        """Something has become of a task."""
        if name not in self._fates:  # a new one may be meant by any of the globs
            self._before.clear()
            self._naming.clear()
        self._fates[name] = fate
        for before in self._naming.get(name, ()):
            before.put(name, fate)

    def of(self, task: Task) -> Reason | None:
        """Why a task that comes after others waits for them; None if it does not, or does no more."""
        before = self._those(task.spec.after)
        left = (name for name in before.left if name != task.name)
        first = list(itertools.islice(left, _NAMED))
        return Reason(ReasonCode.WAITS_FOR, {"tasks": _listed(first, sum(1 for _ in left))}) if first else None

    def hopeless(self, task: Task) -> Reason | None:
        """Why a task that comes after others can never start; None if it can."""
        before = self._those(task.spec.after)
        bad = next((name for name in before.failed if name != task.name), None)
        if bad is None:
            return None
        how = (self._fates[bad].outcome or Outcome.FAILED).value.replace("_", " ")
        return Reason(ReasonCode.DEPENDENCY, {"task": bad, "how": f"ended: {how}"})

    def _those(self, after: tuple[str, ...]) -> _Before:
        if after not in self._before:
            before = self._before[after] = _Before()
            for name in named_by(after, self._fates):
                before.put(name, self._fates[name])
                self._naming.setdefault(name, []).append(before)
        return self._before[after]


@dataclass(slots=True)
class _Before:
    """The tasks that one list of globs names, as far as they have not completed. Dicts for their order."""

    left: dict[str, None] = field(default_factory=dict)
    failed: dict[str, None] = field(default_factory=dict)

    def put(self, name: str, fate: Fate) -> None:
        self.left.pop(name, None)
        self.failed.pop(name, None)
        if fate.outcome is not Outcome.COMPLETED:
            self.left[name] = None
            if fate.state is TaskState.DONE:
                self.failed[name] = None


def waits(tasks: Iterable[Task], relations: Relations, now: float) -> Waits:
    """Look at the relations, the holds and the retry delays of queued tasks. Those without need not be among them."""
    waiting: dict[int, Reason] = {}
    hopeless: dict[int, Reason] = {}
    times = []
    for task in tasks:
        if task.spec.after:
            bad = relations.hopeless(task)
            if bad is not None:
                hopeless[task.id] = bad
                continue
        if task.hold is not None and (task.hold.until is None or now < task.hold.until):
            waiting[task.id] = task.hold.reason
            times += [task.hold.until] if task.hold.until is not None else []
            continue
        if task.spec.after:
            left = relations.of(task)
            if left is not None:
                waiting[task.id] = left
                continue
        # Before the time at which the delay began: the clock was set back, and nobody knows how long it has waited.
        if task.not_before is not None and task.changed_at <= now < task.not_before and task.reason is not None:
            waiting[task.id] = task.reason
            times.append(task.not_before)
    return Waits(waiting, hopeless, min(times, default=None))


def find_cycle(after: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str] | None:
    """The names along a cycle of `after` (the first one again at the end), or None. `after` is globs by task."""
    later = {name: None for name in names if after.get(name)}  # what comes after nobody closes no circle
    named = {globs: named_by(globs, later) for globs in {tuple(after[name]) for name in later}}
    done: set[str] = set()
    for start in later:
        if start in done:
            continue
        path: list[str] = [start]
        stack = [_others(start, after, named)]
        on_path = {start}
        while stack:
            following = next((other for other in stack[-1] if other not in done), None)
            if following is None:
                stack.pop()
                name = path.pop()
                on_path.discard(name)
                done.add(name)
            elif following in on_path:
                return [*path[path.index(following) :], following]
            else:
                stack.append(_others(following, after, named))
                path.append(following)
                on_path.add(following)
    return None


def _others(name: str, after: Mapping[str, Sequence[str]], named: Mapping[tuple[str, ...], list[str]]) -> Iterator[str]:
    return (other for other in named[tuple(after[name])] if other != name)


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


def _listed(names: Sequence[str], more: int) -> str:
    return ", ".join(names) + (f" and {more} more" if more else "")
