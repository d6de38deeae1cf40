"""The server's own tables: jobs and tokens. They lie in the database of its tasks, so that one commit has both."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.model import Hold, Reason
from ..errors import StoreError
from ..store import PAUSED, STOPPED, records
from ..store.database import connect, statements
from ..store.transaction import Transaction

MOST_REJECTIONS = 100  # of a user that are kept
VERSION = "server_schema"  # the fact that says which of the migrations were carried out


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted job with what has become of it. Times are seconds since the epoch."""

    id: str
    user: str
    competition: str
    project: str
    expected_time: int
    created_at: float
    status: str  # pending, running, completed, failed, cancelled
    gpus: tuple[int, ...]  # of its last run
    started_at: float | None
    ended_at: float | None
    exit_code: int | None
    reason: Reason | None
    queue_number: int
    priority: int
    hold: Hold | None  # somebody wants it to wait
    results_file: str | None
    warnings: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however."""
        return self.status not in ("pending", "running")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a job is, and what it is to them."""

    task_id: int
    job_id: str
    user: str
    competition: str
    project: str
    created_at: float


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is accepted; its task was queued in the same transaction."""

    id: str
    task_id: int
    user: str
    competition: str
    project: str
    expected_time: int
    config: str
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Old:
    """A job that ended long ago."""

    id: str
    results_files: tuple[str, ...]  # of all its runs


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a credential; the thing itself is not kept."""

    user: str
    kind: str
    is_admin: bool
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def is_good(self, now: float) -> bool:
        """Whether it lets its owner in."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Code that the scan refused. Of the code itself only its SHA-256 is kept."""

    user: str
    at: float
    findings: tuple[str, ...]
    digest: str


def migrate(tx: Transaction) -> None:
    """Bring the server's tables to the newest version.

    Raises:
        StoreError: they were written by a newer version.
    """
    scripts = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
    row = tx.connection.execute("SELECT value FROM facts WHERE key = ?", (VERSION,)).fetchone()
    done = int(row[0]) if row else 0
    if done > len(scripts):
        raise StoreError(
            f"the server's tables were written by a newer tinksched (version {done}; this one knows {len(scripts)})",
            hint="install the newer tinksched again",
        )
    for script in scripts[done:]:
        for statement in statements(script.read_text(encoding="utf-8")):
            tx.connection.execute(statement)
    if done < len(scripts):
        tx.set_fact(VERSION, str(len(scripts)))


# ---------------------------------------------------------------- writing, each in somebody's transaction


def add_job(tx: Transaction, job: NewJob, now: float) -> None:
    """Put a job on record."""
    tx.connection.execute(
        "INSERT INTO server_jobs (job_id, task_id, user_id, competition_id, project_id, expected_time, created_at, "
        "config, warnings) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (job.id, job.task_id, job.user, job.competition, job.project, job.expected_time, now, job.config,
         json.dumps(list(job.warnings))),
    )  # fmt: skip


def choose_results_file(tx: Transaction, job_id: str, path: str) -> bool:
    """Record where the results of a job will be written, before they are. False if another job has that file."""
    taken = tx.connection.execute(
        "SELECT 1 FROM server_jobs WHERE results_file = ? AND job_id != ?", (path, job_id)
    ).fetchone()
    if taken is None:
        tx.connection.execute("UPDATE server_jobs SET results_file = ? WHERE job_id = ?", (path, job_id))
    return taken is None


def set_collected(tx: Transaction, job_ids: Sequence[str]) -> None:
    """The ends of these jobs have been dealt with."""
    tx.connection.executemany("UPDATE server_jobs SET collected = 1 WHERE job_id = ?", [(one,) for one in job_ids])


def is_dealt_with(tx: Transaction, job_id: str) -> bool:
    """Whether nothing is left to be done about the end of a job's last run."""
    sql = "SELECT 1 FROM server_jobs WHERE job_id = ? AND collected = 0"
    return tx.connection.execute(sql, (job_id,)).fetchone() is None


def add_rejection(tx: Transaction, rejection: Rejection) -> None:
    """Put a refusal on record; the user's oldest ones go."""
    tx.connection.execute(
        "INSERT INTO server_rejections (user_id, at, findings, code_sha256) VALUES (?, ?, ?, ?)",
        (rejection.user, rejection.at, json.dumps(rejection.findings), rejection.digest),
    )
    tx.connection.execute(
        "DELETE FROM server_rejections WHERE user_id = ? AND id NOT IN "
        "(SELECT id FROM server_rejections WHERE user_id = ? ORDER BY id DESC LIMIT ?)",
        (rejection.user, rejection.user, MOST_REJECTIONS),
    )


