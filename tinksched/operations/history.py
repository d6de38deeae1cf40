"""`show`: everything that is on record about one task and each of its runs."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, replace

from ..core.model import ALONE, Outcome, Run, Task, TaskState
from ..core.usage import Usage
from ..errors import NothingToActOn
from ..host.completion import signal_name
from ..store import Event, Store
from . import selection
from .logs import last_lines
from .snapshot import diagnosis_json
from .status import explain
from .workspace import Workspace

JSON_VERSION = 1
_DIFF_LINES = 60
_LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class RunHistory:
    """A run, and how its config differs from that of the run before (lines of a unified diff; empty if it doesn't).

    `last_lines` are those of the log of a run that did not end well. `usage` is None if nobody looked.
    """

    run: Run
    config_changes: tuple[str, ...]
    last_lines: tuple[str, ...]
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class History:
    """A task with its runs, oldest first, and its events."""

    task: Task
    runs: tuple[RunHistory, ...]
    events: tuple[Event, ...]
    expected_start: float | None = None
    expected_end: float | None = None

    def json(self) -> dict[str, object]:
        """The versioned form for programs."""
        task = self.task
        return {
            "version": JSON_VERSION,
            "task": task.name,
            "number": task.id,
            "config": task.config or None,
            "state": task.outcome.value if task.outcome else task.state.value,
            "reason": task.reason.text if task.reason else None,
            "diagnosis": diagnosis_json(task.reason),
            "priority": task.priority,
            "gpus": task.spec.gpus,
            "exclusive": task.spec.exclusive,
            "after": list(task.spec.after),
            "time_limit": task.spec.time_limit,
            "max_retries": task.spec.max_retries,
            "retry_on": list(task.spec.retry_on),
            "need": _need_json(task.need),
            "failures": task.failures,
            "hold": asdict(task.hold) if task.hold else None,
            "queued_at": task.queued_at,
            "expected_start": self.expected_start,
            "expected_end": self.expected_end,
            "runs": [_run_json(item) for item in self.runs],
            "events": [
                {"at": event.at, "who": event.who, "what": event.what, "run": event.run_id, "from": event.from_state,
                 "to": event.to_state, "why": event.why}
                for event in self.events
            ],
        }  # fmt: skip


def show(workspace: Workspace, name: str, attempt: int | None = None) -> History:
    """Everything about a task: of all its runs, or of the attempt that is named.

    Raises:
        NothingToActOn: there is no such task or attempt, or it was never queued.
    """
    store = workspace.store()
    if store is None:
        raise NothingToActOn(f"{name} was never queued: nothing was ever queued here", hint="tinksched start")
    with store:
        task = store.task(name)
        if task is None:
            names = store.names()
            raise NothingToActOn(f"there is no task {name!r} on record", hint=selection.near(name, names))
        found = _history(workspace, store, task, attempt)
    if task.state is TaskState.DONE:
        return found
    now, _ = explain(workspace, name)
    return replace(found, expected_start=now.expected_start, expected_end=now.expected_end)


def _history(workspace: Workspace, store: Store, task: Task, attempt: int | None) -> History:
    runs = store.runs_of(task)
    shown = [run for run in runs if attempt in (None, run.attempt)]
    if attempt is not None and not shown:
        there = f"it has {', '.join(str(run.attempt) for run in runs)}" if runs else "it has not run yet"
        raise NothingToActOn(f"{task.name} has no attempt {attempt}; {there}")
    before = {run.attempt: earlier for earlier, run in zip([None, *runs], runs, strict=False)}
    usage = store.usage_of([run.id for run in shown])
    histories = (
        RunHistory(run, _changes(workspace, before[run.attempt], run), _last_words(run), usage.get(run.id))
        for run in shown
    )
    return History(task, tuple(histories), tuple(store.events(task)))


def _last_words(run: Run) -> tuple[str, ...]:
    ended_well = run.outcome in (None, Outcome.COMPLETED)
    return () if ended_well or run.log is None else tuple(last_lines(run.log, _LAST_LINES))


def _changes(workspace: Workspace, before: Run | None, run: Run) -> tuple[str, ...]:
    if before is None or before.record.config_hash == run.record.config_hash:
        return ()
    old, new = (_snapshot(workspace, item) for item in (before, run))
    lines = difflib.unified_diff(old, new, f"attempt {before.attempt}", f"attempt {run.attempt}", lineterm="", n=1)
    return tuple(lines)[:_DIFF_LINES]


def _snapshot(workspace: Workspace, run: Run) -> list[str]:
    name = run.record.config_hash or ""
    try:
        return (workspace.state.snapshots / name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ["(this config was not kept)"]


def _need_json(need: int | None) -> dict[str, object] | None:
    """What the task needs on each of its GPUs since it ran out of memory."""
    return None if need is None else {"alone": need == ALONE, "bytes": need if need != ALONE else None}


def _run_json(item: RunHistory) -> dict[str, object]:
    run, record = item.run, item.run.record
    return {
        "attempt": run.attempt,
        "run": run.id,
        "state": run.outcome.value if run.outcome else run.state.value,
        "reason": run.reason.text if run.reason else None,
        "diagnosis": diagnosis_json(run.reason),
        "exit_code": run.exit_code,
        "signal": signal_name(run.exit_code) if run.exit_code is not None else None,
        "node": record.node,
        "gpus": list(run.gpus),
        "devices": list(run.devices),
        "port": record.port,
        "executor": run.executor,
        "session": run.session or None,
        "command": list(record.command),
        "python": record.python,
        "work_dir": run.work_dir,
        "commit": record.commit or None,
        "dirty": record.dirty,
        "config_hash": record.config_hash,
        "config_changes": list(item.config_changes),
        "started_at": run.created_at,
        "ended_at": run.ended_at,
        "seconds": run.ended_at - run.created_at if run.ended_at is not None else None,
        "log": run.log,
        "last_lines": list(item.last_lines),
        "usage": asdict(item.usage) if item.usage else None,
    }
