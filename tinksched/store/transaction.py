"""Writing to the store: every change of a state, each with a line in the log of events.

Each goes through `core.lifecycle` and is guarded once more by SQL: an UPDATE that names the states from which the
event is allowed, and must hit exactly one row.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TypeVar

from ..core import lifecycle
from ..core.lifecycle import ForMany, RunEvent, TaskEvent
from ..core.model import Hold, Reason, Request, Run, RunRecord, Task, TaskSpec, TaskState, spot
from ..core.usage import Usage
from ..errors import Conflict
from . import packing, records
from .packing import ROSTER, RUNS, TASKS, Listed
from .records import moved

Moved = TypeVar("Moved", TaskSpec, RunRecord)
Known = TypeVar("Known", Task, Listed)
_NOTHING: Mapping[str, object] = {}
_KEEP_REQUESTS = (lifecycle.Began, lifecycle.GaveBack, lifecycle.Held, lifecycle.Released, lifecycle.Ranked)


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task that is not in the store yet."""

    name: str
    config: str
    spec: TaskSpec
    priority: int


class Transaction:
    """The writes. They exist only here, so that none can happen outside of a transaction."""

    def __init__(self, connection: sqlite3.Connection, who: str, now: float) -> None:
        self._connection = connection
        self._who = who
        self._now = now
        self.moved: list[Task] = []  # what has become of tasks, in the order of its happening
        self.moved_more = False  # whether others were moved, see `apply_to`

    @property
    def connection(self) -> sqlite3.Connection:
        """For tables that lie beside those of the store, and are written in the same transaction."""
        return self._connection

    def task(self, name: str) -> Task | None:
        """The task of this name, as it is now: nobody else can write before this transaction ends."""
        row = self._connection.execute(f"{TASKS} WHERE name = ?", (name,)).fetchone()
        return packing.task_of(*row) if row else None

    def queue_numbers(self, count: int) -> range:
        """`count` fresh queue numbers, after all that were ever given."""
        row = self._connection.execute("SELECT coalesce(max(queue_number), 0) + 1 FROM tasks").fetchone()
        return range(row[0], row[0] + count)

    def add_tasks(self, new: Sequence[NewTask]) -> list[Task]:
        """Queue tasks, in the order given.

        Raises:
            Conflict: one of these names is in the store already.
        """
        last = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'").fetchone()
        ids, numbers = itertools.count(last[0] + 1 if last else 1), self.queue_numbers(len(new))
        tasks = [
            Task(next(ids), item.name, item.config, item.spec, TaskState.QUEUED, item.priority, number, self._now,
                 self._now)
            for number, item in zip(numbers, new, strict=True)
        ]  # fmt: skip
        number = self._numbers()
        rows = []
        for task in tasks:
            task.config.encode()  # like a name that is not UTF-8, which the database itself refuses
            shared = number(packing.task_text(task))
            rows.append({"id": task.id, "name": task.name, "shared": shared, **packing.task_columns(task)})
        try:
            self._insert("tasks", *rows)
        except sqlite3.IntegrityError:
            taken = next((task.name for task in tasks if self._is_known(task)), "one of them")
            raise Conflict(f"{taken} was queued by somebody else at this moment; nothing was queued") from None
        self._log([task.id for task in tasks], None, "Queued", None, TaskState.QUEUED.value, None)
        self.moved += tasks
        return tasks

    def apply(self, task: Task, event: TaskEvent) -> Task:
        """Move a task. The row must still be in a state from which the event is allowed.

        Raises:
            Conflict: somebody moved it first.
        """
        return self.apply_all([(task, event)])[0]

    def apply_all(self, moves: Sequence[tuple[Task, TaskEvent]]) -> list[Task]:
        """Move tasks by events of one kind. Each row must still be in a state from which its event is allowed.

        Raises:
            Conflict: somebody moved one of them first.
        """
        if not moves:
            return []
        kind, before = type(moves[0][1]), moves[0][0].state.value  # each kind of event comes from one state only
        moved = [lifecycle.apply_task(task, event, self._now) for task, event in moves]
        sources = [state.value for state in lifecycle.task_sources(moves[0][1])]
        number = self._numbers()
        rows, same = [], []
        for (task, _), after in zip(moves, moved, strict=True):
            columns = packing.task_columns(after)
            if kind is lifecycle.Requeued:
                columns["shared"] = number(packing.task_text(after))
            # What was asked for meanwhile outlives a run that never began: the scheduler sees it on the queued task.
            if kind not in _KEEP_REQUESTS:
                columns["request"] = columns["requested_by"] = None
            rows.append((columns, task.id))
            # What tells this stay in the state from an earlier one: a view may be older than a whole run.
            same.append({"attempts": task.attempts, "queue_number": task.queue_number})
        what = moves[0][0].name if len(moves) == 1 else f"one of {len(moves)} tasks"
        self._update("tasks", rows, sources, what, same)
        whys = [_why(event, after) for (_, event), after in zip(moves, moved, strict=True)]
        self._log_all([task.id for task in moved], kind.__name__, before, moved[0].state.value, whys)
        self.moved += moved
        return moved

    def apply_to(self, tasks: Sequence[Listed], event: ForMany) -> None:
        """Move all these tasks, which were read in this transaction, by one event, with one statement.

        What it makes of the first says what it makes of each. They are too many to be listed in `moved`.

        Raises:
            Conflict: one of them is not in a state from which the event is allowed.
        """
        if not tasks:
            return
        first = packing.task_of(*self._connection.execute(f"{TASKS} WHERE tasks.id = ?", (tasks[0].id,)).fetchone())
        after = lifecycle.apply_task(first, event, self._now)
        changed = lifecycle.changed_alike(event)
        columns = {name: value for name, value in packing.task_columns(after).items() if name in changed}
        if type(event) not in _KEEP_REQUESTS:
            columns["request"] = columns["requested_by"] = None
        sources = [state.value for state in lifecycle.task_sources(event)]
        ids = json.dumps([task.id for task in tasks])
        hit = self._connection.execute(
            f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in columns)} "
            f"WHERE id IN (SELECT value FROM json_each(?)) AND state IN ({', '.join('?' * len(sources))})",
            (*columns.values(), ids, *sources),
        ).rowcount
        if hit != len(tasks):
            raise Conflict(f"one of {len(tasks)} tasks was changed by somebody else; nothing was written")
        said = packing.event_text(self._who, type(event).__name__, first.state.value, after.state.value)
        self._connection.execute(
            "INSERT INTO events (at, task_id, shared, why) SELECT ?, value, ?, ? FROM json_each(?)",
            (self._now, self._text(said), _why(event, after), ids),
        )
        self.moved_more = True

    def add_run(self, run: Run) -> None:
        """Record the intent of a run."""
        keys = {"id": run.id, "task_id": run.task_id, "attempt": run.attempt}
        self._insert("runs", {**keys, "shared": self._text(packing.run_text(run)), **packing.run_columns(run)})
        self._log([run.task_id], run.id, "Intended", None, run.state.value, spot(run.gpus))

    def apply_run(self, run: Run, event: RunEvent) -> Run:
        """Move a run, under the same guard.

        Raises:
            Conflict: somebody moved it first.
        """
        moved = lifecycle.apply_run(run, event, self._now)
        sources = [state.value for state in lifecycle.run_sources(event)]
        self._update("runs", [(packing.run_columns(moved), run.id)], sources, f"run {run.id} of {run.task}")
        why = moved.reason.text if moved.reason else None
        self._log([run.task_id], run.id, type(event).__name__, run.state.value, moved.state.value, why)
        return moved

    def remove_run(self, run: Run, why: str) -> None:
        """Take back a run that never began; the event log keeps that it was intended."""
        gone = self._connection.execute("DELETE FROM runs WHERE id = ? AND state != 'ended'", (run.id,)).rowcount
        if gone != 1:
            raise Conflict(f"run {run.id} of {run.task} has ended")
        self._log([run.task_id], run.id, "NeverBegan", run.state.value, None, why)

    def request(self, task: Task, request: Request, by: str | None = None) -> None:
        """Ask the scheduler for something about an active task; `by` is the user's name.

        Raises:
            Conflict: the task is not active any more.
        """
        hit = self._connection.execute(
            "UPDATE tasks SET request = ?, requested_by = ? WHERE id = ? AND state = 'active'",
            (request.value, by or self._who, task.id),
        ).rowcount
        if hit != 1:
            raise Conflict(f"{task.name} is not active any more")
        self.moved.append(replace(task, request=request))
        self._log([task.id], None, f"Asked to {request.value}", task.state.value, task.state.value, None)

    def record_usage(self, usages: Mapping[str, Usage]) -> None:
        """What runs use, by run id, in place of what was on record of each. Runs that were taken back are passed by."""
        columns = ("run_id", *packing.USAGE_COLUMNS)
        into, marks = ", ".join(columns), ", ".join("?" * len(columns))
        known = "EXISTS (SELECT 1 FROM runs WHERE id = ?)"
        sql = f"INSERT OR REPLACE INTO usage ({into}) SELECT {marks} WHERE {known}"
        rows = [(run_id, *packing.usage_columns(usage), run_id) for run_id, usage in usages.items()]
        self._connection.executemany(sql, rows)

    def explain_end(self, run: Run, reason: Reason) -> None:
        """The reason of a run that has ended, and of its task if that is done, is known better by now."""
        text = records.reason_text(reason)
        self._connection.execute("UPDATE runs SET reason = ? WHERE id = ? AND state = 'ended'", (text, run.id))
        self._connection.execute(
            "UPDATE tasks SET reason = ? WHERE id = ? AND state = 'done' AND attempts = ? AND outcome = 'failed'",
            (text, run.task_id, run.attempt),
        )

    def note(self, run: Run, what: str, why: str) -> None:
        """Something about a run that changes no state."""
        self._log([run.task_id], run.id, what, run.state.value, run.state.value, why)

    def relocate(self, old: str, new: str) -> None:
        """The workspace was moved: each path on record that lay in the old place now lies in the new one."""
        for row in self._connection.execute(TASKS).fetchall():
            task = packing.task_of(*row)
            there = replace(task, config=moved(task.config, old, new), spec=_moved(task.spec, old, new))
            if there != task:
                shared = self._text(packing.task_text(there))
                where = (there.spec.old_marker or None, task.id)
                self._connection.execute("UPDATE tasks SET shared = ?, old_marker = ? WHERE id = ?", (shared, *where))
        for row in self._connection.execute(RUNS).fetchall():
            run = packing.run_of(*row)
            paths = {name: moved(getattr(run, name), old, new) for name in ("directory", "work_dir", "log", "marker")}
            after = replace(run, **paths, record=_moved(run.record, old, new))
            if after != run:
                shared, record = self._text(packing.run_text(after)), packing.run_columns(after)["record"]
                self._connection.execute(
                    "UPDATE runs SET shared = ?, record = ? WHERE id = ?", (shared, record, run.id)
                )

    def remove_tasks(self, tasks: Sequence[Known]) -> list[Known]:
        """Forget done tasks with all their runs and events. Returns those that were still as they are given."""
        ids = json.dumps([task.id for task in tasks])
        listed = "IN (SELECT value FROM json_each(?))"
        rows = self._connection.execute(f"{ROSTER} WHERE state = 'done' AND id {listed}", (ids,)).fetchall()
        as_given = {(row["id"], row["attempts"], row["queue_number"]) for row in rows}
        gone = [task for task in tasks if (task.id, task.attempts, task.queue_number) in as_given]
        ids = json.dumps([task.id for task in gone])
        for table, key in (("events", "task_id"), ("runs", "task_id"), ("tasks", "id")):
            self._connection.execute(f"DELETE FROM {table} WHERE {key} {listed}", (ids,))
        return gone

    def set_fact(self, key: str, value: str | None) -> None:
        """Record a fact of the workspace, or with None forget it."""
        if value is None:
            self._connection.execute("DELETE FROM facts WHERE key = ?", (key,))
        else:
            sql = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            self._connection.execute(sql, (key, value))

    def _insert(self, table: str, *rows: Mapping[str, object]) -> None:
        """Insert rows with the same columns."""
        for row in rows[:1]:
            marks = ", ".join("?" * len(row))
            sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
            self._connection.executemany(sql, (tuple(row.values()) for row in rows))

    def _is_known(self, task: Task) -> bool:
        sql = "SELECT 1 FROM tasks WHERE name = ? AND id != ?"
        return self._connection.execute(sql, (task.name, task.id)).fetchone() is not None

    def _update(
        self,
        table: str,
        rows: Sequence[tuple[Mapping[str, object], object]],
        states: list[str],
        what: str,
        same: Sequence[Mapping[str, object]] = (),
    ) -> None:
        """Write rows with the same columns, each given with its key and with what must still be as it was."""
        columns = ", ".join(f"{name} = ?" for name in rows[0][0])
        marks = ", ".join("?" * len(states))
        guards = "".join(f" AND {name} = ?" for name in (same[0] if same else ()))
        sql = f"UPDATE {table} SET {columns} WHERE id = ? AND state IN ({marks}){guards}"
        values = [
            (*row.values(), key, *states, *as_was.values())
            for (row, key), as_was in zip(rows, same or [_NOTHING] * len(rows), strict=True)
        ]
        if self._connection.executemany(sql, values).rowcount != len(rows):
            raise Conflict(f"{what} was changed by somebody else at this moment; nothing was written")

    def _text(self, text: str) -> int:
        """The number of a text that rows share."""
        return packing.number_of(self._connection, text)

    def _numbers(self) -> Callable[[str], int]:
        """The same for many rows, which asks for each text once."""
        return lru_cache(maxsize=None)(self._text)

    def _log(
        self, tasks: Sequence[int], run: str | None, what: str, old: str | None, new: str | None, why: str | None
    ) -> None:
        self._log_all(tasks, what, old, new, [why] * len(tasks), run)

    def _log_all(
        self, tasks: Sequence[int], what: str, old: str | None, new: str | None, whys: Sequence[str | None],
        run: str | None = None,
    ) -> None:  # fmt: skip
        """A line for each of these tasks, with a reason of its own."""
        shared = self._text(packing.event_text(self._who, what, old, new))
        sql = "INSERT INTO events (at, task_id, run_id, shared, why) VALUES (?, ?, ?, ?, ?)"
        rows = [(self._now, task, run, shared, why) for task, why in zip(tasks, whys, strict=True)]
        self._connection.executemany(sql, rows)


def _why(event: TaskEvent, after: Task) -> str | None:
    """What the log says of the reason for an event."""
    if isinstance(event, lifecycle.Ranked):
        return f"priority {event.priority}"
    if isinstance(event, lifecycle.Held):
        return _why_held(event.hold)
    if isinstance(event, lifecycle.Released):
        return None
    return after.reason.text if after.reason else None


@lru_cache(maxsize=16)
def _why_held(hold: Hold) -> str:
    return hold.reason.text


def _moved(record: Moved, old: str, new: str) -> Moved:
    """The record with its paths where they are after a move."""
    return replace(record, **{field.name: moved(getattr(record, field.name), old, new) for field in fields(record)})
