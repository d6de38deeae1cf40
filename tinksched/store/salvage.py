"""What SQLite can still read of a damaged database, row by row, and a new database made of rows.

The damaged file is never opened itself, only a copy: SQLite might write to it.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import records
from .database import connect

Row = dict[str, Any]
TABLES = ("tasks", "runs", "events", "facts")
_PROBES = 200_000  # rows that are asked for one by one between two damaged places
_ADDED_LATER: Mapping[str, Row] = {  # missing in older versions
    "tasks": {"failures": 0, "not_before": None},
    "runs": {"deadline": None, "record": None},
}


def salvage(path: Path) -> dict[str, list[Row]]:
    """The rows of each table that can be read and make sense. Empty lists where nothing can."""
    found: dict[str, list[Row]] = {table: [] for table in TABLES}
    with tempfile.TemporaryDirectory(prefix="salvage-", dir=path.parent) as folder:
        copy = Path(folder) / "copy.db"
        for ending in ("", "-wal") if path.is_file() else ():
            with contextlib.suppress(OSError):
                shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.row_factory = sqlite3.Row
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            for table in TABLES:
                found[table] = [{**_ADDED_LATER.get(table, {}), **row} for row in _rows(connection, table)]
    names = {row["id"]: row["name"] for row in found["tasks"] if _makes_sense(row, None)}
    found["tasks"] = [row for row in found["tasks"] if row["id"] in names]
    for row in found["runs"]:
        row["task"] = names.get(row.get("task_id"))
    found["runs"] = [row for row in found["runs"] if row["task"] is not None and _makes_sense(row, row["task"])]
    return found


def build(path: Path, rows: Mapping[str, Iterable[Row]]) -> int:
    """Make a new database with these rows. Returns how many of them did not fit together and were left out.

    Raises:
        StoreError: it can't be written.
    """
    refused = 0
    with contextlib.closing(connect(path, create=True, shared=True)) as connection:  # one file, without a log beside it
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            known = [column["name"] for column in connection.execute(f"PRAGMA table_info({table})")]
            for row in rows.get(table, ()):
                values = {name: row[name] for name in known if name in row}
                marks = ", ".join("?" * len(values))
                try:
                    connection.execute(
                        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
                    )
                except sqlite3.IntegrityError:
                    refused += 1
        connection.execute("COMMIT")
    return refused


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[Row]:
    """From the front until a damaged place, from the back until one, and what lies between row by row."""
    front = dict(_until_damaged(connection, f"SELECT rowid AS number, * FROM {table} NOT INDEXED ORDER BY rowid"))
    back: dict[int, Row] = {}
    if not front.pop(-1, None):
        back = dict(
            _until_damaged(connection, f"SELECT rowid AS number, * FROM {table} NOT INDEXED ORDER BY rowid DESC")
        )
        back.pop(-1, None)
        first, last = max(front, default=0) + 1, min(back, default=max(front, default=0) + 1000)
        for number in range(first, min(last, first + _PROBES)):
            one = _until_damaged(
                connection, f"SELECT rowid AS number, * FROM {table} NOT INDEXED WHERE rowid = {number}"
            )
            back.update((key, row) for key, row in one if key != -1)
    yield from {**back, **front}.values()


def _until_damaged(connection: sqlite3.Connection, sql: str) -> Iterator[tuple[int, Row]]:
    """Rows by their numbers; the number -1 at the end says that all could be read."""
    try:
        for row in connection.execute(sql):
            columns: Row = dict(row)
            yield int(columns.pop("number")), columns
        yield -1, {"all": True}
    except (sqlite3.Error, ValueError, TypeError):  # ValueError: what can't be decoded
        return


def _makes_sense(row: Row, task: str | None) -> bool:
    """Whether a row of tasks (or with `task`, of runs) is what this program would have written."""
    try:
        if task is None:
            records.task_of(row)  # type: ignore[arg-type]
        else:
            return records.run_of(row).task == task  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return isinstance(row["name"], str) and isinstance(row["id"], int)
