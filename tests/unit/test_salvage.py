"""Damage at every place of a database: what can be read comes back as it was, the rest is left out, nothing breaks."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.test_store import SPEC
from tinksched.core.diagnosis import Diagnosis, Kind
from tinksched.core.lifecycle import Began, Ended, Finished, Launched, Retried
from tinksched.core.model import Outcome, Reason, ReasonCode, Run, RunState, Task
from tinksched.core.usage import Usage
from tinksched.errors import StoreError
from tinksched.store import NewTask, Store, salvage

NOW = 1_700_000_000.0
COUNT = 200


def run_of(task: Task) -> Run:
    return Run(
        f"{task.id:016x}", task.id, task.name, 1, RunState.STARTING, (0,), ("index-0",), "local", "", "/r", "/w", None,
        "/l", "/m", None, "boot", NOW,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with 200 tasks and their runs, in one file."""
    path = tmp_path / "state.db"
    with Store(path, create=True) as store, store.transaction("test", NOW) as tx:
        tasks = tx.add_tasks([NewTask(f"exp{number}", f"/c/exp{number}.yml", SPEC, 0) for number in range(COUNT)])
        for task in tasks[: COUNT // 2]:
            began = tx.apply(task, Began("hash"))
            tx.add_run(run_of(task))
            if task.id % 2:
                run = tx.apply_run(run_of(task), Launched(1, 2, ""))
                tx.apply_run(run, Ended(Outcome.COMPLETED, None, 0, NOW))
                tx.apply(began, Finished(Outcome.COMPLETED, None))
    return path


def usable(path: Path, rows: dict[str, list[salvage.Row]]) -> Store:
    salvage.build(path, rows)
    store = Store(path)
    assert store.problems() == []
    store.tasks(), store.last_runs(), store.events(), store.active_runs()
    return store


def test_a_whole_database_comes_back_whole(path: Path, tmp_path: Path) -> None:
    with Store(path) as before, usable(tmp_path / "new.db", salvage.salvage(path)) as after:
        assert after.tasks() == before.tasks()
        assert after.last_runs() == before.last_runs()
        assert after.events() == before.events()


def test_needs_diagnoses_and_usage_are_saved_and_what_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    path, found = tmp_path / "state.db", Diagnosis(Kind.CUDA_MEMORY, "CUDA out of memory")
    usage = Usage(NOW, 3, 2, 5, 1 << 34, 50.0, 9.5, 7, 8, ("never touched its GPU",))
    with Store(path, create=True) as store:
        with store.transaction("test", NOW) as tx:
            tasks = tx.add_tasks([NewTask(name, "/c", SPEC, 0) for name in ("a", "b")])
            for task in tasks:
                began = tx.apply(task, Began("hash"))
                tx.add_run(run_of(task))
                run = tx.apply_run(run_of(task), Launched(1, 2, ""))
                reason = Reason(ReasonCode.EXIT_CODE, {"code": 1}, found)
                tx.apply_run(run, Ended(Outcome.FAILED, reason, 1, NOW))
                tx.apply(began, Retried(reason, NOW, 1 << 35))
                tx.record_usage({run.id: usage})
        before = store.tasks(), store.last_runs()
        ids = [run_of(task).id for task in tasks]
        store._connection.execute("UPDATE usage SET flags = '{broken' WHERE run_id = ?", (ids[1],))
    with usable(tmp_path / "new.db", salvage.salvage(path)) as after:
        assert (after.tasks(), after.last_runs()) == before
        assert {task.need for task in after.tasks()} == {1 << 35}
        assert after.usage_of(ids) == {ids[0]: usage}


def page(number: int, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        at = number * 4096 % len(data)
        data[at : at + 4096] = content(bytes(data[at : at + 4096]))
        path.write_bytes(data)

    return damage


@pytest.mark.parametrize("number", range(1, 60, 2))
@pytest.mark.parametrize("noise", [False, True], ids=["zeros", "noise"])
def test_a_damaged_page_costs_what_was_on_it(path: Path, tmp_path: Path, number: int, noise: bool) -> None:
    chance = random.Random(number)
    with Store(path) as store:
        before = {task.name: task for task in store.tasks()}
    page(number, lambda data: chance.randbytes(len(data)) if noise else bytes(len(data)))(path)
    damaged = path.read_bytes()
    with usable(tmp_path / "new.db", salvage.salvage(path)) as after:
        kept = {task.name: task for task in after.tasks()}
    assert {name: before.get(name) for name in kept} == kept, "nothing that was not there"
    assert path.read_bytes() == damaged, "the damaged file is only looked at"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("salvage-")] == []


@pytest.mark.parametrize("eighths", range(8))
def test_a_truncated_file(path: Path, tmp_path: Path, eighths: int) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * eighths // 8 + 5)
    with usable(tmp_path / "new.db", salvage.salvage(path)) as store:
        assert len(store.tasks()) <= COUNT


def test_damage_at_random_never_raises_anything_else_than_a_store_error(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for seed in range(60):
        chance = random.Random(seed)
        data = bytearray(whole)
        for _ in range(chance.choice((1, 10, 300))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            with Store.reading(path) as store:
                store.problems()
        except StoreError:
            pass
        (tmp_path / "new.db").unlink(missing_ok=True)
        usable(tmp_path / "new.db", salvage.salvage(path)).close()


@pytest.mark.parametrize("what", ["missing", "garbage", "truncated"])
def test_a_damaged_log_costs_what_was_in_it_alone(tmp_path: Path, what: str) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    with Store(path, create=True) as store:
        with store.transaction("test", NOW) as tx:
            tx.add_tasks([NewTask("first", "/c", SPEC, 0)])
        checkpoint = sqlite3.connect(path)
        checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        checkpoint.close()
        with store.transaction("test", NOW) as tx:
            tx.add_tasks([NewTask("second", "/c", SPEC, 0)])
        copy.write_bytes(path.read_bytes())
        log = Path(f"{path}-wal").read_bytes()
    damaged = {"missing": b"", "garbage": random.Random(3).randbytes(len(log)), "truncated": log[: len(log) // 2]}[what]
    Path(f"{copy}-wal").write_bytes(damaged)
    with Store.reading(copy) as reopened:
        assert [task.name for task in reopened.tasks()] == ["first"]
    assert [row["name"] for row in salvage.salvage(copy)["tasks"]] == ["first"]


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_an_older_version_is_read_as_well(tmp_path: Path, version: int) -> None:
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript((Path(__file__).parent / "databases" / f"version{version}.sql").read_text())
    connection.close()
    rows = salvage.salvage(path)
    with usable(tmp_path / "new.db", rows) as rebuilt, Store(path) as migrated:
        assert rebuilt.tasks() == migrated.tasks()
        assert rebuilt.last_runs() == migrated.last_runs()
        assert rebuilt.events() == migrated.events()
        assert [task.name for task in migrated.tasks()][:3] == ["done", "going", "waiting"]


def test_texts_that_many_rows_share_are_found_in_two_places(path: Path, tmp_path: Path) -> None:
    """The table of them, and the index over it, lie on pages of their own."""
    with Store(path) as store:
        before = store.tasks()
        pages = dict(store._connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE name LIKE 'texts%'"))
    whole = path.read_bytes()
    for number in pages.values():
        page(number - 1, lambda data: bytes(len(data)))(path)
        (tmp_path / "new.db").unlink(missing_ok=True)
        with usable(tmp_path / "new.db", salvage.salvage(path)) as after:
            assert after.tasks() == before
        path.write_bytes(whole)
    assert len(pages) == 2