def add_token(tx: Transaction, digest: str, token: Token) -> bool:
    """Let somebody in by a token from now on; the user's older ones of this kind end.

    False, and nothing is done, if the same token is or was another user's or of another kind: who knows it must not
    become somebody else by that.
    """
    row = tx.connection.execute("SELECT user_id, kind FROM server_tokens WHERE hash = ?", (digest,)).fetchone()
    if row is not None and tuple(row) != (token.user, token.kind):
        return False
    revoke(tx, token.user, token.created_at, kind=token.kind)
    tx.connection.execute(
        "INSERT INTO server_tokens (hash, user_id, kind, is_admin, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (hash) DO UPDATE SET is_admin = excluded.is_admin, created_at = excluded.created_at, "
        "expires_at = excluded.expires_at, revoked_at = NULL",
        (digest, token.user, token.kind, int(token.is_admin), token.created_at, token.expires_at),
    )
    return True


def revoke(tx: Transaction, user: str, now: float, *, kind: str | None = None) -> int:
    """End a user's tokens, all or those of a kind. Returns how many were good until now."""
    return tx.connection.execute(
        "UPDATE server_tokens SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL "
        "AND coalesce(expires_at > ?, 1) AND kind = coalesce(?, kind)",
        (now, user, now, kind),
    ).rowcount


def revoke_token(tx: Transaction, digest: str, now: float) -> bool:
    """End one token. False if there is none, or it had ended before."""
    sql = "UPDATE server_tokens SET revoked_at = ? WHERE hash = ? AND revoked_at IS NULL"
    return tx.connection.execute(sql, (now, digest)).rowcount == 1


def is_taken(connection: sqlite3.Connection, user: str) -> bool:
    """Whether somebody has this name, or had it."""
    sql = "SELECT 1 FROM server_tokens WHERE user_id = ? COLLATE NOCASE"
    return connection.execute(sql, (user,)).fetchone() is not None


