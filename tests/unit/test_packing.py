"""What many rows share: stored once, and yet every row comes back exactly as it was; and what the queries use."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_store import FULL_SPEC, NOW, SPEC, add, begin, finish, new_run, specs, texts
from tinksched.core.lifecycle import Held, Requeued, Retried
from tinksched.core.model import Hold, Reason, ReasonCode, Run, RunRecord, Task, TaskState
from tinksched.store import NewTask, Store, packing, records

DATABASES = Path(__file__).parent / "databases"
words = texts | st.sampled_from(
    ["a", "exp1", "/w/configs/exp1.yml", "--out=/exp1/exp1", "exp10", "é1", "\udce9", "a/a"]
)


def task(name: str, config: str, **given: Any) -> Task:
    return replace(Task(1, name, config, SPEC, TaskState.QUEUED, 0, 1, NOW, NOW), **given)


def back(task: Task) -> Task:
    row: dict[str, Any] = {"id": task.id, "name": task.name, "request": None, "text": packing.task_text(task)}
    return packing.task_of(*({**row, **packing.task_columns(task)}[name] for name in packing.TASK_COLUMNS))


@given(specs, words, words, words, words)
def test_any_task_comes_back(spec: Any, name: str, config: str, marker: str, old_marker: str) -> None:
    given = task(name, config, spec=replace(spec, marker=marker, old_marker=old_marker))
    assert back(given) == given


@given(words, words, words, words, st.none() | words, st.lists(words), st.none() | st.integers(0, 65535))
def test_any_run_comes_back(
    name: str, run_id: str, directory: str, marker: str, log: str | None, command: list[str], port: int | None
) -> None:
    record = RunRecord(tuple(command), "python", "node", None, "commit", True, port, marker, log, 3, 4.5, 6)
    paths: dict[str, Any] = {"directory": directory, "lease": directory, "marker": marker, "log": log}
    run = replace(new_run(task(name, "/c")), id=run_id, record=record, **paths)
    for one in (run, replace(run, record=RunRecord())):
        keys: dict[str, Any] = {"id": run_id, "task_id": 1, "task": name, "attempt": 1, "text": packing.run_text(one)}
        columns = {**keys, **packing.run_columns(one)}
        assert packing.run_of(*(columns[column] for column in packing.RUN_COLUMNS)) == one


def test_texts_of_before_there_was_memory_are_still_read() -> None:
    """A database that an older version wrote is taken as it is."""
    given = task("a", "/c/a.yml")
    old = json.loads(packing.task_text(given))
    del old["min_free_memory"]
    row: dict[str, Any] = {"id": 1, "name": "a", "request": None, "text": json.dumps(old)}
    assert packing.task_of(*({**row, **packing.task_columns(given)}[name] for name in packing.TASK_COLUMNS)) == given


@pytest.mark.parametrize("names", [("exp1", "exp2"), ("a", "b"), ("1", "2"), ("x_1", "y.2"), ("höhe", "lr=0.1")])
def test_tasks_and_runs_that_differ_by_their_names_share_their_texts(names: tuple[str, str]) -> None:
    def texts_of(name: str, run_id: str) -> tuple[str, str]:
        spec = replace(FULL_SPEC, marker=f"/w/out/{name}_completed.txt")
        one = task(name, f"/w/configs/{name}.yml", spec=spec)
        record = RunRecord(("python", "--config", one.config, f"--out=/o/{name}/{name}.ckpt"), config_hash=run_id)
        paths = {"directory": f"/s/runs/{run_id}", "lease": f"/l/index-0.{run_id}", "log": f"/w/logs/{name}.log"}
        run: Run = replace(new_run(one), id=run_id, marker=spec.marker, record=record, **paths)
        return packing.task_text(one), packing.run_text(run)

    assert texts_of(names[0], "0123456789abcdef") == texts_of(names[1], "fedcba9876543210")


def test_a_finished_task_takes_little_room(tmp_path: Path) -> None:
    """100,000 of them are nothing to fear: below 900 bytes each, with their runs, events and all indices."""
    count, path = 500, tmp_path / "state.db"
    with Store(path, create=True) as store:
        for number in range(count):
            name = f"exp{number}"
            spec = replace(SPEC, marker=f"/w/out/{name}_completed.txt")
            (one,) = add(store, name, spec=spec)
            run_id = f"{number:016x}"
            record = RunRecord(
                ("python", "train.py", "--config_path", one.config), "python", "node", "0" * 64, "c" * 40
            )
            paths = {"directory": f"/s/runs/{run_id}", "lease": f"/l/{run_id}", "log": f"/w/{name}.log"}
            active, run = begin(store, one, id=run_id, marker=spec.marker, record=record, **paths)
            finish(store, active, run)
        assert store._connection.execute("SELECT count(*) FROM texts").fetchone()[0] < 10
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size / count < 900


def test_a_database_of_version_2_is_migrated_exactly(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.executescript((DATABASES / "version2.sql").read_text())
    connection.row_factory = sqlite3.Row
    tasks = [records.task_of(dict(row)) for row in connection.execute("SELECT * FROM tasks ORDER BY id")]
    for row in connection.execute("SELECT requested_by FROM tasks WHERE name = 'going'"):
        assert row["requested_by"] == "cancel by ann"
    joined = "SELECT runs.*, name AS task FROM runs JOIN tasks ON tasks.id = task_id"
    runs = {row["id"]: records.run_of(dict(row)) for row in connection.execute(joined)}
    order = "at, who, task_id, run_id, what, from_state, to_state, why"
    events = [tuple(row) for row in connection.execute(f"SELECT {order} FROM events ORDER BY id")]
    connection.close()
    with Store(path) as store:
        assert store.tasks() == tasks
        assert {run.id: run for one in tasks for run in store.runs_of(one)} == runs
        assert [tuple(getattr(event, name) for name in order.split(", ")) for event in store.events()] == events
        assert store.requested_by(tasks[1]) == "cancel by ann"
        assert store.problems() == []
        assert add(store, "next")[0].id == 5
    assert (len(tasks), len(runs), len(events)) == (4, 3, 18)


def test_a_database_of_version_3_says_the_same_and_learns_needs_and_usage(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.executescript((DATABASES / "version3.sql").read_text())
    connection.close()
    (tmp_path / "before.db").write_bytes(b"")
    older = sqlite3.connect(tmp_path / "before.db")
    older.executescript((DATABASES / "version2.sql").read_text())  # of which version 3 was made
    older.close()
    with Store(path) as store, Store(tmp_path / "before.db") as before:
        assert store.tasks() == before.tasks()
        assert store.last_runs() == before.last_runs()
        assert store.events() == before.events()
        assert {task.need for task in store.tasks()} == {None}
        assert {task.spec.retry_on for task in store.tasks()} == {("failed", "timed_out", "lost")}
        assert store.usage_of(store.run_ids()) == {}
        assert store.problems() == []
        waiting = next(task for task in store.tasks() if task.name == "waiting")
        active, _ = begin(store, waiting)
        with store.transaction("scheduler", NOW) as tx:
            tx.apply(active, Retried(Reason(ReasonCode.RETRY_DELAY), NOW + 1, 5 << 30))
        assert store.task("waiting") == replace(
            active, state=TaskState.QUEUED, need=5 << 30, failures=1, not_before=NOW + 1, changed_at=NOW,
            reason=Reason(ReasonCode.RETRY_DELAY),
        )  # fmt: skip


def test_a_database_of_version_4_says_the_same_and_learns_to_hold(tmp_path: Path) -> None:
    for version in (3, 4):
        connection = sqlite3.connect(tmp_path / f"{version}.db")
        connection.executescript((DATABASES / f"version{version}.sql").read_text())
        connection.close()
    with Store(tmp_path / "4.db") as store, Store(tmp_path / "3.db") as before:
        needs = {"waiting": 5 << 30}
        assert store.tasks() == [replace(task, need=needs.get(task.name)) for task in before.tasks()]
        assert store.last_runs() == before.last_runs() and store.events() == before.events()
        assert store.usage_of(store.run_ids())["00000000000000aa"].gpu_memory_peak == 200
        assert {task.hold for task in store.tasks()} == {None} and store.pause() is None
        assert store.problems() == []
        waiting = next(task for task in store.tasks() if task.name == "waiting")
        with store.transaction("ann", NOW) as tx:
            held = tx.apply(waiting, Held(Hold("ann", NOW, NOW + 9.5)))
        assert store.task("waiting") == held and held.hold == Hold("ann", NOW, NOW + 9.5)


def test_a_spec_that_was_changed_gets_a_text_of_its_own(tmp_path: Path) -> None:
    with Store(tmp_path / "state.db", create=True) as store:
        a, b = add(store, "a", "b")
        active, run = begin(store, a)
        done = finish(store, active, run)
        with store.transaction("retry", NOW) as tx:
            tx.apply(done, Requeued(9, 0, replace(FULL_SPEC, old_marker="/r/a_completed.txt")))
        assert [one.spec for one in store.tasks()] == [replace(FULL_SPEC, old_marker="/r/a_completed.txt"), b.spec]


@pytest.mark.parametrize("old", ["/w", "/home/a", "/w/a"])
def test_the_paths_of_a_workspace_that_moved_follow_it(tmp_path: Path, old: str) -> None:
    """Also where the name of the task occurs in the old path."""
    spec = replace(SPEC, work_dir=old, marker=f"{old}/out/a_completed.txt", output_dir=f"{old}/out", script=f"{old}x/a",
                   old_marker=f"{old}/a/a_completed.txt", command=("x", old, f"{old}/a"))  # fmt: skip
    record = RunRecord(("x", f"{old}/configs/a.yml", old), old_marker=f"{old}/a/a_completed.txt")
    paths: dict[str, Any] = {"directory": f"{old}/s/a-1", "work_dir": old, "log": f"{old}/a.log", "lease": f"{old}/a-1"}
    with Store(tmp_path / "state.db", create=True) as store:
        with store.transaction("me", NOW) as tx:
            (one,) = tx.add_tasks([NewTask("a", f"{old}/configs/a.yml", spec, 0)])
        _, run = begin(store, one, marker=f"{old}/out/a_completed.txt", record=record, **paths)
        with store.transaction("moved", NOW) as tx:
            tx.relocate(old, "/new")
        (there,) = store.tasks()
        (moved,) = store.active_runs()
    assert (there.config, there.spec.work_dir, there.spec.marker) == (
        "/new/configs/a.yml", "/new", "/new/out/a_completed.txt",
    )  # fmt: skip
    assert (there.spec.output_dir, there.spec.script, there.spec.old_marker, there.spec.command) == (
        "/new/out", f"{old}x/a", "/new/a/a_completed.txt", ("x", "/new", "/new/a"),
    )  # fmt: skip
    assert moved == replace(
        run, directory="/new/s/a-1", work_dir="/new", log="/new/a.log", marker="/new/out/a_completed.txt",
        record=RunRecord(("x", "/new/configs/a.yml", "/new"), old_marker="/new/a/a_completed.txt"),
    )  # fmt: skip


def test_what_stands_beside_a_run_tells_everything_by_itself() -> None:
    one = task("a", "/w/configs/a.yml", spec=FULL_SPEC)
    about = json.loads(json.dumps(records.about(one, new_run(one, record=RunRecord(("x",), port=1)))))
    assert records.task_of({"id": 1, "request": None, **about["task"]}) == one
    found = records.run_of({**about["run"], "task": "a", "task_id": 1})
    assert found == new_run(one, record=RunRecord(("x",), port=1))


# ---------------------------------------------------------------- what the queries use


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The plans of the queries of some reads, by the method."""
    with Store(tmp_path / "state.db", create=True) as store:
        tasks = add(store, *(f"t{number}" for number in range(50)))
        active, run = begin(store, tasks[0])
        finish(store, active, run)
        begin(store, tasks[1])
        asked: list[tuple[str, tuple[object, ...]]] = []
        read = store._read
        monkeypatch.setattr(store, "_read", lambda sql, *values: (asked.append((sql, values)), read(sql, *values))[1])
        found = {}
        reads: dict[str, tuple[object, ...]] = {
            "queue": (), "active_tasks": (), "active_runs": (), "task": ("t3",), "recently_ended": (5,),
            "runs_of": (tasks[0],), "last_runs": ([tasks[0]],), "has_queue": (), "queue_length": (),
            "events": (tasks[0],), "last_started": (9,), "named": (["t1", "t2"],), "fact": ("x",),
            "usage_of": (["a", "b"],), "peaks": (9,), "durations": (9,),
        }  # fmt: skip
        for name, values in reads.items():
            asked.clear()
            getattr(store, name)(*values)
            steps = [row[3] for sql, given in asked for row in read(f"EXPLAIN QUERY PLAN {sql}", *given)]
            found[name] = "; ".join(steps)
        yield found


