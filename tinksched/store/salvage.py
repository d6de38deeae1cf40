"""What SQLite can still read of a damaged database, row by row, and a new database made of rows.

A row tells everything by itself here, as those of `records` do. The damaged file is never opened itself, only a copy:
SQLite might write to it.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import packing, records
from .database import connect

Row = dict[str, Any]
TABLES = ("tasks", "runs", "events", "facts", "usage")
_PROBES = 200_000  # rows that are asked for one by one between two damaged places
_ADDED_LATER: Mapping[str, Row] = {  # missing in older versions
    "tasks": {"failures": 0, "not_before": None, "need": None, "hold": None},
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
            texts = _texts(connection)
            for table in TABLES:
                found[table] = [_with_text(row, table, texts) for row in _rows(connection, table)]
    found["tasks"] = [row for packed in found["tasks"] if (row := _unpacked(packed, _task)) is not None]
    names = {row["id"]: row["name"] for row in found["tasks"]}
    runs = [{**row, "task": names.get(row.get("task_id"))} for row in found["runs"]]
    found["runs"] = [row for packed in runs if (row := _unpacked(packed, _run)) is not None]
    found["events"] = [row for packed in found["events"] if (row := _unpacked(packed, _event)) is not None]
    found["usage"] = [row for packed in found["usage"] if (row := _unpacked(packed, _usage)) is not None]
    return found


def build(path: Path, rows: Mapping[str, Iterable[Row]]) -> int:
    """Make a new database with these rows. Returns how many of them did not fit together and were left out.

    Raises:
        StoreError: it can't be written.
    """
    refused = 0
    with contextlib.closing(connect(path, create=True, shared=True)) as connection:  # one file, without a log beside it
        connection.execute("BEGIN IMMEDIATE")
        for table, pack in _PACK.items():
            for row in rows.get(table, ()):
                text, values = pack(row)
                if text is not None:
                    values["shared"] = packing.number_of(connection, text)
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


def _texts(connection: sqlite3.Connection) -> dict[int, str]:
    """The texts that rows share. The index over them has each once more, on another page; where the two differ one of
    them is damaged, and nobody knows which."""
    found: dict[int, set[str]] = {}
    for way in ("NOT INDEXED ORDER BY rowid", "NOT INDEXED ORDER BY rowid DESC", "INDEXED BY texts_text ORDER BY text",
                "INDEXED BY texts_text ORDER BY text DESC"):  # fmt: skip
        for number, row in _until_damaged(connection, f"SELECT id AS number, text FROM texts {way}"):
            found.setdefault(number, set()).add(row.get("text", ""))
    return {number: next(iter(texts)) for number, texts in found.items() if len(texts) == 1}


def _with_text(row: Row, table: str, texts: Mapping[int, str]) -> Row:
    """A row with the columns that it does not have if it is an older one; since version 3 with its text."""
    text = {"text": texts.get(row["shared"])} if "shared" in row else {}
    return {**_ADDED_LATER.get(table, {}), **row, **text}


def _unpacked(row: Row, unpack: Callable[[Row], Row]) -> Row | None:
    """The row as one that tells everything by itself; None if it is not what this program would have written."""
    try:
        return unpack(row)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _task(row: Row) -> Row:
    packed = "shared" in row
    task = packing.task_of(*(row[name] for name in packing.TASK_COLUMNS)) if packed else records.task_of(row)
    if not (isinstance(task.name, str) and isinstance(task.id, int)):
        raise ValueError(task)
    asked = {"request": row["request"], "requested_by": row["requested_by"]}
    return {"id": task.id, "name": task.name, **records.task_row(task), **asked}


def _run(row: Row) -> Row:
    packed = "shared" in row
    run = packing.run_of(*(row[name] for name in packing.RUN_COLUMNS)) if packed else records.run_of(row)
    if run.task is None:
        raise ValueError(run)
    return {"id": run.id, "task_id": run.task_id, "task": run.task, **records.run_row(run)}


def _usage(row: Row) -> Row:
    packing.usage_of(*(row[name] for name in packing.USAGE_COLUMNS))
    return row


def _event(row: Row) -> Row:
    if "shared" not in row:
        return row
    names = ("who", "what", "from_state", "to_state")
    return {**row, **dict(zip(names, packing.event_of(row["text"]), strict=True))}


# -- and back: the text that the row shares, and its columns


def _packed_task(row: Row) -> tuple[str | None, Row]:
    task = records.task_of({"request": None, **row})
    asked = {name: row.get(name) for name in ("request", "requested_by")}
    return packing.task_text(task), {"id": task.id, "name": task.name, **packing.task_columns(task), **asked}


def _packed_run(row: Row) -> tuple[str | None, Row]:
    run = records.run_of(row)
    return packing.run_text(run), {
        "id": run.id, "task_id": run.task_id, "attempt": run.attempt, **packing.run_columns(run),
    }  # fmt: skip


def _packed_event(row: Row) -> tuple[str | None, Row]:
    text = packing.event_text(row["who"], row["what"], row["from_state"], row["to_state"])
    return text, {name: row[name] for name in ("id", "at", "task_id", "run_id", "why") if name in row}


def _as_it_is(row: Row) -> tuple[str | None, Row]:
    return None, dict(row)


_PACK: Mapping[str, Callable[[Row], tuple[str | None, Row]]] = {
    "tasks": _packed_task, "runs": _packed_run, "events": _packed_event, "facts": _as_it_is,
    "usage": _as_it_is,
}  # fmt: skip
