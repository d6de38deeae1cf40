"""Opening the SQLite file: created private, migrated step by step, refused when it isn't ours or is newer than we are.

The commit is the durable record: WAL with `synchronous=FULL` syncs the log at every commit
(https://www.sqlite.org/pragma.html#pragma_synchronous). A file that can't be read is left exactly as it is.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from ..errors import StoreError

APPLICATION_ID = 0x74_69_6E_6B  # "tink", see https://www.sqlite.org/pragma.html#pragma_application_id
BUSY_SECONDS = 20.0


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the database at `path` for reading and writing, at the newest version that this program knows.

    Raises:
        StoreError: it isn't there (and `create` is false), isn't ours, is damaged, is newer, or can't be written.
    """
    try:
        if create:
            _create_private(path)
        elif path.stat().st_size == 0:  # what a full disk or a failed copy leaves of a queue
            raise StoreError(f"{path}: the state database is empty, and it was left as it is", hint="tinksched start")
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: the state database can't be opened: {error}") from None
    try:
        connection.row_factory = sqlite3.Row
        _check_ours(connection, path)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        raise _unreadable(path, error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def connect_new(path: Path) -> sqlite3.Connection:
    """A private new file without tables, for a copy of another database.

    Raises:
        OSError, sqlite3.Error: it can't be made.
    """
    path.unlink(missing_ok=True)
    _create_private(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One write transaction: all of it is on disk when the block ends, or nothing of it.

    Raises:
        StoreError: the disk is full, the database is locked for longer than 20 s, or it is damaged.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            _roll_back(connection)
            raise
        connection.execute("COMMIT")
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        _roll_back(connection)
        raise StoreError(f"{path}: the state database can't be written: {error}") from error


def migrations() -> list[str]:
    """The SQL of each version, in order; the first one makes version 1."""
    folder = resources.files("tinksched.store") / "migrations"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".sql")), key=lambda item: item.name)
    return [item.read_text(encoding="utf-8") for item in files]


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _create_private(path: Path) -> None:
    """SQLite gives its side files the permissions of the main file, so that one must be private from its first byte."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Look before anything is written: a foreign or newer file must stay untouched."""
    connection.execute("BEGIN")  # one snapshot: somebody else may be making the tables at this moment
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute("COMMIT")
    known = len(migrations())
    if tables and application != APPLICATION_ID:
        raise StoreError(
            f"{path}: this is a database of another program, and it was left as it is",
            hint="move it away, or name another state folder",
        )
    if version > known:
        raise StoreError(
            f"{path}: the state was written by a newer tinksched (version {version}; this one knows up to {known}), "
            "and it was left as it is",
            hint="install the newer tinksched again: pip install --upgrade tinksched",
        )


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite does not wait for others here by itself, as it does everywhere else."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.002)


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to the newest version, each step in a transaction of its own.

    Two processes may arrive at once: the version is read again inside of the transaction.
    """
    steps = migrations()
    while connection.execute("PRAGMA user_version").fetchone()[0] < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version < len(steps):
                for statement in _statements(steps[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _unreadable(path: Path, error: sqlite3.Error) -> StoreError:
    return StoreError(
        f"{path}: the state database can't be read ({error}), and it was left as it is",
        hint=f"to begin with an empty state, move it away yourself: mv {path} {path}.damaged",
    )
