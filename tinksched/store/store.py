"""The store: reads at any time, writes only inside of a transaction, and logs every transition.

Each change of a state goes through `core.lifecycle` and is guarded once more by SQL: an UPDATE that names the states
from which the event is allowed, and must hit exactly one row.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from ..core import lifecycle
from ..core.lifecycle import RunEvent, TaskEvent
from ..core.model import Outcome, Request, Run, RunRecord, Task, TaskSpec, TaskState
from ..core.relations import Fate
from ..errors import Conflict, Damaged, StoreError, Unwritable
from . import packing
from .database import REPAIR, connect, connect_copy, connect_new, transaction, trouble
from .packing import DoneTask
from .records import moved

Moved = TypeVar("Moved", TaskSpec, RunRecord)
STOPPED = "stopped"  # the fact that a user stopped the scheduler; `start` clears it
_NOTHING: Mapping[str, object] = {}
_AT_ONCE = 500  # names in one query
_ELSEWHERE = {"text": "texts.text", "task": "tasks.name"}


def _select(table: str, columns: Sequence[str]) -> str:
    """A query for these columns of a table and of those that it refers to."""
    return f"SELECT {', '.join(_ELSEWHERE.get(name, f'{table}.{name}') for name in columns)} FROM {table}"


_TASKS = f"{_select('tasks', packing.TASK_COLUMNS)} JOIN texts ON texts.id = tasks.shared"
_RUNS = (
    f"{_select('runs', packing.RUN_COLUMNS)} JOIN tasks ON tasks.id = runs.task_id JOIN texts ON texts.id = runs.shared"
)
_DONE = (
    "SELECT tasks.id, name, texts.text, tasks.outcome, tasks.reason, config_hash, priority, attempts, queued_at, "
    "changed_at, ran.text, exit_code, created_at, ended_at, session, pid "
    "FROM tasks JOIN texts ON texts.id = tasks.shared "
    "LEFT JOIN runs ON runs.task_id = tasks.id "
    "AND runs.attempt = (SELECT max(attempt) FROM runs r WHERE r.task_id = tasks.id) "
    "LEFT JOIN texts ran ON ran.id = runs.shared WHERE tasks.state = 'done'"
)
_EVENTS = "SELECT at, text, task_id, run_id, why FROM events JOIN texts ON texts.id = events.shared"


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task that is not in the store yet."""

    name: str
    config: str
    spec: TaskSpec
    priority: int


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the event log: who moved which task or run, when, from where to where, and why."""

    at: float
    who: str
    task_id: int
    run_id: str | None
    what: str
    from_state: str | None
    to_state: str | None
    why: str | None


class Store:
    """The workspace's state. One object belongs to one thread; any number of processes may have one each."""

    def __init__(self, path: Path, *, create: bool = False, shared: bool = False) -> None:
        """Open the database. `shared`: it lies on a network file system.

        Raises:
            StoreError: see `database.connect`.
        """
        self.path = path
        self._connection = connect(path, create=create, shared=shared)
        self._file = path.stat()

    @classmethod
    def reading(cls, path: Path, *, shared: bool = False) -> Store:
        """Open it for somebody who only reads: a disk that can't be written is no hindrance.

        Raises:
            StoreError: see `database.connect`.
        """
        try:
            return cls(path, shared=shared)
        except Unwritable:
            copy = cls.__new__(cls)
            copy.path, copy._connection, copy._file = path, connect_copy(path), path.stat()
            return copy

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def is_deleted(self) -> bool:
        """Whether the file that is open here is no longer in its place.

        Raises:
            PermissionError: its folder can't be read.
        """
        try:
            return not os.path.samestat(self._file, self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return True

    def put_back(self) -> bool:
        """Write everything that was committed to a new file in place of the deleted one. False if one is there again.

        Raises:
            StoreError: it can't be written.
        """
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            with contextlib.closing(connect_new(aside)) as copy:
                self._connection.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # so that this one file is all of it
            try:
                os.link(aside, self.path)
            except FileExistsError:
                return False
            finally:
                aside.unlink()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.path}: the state database can't be put back: {error}") from None
        return True

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self, who: str, now: float, *, synced: bool = True) -> Iterator[Transaction]:
        """Write: everything in the block is committed and synced at its end, or nothing is. `who` goes to the log.

        Without `synced` a loss of power may undo it, together with nothing but later ones of its kind: for what can be
        found out again.
        """
        with transaction(self._connection, self.path, synced=synced):
            yield Transaction(self._connection, who, now)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read several things as they were at one instant."""
        self._read("BEGIN")
        try:
            yield
        finally:
            self._read("COMMIT")

    def version(self) -> int:
        """A number that changes whenever somebody else commits; what this store itself commits does not count."""
        return int(self._read("PRAGMA data_version")[0][0])

    # -- reading

    def tasks(self) -> list[Task]:
        """All tasks, by id."""
        return self._tasks(f"{_TASKS} ORDER BY tasks.id")

    def task(self, name: str) -> Task | None:
        """The task of this name."""
        found = self._tasks(f"{_TASKS} WHERE name = ?", name)
        return found[0] if found else None

    def queue(self) -> list[Task]:
        """The queued tasks, in the order in which they are considered."""
        return self._tasks(f"{_TASKS} WHERE state = 'queued' ORDER BY priority DESC, queue_number")

    def named(self, names: Sequence[str]) -> dict[str, Task]:
        """Those of these names that are tasks."""
        found: list[Task] = []
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            found += self._tasks(f"{_TASKS} WHERE name IN ({', '.join('?' * len(some))})", *some)
        return {task.name: task for task in found}

    def known(self, names: Sequence[str]) -> set[str]:
        """Those of these names that are names of tasks."""
        found = set()
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            found |= {row[0] for row in self._read(f"SELECT name FROM tasks WHERE name IN ({marks})", *some)}
        return found

    def names(self, *, done: bool = True) -> list[str]:
        """The names of all tasks, or only of those that are not done; by id."""
        which = "" if done else "WHERE state != 'done'"
        return [row[0] for row in self._read(f"SELECT name FROM tasks {which} ORDER BY id")]

    def done(self, limit: int | None = None, *, name: str | None = None) -> list[DoneTask]:
        """The tasks that are done, by id: all, the one of a name, or the last `limit` that completed and the last
        `limit` that did not."""
        if name is not None:
            return self._done(f"{_DONE} AND name = ?", name)
        if limit is None:
            return self._done(f"{_DONE} ORDER BY tasks.id")
        last = "SELECT id FROM tasks WHERE state = 'done' AND outcome {} 'completed' ORDER BY changed_at DESC LIMIT ?"
        both = f"SELECT * FROM ({last.format('=')}) UNION SELECT * FROM ({last.format('!=')})"
        return self._done(f"{_DONE} AND tasks.id IN ({both}) ORDER BY tasks.id", limit, limit)

    def fates(self) -> dict[str, Fate]:
        """What has become of each task so far, by name."""
        rows = self._read("SELECT name, state, outcome FROM tasks")
        return {row["name"]: Fate(TaskState(row["state"]), Outcome(row["outcome"]) if row["outcome"] else None)
                for row in rows}  # fmt: skip

    def queue_length(self) -> int:
        """How many tasks are queued."""
        return int(self._read("SELECT count(*) AS number FROM tasks WHERE state = 'queued'")[0]["number"])

    def has_queue(self) -> bool:
        """Whether any task is queued."""
        return bool(self._read("SELECT 1 FROM tasks WHERE state = 'queued' LIMIT 1"))

    def active_tasks(self) -> list[Task]:
        """The tasks that have a run which has not ended."""
        return self._tasks(f"{_TASKS} WHERE state = 'active' ORDER BY tasks.id")

    def active_runs(self) -> list[Run]:
        """The runs that have not ended, oldest first."""
        sql = f"{_RUNS} WHERE runs.state IN ('starting', 'running') ORDER BY runs.created_at, runs.id"
        return self._runs(sql)

    def runs_of(self, task: Task) -> list[Run]:
        """Every run of a task, by attempt."""
        sql = f"{_RUNS} WHERE runs.task_id = ? ORDER BY runs.attempt"
        return self._runs(sql, task.id)

    def last_runs(self, tasks: Iterable[Task] | None = None) -> dict[int, Run]:
        """The newest run of each task, or of each of these, by task id."""
        newest = f"{_RUNS} WHERE runs.attempt = (SELECT max(attempt) FROM runs r WHERE r.task_id = runs.task_id)"
        if tasks is None:
            return {run.task_id: run for run in self._runs(newest)}
        found = (self._runs(f"{newest} AND runs.task_id = ?", task.id) for task in tasks)
        return {run.task_id: run for runs in found for run in runs}

    def last_started(self, limit: int) -> list[Run]:
        """The last `limit` runs that were made, newest first."""
        return self._runs(f"{_RUNS} ORDER BY runs.rowid DESC LIMIT ?", limit)

    def run_ids(self) -> set[str]:
        """The ids of all runs."""
        return {row["id"] for row in self._read("SELECT id FROM runs")}

    def unknown_runs(self, run_ids: Collection[str]) -> list[str]:
        """Those of these run ids that are not on record."""
        wanted = json.dumps(list(run_ids))
        known = self._read("SELECT id FROM runs WHERE id IN (SELECT value FROM json_each(?))", wanted)
        return sorted(set(run_ids) - {row["id"] for row in known})

    def problems(self) -> list[str]:
        """What SQLite's own check of the whole file finds wrong."""
        found = [str(row[0]) for row in self._read("PRAGMA integrity_check")]
        found += [f"a row of {row[0]} refers to nothing" for row in self._read("PRAGMA foreign_key_check")]
        return [] if found == ["ok"] else [line for line in found if line != "ok"]

    def recently_ended(self, limit: int) -> list[Run]:
        """The last `limit` runs that ended, newest first."""
        sql = f"{_RUNS} WHERE runs.state = 'ended' ORDER BY runs.ended_at DESC, runs.id LIMIT ?"
        return self._runs(sql, limit)

    def counts(self) -> Mapping[str, int]:
        """How many tasks there are by state, and of the done ones by outcome."""
        rows = self._read("SELECT coalesce(outcome, state) AS kind, count(*) AS number FROM tasks GROUP BY kind")
        return {row["kind"]: row["number"] for row in rows}

    def events(self, task: Task | None = None) -> list[Event]:
        """The event log, oldest first; of one task only if it is given."""
        where, values = ("", ()) if task is None else ("WHERE task_id = ?", (task.id,))
        with self._sense():
            return [_event_of(*row) for row in self._read(f"{_EVENTS} {where} ORDER BY events.id", *values)]

    def fact(self, key: str) -> str | None:
        """A fact of the workspace; None if it was never recorded."""
        rows = self._read("SELECT value FROM facts WHERE key = ?", key)
        return str(rows[0]["value"]) if rows else None

    def requested_by(self, task: Task) -> str:
        """Who made the request that stands on the task."""
        rows = self._read("SELECT requested_by FROM tasks WHERE id = ?", task.id)
        return str(rows[0]["requested_by"] or "") if rows else ""

    def _tasks(self, sql: str, *values: object) -> list[Task]:
        with self._sense():
            return [packing.task_of(*row) for row in self._read(sql, *values)]

    def _done(self, sql: str, *values: object) -> list[DoneTask]:
        with self._sense():
            return [packing.done_of(*row) for row in self._read(sql, *values)]

    def _runs(self, sql: str, *values: object) -> list[Run]:
        with self._sense():
            return [packing.run_of(*row) for row in self._read(sql, *values)]

    @contextlib.contextmanager
    def _sense(self) -> Iterator[None]:
        """Rows in which there is what nobody of ours wrote are damage, too."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{self.path}: a row of the state database makes no sense: {error}", hint=REPAIR) from error

    def _read(self, sql: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise trouble(self.path, "read", error) from error


class Transaction:
    """The writes. They exist only here, so that none can happen outside of a transaction."""

    def __init__(self, connection: sqlite3.Connection, who: str, now: float) -> None:
        self._connection = connection
        self._who = who
        self._now = now

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
        known: dict[str, int] = {}
        rows = []
        for task in tasks:
            task.config.encode()  # like a name that is not UTF-8, which the database itself refuses
            text = packing.task_text(task)
            shared = known.get(text) or known.setdefault(text, self._text(text))
            rows.append({"id": task.id, "name": task.name, "shared": shared, **packing.task_columns(task)})
        try:
            self._insert("tasks", *rows)
        except sqlite3.IntegrityError:
            taken = next((task.name for task in tasks if self._is_known(task)), "one of them")
            raise Conflict(f"{taken} was queued by somebody else at this moment; nothing was queued") from None
        self._log([task.id for task in tasks], None, "Queued", None, TaskState.QUEUED.value, None)
        return tasks

    def apply(self, task: Task, event: TaskEvent) -> Task:
        """Move a task. The row must still be in a state from which the event is allowed.

        Raises:
            Conflict: somebody moved it first.
        """
        moved = lifecycle.apply_task(task, event, self._now)
        sources = [state.value for state in lifecycle.task_sources(event)]
        # What tells this stay in the state from an earlier one: a view may be older than a whole run.
        same = {"attempts": task.attempts, "queue_number": task.queue_number}
        columns = packing.task_columns(moved)
        if moved.spec is not task.spec:
            columns["shared"] = self._text(packing.task_text(moved))
        self._update("tasks", columns, task.id, sources, task.name, same)
        # What was asked for meanwhile outlives a run that never began: the scheduler sees it on the queued task.
        if not isinstance(event, lifecycle.Began | lifecycle.GaveBack):
            self._connection.execute("UPDATE tasks SET request = NULL, requested_by = NULL WHERE id = ?", (task.id,))
        why = moved.reason.text if moved.reason else None
        self._log([task.id], None, type(event).__name__, task.state.value, moved.state.value, why)
        return moved

    def add_run(self, run: Run) -> None:
        """Record the intent of a run."""
        keys = {"id": run.id, "task_id": run.task_id, "attempt": run.attempt}
        self._insert("runs", {**keys, "shared": self._text(packing.run_text(run)), **packing.run_columns(run)})
        self._log([run.task_id], run.id, "Intended", None, run.state.value, f"GPU {', '.join(map(str, run.gpus))}")

    def apply_run(self, run: Run, event: RunEvent) -> Run:
        """Move a run, under the same guard.

        Raises:
            Conflict: somebody moved it first.
        """
        moved = lifecycle.apply_run(run, event, self._now)
        sources = [state.value for state in lifecycle.run_sources(event)]
        self._update("runs", packing.run_columns(moved), run.id, sources, f"run {run.id} of {run.task}")
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
        self._log([task.id], None, f"Asked to {request.value}", task.state.value, task.state.value, None)

    def relocate(self, old: str, new: str) -> None:
        """The workspace was moved: each path on record that lay in the old place now lies in the new one."""
        for row in self._connection.execute(_TASKS).fetchall():
            task = packing.task_of(*row)
            there = replace(task, config=moved(task.config, old, new), spec=_moved(task.spec, old, new))
            if there != task:
                shared = self._text(packing.task_text(there))
                where = (there.spec.old_marker or None, task.id)
                self._connection.execute("UPDATE tasks SET shared = ?, old_marker = ? WHERE id = ?", (shared, *where))
        for row in self._connection.execute(_RUNS).fetchall():
            run = packing.run_of(*row)
            paths = {name: moved(getattr(run, name), old, new) for name in ("directory", "work_dir", "log", "marker")}
            after = replace(run, **paths, record=_moved(run.record, old, new))
            if after != run:
                shared, record = self._text(packing.run_text(after)), packing.run_columns(after)["record"]
                self._connection.execute(
                    "UPDATE runs SET shared = ?, record = ? WHERE id = ?", (shared, record, run.id)
                )

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
        row: Mapping[str, object],
        key: object,
        states: list[str],
        what: str,
        same: Mapping[str, object] = _NOTHING,
    ) -> None:
        columns = ", ".join(f"{name} = ?" for name in row)
        marks = ", ".join("?" * len(states))
        guards = "".join(f" AND {name} = ?" for name in same)
        sql = f"UPDATE {table} SET {columns} WHERE id = ? AND state IN ({marks}){guards}"
        hit = self._connection.execute(sql, (*row.values(), key, *states, *same.values())).rowcount
        if hit != 1:
            raise Conflict(f"{what} was changed by somebody else at this moment; nothing was written")

    def _text(self, text: str) -> int:
        """The number of a text that rows share."""
        return packing.number_of(self._connection, text)

    def _log(
        self, tasks: Sequence[int], run: str | None, what: str, old: str | None, new: str | None, why: str | None
    ) -> None:
        shared = self._text(packing.event_text(self._who, what, old, new))
        sql = "INSERT INTO events (at, task_id, run_id, shared, why) VALUES (?, ?, ?, ?, ?)"
        self._connection.executemany(sql, [(self._now, task, run, shared, why) for task in tasks])


def _event_of(at: float, text: str, task_id: int, run_id: str | None, why: str | None) -> Event:
    who, what, from_state, to_state = packing.event_of(text)
    return Event(at, who, task_id, run_id, what, from_state, to_state, why)


def _moved(record: Moved, old: str, new: str) -> Moved:
    """The record with its paths where they are after a move."""
    return replace(record, **{field.name: moved(getattr(record, field.name), old, new) for field in fields(record)})
