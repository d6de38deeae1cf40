"""`clean`: finished records, kept sessions and logs go; everything else stays."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_output import read_terminal
from tests.support import Bench, Gate, Lab

gates: dict[Path, Gate] = {}  # of `live`, by workspace


@pytest.fixture
def bench(lab: Lab) -> Bench:
    """good and bad are done, live runs, waits is queued."""
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1, tasks={"good.yml": "text: words\n", "bad.yml": "code: 1\n"})
    bench.run("start", "--wait", code=1)
    gate = bench.gate()
    bench.add("live.yml", gate.config)
    bench.add("waits.yml")
    bench.run("start")
    bench.wait_for_states(live="running")
    gates[bench.folder] = gate
    return bench


def log(bench: Bench, task: str) -> Path:
    return bench.folder / "logs" / "train_logs" / f"{task}.log"


def folders(bench: Bench) -> int:
    return len(os.listdir(bench.state.runs))


def age(bench: Bench, task: str, days: float) -> None:
    """Have a task be done for so long."""
    with contextlib.closing(sqlite3.connect(bench.state.database, isolation_level=None)) as connection:
        connection.execute("UPDATE tasks SET changed_at = ? WHERE name = ?", (time.time() - days * 86400, task))
    connection.close()


def test_a_finished_task_is_forgotten_and_a_completed_one_stays_completed(bench: Bench) -> None:
    before = bench.run("clean", "good", "--dry-run").out
    assert before == "would remove 1 record, 1 kept session, 1 log (7 B) of good\n"
    assert bench.states()["good"] == "completed" and "T_good_gpu0" in bench.lab.sessions()
    count = folders(bench)
    assert bench.run("clean", "good", "--yes").out == "removed 1 record, 1 kept session, 1 log (7 B) of good\n"
    assert "T_good_gpu0" not in bench.lab.sessions() and not log(bench, "good").exists()
    assert folders(bench) == count - 1 and log(bench, "bad").exists()
    assert (bench.folder / "out" / "good_completed.txt").exists()
    assert bench.tasks()["good"]["reason"]["code"] == "marker_from_before"
    assert "completed (their markers were there" in bench.run("start").out
    assert bench.starts()["good"] == 1
    assert "there is no task 'good'" in bench.run("clean", "good", "--yes", code=3).err


def test_what_is_queued_or_runs_is_never_touched(bench: Bench) -> None:
    answer = bench.run("clean", "*", "--yes")
    assert answer.out.startswith("removed 2 records, ") and answer.out.endswith(" of bad, good\n")
    assert "left: live is running, waits is queued" in answer.err
    answer = bench.run("clean", "live", "waits", "--yes", code=3)
    assert "no such task is done (live is running, waits is queued)" in answer.err
    assert "nothing to clean" in bench.run("clean", "--all", "--yes", code=3).err
    assert log(bench, "live").exists() and bench.starts()["live"] == 1
    gates[bench.folder].open()
    bench.wait_for_states(live="completed", waits="completed")
    bench.run("doctor")


def test_by_age_and_by_kind(bench: Bench) -> None:
    age(bench, "bad", 31)
    assert (
        "nothing to clean: no such task is done and old enough"
        in bench.run("clean", "good", "--older-than", "30d", "--yes", code=3).err
    )
    record = json.loads(bench.run("clean", "--older-than", "30d", "--dry-run", "--json").out)
    assert (record["version"], record["removed"], record["records"], record["sessions"]) == (1, False, ["bad"], 1)
    assert record["logs"] == [str(log(bench, "bad"))]
    assert bench.run("clean", "--all", "--logs", "--yes").out.startswith("removed 2 logs (")
    assert not log(bench, "good").exists() and "T_good_gpu0" in bench.lab.sessions()
    assert "is gone" in bench.run("logs", "good").err
    assert bench.run("clean", "--all", "--sessions", "--yes").out == "removed 2 kept sessions of bad, good\n"
    assert "T_good_gpu0" not in bench.lab.sessions() and bench.states()["good"] == "completed"
    assert "removed 1 record" in bench.run("clean", "--older-than", "30d", "--yes").out
    assert set(bench.tasks()) == {"good", "bad", "live", "waits"} and bench.states()["bad"] == "new"
    assert "--older-than must be a duration" in bench.run("clean", "--older-than", "old", code=2).err


def test_nothing_is_thrown_away_unasked(bench: Bench) -> None:
    answer = bench.run("clean", "bad", code=2)
    assert "this would remove 1 record, 1 kept session, 1 log" in answer.err and "--yes" in answer.err
    for said, left in (("n", "failed"), ("", "failed"), ("y", "new")):
        shown = _answer(bench, f"{said}\n", "clean", "bad")
        assert "remove 1 record" in shown and "[y/N]" in shown
        assert bench.states()["bad"] == left, said
    assert "[y/N]" not in read_terminal([sys.executable, "-m", "tinksched", "clean", "good", "--yes"], bench, "removed")


def test_where_nothing_is_named_all_that_is_done_is_meant(bench: Bench) -> None:
    assert "this would remove 2 records" in bench.run("clean", code=2).err and len(bench.tasks()) == 4
    assert bench.run("clean", "--dry-run").out.startswith("would remove 2 records, ")
    assert "remove 2 records, 2 kept sessions, 2 logs" in _answer(bench, "y\n", "clean")
    assert {name for name, task in bench.tasks().items() if task["number"]} == {"live", "waits"}
    assert "nothing to clean" in bench.run("clean", "-y", code=3).err


def _answer(bench: Bench, text: str, *arguments: str) -> str:
    """What a command shows on a terminal where its question gets this answer."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bench.folder)
        os.execvpe(sys.executable, [sys.executable, "-m", "tinksched", *arguments], bench.lab.environment)
    shown = b""
    try:
        while b"[y/N]" not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, text.encode())
        while True:
            shown += os.read(terminal, 4096)
    except OSError:
        pass
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown.decode(errors="replace")


def test_files_that_are_not_ours_stay(bench: Bench) -> None:
    ours = log(bench, "bad")
    (bench.folder / "precious").write_text("mine")
    ours.unlink()
    ours.symlink_to(bench.folder / "precious")
    (ours.parent / "bad.notes").write_text("mine, too")
    assert "0 logs" in bench.run("clean", "bad", "--yes").out
    assert ours.is_symlink() and (bench.folder / "precious").read_text() == "mine"
    (ours.parent / ".workspace").write_text("0123456789abcdef\n")
    assert "0 logs" in bench.run("clean", "good", "--yes").out
    assert log(bench, "good").exists() and (ours.parent / "bad.notes").exists()


def test_the_scheduler_goes_on_with_what_is_left(bench: Bench) -> None:
    """Its picture of the queue is read anew, and runs that are forgotten are no strangers to the next one."""
    bench.run("clean", "--all", "--yes")
    bench.run("stop")
    bench.run("start")
    gates[bench.folder].open()
    bench.wait_for_states(live="completed", waits="completed", bad="failed")
    assert bench.starts() == {"good": 1, "bad": 2, "live": 1, "waits": 1}, "bad is new again, so start queued it"


def test_a_task_that_came_after_a_forgotten_one_starts(lab: Lab) -> None:
    bench = lab.workspace(executor="local")
    bench.run("run", "--name", "first", "--wait", "--", "true")
    bench.run("pause")
    bench.run("run", "--name", "second", "--after", "first", "--", "true")
    bench.run("clean", "first", "--yes")
    bench.run("resume")
    bench.wait_for_states(second="completed")
