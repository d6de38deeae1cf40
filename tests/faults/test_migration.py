"""Killed at every statement of a migration, a database with content is migrated whole by the next who opens it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tinksched.store.database import migrations

OLD = Path(__file__).parents[1] / "unit" / "databases"
VICTIM = """
import os, signal, sys
from pathlib import Path
from tinksched.store import Store, database

left = int(sys.argv[2])

def die_in_between(script, _statements=database.statements):
    global left
    for statement in _statements(script):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        yield statement
    if left == 0:  # all are executed, and nothing is committed
        os.kill(os.getpid(), signal.SIGKILL)

database.statements = die_in_between
Store(Path(sys.argv[1])).close()
"""


def content(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.execute("SELECT id, name, state, priority FROM tasks ORDER BY id"))
    finally:
        connection.close()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_migration_that_is_killed_at_any_statement_loses_nothing(tmp_path: Path, version: int) -> None:
    path, killed = tmp_path / "state.db", 0
    while True:
        path.unlink(missing_ok=True)
        old = sqlite3.connect(path)
        old.executescript((OLD / f"version{version}.sql").read_text())
        old.close()
        before = content(path)
        assert before
        code = subprocess.run([sys.executable, "-c", VICTIM, str(path), str(killed)]).returncode
        assert content(path) == before
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert subprocess.run([sys.executable, "-c", VICTIM, str(path), "-1"]).returncode == 0
        assert content(path) == before
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(migrations())
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        connection.close()
        killed += 1
    assert killed > len(migrations()) - version, "every statement was met"
