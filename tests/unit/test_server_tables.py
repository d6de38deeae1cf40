"""The server's own tables, of many jobs."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tinksched.config.server import load_server
from tinksched.server import state
from tinksched.server.tables import Tables


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """That of a server that has just been made."""
    config = tmp_path / "server.yml"
    config.write_text("state_dir: state\n")
    place, _ = state.prepare(load_server(config))
    return place.database


READS: dict[str, tuple[Callable[[Tables], object], str]] = {
    "a job": (lambda known: known.job("x"), "(job_id=?)"),
    "the newest": (lambda known: known.jobs(), "server_jobs_created"),
    "a user's newest": (lambda known: known.jobs("alice"), "server_jobs_user (user_id=?)"),
    "those that wait": (lambda known: known.jobs(None, "pending"), "tasks_queue"),
    "those that run": (lambda known: known.jobs(None, "running"), "tasks_active"),
    "the last that ended": (lambda known: known.ended(10), "server_ended"),
    "a user's last": (lambda known: known.ended(10, "alice"), "(user_id=?)"),
    "a user's tally": (lambda known: known.counts("alice"), "(user_id=?)"),
    "since yesterday": (lambda known: known.since(time.time() - 86_400), "(created_at>?)"),
    "a user's since yesterday": (lambda known: known.since(time.time(), "alice"), "(user_id=? AND created_at>?)"),
    "not dealt with": (lambda known: known.uncollected(), "server_jobs_open"),
    "the queue": (lambda known: known.queue(), "tasks_queue"),
}


@pytest.mark.parametrize("what", READS)
def test_what_the_event_loop_reads_is_found_by_an_index(database: Path, what: str) -> None:
    read, index = READS[what]
    known = Tables(database)
    asked: list[str] = []
    known._connection.set_trace_callback(asked.append)
    read(known)
    known._connection.set_trace_callback(None)
    known.close()
    with contextlib.closing(sqlite3.connect(database)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    assert any(index in line for line in plan), plan
    assert not [line for line in plan if line.startswith("SCAN") and " USING " not in line], plan
