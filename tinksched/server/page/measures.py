"""What a job measured, as a table: the rows of its metrics file. A job may write anything into it."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ...operations.metrics import numbers_of

LAST_BYTES = 256 * 1024
MOST_COLUMNS = 16
MOST_ROWS = 1_000
Row = dict[str, float]


def table(files: Iterable[Path]) -> dict[str, Any] | None:
    """The first of these files in which there are numbers: `columns` and `rows`, the newest last."""
    for file in files:
        with contextlib.suppress(OSError, ValueError, RecursionError, csv.Error):
            content, is_whole = _end_of(file)
            found = _as_table(_rows(file.suffix, content, is_whole=is_whole, head=lambda file=file: _head_of(file)))
            if found is not None:
                return found
    return None


def _end_of(file: Path) -> tuple[str, bool]:
    """The end of a file, and whether that is all of it. No link is followed: it could lead to anybody's."""
    with _opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - LAST_BYTES))
        return stream.read(LAST_BYTES).decode(errors="replace"), size <= LAST_BYTES


def _head_of(file: Path) -> str:
    with _opened(file) as stream:
        return stream.readline(LAST_BYTES).decode(errors="replace")


def _opened(file: Path) -> BinaryIO:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("no file")
    return open(descriptor, "rb")  # noqa: PTH123


def _rows(suffix: str, content: str, *, is_whole: bool, head: Any) -> list[Row]:
    if suffix == ".json":
        return [numbers_of(json.loads(content))] if is_whole else []
    lines = content.splitlines()[0 if is_whole else 1 :]
    if suffix == ".csv":
        names = next(csv.reader([head()]), [])
        return [_numbers(names, words) for words in csv.reader(lines[1 if is_whole else 0 :])]
    return [_line(line) for line in lines]


def _line(line: str) -> Row:
    with contextlib.suppress(ValueError, RecursionError):
        return numbers_of(json.loads(line))
    return {}


def _numbers(names: Sequence[str], words: Sequence[str]) -> Row:
    found = {}
    for name, word in zip(names, words, strict=False):
        with contextlib.suppress(ValueError):
            found[name] = float(word)
    return found


def _as_table(rows: Iterable[Row]) -> dict[str, Any] | None:
    kept = [row for row in rows if row][-MOST_ROWS:]
    columns = list(dict.fromkeys(name for row in kept for name in row))[:MOST_COLUMNS]
    if not columns:
        return None
    cells = [[row.get(name) for name in columns] for row in kept]
    return {
        "columns": columns,
        "rows": [[cell if cell is None or math.isfinite(cell) else None for cell in row] for row in cells],
    }
