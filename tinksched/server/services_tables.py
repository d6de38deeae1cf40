"""The service jobs in the server's tables, beside the jobs of the queue API."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.model import Reason
from ..store import records
from ..store.transaction import Transaction
from .tables import Tables

Kind = Literal["training", "inference"]
ACTIVE = ("QUEUED", "STARTING", "RUNNING")
STATUSES = (*ACTIVE, "COMPLETED", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Service:
    """A service job with what has become of it. Times are seconds since the epoch."""

    id: str
    user: str
    kind: Kind
    status: str  # one of STATUSES
    gpus_wanted: int
    gpus: tuple[int, ...]  # of its last run
    port: int | None  # of its last run
    created_at: float
    started_at: float | None
    ready_at: float | None
    ended_at: float | None
    exit_code: int | None
    reason: Reason | None
    error: str | None
    run: str | None  # the id of its last run
    request: Mapping[str, Any]  # what was asked for, without secrets

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however."""
        return self.status not in ACTIVE


@dataclass(frozen=True, slots=True)
class NewService:
    """A service job that is accepted; its task was queued in the same transaction."""

    id: str
    task_id: int
    user: str
    kind: Kind
    gpus: int
    request: Mapping[str, Any]


# ---------------------------------------------------------------- writing, each in somebody's transaction


def add_service(tx: Transaction, service: NewService, now: float) -> None:
    """Put a service job on record."""
    tx.connection.execute(
        "INSERT INTO server_services (job_id, task_id, user_id, kind, gpus_wanted, created_at, request) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (service.id, service.task_id, service.user, service.kind, service.gpus, now, json.dumps(service.request)),
    )


def set_progress(tx: Transaction, job_id: str, run: str, port: int | None, ready_at: float | None) -> None:
    """Its run has this port, and answered there at this time. Of a run that is not its last one nothing is written."""
    sql = (
        "UPDATE server_services SET port = ?, ready_at = ? WHERE job_id = ? "
        "AND ? = (SELECT id FROM runs WHERE runs.task_id = server_services.task_id ORDER BY attempt DESC LIMIT 1)"
    )
    tx.connection.execute(sql, (port, ready_at, job_id, run))


def set_closing(tx: Transaction, job_id: str) -> None:
    """Somebody said that it has done its work: however its processes end, it is completed."""
    tx.connection.execute("UPDATE server_services SET closing = 'completed' WHERE job_id = ?", (job_id,))


def set_ended(tx: Transaction, job_id: str, error: str | None) -> None:
    """Its end has been dealt with."""
    tx.connection.execute("UPDATE server_services SET collected = 1, error = ? WHERE job_id = ?", (error, job_id))


def active_services(connection: sqlite3.Connection, user: str) -> int:
    """How many service jobs of a user wait or run."""
    sql = (
        "SELECT count(*) FROM tasks JOIN server_services ON server_services.task_id = tasks.id "
        "WHERE tasks.state IN ('queued', 'active') AND user_id = ?"
    )
    return int(connection.execute(sql, (user,)).fetchone()[0])


# ---------------------------------------------------------------- reading

_COLUMNS = (
    "job_id, user_id, kind, status, gpus_wanted, gpus, port, created_at, state, run_at, ready_at, ended_at, "
    "changed_at, exit_code, reason, error, run_id, request"
)


class ServiceTables:
    """Reads, through the connection of the other tables."""

    def __init__(self, known: Tables) -> None:
        self._known = known

    def service(self, job_id: str) -> Service | None:
        """One service job."""
        return next(self._services("WHERE job_id = ?", job_id), None)

    def services(self, user: str | None = None) -> list[Service]:
        """All of a user or of everybody, in the order of their submission."""
        return list(self._services("WHERE user_id = coalesce(?, user_id) ORDER BY created_at, task_id", user))

    def running(self) -> list[Service]:
        """Those that have GPUs: they start or run."""
        return list(self._services("WHERE state = 'active'"))

    def starting(self) -> list[Service]:
        """Those that have not answered on their ports yet."""
        return list(self._services("WHERE state = 'active' AND ready_at IS NULL"))

    def uncollected(self) -> list[Service]:
        """Those that have ended and whose end nobody has dealt with."""
        return list(self._services("WHERE collected = 0 AND state = 'done'"))

    def of_tasks(self, task_ids: Sequence[int]) -> dict[int, Service]:
        """Those of these tasks that are service jobs, by the ids of the tasks."""
        sql = (
            f"SELECT task_id, {_COLUMNS} FROM server_services_listed WHERE task_id IN (SELECT value FROM json_each(?))"
        )
        return {row["task_id"]: _service_of(row) for row in self._known.select(sql, json.dumps(task_ids))}

    def moving(self) -> set[int]:
        """The tasks of those of which something may be written down that is no event of the task: their ids."""
        sql = (
            "SELECT task_id FROM server_services JOIN tasks ON tasks.id = task_id "
            "WHERE collected = 0 AND (state = 'done' OR (state = 'active' AND ready_at IS NULL))"
        )
        return {row["task_id"] for row in self._known.select(sql)}

    def place(self, job_id: str) -> int | None:
        """Its place among all that wait, from 1; None if it doesn't wait."""
        sql = (
            "SELECT (SELECT count(*) FROM tasks o WHERE o.state = 'queued' AND (o.priority > t.priority "
            "OR (o.priority = t.priority AND o.queue_number <= t.queue_number))) "
            "FROM tasks t WHERE t.name = ? AND t.state = 'queued'"
        )
        return next((int(row[0]) for row in self._known.select(sql, job_id)), None)

    def _services(self, where: str, *values: object) -> Iterator[Service]:
        for row in self._known.select(f"SELECT {_COLUMNS} FROM server_services_listed {where}", *values):
            yield _service_of(row)


def _service_of(row: sqlite3.Row) -> Service:
    over = row["state"] == "done"
    gpus: Any = json.loads(row["gpus"]) if row["gpus"] else []
    return Service(
        id=row["job_id"],
        user=row["user_id"],
        kind=row["kind"],
        status=row["status"],
        gpus_wanted=row["gpus_wanted"],
        gpus=tuple(gpus),
        port=row["port"],
        created_at=row["created_at"],
        started_at=None if row["state"] == "queued" else row["run_at"],
        ready_at=row["ready_at"],
        ended_at=(row["ended_at"] or row["changed_at"]) if over else None,
        exit_code=row["exit_code"] if over else None,
        reason=records.reason_of(row["reason"]),
        error=row["error"],
        run=row["run_id"],
        request=json.loads(row["request"]),
    )
