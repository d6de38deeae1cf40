"""What tasks measured: the numbers of the files that they leave in `output_dir`.

The first of these that is there counts: TASK_metrics.json, TASK_metrics.jsonl, TASK_metrics.csv, and metrics.json,
metrics.jsonl or metrics.csv in a folder TASK. Of a JSON object its numbers are taken, those of maps in it as
`map.number`; of JSON lines and CSV the last number of each name or column.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from ..host.logfile import tail

LARGEST = 1_000_000  # bytes of a JSON file
LAST_BYTES = 65_536  # of a file with lines
MOST = 64  # numbers of one task
ENDINGS = ("json", "jsonl", "csv")

Numbers = Mapping[str, float]


def of_tasks(folder: Path, tasks: Iterable[str]) -> dict[str, Numbers]:
    """The numbers of each task that has some. What can't be read has none."""
    try:
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries}
    except OSError:
        return {}
    found = {}
    for task in tasks:
        for file in files_of(folder, task, there):
            with contextlib.suppress(OSError, ValueError, RecursionError, csv.Error):
                if numbers := _read(file):
                    found[task] = numbers
                    break
    return found


def files_of(folder: Path, task: str, there: Container[str]) -> list[Path]:
    """Where a task may have left its numbers, given what there is in the folder."""
    files = [folder / f"{task}_metrics.{ending}" for ending in ENDINGS if f"{task}_metrics.{ending}" in there]
    return files + ([folder / task / f"metrics.{ending}" for ending in ENDINGS] if task in there else [])


def _read(file: Path) -> Numbers:
    if file.suffix == ".json":
        with file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        return numbers_of(json.loads(data)) if len(data) <= LARGEST else {}
    end = tail(file, LAST_BYTES).decode(errors="replace").splitlines()
    found: dict[str, float] = {}
    if file.suffix == ".jsonl":
        for line in end:
            with contextlib.suppress(ValueError):
                found.update(numbers_of(json.loads(line)))
        return dict(list(found.items())[:MOST])
    with file.open(encoding="utf-8", errors="replace", newline="") as text:
        names = next(csv.reader([text.readline(LAST_BYTES)]), [])
    for row in csv.reader(end):
        for name, word in zip(names, row, strict=False) if len(row) == len(names) else ():
            with contextlib.suppress(ValueError):
                found[name] = float(word)
    return dict(list(found.items())[:MOST])


def numbers_of(value: object, before: str = "", depth: int = 0) -> dict[str, float]:
    """The numbers of a map as JSON has it, those of maps in it as `map.number`."""
    found: dict[str, float] = {}
    for name, content in value.items() if isinstance(value, dict) and depth < 3 else ():
        if isinstance(content, int | float) and not isinstance(content, bool):
            with contextlib.suppress(OverflowError):
                found[before + str(name)] = float(content)
        elif isinstance(content, dict) and name != "config":
            found.update(numbers_of(content, f"{before}{name}.", depth + 1))
    return dict(list(found.items())[:MOST])
