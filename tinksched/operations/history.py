"""`show`: everything that is on record about one task and each of its runs."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..core.model import Run, Task
from ..errors import NothingToActOn
from ..host.completion import signal_name
from ..store import Event, Store
from . import selection
from .workspace import Workspace

JSON_VERSION = 1
_DIFF_LINES = 60


@dataclass(frozen=True, slots=True)
class RunHistory:
    """A run, and how its config differs from that of the run before (lines of a unified diff; empty if it doesn't)."""

    run: Run
    config_changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """A task with its runs, oldest first, and its events."""

    task: Task
    runs: tuple[RunHistory, ...]
    events: tuple[Event, ...]

    def json(self) -> dict[str, object]:
        """The versioned form for programs."""
        task = self.task
        return {
            "version": JSON_VERSION,
            "task": task.name,
            "config": task.config,
            "state": task.outcome.value if task.outcome else task.state.value,
            "reason": task.reason.text if task.reason else None,
            "priority": task.priority,
            "gpus": task.spec.gpus,
            "exclusive": task.spec.exclusive,
            "after": list(task.spec.after),
            "time_limit": task.spec.time_limit,
            "max_retries": task.spec.max_retries,
            "failures": task.failures,
            "queued_at": task.queued_at,
            "runs": [_run_json(item) for item in self.runs],
            "events": [
                {"at": event.at, "who": event.who, "what": event.what, "run": event.run_id, "from": event.from_state,
                 "to": event.to_state, "why": event.why}
                for event in self.events
            ],
        }  # fmt: skip


def show(workspace: Workspace, name: str) -> History:
    """Everything about a task.

    Raises:
        NothingToActOn: there is no such task, or it was never queued.
    """
    store = workspace.store()
    if store is None:
        raise NothingToActOn(f"{name} was never queued: nothing was ever queued here", hint="tinksched start")
    with store:
        task = store.task(name)
        if task is None:
            names = store.names()
            raise NothingToActOn(f"there is no task {name!r} on record", hint=selection.near(name, names))
        return _history(workspace, store, task)


def _history(workspace: Workspace, store: Store, task: Task) -> History:
    runs = []
    before: Run | None = None
    for run in store.runs_of(task):
        runs.append(RunHistory(run, _changes(workspace, before, run)))
        before = run
    return History(task, tuple(runs), tuple(store.events(task)))


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


def _run_json(item: RunHistory) -> dict[str, object]:
    run, record = item.run, item.run.record
    return {
        "attempt": run.attempt,
        "run": run.id,
        "state": run.outcome.value if run.outcome else run.state.value,
        "reason": run.reason.text if run.reason else None,
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
        "log": run.log,
    }
