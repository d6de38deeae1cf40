"""The two state machines: what may happen to a Task and to a Run, and the only place that assigns a state.

    Task   queued ──Began──▶ active ──Finished──▶ done
             ▲ │              │ ▲                  │
             │ └──Dropped─────┼─┼──────────────────┤   (cancelled before it ran)
             │                │ │                  │
             └──GaveBack──────┘ └                  │   (the run never began)
             └──Requeued───────────────────────────┘   (by hand)

    Run    starting ──Launched──▶ running ──Ended──▶ ended
              └─────────────Ended────────────────────▲

An event that the table does not name for a state raises `Conflict`. The store guards each of these once more in SQL,
with the states that `sources` names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import Conflict
from .model import Outcome, Reason, Run, RunState, Task, TaskSpec, TaskState


@dataclass(frozen=True, slots=True)
class Began:
    """A run of the task was decided on. `config_hash` is that of the file as it is now; None if it can't be read."""

    config_hash: str | None


@dataclass(frozen=True, slots=True)
class GaveBack:
    """The run never began; it does not count as an attempt."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Finished:
    """The last run of the task ended, and there will not be another one by itself."""

    outcome: Outcome
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A queued task is given up without a run."""

    outcome: Outcome
    reason: Reason


@dataclass(frozen=True, slots=True)
class Requeued:
    """Queued again by hand, at the end of the queue, as the configuration says now."""

    queue_number: int
    priority: int
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class Launched:
    """The executor started the run's wrapper."""

    pid: int | None
    pid_started: int | None
    session: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over and none of its processes is left."""

    outcome: Outcome
    reason: Reason | None
    exit_code: int | None
    at: float


TaskEvent = Began | GaveBack | Finished | Dropped | Requeued
RunEvent = Launched | Ended

_TASK: dict[type[TaskEvent], tuple[frozenset[TaskState], TaskState]] = {
    Began: (frozenset({TaskState.QUEUED}), TaskState.ACTIVE),
    GaveBack: (frozenset({TaskState.ACTIVE}), TaskState.QUEUED),
    Finished: (frozenset({TaskState.ACTIVE}), TaskState.DONE),
    Dropped: (frozenset({TaskState.QUEUED}), TaskState.DONE),
    Requeued: (frozenset({TaskState.DONE}), TaskState.QUEUED),
}
_RUN: dict[type[RunEvent], tuple[frozenset[RunState], RunState]] = {
    Launched: (frozenset({RunState.STARTING}), RunState.RUNNING),
    Ended: (frozenset({RunState.STARTING, RunState.RUNNING}), RunState.ENDED),
}


def task_sources(event: TaskEvent) -> frozenset[TaskState]:
    """The states in which a task may meet `event`."""
    return _TASK[type(event)][0]


def run_sources(event: RunEvent) -> frozenset[RunState]:
    """The states in which a run may meet `event`."""
    return _RUN[type(event)][0]


def apply_task(task: Task, event: TaskEvent, now: float) -> Task:
    """The task after `event`.

    Raises:
        Conflict: the task is in a state in which this can't happen.
    """
    sources, target = _TASK[type(event)]
    if task.state not in sources:
        raise Conflict(f"{task.name} is {task.state.value}: {type(event).__name__} is not possible there")
    moved = replace(task, state=target, changed_at=now)
    match event:
        case Began(config_hash):
            return replace(moved, attempts=task.attempts + 1, reason=None, config_hash=config_hash)
        case GaveBack(reason):
            return replace(moved, attempts=task.attempts - 1, reason=reason, request=None)
        case Finished(outcome, reason) | Dropped(outcome, reason):
            return replace(moved, outcome=outcome, reason=reason, request=None)
        case Requeued(number, priority, spec):
            fresh = replace(moved, queue_number=number, priority=priority, spec=spec, queued_at=now)
            return replace(fresh, outcome=None, reason=None, request=None)


def apply_run(run: Run, event: RunEvent, now: float) -> Run:
    """The run after `event`.

    Raises:
        Conflict: the run is in a state in which this can't happen.
    """
    sources, target = _RUN[type(event)]
    if run.state not in sources:
        raise Conflict(f"run {run.id} of {run.task} is {run.state.value}: {type(event).__name__} is not possible there")
    moved = replace(run, state=target)
    match event:
        case Launched(pid, pid_started, session):
            return replace(moved, pid=pid, pid_started=pid_started, session=session, started_at=now)
        case Ended(outcome, reason, exit_code, at):
            return replace(moved, outcome=outcome, reason=reason, exit_code=exit_code, ended_at=at)