def digest_of(token: str) -> str:
    """The SHA-256 under which a token is known."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------- reading

_COLUMNS = (
    "job_id, user_id, competition_id, project_id, expected_time, created_at, status, gpus, run_at, ended_at, "
    "changed_at, state, exit_code, reason, queue_number, priority, results_file, warnings, "
    "(SELECT hold FROM tasks WHERE id = task_id) AS hold"
)


# As in the view `server_listed`, which joins what a count has no need of: of many jobs that takes long.
_STATUS = (
    "CASE t.state WHEN 'queued' THEN 'pending' WHEN 'active' THEN 'running' ELSE "
    "CASE WHEN t.outcome IN ('completed', 'cancelled') THEN t.outcome ELSE 'failed' END END"
)
_BOTH = (
    "(SELECT job_id, task_id, collected, results_file FROM server_jobs "
    "UNION ALL SELECT job_id, task_id, collected, NULL FROM server_services)"
)


class Tables:
    """Reads, for one thread. Nothing that is read here waits for anybody who writes."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError: the database can't be opened."""
        self._connection = connect(path, create=False)
        self.seen: dict[str, float] = {}  # when users last called, since the server began

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def select(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """What a query finds, for tables that others know."""
        return self._connection.execute(sql, values).fetchall()

    def job(self, job_id: str) -> Job | None:
        """One job."""
        return next(self._jobs("WHERE job_id = ?", job_id), None)

    def jobs(self, user: str | None = None, status: str | None = None, limit: int = 50) -> list[Job]:
        """The newest jobs first, of a user or of all, in a status or in any."""
        of, whom = _of(user)
        state = {None: "1", "pending": "state = 'queued'", "running": "state = 'active'"}.get(status, "status = ?")
        values = (*whom, *([status] if state.endswith("?") else []), limit)
        where = f"WHERE {of} AND {state} ORDER BY created_at DESC, task_id DESC LIMIT ?"
        return list(self._jobs(where, *values))

    def waiting(self) -> list[Job]:
        """The jobs that wait, in the order in which they are considered."""
        return list(self._jobs("WHERE state = 'queued' ORDER BY priority DESC, queue_number"))

    def running(self) -> list[Job]:
        """The jobs that run."""
        return list(self._jobs("WHERE state = 'active' ORDER BY run_at"))

    def ended(self, limit: int, user: str | None = None) -> list[Job]:
        """Those that ended last, the newest first."""
        of, whom = _of(user)
        by = "changed_at" if user is None else "+changed_at"  # +: a user's are found by the user
        return list(self._jobs(f"WHERE state = 'done' AND {of} ORDER BY {by} DESC LIMIT ?", *whom, limit))

    def uncollected(self) -> list[Job]:
        """Those that have ended and whose end nobody has dealt with."""
        return list(self._jobs("WHERE collected = 0 AND +state = 'done'"))  # +: few are not, and many have ended

    def flagged(self, user: str | None = None) -> list[Job]:
        """The jobs that were accepted with a warning, the newest first."""
        of, whom = _of(user)
        return list(self._jobs(f"WHERE warnings != '[]' AND {of} ORDER BY created_at DESC", *whom))

    def rejections(self, user: str | None = None) -> list[Rejection]:
        """What the scan refused, the newest first."""
        of, whom = _of(user)
        sql = f"SELECT user_id, at, findings, code_sha256 FROM server_rejections WHERE {of} ORDER BY id DESC"
        rows = self._connection.execute(sql, whom)
        return [Rejection(row[0], row[1], tuple(json.loads(row[2])), row[3]) for row in rows]

    def end_of(self, job_id: str) -> tuple[bool, bool]:
        """Whether a job of either API has ended, and whether its end has been dealt with. Both of one that is gone."""
        sql = f"SELECT state = 'done', collected FROM {_BOTH} JOIN tasks ON tasks.id = task_id WHERE job_id = ?"
        row = self._connection.execute(sql, (job_id,)).fetchone()
        return (True, True) if row is None else (bool(row[0]), bool(row[0] and row[1]))

    def user_of(self, job_id: str) -> str | None:
        """Whose a job of either API is; None of one that is not on record."""
        sql = "SELECT user_id FROM {} WHERE job_id = ?1"
        both = f"{sql.format('server_jobs')} UNION ALL {sql.format('server_services')}"
        row = self._connection.execute(both, (job_id,)).fetchone()
        return None if row is None else str(row[0])

    def owners(self, task_ids: Sequence[int]) -> list[Owner]:
        """Whose the jobs of these tasks are."""
        sql = (
            "SELECT task_id, job_id, user_id, competition_id, project_id, created_at FROM server_jobs "
            "WHERE task_id IN (SELECT value FROM json_each(?))"
        )
        return [Owner(*row) for row in self._connection.execute(sql, (json.dumps(task_ids),))]

    def config_of(self, job_id: str) -> str | None:
        """The config of a job, without its token."""
        row = self._connection.execute("SELECT config FROM server_jobs WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else str(row[0])

    def job_ids(self) -> set[str]:
        """The ids of all jobs of both APIs."""
        return {row[0] for row in self._connection.execute(f"SELECT job_id FROM {_BOTH}")}

    def ended_before(self, at: float) -> list[Old]:
        """The jobs of both APIs that had ended at a time, and whose ends were dealt with."""
        sql = (
            "SELECT job_id, (SELECT json_group_array(file) FROM "
            "(SELECT results_file AS file FROM server_earlier_results e WHERE e.task_id = t.id "
            "UNION ALL SELECT j.results_file) WHERE file IS NOT NULL) "
            f"FROM tasks t JOIN {_BOTH} j ON t.id = j.task_id "
            "WHERE state = 'done' AND collected = 1 AND changed_at < ? ORDER BY changed_at"
        )
        return [Old(row[0], tuple(json.loads(row[1]))) for row in self._connection.execute(sql, (at,))]

    def without_task(self) -> list[str]:
        """The jobs of both APIs whose tasks are gone: somebody has cleaned the workspace, and not the server."""
        sql = f"SELECT job_id FROM {_BOTH} WHERE task_id NOT IN (SELECT id FROM tasks)"
        return [row[0] for row in self._connection.execute(sql)]

    def queue(self) -> list[tuple[str, int]]:
        """The jobs that wait and the seconds that each is expected to take, in the order of the queue."""
        sql = (
            "SELECT job_id, expected_time FROM tasks JOIN server_jobs ON server_jobs.task_id = tasks.id "
            "WHERE tasks.state = 'queued' ORDER BY tasks.priority DESC, tasks.queue_number"
        )
        return [(row[0], row[1]) for row in self._connection.execute(sql)]

    def stopped(self) -> tuple[str, str] | None:
        """Who keeps jobs from being started, as in `stopped by alice`, and the command that goes on; None: nobody."""
        sql = "SELECT key, value FROM facts WHERE key IN (?, ?)"
        found = {row[0]: row[1] for row in self._connection.execute(sql, (STOPPED, PAUSED))}
        if STOPPED in found:
            return f"stopped {found[STOPPED]}", "start"
        pause = records.hold_of(found.get(PAUSED))
        return None if pause is None else (f"paused by {pause.user}", "resume")

    def version(self) -> int:
        """A number that changes whenever anybody commits."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def counts(self, user: str | None = None) -> dict[tuple[str, str], int]:
        """How many jobs there are, by user and status."""
        of, whom = _of(user)
        sql = f"SELECT user_id, {_STATUS}, count(*) FROM server_jobs JOIN tasks t ON t.id = task_id WHERE {of} "
        rows = self._connection.execute(
            f"{sql} GROUP BY +user_id, 2", whom
        )  # +: both tables in the order of their rows
        return {(row[0], row[1]): row[2] for row in rows}

    def since(self, at: float, user: str | None = None) -> int:
        """How many jobs were submitted since a time."""
        of, whom = _of(user)
        sql = f"SELECT count(*) FROM server_jobs WHERE {of} AND created_at >= ?"
        return int(self._connection.execute(sql, (*whom, at)).fetchone()[0])

    def token(self, digest: str) -> Token | None:
        """The token of this hash."""
        return next(self._tokens("WHERE hash = ?", digest), None)

    def tokens(self) -> list[Token]:
        """All tokens, by user."""
        return list(self._tokens("ORDER BY user_id, created_at"))

    def users(self) -> list[tuple[str, float, bool]]:
        """All users: the name, when the first token was made, and whether a good one makes an admin."""
        sql = (
            "SELECT user_id, min(created_at), max(is_admin AND revoked_at IS NULL AND coalesce(expires_at > ?, 1)) "
            "FROM server_tokens GROUP BY user_id ORDER BY user_id"
        )
        return [(row[0], row[1], bool(row[2])) for row in self._connection.execute(sql, (time.time(),))]

    def _tokens(self, where: str, *values: object) -> Iterator[Token]:
        sql = f"SELECT user_id, kind, is_admin, created_at, expires_at, revoked_at FROM server_tokens {where}"
        for row in self._connection.execute(sql, values):
            yield Token(row[0], row[1], bool(row[2]), row[3], row[4], row[5])

    def _jobs(self, where: str, *values: object) -> Iterator[Job]:
        for row in self._connection.execute(f"SELECT {_COLUMNS} FROM server_listed {where}", values).fetchall():
            yield _job_of(row)


def active_jobs(connection: sqlite3.Connection, user: str) -> int:
    """How many jobs of a user wait or run."""
    sql = (
        "SELECT count(*) FROM tasks JOIN server_jobs ON server_jobs.task_id = tasks.id "
        "WHERE tasks.state IN ('queued', 'active') AND user_id = ?"
    )
    return int(connection.execute(sql, (user,)).fetchone()[0])


def _of(user: str | None) -> tuple[str, tuple[str, ...]]:
    """The condition that something is this user's, or for None anybody's, and its values. It can use an index."""
    return ("1", ()) if user is None else ("user_id = ?", (user,))


def _job_of(row: sqlite3.Row) -> Job:
    over = row["state"] == "done"
    gpus: Any = json.loads(row["gpus"]) if row["gpus"] else []
    return Job(
        id=row["job_id"],
        user=row["user_id"],
        competition=row["competition_id"],
        project=row["project_id"],
        expected_time=row["expected_time"],
        created_at=row["created_at"],
        status=row["status"],
        gpus=tuple(gpus),
        started_at=None if row["state"] == "queued" else row["run_at"],
        ended_at=(row["ended_at"] or row["changed_at"]) if over else None,
        exit_code=row["exit_code"] if over else None,
        reason=records.reason_of(row["reason"]),
        queue_number=row["queue_number"],
        priority=row["priority"],
        hold=records.hold_of(row["hold"]),
        results_file=row["results_file"],
        warnings=tuple(json.loads(row["warnings"])),
    )
