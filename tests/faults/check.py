"""What must be true after a storm: from the tasks' own record, the store, and what is left on the machine."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.batch import Field, Hit, Word
from tests.support import Bench, Lab
from tinksched.scheduler.ledger import NEVER_BEGAN_LIMIT  # a task that was hit so often before it began is given up

COARSE = 0.02  # seconds by which the times of files may lag behind the clock
KILLED = {"129", "137", "143"}  # HUP, KILL, TERM


def rows(database: Path, sql: str) -> list[dict[str, Any]]:
    """Read the store without any code of tinksched; empty before there is one."""
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection), contextlib.suppress(sqlite3.OperationalError):  # no tables yet
        return [dict(row) for row in connection.execute(sql)]
    return []


def violations(lab: Lab, field: Field, benches: Sequence[Bench], retries: int) -> list[str]:
    """Everything that is wrong; empty if all is well. Call it when every scheduler has ended by itself."""
    words, hits = field.record(), field.hits()
    found = [f"{word.what}: {word.task}: {word.rest}" for word in words if word.what in ("overlap", "over")]
    known: set[str] = set()
    for bench in benches:
        found += of_workspace(bench, words, hits, retries)
        known |= {run["id"] for run in rows(bench.state.database, "SELECT id FROM runs")}
    found += [f"{word.task}: its run {word.run} is not on record" for word in words if word.run not in known]
    return found + list(left_over(lab, benches))


def of_workspace(bench: Bench, words: Sequence[Word], hits: Sequence[Hit], retries: int) -> Iterator[str]:
    """What one workspace's store has against it."""
    database = bench.state.database
    tasks = {task["id"]: task for task in rows(database, "SELECT * FROM tasks")}
    runs: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for run in rows(database, "SELECT * FROM runs ORDER BY attempt"):
        runs[run["task_id"]].append(run)
    configs = {path.stem for path in (bench.folder / "configs").iterdir()}
    for name in configs ^ {task["name"] for task in tasks.values()}:
        yield f"{name}: a config without a task, or a task without a config"
    own: dict[str, list[Word]] = defaultdict(list)
    for word in words:
        own[word.run].append(word)
    never = never_began(database)
    for number, task in tasks.items():
        hit_before = sum(is_hit(run, hits) for run in never[number])
        if runs[number] or hit_before < NEVER_BEGAN_LIMIT or '"launch_failed"' not in (task["reason"] or ""):
            yield from of_task(task, runs[number], own, hits, retries)
    yield from of_events(database, tasks, runs)


def never_began(database: Path) -> dict[int, list[dict[str, Any]]]:
    """The runs that are not on record any more because they never began, by task."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    sql = """SELECT task_id, run_id AS id, min(at) AS created_at, max(at) AS ended_at FROM events
        WHERE run_id NOT IN (SELECT id FROM runs) GROUP BY run_id"""
    for run in rows(database, sql):
        found[run["task_id"]].append(run)
    return found


def of_task(
    task: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    words: Mapping[str, Sequence[Word]],
    hits: Sequence[Hit],
    retries: int,
) -> Iterator[str]:
    """One task: it is done, as its last run was; each run is what it says of itself."""
    name = task["name"]
    if task["state"] != "done" or not runs:
        yield f"{name}: lost: {task['state']}, {len(runs)} runs"
        return
    if task["outcome"] != runs[-1]["outcome"]:
        yield f"{name}: {task['outcome']}, but its last run {runs[-1]['outcome']}"
    if len(runs) > 1 + retries or [run["attempt"] for run in runs] != list(range(1, len(runs) + 1)):
        yield f"{name}: attempts {[run['attempt'] for run in runs]}"
    if any(run["outcome"] == "completed" for run in runs[:-1]):
        yield f"{name}: ran again after it had completed"
    for run in runs:
        yield from of_run(name, run, words.get(run["id"], ()), is_hit(run, hits))


def is_hit(run: Mapping[str, Any], hits: Sequence[Hit]) -> bool:
    """Whether anything but a scheduler was killed that belonged to this run."""
    for hit in hits:
        if hit.run == run["id"]:
            return True
        if hit.kind in ("tmux", "all"):  # all that were alive: the time is in place of the run
            began, ended = map(float, hit.run.split())
            if run["created_at"] <= ended and (run["ended_at"] or ended) >= began - COARSE:
                return True
    return False


def of_run(name: str, run: Mapping[str, Any], words: Sequence[Word], hit: bool) -> Iterator[str]:
    """One run: its own words and its outcome on record agree."""
    said = Counter(word.what for word in words)
    where = f"{name}, run {run['id']}: {run['outcome']} ({run['exit_code']})"
    if run["state"] != "ended" or said["start"] > 1 or said["end"] > said["start"]:
        yield f"{where}: {run['state']}, by its own words {dict(said)}"
        return
    told = next((word.rest.split()[0] for word in words if word.what == "end"), None)
    code = None if run["exit_code"] is None else str(run["exit_code"])
    if run["outcome"] == "lost":
        good = hit and code is None
    elif code == told:
        good = run["outcome"] == ("completed" if code == "0" else "failed") and code is not None
    else:
        good = hit and code in KILLED and run["outcome"] == "failed"
    if not good:
        yield f"{where}: by its own words it ended with {told}{'' if hit else ', and nobody hit it'}"


def of_events(
    database: Path, tasks: Mapping[int, Mapping[str, Any]], runs: Mapping[int, Sequence[Mapping[str, Any]]]
) -> Iterator[str]:
    """Each event begins where the one before it ended, and the last one leads to what is on record."""
    at: dict[object, str | None] = {}
    sql = """
        SELECT events.id, task_id, run_id, json_extract(text, '$[1]') AS what,
               json_extract(text, '$[2]') AS from_state, json_extract(text, '$[3]') AS to_state
        FROM events JOIN texts ON texts.id = events.shared ORDER BY events.id
    """
    for event in rows(database, sql):
        if event["to_state"] is None and event["from_state"] is None:
            continue
        key = event["run_id"] or event["task_id"]
        if at.get(key) != event["from_state"]:
            yield f"event {event['id']} ({event['what']}): from {event['from_state']}, but it was {at.get(key)}"
        at[key] = event["to_state"]
    for number, task in tasks.items():
        if at.get(number) != task["state"]:
            yield f"{task['name']}: its events lead to {at.get(number)}, but it is {task['state']}"
        for run in runs[number]:
            if at.get(run["id"]) != run["state"]:
                yield f"run {run['id']}: its events lead to {at.get(run['id'])}, but it is {run['state']}"


def left_over(lab: Lab, benches: Sequence[Bench]) -> Iterator[str]:
    """Sessions, processes, leases and run folders that outlived everything."""
    yield from (f"left over: session {name}" for name in lab.sessions())
    yield from (f"left over: process {pid}: {line}" for pid, line in lab.processes(exclude=("tests.faults.victim",)))
    for name in os.listdir(lab.leases) if lab.leases.exists() else []:
        if not name.endswith(".admission"):
            yield f"left over: lease file {name}"
    for bench in benches:
        yield from (f"left over: run folder {name}" for name in os.listdir(bench.state.runs))
