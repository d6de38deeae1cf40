"""A state database that is damaged in every way: never overwritten, never an empty queue in its place, and mended."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_restart import kill_scheduler
from tests.support import Bench, Gate, Lab
from tinksched.store import database

DAMAGES: dict[str, Callable[[Path], None]] = {
    "text": lambda path: path.write_text("no database\n" * 1000),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),  # type: ignore[dict-item, return-value]
    "a named pipe": lambda path: (path.unlink(), os.mkfifo(path)),  # type: ignore[dict-item, return-value]
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),  # type: ignore[dict-item, return-value]
    "of another program": lambda path: foreign(path),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "no header": lambda path: overwrite(path, 0, bytes(4096)),
    "noise": lambda path: overwrite(path, 4096, random.Random(1).randbytes(path.stat().st_size - 4096)),
}


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE songs (title)")
    connection.close()


def checkpoint(bench: Bench) -> None:
    """All of the database in one file, as after a clean end."""
    connection = sqlite3.connect(bench.state.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def running(lab: Lab) -> tuple[Bench, Gate]:
    """A workspace without a scheduler: done and bad ended, going runs, waiting is queued."""
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1, executor="local")
    gate = bench.gate()
    bench.add("done.yml")
    bench.add("bad.yml", "code: 3\n")
    bench.add("going.yml", gate.config)
    bench.add("waiting.yml")
    bench.run("start", "done.yml,bad.yml,going.yml,waiting.yml")
    bench.wait_for_states(done="completed", bad="failed", going="running")
    bench.wait_for_starts("going")
    bench.run("stop")
    checkpoint(bench)
    return bench, gate


def identity(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_kept_and_rebuilt_around_the_run_that_lives(lab: Lab, damage: str) -> None:
    bench, gate = running(lab)
    path = bench.state.database
    DAMAGES[damage](path)
    before = identity(path) if os.path.lexists(path) else None
    for command in (("status",), ("start",), ("stop",), ("explain", "done"), ("retry", "bad"), ("logs", "done")):
        answer = bench.run(*command, code=None)
        assert answer.code in (1, 2), (command, answer.text)
        assert str(path) in answer.err and "doctor --repair" in answer.err, (command, answer.text)
    assert bench.run("doctor", code=1).out.count("doctor --repair") >= 1
    assert not json.loads(bench.run("doctor", "--json", code=1).out)["fine"]
    assert (identity(path) if os.path.lexists(path) else None) == before, "nobody touched it"

    told = bench.run("doctor", "--repair", code=None).err
    assert "active" in told and "going" in told, told
    if before is not None:
        kept = next(entry for entry in path.parent.iterdir() if ".damaged-" in entry.name)
        assert identity(kept) == before and str(kept) in told
    states = bench.states()
    assert states["going"] == "running" and states["waiting"] in ("queued", "new")
    assert bench.status()["scheduler"]["running"] is False
    assert bench.run("start", "--unless-stopped").out == "", "nothing is started by it"
    assert bench.run("doctor", "--repair").err.startswith("the database is whole")
    gate.open()
    bench.run("start")
    bench.wait_for_states(done="completed", bad="failed", going="completed", waiting="completed")
    assert bench.starts() == {"done": 1, "bad": 1, "going": 1, "waiting": 1}


def test_kill_all_needs_no_database(lab: Lab) -> None:
    bench, gate = running(lab)
    overwrite(bench.state.database, 0, b"noise" * 100)
    answer = bench.run("kill-all", code=1)
    assert "killed: going; this could not be recorded" in answer.err and "doctor --repair" in answer.err
    assert not lab.processes()
    gate.open()


def test_a_scheduler_whose_database_is_damaged_lets_its_runs_go_on(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, executor="local")
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    assert "a scheduler works on this database" in bench.run("doctor", "--repair", code=1).err
    kill_scheduler(bench)
    overwrite(bench.state.database, 0, b"noise" * 100)
    for ending in ("-wal", "-shm"):
        Path(f"{bench.state.database}{ending}").unlink(missing_ok=True)
    bench.run("start", code=2)
    bench.run("doctor", "--repair")
    bench.run("start")
    gate.open()
    bench.wait_for_states(a="completed")
    assert bench.starts() == {"a": 1}


def test_a_log_that_is_gone_with_the_runs_in_it_is_noticed(lab: Lab) -> None:
    """The database is whole, but older than its runs: nothing of these is started a second time."""
    bench = lab.workspace(gpu_count=1, executor="local", tasks={"first.yml": ""})
    bench.run("start", "--wait")
    bench.wait_for_scheduler_end()
    checkpoint(bench)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    bench.wait_for_states(a="running")
    kill_scheduler(bench)
    for ending in ("-wal", "-shm"):
        Path(f"{bench.state.database}{ending}").unlink()
    answer = bench.run("start", code=None)
    assert answer.code != 0 and "a still runs" in answer.err and "doctor --repair" in answer.err, answer.text
    bench.run("doctor", "--repair", code=None)
    assert bench.states() == {"first": "completed", "a": "running"}
    gate.open()
    bench.run("start")
    bench.wait_for_states(a="completed")
    assert bench.starts() == {"first": 1, "a": 1}


def test_a_newer_or_locked_database_is_not_repaired(lab: Lab) -> None:
    bench, gate = running(lab)
    connection = sqlite3.connect(bench.state.database)
    connection.execute(f"PRAGMA user_version = {len(database.migrations()) + 1}")
    connection.close()
    before = identity(bench.state.database)
    answer = bench.run("doctor", "--repair", code=2)
    assert "newer tinksched" in answer.err
    assert identity(bench.state.database) == before
    gate.open()
