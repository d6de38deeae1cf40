"""A workspace with a past: finished and queued tasks that nobody ran, written through the project's own store."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tinksched.core.lifecycle import Began, Ended, Launched, after_run
from tinksched.core.model import Outcome, Reason, ReasonCode, Run, RunState, Task
from tinksched.operations import workspace as workspaces
from tinksched.operations.workspace import OpenWorkspace
from tinksched.store import NewTask, Transaction

from .systems import names

PORTION = 2000  # tasks in a transaction


def finish(folder: Path, count: int, *, letter: str = "f", outcome: Outcome = Outcome.COMPLETED) -> int:
    """Add `count` finished tasks that look like the workspace's first one. Returns the bytes that its database grew.

    Each leaves what a real one leaves: a config, a log, and a marker if it completed, here without a byte in them.
    """
    places = ("configs/{}.yml", "logs/train_logs/{}.log", "out/{}_completed.txt")
    places = places if outcome is Outcome.COMPLETED else places[:2]
    found = workspaces.find(folder, None)
    database = found.state.database
    before = database.stat().st_size
    with found.open() as opened:
        task = opened.store.tasks()[0]
        run = opened.store.runs_of(task)[0]
        for portion in _portions(names(letter, count)):
            _touch(folder, portion, places)
            now = time.time()
            with opened.store.transaction("bench", now) as tx:
                for new in tx.add_tasks(_like(task, folder, portion)):
                    _live(tx, new, run, opened, now, outcome)
    return database.stat().st_size - before  # the last one who closes it writes the log back


def wait(folder: Path, count: int, *, letter: str = "w") -> None:
    """Add `count` queued tasks that look like the workspace's first one."""
    with workspaces.find(folder, None).open() as opened:
        task = opened.store.tasks()[0]
        for portion in _portions(names(letter, count)):
            _touch(folder, portion, ("configs/{}.yml",))
            with opened.store.transaction("bench", time.time()) as tx:
                tx.add_tasks(_like(task, folder, portion))


def _live(tx: Transaction, task: Task, like: Run, opened: OpenWorkspace, now: float, outcome: Outcome) -> None:
    """The whole life of a task with one run."""
    code = 0 if outcome is Outcome.COMPLETED else 1
    reason = Reason(ReasonCode.EXIT_CODE, {"code": code}) if code else None
    run_id = secrets.token_hex(8)
    run = replace(
        like, id=run_id, task_id=task.id, task=task.name, state=RunState.STARTING, pid=None, pid_started=None,
        started_at=None, ended_at=None, outcome=None, reason=None, exit_code=None, created_at=now,
        directory=str(opened.state.runs / run_id), marker=task.spec.marker,
        log=like.log and like.log.replace(like.task, task.name), session=like.session.replace(like.task, task.name),
    )  # fmt: skip
    began = tx.apply(task, Began(like.record.config_hash))
    tx.add_run(run)
    launched = tx.apply_run(run, Launched(like.pid, like.pid_started, run.session))
    tx.apply_run(launched, Ended(outcome, reason, code, now))
    tx.apply(began, after_run(began, outcome, reason, now))


def _like(task: Task, folder: Path, portion: Sequence[str]) -> list[NewTask]:
    return [
        NewTask(
            name, str(folder / "configs" / f"{name}.yml"),
            replace(task.spec, marker=task.spec.marker.replace(task.name, name)), task.priority,
        )
        for name in portion
    ]  # fmt: skip


def _touch(folder: Path, portion: Sequence[str], places: Sequence[str]) -> None:
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        for name in portion:
            (folder / place.format(name)).touch()


def _portions(all_names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(all_names), PORTION):
        yield all_names[start : start + PORTION]
