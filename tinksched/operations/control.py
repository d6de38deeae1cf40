"""`stop`, `kill-all`, `cancel`, `retry`: what changes the course of things."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config.served import is_served
from ..core.lifecycle import Dropped
from ..core.model import Outcome, Reason, ReasonCode, Request, TaskState, in_words
from ..errors import NothingToActOn, TinkschedError, UsageError
from ..host import processes, wake
from ..host.processes import Process
from ..store import STOPPED, Listed
from . import daemon, selection, strays
from .selection import Wanted
from .start import requeue
from .workspace import OpenWorkspace, actor, user_name

STOP_SECONDS = 15.0  # how long a scheduler may take to end once it was asked


@dataclass(frozen=True, slots=True)
class Stopped:
    """What `stop` found: whether a scheduler ran, and the tasks that go on without it."""

    was_running: bool
    running: tuple[str, ...]
    queued: int


@dataclass(frozen=True, slots=True)
class Killed:
    """What `kill-all` ended. `stuck` are tasks of which something could not be killed; `unrecorded` ones are dead.

    `server` says that one works here, and goes on serving.
    """

    scheduler: bool
    runs: tuple[str, ...]
    queued: tuple[str, ...]
    stuck: tuple[str, ...]
    unrecorded: tuple[str, ...]
    server: TinkschedError | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of the tasks that were to be cancelled."""

    cancelled: tuple[str, ...]
    finished: tuple[tuple[str, str], ...]  # ended by themselves first, and how
    stuck: tuple[str, ...]
    unrecorded: tuple[str, ...]  # dead, but the scheduler could not write that down
    left: tuple[tuple[str, str], ...] = ()  # were done before, and how


@dataclass(frozen=True, slots=True)
class Retried:
    """What `retry` queued again, what it could not and why, and what it started."""

    queued: tuple[str, ...]
    left: tuple[tuple[str, str], ...]
    started: str | None


def stop(opened: OpenWorkspace) -> Stopped:
    """Stop the scheduler and let the runs go on. The queue stays as it is.

    Raises:
        TinkschedError: it did not end; or it is a server's, which pauses and goes on serving.
    """
    with opened.store.transaction(actor("stop"), time.time()) as tx:
        tx.set_fact(STOPPED, f"by {user_name()}")
    if server := _server(opened):
        raise server
    was_running = _end_scheduler(opened, kill=False)
    _hand_over(opened)
    running = tuple(task.name for task in opened.store.active_tasks())
    return Stopped(was_running, running, opened.store.queue_length())


def kill_all(opened: OpenWorkspace) -> Killed:
    """End the scheduler and every run of this workspace, verified dead; what was queued is cancelled.

    A server's scheduler is not one that ends: it pauses.
    """
    reason = Reason(ReasonCode.KILL_ALL)
    with opened.store.transaction(actor("kill-all"), time.time()) as tx:
        tx.set_fact(STOPPED, f"by kill-all of {user_name()}")
        queued = _queue(opened)
        tx.apply_to(queued, Dropped(Outcome.CANCELLED, reason))
        active = opened.store.active_tasks()
        for task in active:
            tx.request(task, Request.KILL_ALL, user_name())
    server = _server(opened)
    was_running = not server and _end_scheduler(opened, kill=True)
    _await_requests(opened, {task.id for task in active})
    unknown = strays.find(opened.settings, opened.state, opened.store)
    asked = {task.id for task in active}  # one that is active without a request has ended and was started again since
    left = [task.name for task in opened.store.active_tasks() if task.id in asked and task.request]
    stuck, unrecorded = _dead_or_stuck(opened, left)
    stuck += strays.end(unknown, opened.settings.stop_grace)
    names = (*(task.name for task in active), *(stray.task for stray in unknown))
    ended = tuple(name for name in names if name not in (*stuck, *unrecorded))
    _hand_over(opened)
    wake.announce(opened.state.path)
    return Killed(was_running, ended, tuple(task.name for task in queued), stuck, unrecorded, server)


