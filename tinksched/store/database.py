"""Opening the SQLite file: created private, migrated step by step, refused when it isn't ours or is newer than we are.

The commit is the durable record: WAL with `synchronous=FULL` syncs the log at every commit
(https://www.sqlite.org/pragma.html#pragma_synchronous). A file that can't be read is left exactly as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import Damaged, StoreError, Unwritable
from . import packing

APPLICATION_ID = 0x74_69_6E_6B  # "tink", see https://www.sqlite.org/pragma.html#pragma_application_id
BUSY_SECONDS = 20.0
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_DISK_TROUBLE = ("disk is full", "readonly database", "disk I/O error", "unable to open database file")
REPAIR = "tinksched doctor --repair keeps it aside and rebuilds the queue from what else is on the disk"


def connect(path: Path, *, create: bool, shared: bool = False) -> sqlite3.Connection:
    """Open the database at `path` for reading and writing, at the newest version that this program knows.

    `shared` says that it lies on a network file system. A write-ahead log needs memory that all who open the file
    share, so it is not safe there (https://www.sqlite.org/wal.html): a rollback journal is used.

    Raises:
        StoreError: it isn't there (and `create` is false), is newer, or is locked.
        Damaged: it isn't ours, or is damaged.
        Unwritable: its disk is full or read-only.
    """
    try:
        if create:
            _create_private(path)
        _check_file(path, create)
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
    except OSError as error:
        said = f"{path}: the state database can't be opened: {error.strerror}"
        if error.errno in DISK_ERRORS:
            raise Unwritable(said) from None
        raise (Damaged(said, hint=REPAIR) if error.errno == errno.ENOENT else StoreError(said)) from None
    except sqlite3.Error as error:
        raise trouble(path, "opened", error) from None
    try:
        connection.row_factory = sqlite3.Row
        _check_ours(connection, path)
        _use_journal(connection, "TRUNCATE" if shared else "WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection)
        connection.execute("PRAGMA foreign_keys = ON")  # afterwards: migrations drop tables that others refer to
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite names in its message what it could not decode
        connection.close()
        raise trouble(path, "read", error) from None
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


def connect_copy(path: Path) -> sqlite3.Connection:
    """Open a private copy, to read what is on a disk that can't be written: even readers need to write beside a WAL.

    Raises:
        StoreError: see `connect`, and there may be no room for the copy.
    """
    import shutil
    import tempfile

    roomy = [folder for folder in ("/dev/shm", tempfile.gettempdir()) if os.access(folder, os.W_OK)]
    try:
        with tempfile.TemporaryDirectory(prefix="tinksched-", dir=roomy[0] if roomy else None) as folder:
            copy = Path(folder) / path.name
            for ending in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
            return connect(copy, create=False)  # the files are gone, but open
    except OSError as error:
        raise Unwritable(f"{path}: the state database can't be copied to be read: {error.strerror}") from None


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path, *, synced: bool = True) -> Iterator[None]:
    """One write transaction: all of it is on disk when the block ends, or nothing of it.

    Without `synced` it is in the log, which the next synced one brings to the disk in its order. A rollback journal has
    no such order, so there it makes no difference.

    Raises:
        StoreError: the database is locked for longer than 20 s, or it is damaged.
        Unwritable: the disk is full, over quota, or read-only.
    """
    relaxed = not synced and connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    try:
        if relaxed:
            connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            _roll_back(connection)
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        raise trouble(path, "written", error) from error
    except (OverflowError, UnicodeEncodeError) as error:
        _roll_back(connection)
        raise StoreError(f"{path}: the state database can't be written: {error}") from error
    finally:
        if relaxed:
            connection.execute("PRAGMA synchronous = FULL")


def migrations() -> list[str]:
    """The SQL of each version, in order; the first one makes version 1."""
    return [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).with_name("migrations").glob("*.sql"))]


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _create_private(path: Path) -> None:
    """SQLite gives its side files the permissions of the main file, so that one must be private from its first byte."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _check_file(path: Path, create: bool) -> None:
    """SQLite would wait for ever at a named pipe, and take a file without a byte for a database without tables."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(f"{path}: this is no file, so it can't be the state database", hint=REPAIR)
    if status.st_size == 0 and not create:  # what a full disk or a failed copy leaves of a queue
        raise Damaged(f"{path}: the state database is empty, and it was left as it is", hint=REPAIR)


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Look before anything is written: a foreign or newer file must stay untouched."""
    connection.execute("BEGIN")  # one snapshot: somebody else may be making the tables at this moment
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute("COMMIT")
    known = len(migrations())
    if tables and application != APPLICATION_ID:
        raise Damaged(
            f"{path}: this is a database of another program, and it was left as it is",
            hint=f"{REPAIR}; or name another state_dir",
        )
    if version > known:
        raise StoreError(
            f"{path}: the state was written by a newer tinksched (version {version}; this one knows up to {known}), "
            "and it was left as it is",
            hint="install the newer tinksched again: pip install --upgrade tinksched",
        )


def _use_journal(connection: sqlite3.Connection, mode: str) -> None:
    """Switch to the write-ahead log, or back from it.

    SQLite does not wait for others here by itself, as it does everywhere else.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
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
    for name, arguments, function in packing.FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)
    while connection.execute("PRAGMA user_version").fetchone()[0] < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version < len(steps):
                for statement in statements(steps[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise


def statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def translated(path: Path, verb: str, error: Exception) -> Exception:
    """An error of SQLite's as `trouble` says it; any other as it is."""
    return trouble(path, verb, error) if isinstance(error, sqlite3.Error) else error


def trouble(path: Path, verb: str, error: Exception) -> StoreError:
    """What SQLite complains of, by what can be done about it. Its texts are the same in all versions."""
    said = str(error)
    if "locked" in said:
        return StoreError(
            f"{path}: another program has kept the state database locked for {BUSY_SECONDS:.0f} seconds",
            hint=f"fuser {path} shows which one",
        )
    if any(words in said for words in _DISK_TROUBLE):
        return Unwritable(
            f"{path}: the state database can't be {verb} ({said})", hint=f"is the disk full? df -h {path.parent}"
        )
    return Damaged(f"{path}: the state database can't be {verb} ({said}), and it was left as it is", hint=REPAIR)
