"""The store: reads at any time, writes only inside of a transaction (see `transaction`)."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.model import Hold, Outcome, Reason, ReasonCode, Run, Task, TaskState
from ..core.relations import Fate
from ..core.usage import Usage
from ..errors import Damaged, StoreError, Unwritable
from . import packing, records
from .database import REPAIR, connect, connect_copy, connect_new, transaction, trouble
from .packing import BARS, GLANCES, ROSTER, RUNS, TASKS, Bar, DoneTask, Glance, Listed, Past, Ran, Remains
from .transaction import Transaction

STOPPED = "stopped"  # the fact that a user stopped the scheduler; `start` clears it
PAUSED = "paused"  # the fact that nothing new starts, as a Hold; `resume` clears it
_AT_ONCE = 500  # names in one query
_DONE = (
    "SELECT tasks.id, name, texts.text, tasks.outcome, tasks.reason, config_hash, priority, attempts, queued_at, "
    "changed_at, ran.text, runs.outcome, exit_code, created_at, ended_at, session, pid, "
    f"{', '.join(f'usage.{name}' for name in packing.USAGE_COLUMNS)} "
    "FROM tasks JOIN texts ON texts.id = tasks.shared "
    "LEFT JOIN runs ON runs.task_id = tasks.id "
    "AND runs.attempt = (SELECT max(attempt) FROM runs r WHERE r.task_id = tasks.id) "
    "LEFT JOIN usage ON usage.run_id = runs.id "
    "LEFT JOIN texts ran ON ran.id = runs.shared WHERE tasks.state = 'done'"
)
_EVENTS = "SELECT at, text, task_id, run_id, why FROM events JOIN texts ON texts.id = events.shared"


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
        return self._tasks(f"{TASKS} ORDER BY tasks.id")

    def task(self, name: str) -> Task | None:
        """The task of this name."""
        found = self._tasks(f"{TASKS} WHERE name = ?", name)
        return found[0] if found else None

    def queue(self) -> list[Task]:
        """The queued tasks, in the order in which they are considered."""
        return self._tasks(f"{TASKS} WHERE state = 'queued' ORDER BY priority DESC, queue_number")

    def named(self, names: Sequence[str]) -> dict[str, Task]:
        """Those of these names that are tasks."""
        found: list[Task] = []
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            found += self._tasks(f"{TASKS} WHERE name IN ({', '.join('?' * len(some))})", *some)
        return {task.name: task for task in found}

    def pasts(self, names: Sequence[str]) -> dict[str, Past]:
        """What has become so far of those of these names that are tasks, by name."""
        with self._sense():
            return {row[0]: packing.past_of(*row) for row in self._read(packing.PASTS, json.dumps(names))}

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

    def roster(self) -> list[Listed]:
        """Every task in a word, by id."""
        return [Listed(*row) for row in self._read(f"{ROSTER} ORDER BY id")]

    def queued_last(self, back: int) -> str | None:
        """The task that was queued last, or the one that was `back` before it; None if there are not so many."""
        rows = self._read("SELECT name FROM tasks ORDER BY queue_number DESC LIMIT 1 OFFSET ?", back)
        return str(rows[0]["name"]) if rows else None

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
        return self._tasks(f"{TASKS} WHERE state = 'active' ORDER BY tasks.id")

    def active_runs(self) -> list[Run]:
        """The runs that have not ended, oldest first."""
        sql = f"{RUNS} WHERE runs.state IN ('starting', 'running') ORDER BY runs.created_at, runs.id"
        return self._runs(sql)

    def runs_of(self, task: Task) -> list[Run]:
        """Every run of a task, by attempt."""
        sql = f"{RUNS} WHERE runs.task_id = ? ORDER BY runs.attempt"
        return self._runs(sql, task.id)

    def remains(self, tasks: Iterable[Task] | Iterable[Listed]) -> list[Remains]:
        """What is left of every run of these tasks."""
        ids = json.dumps([task.id for task in tasks])
        sql = (
            "SELECT runs.id, task_id, name, session, text FROM runs JOIN tasks ON tasks.id = runs.task_id "
            "JOIN texts ON texts.id = runs.shared WHERE task_id IN (SELECT value FROM json_each(?))"
        )
        with self._sense():
            return [packing.remains_of(*row) for row in self._read(sql, ids)]

    def last_runs(self, tasks: Iterable[Task] | None = None) -> dict[int, Run]:
        """The newest run of each task, or of each of these, by task id."""
        newest = f"{RUNS} WHERE runs.attempt = (SELECT max(attempt) FROM runs r WHERE r.task_id = runs.task_id)"
        if tasks is None:
            return {run.task_id: run for run in self._runs(newest)}
        found = (self._runs(f"{newest} AND runs.task_id = ?", task.id) for task in tasks)
        return {run.task_id: run for runs in found for run in runs}

    def ran(self, since: float = 0.0) -> list[Ran]:
        """The runs that had not ended at a time, and all later ones; in the order of their starts."""
        sql = (
            "SELECT name, attempt, runs.outcome, runs.reason, exit_code, text, queued_at, created_at, ended_at "
            "FROM runs JOIN tasks ON tasks.id = runs.task_id JOIN texts ON texts.id = runs.shared "
            "WHERE ended_at IS NULL OR ended_at >= ? ORDER BY created_at, attempt"
        )
        with self._sense():
            return [packing.ran_of(*row) for row in self._read(sql, since)]

    def last_started(self, limit: int) -> list[Run]:
        """The last `limit` runs that were made, newest first."""
        return self._runs(f"{RUNS} ORDER BY runs.rowid DESC LIMIT ?", limit)

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
        sql = f"{RUNS} WHERE runs.state = 'ended' ORDER BY runs.ended_at DESC, runs.id LIMIT ?"
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

    def glances(self, ids: Collection[int] | None = None) -> list[Glance]:
        """All tasks, or those of these ids, each in a few words; by id."""
        where, values = ("", ()) if ids is None else ("WHERE tasks.id IN (SELECT value FROM json_each(?))",
                                                      (json.dumps(list(ids)),))  # fmt: skip
        with self._sense():
            return [packing.glance_of(*row) for row in self._read(f"{GLANCES} {where} ORDER BY tasks.id", *values)]

    def bars(self, since: float, most: int, ids: Collection[int] | None = None) -> list[Bar]:
        """The runs that had not ended at a time and all later ones, of all tasks or of those of these ids: at most so
        many, those that go on and those that ended last."""
        where, values = ("", ()) if ids is None else ("AND task_id IN (SELECT value FROM json_each(?))",
                                                      (json.dumps(list(ids)),))  # fmt: skip
        sql = f"{BARS} WHERE {{}} {where} {{}}"
        with self._sense():
            rows = self._read(sql.format("state IN ('starting', 'running')", ""), *values)
            ended = "state = 'ended' AND ended_at >= ?"
            rows += self._read(sql.format(ended, "ORDER BY ended_at DESC LIMIT ?"), since, *values, most)
            return [packing.bar_of(*row) for row in rows]

    def gpu_seconds(self, now: float) -> dict[int, float]:
        """For how long each task, by id, had GPUs so far: of a run on two of them each second counts twice."""
        rows = self._read(
            "SELECT task_id, sum(max(0, coalesce(ended_at, ?) - created_at) * json_array_length(text, '$.gpus')) "
            "FROM runs JOIN texts ON texts.id = runs.shared GROUP BY task_id",
            now,
        )
        return {row[0]: row[1] for row in rows if row[1]}

    def touched(self, after: int) -> tuple[int, set[int]]:
        """The number of the last event, and the ids of the tasks that events behind `after` are about.

        Numbers may be given again after `clean`, which is seen by the number of tasks (`population`).
        """
        rows = self._read("SELECT id, task_id FROM events WHERE id > ?", after)
        last = self._read("SELECT coalesce(max(id), 0) FROM events")[0][0]
        return int(last), {row["task_id"] for row in rows}

    def population(self) -> tuple[int, int]:
        """How many tasks there are, and the highest id of them."""
        row = self._read("SELECT count(*), coalesce(max(id), 0) FROM tasks")[0]
        return int(row[0]), int(row[1])

    def check_events(self) -> None:
        """Read the whole event log, and make nothing of it.

        Raises:
            Damaged: there is something in it that makes no sense.
        """
        with self._sense():
            for text in {row["text"] for row in self._read(_EVENTS)}:
                packing.event_of(text)

    def usage_of(self, run_ids: Collection[str]) -> dict[str, Usage]:
        """What these runs were seen to use, by id, as far as anybody looked."""
        columns = ", ".join(packing.USAGE_COLUMNS)
        sql = f"SELECT run_id, {columns} FROM usage WHERE run_id IN (SELECT value FROM json_each(?))"
        with self._sense():
            return {row[0]: packing.usage_of(*row[1:]) for row in self._read(sql, json.dumps(list(run_ids)))}

    def peaks(self, limit: int) -> list[tuple[str, int]]:
        """Of the last `limit` runs that were looked at those that completed: their tasks' names, and the most memory
        (bytes) that they had on a GPU. The newest first."""
        rows = self._read(
            "SELECT name, gpu_memory_peak "
            "FROM (SELECT rowid AS number, run_id, gpu_memory_peak FROM usage ORDER BY rowid DESC LIMIT ?) AS last "
            "CROSS JOIN runs ON runs.id = last.run_id CROSS JOIN tasks ON tasks.id = runs.task_id "
            "WHERE runs.outcome = 'completed' AND gpu_memory_peak IS NOT NULL ORDER BY number DESC",
            limit,
        )
        return [(row[0], row[1]) for row in rows]

    def durations(self, limit: int) -> list[tuple[str, float]]:
        """Of the last `limit` runs that ended those that completed: their tasks' names, and how long they took in
        seconds. The newest first."""
        rows = self._read(
            "SELECT name, ended_at - created_at FROM (SELECT task_id, outcome, created_at, ended_at FROM runs "
            "WHERE state = 'ended' ORDER BY ended_at DESC LIMIT ?) AS last "
            "CROSS JOIN tasks ON tasks.id = last.task_id WHERE last.outcome = 'completed'",
            limit,
        )
        return [(row[0], max(0.0, row[1])) for row in rows]

    def fact(self, key: str) -> str | None:
        """A fact of the workspace; None if it was never recorded."""
        rows = self._read("SELECT value FROM facts WHERE key = ?", key)
        return str(rows[0]["value"]) if rows else None

    def pause(self) -> Hold | None:
        """Who paused the workspace, and since when."""
        with self._sense():
            return records.hold_of(self.fact(PAUSED))

    def paused(self) -> Reason | None:
        """Why nothing starts; None if nobody paused the workspace."""
        pause = self.pause()
        return None if pause is None else Reason(ReasonCode.PAUSED, {"user": pause.user, "since": pause.since})

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


def _event_of(at: float, text: str, task_id: int, run_id: str | None, why: str | None) -> Event:
    who, what, from_state, to_state = packing.event_of(text)
    return Event(at, who, task_id, run_id, what, from_state, to_state, why)