def cancel(opened: OpenWorkspace, wanted: Wanted) -> Cancelled:
    """Cancel tasks: a queued one leaves the queue, a running one is ended, verified dead.

    Raises:
        NothingToActOn: a selector means nothing, or no task that is queued or running; nothing was done.
    """
    dropped = Dropped(Outcome.CANCELLED, Reason(ReasonCode.CANCELLED_BY_USER, {"user": user_name()}))
    with opened.store.transaction(actor("cancel"), time.time()) as tx:
        tasks = _pending(opened) if wanted.everything else _listed(opened, wanted)
        pending = [task for task in tasks if task.state != TaskState.DONE]
        done = tuple((task.name, task.outcome) for task in tasks if task.outcome)
        if not pending:
            said = selection.listed([f"{name} is {outcome}" for name, outcome in done])
            raise NothingToActOn(f"nothing to cancel: {said or 'nothing is queued or running'}")
        queued = [task for task in pending if task.state == TaskState.QUEUED]
        tx.apply_to(queued, dropped)
        asked = [task.name for task in pending if task.state == TaskState.ACTIVE]
        active = [*opened.store.named(asked).values()]
        for task in active:
            tx.request(task, Request.CANCEL, user_name())
    wake.announce(opened.state.path)
    _await_requests(opened, {task.id for task in active})
    became = _what_became(opened, asked)
    gone = {*became.cancelled, *(task.name for task in queued)}
    return replace(became, cancelled=tuple(task.name for task in pending if task.name in gone), left=done)


def retry(opened: OpenWorkspace, wanted: Wanted) -> Retried:
    """Queue finished tasks again, and make sure that a scheduler runs.

    Raises:
        NothingToActOn: a selector means nothing, or no finished task.
        UsageError: they can't run; nothing was queued.
    """
    chosen = _listed(opened, wanted)
    named = opened.store.named([task.name for task in chosen if task.state == TaskState.DONE])
    known = {name: task for name, task in named.items() if task.state is TaskState.DONE}  # somebody may be faster
    tasks = [known[task.name] for task in chosen if task.name in known]
    busy = [(task.name, in_words(task.state)) for task in chosen if task.name not in known]
    if not tasks:
        said = selection.listed([f"{name} is {state}" for name, state in busy]) or "there is none"
        raise NothingToActOn(f"only finished tasks can be retried: {said}; nothing was queued")
    for task in tasks:
        if task.config and not os.path.isfile(task.config):  # of thousands: a Path costs more than the look
            raise UsageError(f"{task.name}: its config {task.config} is gone; nothing was queued")
        if not task.config and not Path(task.spec.work_dir).is_dir():
            raise UsageError(f"{task.name}: its folder {task.spec.work_dir} is gone; nothing was queued")
    requeue(opened, tasks, "retry")
    left = tuple(busy) if wanted.words and not wanted.everything else ()
    return Retried(tuple(task.name for task in tasks), left, daemon.ensure(opened))


def _listed(opened: OpenWorkspace, wanted: Wanted) -> list[Listed]:
    """The tasks that are meant, in the order of the words."""
    names = selection.select(opened.store, wanted)
    known = opened.store.listed(names)
    return [known[name] for name in names if name in known]


def _pending(opened: OpenWorkspace) -> list[Listed]:
    return [*_queue(opened), *opened.store.roster(TaskState.ACTIVE)]


def _queue(opened: OpenWorkspace) -> list[Listed]:
    """The queued tasks, in the order in which they are considered."""
    return sorted(opened.store.roster(TaskState.QUEUED), key=lambda task: (-task.priority, task.queue_number))