def test_no_query_of_the_hot_path_looks_at_all_that_has_finished(plans: dict[str, str]) -> None:
    walks = {
        "queue": "tasks_queue", "queue_length": "tasks_queue", "has_queue": "tasks_queue",
        "active_tasks": "tasks_active", "active_runs": "runs_one_active", "recently_ended": "runs_ended",
    }  # fmt: skip
    for name, plan in plans.items():
        scans = [step for step in plan.split("; ") if step.startswith("SCAN")]
        if name == "last_started":  # the newest rows of the table itself
            assert scans == ["SCAN runs"] and "TEMP B-TREE" not in plan, plan
        elif name in ("usage_of", "named", "peaks"):  # what was asked for; the newest rows, and those of them
            assert {step.split()[1] for step in scans} <= {"json_each", "usage", "last"}, plan
        elif name == "durations":
            assert {step.split()[1] for step in scans} <= {"runs", "last"}, plan
            assert "SCAN runs USING INDEX runs_ended" in plan and "TEMP B-TREE" not in plan, plan
        elif name in walks:
            assert all(f"INDEX {walks[name]}" in step for step in scans), (name, plan)
            assert f"INDEX {walks[name]}" in plan, (name, plan)
        else:
            assert scans == [], (name, plan)
    assert "TEMP B-TREE" not in plans["queue"], "it is in order already"
