"""Following a batch of tasks until it is done."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..core.model import Outcome, Task
from ..errors import NothingToActOn, TimedOut, TinkschedError
from ..host import processes, wake
from ..store import STOPPED
from . import daemon, selection
from .markers import is_marked
from .selection import Wanted
from .workspace import OpenWorkspace

_RESTARTS = 5


def choose(opened: OpenWorkspace, wanted: Wanted) -> list[str]:
    """The tasks to wait for. Those that are named may be done already. Where none are named: all that are not done,
    and if everything is done, those that one command queued last, so that it says the same however fast they were.

    Raises:
        NothingToActOn: there are none.
    """
    if wanted and not wanted.everything:
        marked = finished_before(opened, wanted.words)
        rest = replace(wanted, words=[word for word in wanted.words if word not in marked])
        return selection.select(opened.store, rest) if rest else []
    names = opened.store.names(done=False) or opened.store.queued_together()
    if not names:
        raise NothingToActOn("nothing to wait for: no task is on record", hint="tinksched start")
    return names


def finished_before(opened: OpenWorkspace, words: Sequence[str]) -> dict[str, str]:
    """Those of the words that name a config without any record, whose completion marker is there: it has completed.
    And the names of these tasks."""
    named = selection.named(opened.store, words)
    unknown = {word: selection.stem_of_config(word) for word in words if word not in named}
    configs = selection.available(opened.settings) if unknown else []
    chosen = [config for config in configs if config.name in unknown.values()]
    marked = {config.name for config in chosen if is_marked(opened.settings, config)}
    return {word: name for word, name in unknown.items() if name in marked}


def follow(opened: OpenWorkspace, names: Sequence[str], deadline: float | None = None) -> Iterator[list[Task]]:
    """The tasks of these names at once, and those that may have changed after every change, until all are done.

    A scheduler that was killed meanwhile is started again. `deadline` is of the monotonic clock.

    Raises:
        TinkschedError: the scheduler was stopped before they were done, or does not stay.
        TimedOut: the deadline has passed.
    """
    pending = set(names)
    looked_at = pending
    listener = wake.listen(opened.state.path)
    restarts = 0
    try:
        while True:
            scheduler = opened.lock.holder()
            listener.clear()
            with opened.store.snapshot():
                active = {task.name for task in opened.store.active_tasks()} & pending
                done = pending.difference(opened.store.names(done=False))
                tasks = opened.store.named([*(looked_at | active | done)])
            pending -= done
            looked_at = active
            yield [*tasks.values()]
            if not pending:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"{len(pending)} of {len(names)} tasks are not done in time; they go on")
            if opened.lock.is_held():
                _await_change(listener, scheduler, deadline)
            elif opened.store.fact(STOPPED) or restarts >= _RESTARTS:
                raise _ended(len(pending), len(names))
            else:
                restarts += 1
                daemon.ensure(opened)
    finally:
        listener.close()


def went_well(tasks: Iterable[Task]) -> bool:
    """Whether all of them completed."""
    return all(task.outcome is Outcome.COMPLETED for task in tasks)


def _ended(left: int, of: int) -> TinkschedError:
    return TinkschedError(
        f"the scheduler ended, and {left} of {of} tasks are not done; running ones go on",
        hint="tinksched start starts it again; tinksched status shows what is",
    )


def _await_change(listener: wake.Receiver, scheduler: processes.Process | None, deadline: float | None) -> None:
    poller = select.poll()
    poller.register(listener.fileno(), select.POLLIN)
    pidfd = processes.open_pidfd(scheduler) if scheduler is not None else None
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    try:
        most = 1.0 if pidfd is None else float("inf")
        left = most if deadline is None else min(most, max(0.0, deadline - time.monotonic()), 86_400.0)
        poller.poll(None if left == float("inf") else math.ceil(left * 1000))
    finally:
        if pidfd is not None:
            os.close(pidfd)