def _server(opened: OpenWorkspace) -> TinkschedError | None:
    """What is to be said where a server works, whose scheduler is not one that ends; None where none does."""
    if not is_served(opened.settings.file) or not daemon.nudge(opened):
        return None
    holder, folder = opened.lock.holder(), opened.settings.workspace
    return TinkschedError(
        f"a server works here: it goes on serving, and starts no job until tinksched --workspace {folder} start",
        hint=f"its own signal ends it: kill -TERM {holder.pid}" if holder else None,
    )


def _end_scheduler(opened: OpenWorkspace, *, kill: bool) -> bool:
    """Have the scheduler end, which was asked to in the store already. With `kill`, by force if it doesn't."""
    deadline = time.monotonic() + STOP_SECONDS
    was_running = False
    while daemon.nudge(opened):
        if opened.store.fact(STOPPED) is None:  # a `start` took it back: what runs now is what it asked for
            break
        was_running = True
        holder = opened.lock.holder()
        if holder is None:  # it has just taken the lock, or just given it back
            if time.monotonic() > deadline:
                raise TinkschedError("the scheduler's lock is held by a process that can't be found")
            continue
        if daemon.await_end(holder, max(0.1, deadline - time.monotonic())):
            continue
        if not kill:
            raise TinkschedError(
                f"the scheduler (process {holder.pid}) did not end in {STOP_SECONDS:.0f} seconds",
                hint=f"the runs don't need it: kill -9 {holder.pid} ends it, and they go on",
            )
        processes.send(holder, signal.SIGKILL)
        processes.wait_for([holder], 5.0)
    return was_running


def _await_requests(opened: OpenWorkspace, ids: set[int]) -> None:
    """Wait until what was asked for is done: by the scheduler, or by us if there is none."""
    deadline = time.monotonic() + opened.settings.stop_grace + STOP_SECONDS
    listener = wake.listen(opened.state.path)
    try:
        while any(task.id in ids and task.request for task in opened.store.active_tasks()):
            if time.monotonic() > deadline:
                return
            if not daemon.nudge(opened):
                from ..scheduler.main import settle_requests  # brings asyncio along, which most commands don't need

                settle_requests(opened.settings, opened.state, opened.home)
                _hand_over(opened)
                continue
            _await_news(listener, opened.lock.holder(), deadline)
    finally:
        listener.close()


def _hand_over(opened: OpenWorkspace) -> None:
    """A `start` that came while we held the scheduler's lock, or ended its holder, believed that one works for it."""
    if opened.store.fact(STOPPED) is None and (opened.store.has_queue() or opened.store.active_tasks()):
        daemon.ensure(opened)


def _await_news(listener: wake.Receiver, scheduler: Process | None, deadline: float) -> None:
    """Until the scheduler announces a change, or ends."""
    poller = select.poll()
    poller.register(listener.fileno(), select.POLLIN)
    pidfd = processes.open_pidfd(scheduler) if scheduler else None
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    try:
        poller.poll(max(0.0, min(1.0 if pidfd is None else 3600.0, deadline - time.monotonic())) * 1000)
        listener.clear()
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _what_became(opened: OpenWorkspace, names: Sequence[str]) -> Cancelled:
    cancelled, finished, left = [], [], []
    known = opened.store.named(names)
    for name in names:
        task = known[name]
        if task.request is not None:
            left.append(name)
        elif task.outcome in (Outcome.CANCELLED, None):  # None: it was queued again since
            cancelled.append(name)
        else:
            finished.append((name, task.outcome.value))
    return Cancelled(tuple(cancelled), tuple(finished), *_dead_or_stuck(opened, left))


def _dead_or_stuck(opened: OpenWorkspace, left: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the tasks that are still on record as active: those that live, and those that only could not be recorded."""
    runs = {run.task: run for run in opened.store.active_runs() if run.task in set(left)}
    living = processes.of_runs(run.id for run in runs.values())
    stuck = tuple(task for task, run in runs.items() if living[run.id] or processes.wrappers(run.directory))
    return stuck, tuple(task for task in runs if task not in stuck)
