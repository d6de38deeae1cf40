"""Following a batch of tasks until it is done."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence

from ..core.model import Outcome, Task, TaskState
from ..errors import TinkschedError
from ..host import processes, wake
from .workspace import OpenWorkspace

BAD = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST, Outcome.CANCELLED)


def follow(opened: OpenWorkspace, names: Sequence[str]) -> Iterator[list[Task]]:
    """The tasks of these names, at once and then after every change, until all are done.

    Raises:
        TinkschedError: the scheduler ended before they were.
    """
    wanted = set(names)
    listener = wake.listen(opened.state.path)
    try:
        while True:
            scheduler = opened.lock.holder()
            listener.clear()
            tasks = [task for task in opened.store.tasks() if task.name in wanted]
            yield tasks
            if all(task.state is TaskState.DONE for task in tasks):
                return
            if not opened.lock.is_held():
                _explain_end(opened, tasks)
                return
            _await_change(listener, scheduler)
    finally:
        listener.close()


def went_well(tasks: Sequence[Task]) -> bool:
    """Whether all of them completed."""
    return all(task.outcome is Outcome.COMPLETED for task in tasks)


def _explain_end(opened: OpenWorkspace, tasks: Sequence[Task]) -> None:
    """The scheduler is gone. Its last words may be younger than what was read, so look once more."""
    wanted = {task.name for task in tasks}
    left = [task.name for task in opened.store.tasks() if task.name in wanted and task.state is not TaskState.DONE]
    if left:
        raise TinkschedError(
            f"the scheduler ended, and {len(left)} of {len(tasks)} tasks are not done; running ones go on",
            hint="tinksched start starts it again; tinksched status shows what is",
        )


def _await_change(listener: wake.Receiver, scheduler: processes.Process | None) -> None:
    poller = select.poll()
    poller.register(listener.fileno(), select.POLLIN)
    pidfd = processes.open_pidfd(scheduler) if scheduler is not None else None
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    try:
        poller.poll(1000 if pidfd is None else None)
    finally:
        if pidfd is not None:
            os.close(pidfd)
