"""The two state machines: what may happen to a Task and to a Run, and the only place that assigns a state.

    Task   queued ──Began──▶ active ──Finished──▶ done
             ▲ │              │ ▲                  │
             │ └──Dropped─────┼─┼──────────────────┤   (cancelled before it ran)
             │                │ │                  │
             ├──GaveBack──────┤ └                  │   (the run never began)
             ├──Retried───────┘                    │   (it failed, and may try again)
             └──Requeued───────────────────────────┘   (by hand)

    Run    starting ──Launched──▶ running ──Ended──▶ ended
              └─────────────Ended────────────────────▲

A queued task that is Held, Released or Ranked stays queued. An event that the table does not name for a state raises
`Conflict`. The store guards each of these once more in SQL, with the states that `sources` names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import Conflict
from .diagnosis import OUT_OF_MEMORY, Kind
from .model import ALONE, OOM, RETRIED, Hold, Outcome, Reason, ReasonCode, Run, RunState, Task, TaskSpec, TaskState


@dataclass(frozen=True, slots=True)
class Began:
    """A run of the task was decided on. `config_hash` is that of the file as it is now; None if it can't be read."""

    config_hash: str | None


@dataclass(frozen=True, slots=True)
class GaveBack:
    """The run never began; it does not count as an attempt."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Retried:
    """The run failed, and another one is allowed. It keeps its place in the queue, but not before a time."""

    reason: Reason
    not_before: float
    need: int | None = None  # see `Task.need`


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
class Held:
    """A queued task is to wait until it is released, or until a time."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Released:
    """A held task is to wait no longer."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A queued task gets another priority."""

    priority: int


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


ForMany = Dropped | Held | Released | Ranked  # what these change does not depend on what the task was
TaskEvent = Began | GaveBack | Retried | Finished | Dropped | Requeued | Held | Released | Ranked
RunEvent = Launched | Ended

_TASK: dict[type[TaskEvent], tuple[frozenset[TaskState], TaskState]] = {
    Began: (frozenset({TaskState.QUEUED}), TaskState.ACTIVE),
    GaveBack: (frozenset({TaskState.ACTIVE}), TaskState.QUEUED),
    Retried: (frozenset({TaskState.ACTIVE}), TaskState.QUEUED),
    Finished: (frozenset({TaskState.ACTIVE}), TaskState.DONE),
    Dropped: (frozenset({TaskState.QUEUED}), TaskState.DONE),
    Requeued: (frozenset({TaskState.DONE}), TaskState.QUEUED),
    Held: (frozenset({TaskState.QUEUED}), TaskState.QUEUED),
    Released: (frozenset({TaskState.QUEUED}), TaskState.QUEUED),
    Ranked: (frozenset({TaskState.QUEUED}), TaskState.QUEUED),
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
    return replace(task, state=target, changed_at=now, **_changes(task, event, now))


def changed_alike(event: ForMany) -> list[str]:
    """The fields that `event` changes of a task, and gives the same value in every one."""
    return ["state", "changed_at", *_of_any(event)]


def _changes(task: Task, event: TaskEvent, now: float) -> dict[str, Any]:
    """What an event changes of a task beside its state."""
    match event:
        case Began(config_hash):
            blank = {"reason": None, "not_before": None, "hold": None}
            return {"attempts": task.attempts + 1, "config_hash": config_hash, **blank}
        case GaveBack(reason):
            return {"attempts": task.attempts - 1, "reason": reason, "request": None}
        case Retried(reason, not_before, need):
            again = {"not_before": not_before, "need": need, "request": None}
            return {"failures": task.failures + 1, "reason": reason, **again}
        case Finished(outcome, reason):
            return _end(outcome, reason)
        case Requeued(number, priority, spec):
            fresh = {"outcome": None, "reason": None, "request": None, "not_before": None, "need": None}
            place = {"queue_number": number, "priority": priority, "spec": spec}
            return {**place, **fresh, "failures": 0, "queued_at": now}
        case _:
            return _of_any(event)


def _of_any(event: ForMany) -> dict[str, Any]:
    match event:
        case Dropped(outcome, reason):
            return _end(outcome, reason)
        case Held(hold):
            return {"hold": hold}
        case Released():
            return {"hold": None}
        case Ranked(priority):
            return {"priority": priority}


def _end(outcome: Outcome, reason: Reason | None) -> dict[str, Any]:
    return {"outcome": outcome, "reason": reason, "request": None, "hold": None}


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


LONGEST_DELAY = 1800.0  # seconds
MARGIN = 10  # percent of GPU memory that is asked for beyond what a run was seen to have


def after_run(
    task: Task, outcome: Outcome, reason: Reason | None, now: float, *, exit_code: int | None = None,
    peak: int | None = None, had: int | None = None,
) -> Finished | Retried:  # fmt: skip
    """What becomes of a task whose run has ended: it is done, or it may try again after a delay that doubles.

    `peak` is the most memory (bytes) that the run was seen to have on a GPU, `had` what was kept free for it, or ALONE.
    """
    spec = task.spec
    if task.failures >= spec.max_retries or not is_retried(spec.retry_on, outcome, reason, exit_code):
        return Finished(outcome, reason)
    until = now + min(spec.retry_delay * 2.0 ** min(task.failures, 60), LONGEST_DELAY)
    known = [need for need in (task.need, had) if need is not None]
    before = ALONE if ALONE in known else max(known, default=None)
    need = need_after(before, reason, peak) if _is_of_memory(reason) else task.need
    how = outcome.value.replace("_", " ") if outcome is not Outcome.LOST else "was lost"
    detail: dict[str, str | int | float] = {
        "how": how if reason is None else f"{how}: {reason.text}" if reason.found else f"{how} ({reason.text})",
        "until": until,
        "retry": task.failures + 1,
        "retries": spec.max_retries,
        "need": "" if need is None else f", {_need_text(need)}",
    }
    return Retried(Reason(ReasonCode.RETRY_DELAY, detail), until, need)


def is_retried(retry_on: tuple[str | int, ...], outcome: Outcome, reason: Reason | None, exit_code: int | None) -> bool:
    """Whether a run that ended so is one of those that are tried again. What a user ended never is."""
    if outcome.value not in RETRIED:
        return False
    diagnosis = reason.diagnosis if reason else None
    is_oom = diagnosis is not None and diagnosis.kind in OUT_OF_MEMORY
    by_code = outcome is Outcome.FAILED and exit_code in retry_on
    return outcome.value in retry_on or by_code or (is_oom and OOM in retry_on)


def with_margin(peak: int) -> int:
    """What to ask for, in bytes, after a run that had so much at its peak."""
    return peak + peak * MARGIN // 100


def need_after(before: int | None, reason: Reason | None, peak: int | None) -> int | None:
    """What the next run needs on each of its GPUs, after one that ended so.

    After it ran out of CUDA memory: more than it had, or where that is not known, or no more than what was free for it
    this time, a GPU for itself.
    """
    if not _is_of_memory(reason):
        return before
    need = ALONE if peak is None else with_margin(peak)
    return ALONE if before is not None and (before == ALONE or need <= before) else need


def _is_of_memory(reason: Reason | None) -> bool:
    diagnosis = reason.diagnosis if reason else None
    return diagnosis is not None and diagnosis.kind is Kind.CUDA_MEMORY


def _need_text(need: int) -> str:
    return "with a GPU for itself" if need == ALONE else f"where {need / 2**30:.1f} GiB of GPU memory are free"
